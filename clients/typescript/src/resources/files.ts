import { Download } from "../download.ts";
import { list, type ListOptions, type Page } from "../pages.ts";
import { path, type RequestOptions, type Transport } from "../transport.ts";
import type { FileObject } from "../types.ts";
import type { Uploads } from "./uploads.ts";

/** From this size on, in bytes, a file is sent in parts. */
export const IN_PARTS_FROM = 64 * 2 ** 20;

export interface FileCreate {
  /** In Node, `openAsBlob(path)` of `node:fs` reads from the disk as it is sent. */
  file: Blob;
  filename?: string;
  purpose?: string;
  /** Delete it this many seconds after its creation. */
  expiresAfter?: number;
}

/** `/v1/files` */
export class Files {
  readonly #transport: Transport;
  readonly #uploads: Uploads;

  constructor(transport: Transport, uploads: Uploads) {
    this.#transport = transport;
    this.#uploads = uploads;
  }

  /** Upload a file; a large one goes in parts, several at a time. */
  async create(given: FileCreate, options: RequestOptions = {}): Promise<FileObject> {
    const filename = given.filename ?? (given.file as Partial<File>).name ?? "upload.jsonl";
    const purpose = given.purpose ?? "fine-tune";
    if (given.file.size >= IN_PARTS_FROM) return await this.#uploads.file({ ...given, filename, purpose }, options);
    const form = (): FormData => {
      const made = new FormData();
      made.set("purpose", purpose);
      if (given.expiresAfter !== undefined) {
        made.set("expires_after[anchor]", "created_at");
        made.set("expires_after[seconds]", String(given.expiresAfter));
      }
      made.set("file", given.file, filename);
      return made;
    };
    return await this.#transport.json({ method: "POST", path: "/files", form, creates: true, ...options });
  }

  /** One page of the project's files; iterate over it for all. */
  async list(options: ListOptions & { purpose?: string } = {}): Promise<Page<FileObject>> {
    const { purpose, ...rest } = options;
    return await list(this.#transport, "/files", rest, { purpose });
  }

  async retrieve(id: string, options: RequestOptions = {}): Promise<FileObject> {
    return await this.#transport.json({ method: "GET", path: path`/files/${id}`, ...options });
  }

  async delete(id: string, options: RequestOptions = {}): Promise<{ id: string; deleted: boolean }> {
    return await this.#transport.json({ method: "DELETE", path: path`/files/${id}`, ...options });
  }

  /** The file's bytes. */
  async content(id: string, options: RequestOptions = {}): Promise<Download> {
    return await Download.open(this.#transport, path`/files/${id}/content`, options);
  }
}
