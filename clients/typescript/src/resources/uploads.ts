import { BurnishError } from "../errors.ts";
import { path, type RequestOptions, type Transport } from "../transport.ts";
import type { FileObject, Upload, UploadCreate, UploadPart } from "../types.ts";

/** The size of a part in bytes; the server takes up to 64 MiB. */
export const PART_BYTES = 16 * 2 ** 20;
const AT_A_TIME = 4;

/** A file upload that was interrupted; `uploads.resume(uploadId, file)` sends what is missing. */
export class UploadInterruptedError extends BurnishError {
  readonly uploadId: string;

  constructor(uploadId: string, cause: unknown) {
    super(`The upload ${uploadId} was interrupted: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.uploadId = uploadId;
  }
}

interface WholeFile {
  file: Blob;
  filename: string;
  purpose: string;
  expiresAfter?: number;
}

/** `/v1/uploads`: large files in parts, in parallel, which a broken connection does not undo. */
export class Uploads {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  async create(body: UploadCreate, options: RequestOptions = {}): Promise<Upload> {
    return await this.#transport.json({ method: "POST", path: "/uploads", json: body, creates: true, ...options });
  }

  async retrieve(id: string, options: RequestOptions = {}): Promise<Upload & { parts: UploadPart[] }> {
    return await this.#transport.json({ method: "GET", path: path`/uploads/${id}`, ...options });
  }

  async addPart(id: string, data: Blob, options: RequestOptions = {}): Promise<UploadPart> {
    const form = (): FormData => {
      const made = new FormData();
      made.set("data", data);
      return made;
    };
    return await this.#transport.json({ method: "POST", path: path`/uploads/${id}/parts`, form, ...options });
  }

  /** Join parts, in this order, into a file. */
  async complete(id: string, partIds: string[], options: RequestOptions = {}): Promise<Upload> {
    const json = { part_ids: partIds };
    return await this.#transport.json({ method: "POST", path: path`/uploads/${id}/complete`, json, creates: true, ...options });
  }

  async cancel(id: string, options: RequestOptions = {}): Promise<Upload> {
    return await this.#transport.json({ method: "POST", path: path`/uploads/${id}/cancel`, ...options });
  }

  /** Send a whole file in parts. Throws UploadInterruptedError if it fails for good. */
  async file({ file, filename, purpose, expiresAfter }: WholeFile, options: RequestOptions = {}): Promise<FileObject> {
    const upload = await this.create(
      {
        filename,
        purpose: purpose as UploadCreate["purpose"],
        bytes: file.size,
        mime_type: file.type || "application/octet-stream",
        ...(expiresAfter === undefined ? {} : { expires_after: { anchor: "created_at", seconds: expiresAfter } }),
      },
      options,
    );
    return await this.resume(upload.id, file, options);
  }

  /** Send what is missing of an upload and join it. A part counts as there if its SHA-256 is the file's. */
  async resume(id: string, file: Blob, options: RequestOptions = {}): Promise<FileObject> {
    const { idempotencyKey: _, ...each } = options;
    try {
      const there = new Map((await this.retrieve(id, each)).parts.map((part) => [part.sha256, part.id]));
      const pieces = Array.from({ length: Math.ceil(file.size / PART_BYTES) }, (_, index) =>
        file.slice(index * PART_BYTES, (index + 1) * PART_BYTES),
      );
      const ids: string[] = [];
      const queue = pieces.entries();
      const worker = async (): Promise<void> => {
        for (const [index, piece] of queue) ids[index] = await this.#part(id, piece, there, each);
      };
      await Promise.all(Array.from({ length: AT_A_TIME }, worker));
      const done = await this.complete(id, ids, each);
      if (!done.file) throw new BurnishError("The server joined the parts and names no file.");
      return done.file;
    } catch (error) {
      options.signal?.throwIfAborted();
      throw new UploadInterruptedError(id, error);
    }
  }

  async #part(id: string, piece: Blob, there: Map<string, string>, options: RequestOptions): Promise<string> {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await piece.arrayBuffer()));
    const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    const known = there.get(sha256);
    if (known !== undefined) {
      there.delete(sha256); // two pieces may be equal, and each needs a part
      return known;
    }
    const part = await this.addPart(id, piece, options);
    if (part.sha256 !== sha256) throw new BurnishError("A part arrived damaged.");
    return part.id;
  }
}
