/** Downloads that resume where they stopped, by Range and If-Range (RFC 9110), checked by their SHA-256. */

import { DownloadError } from "./errors.ts";
import { delay } from "./retry.ts";
import { chunks } from "./sse.ts";
import type { RequestOptions, Transport } from "./transport.ts";
import { sleep } from "./transport.ts";

const RESUMES = 5;

/** An open download; read it once, whole or in chunks. */
export class Download implements AsyncIterable<Uint8Array> {
  readonly headers: Headers;
  readonly #transport: Transport;
  readonly #path: string;
  readonly #options: RequestOptions;
  readonly #first: Response;

  private constructor(transport: Transport, path: string, options: RequestOptions, first: Response) {
    this.#transport = transport;
    this.#path = path;
    this.#options = options;
    this.#first = first;
    this.headers = first.headers;
  }

  /** Ask for a download and return it once its headers are there. */
  static async open(transport: Transport, path: string, options: RequestOptions = {}): Promise<Download> {
    const first = await transport.send({ method: "GET", path, headers: { Accept: "*/*" }, ...options });
    return new Download(transport, path, options, first);
  }

  /** The SHA-256 that the server states (Repr-Digest, RFC 9530), in base64. */
  get sha256(): string | undefined {
    return /sha-256=:([^:]+):/u.exec(this.headers.get("repr-digest") ?? "")?.[1];
  }

  /** Read everything into memory. Throws DownloadError if it is not what the server has. */
  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    for await (const chunk of this) parts.push(new Uint8Array(chunk));
    const whole = new Uint8Array(await new Blob(parts).arrayBuffer());
    const found = btoa(String.fromCharCode(...new Uint8Array(await crypto.subtle.digest("SHA-256", whole))));
    this.check(found);
    return whole;
  }

  /** Read everything as text. */
  async text(): Promise<string> {
    return new TextDecoder().decode(await this.bytes());
  }

  /** Throw DownloadError unless a hash, in base64, is the one that the server states. */
  check(sha256: string): void {
    if (this.sha256 !== undefined && this.sha256 !== sha256) {
      throw new DownloadError(`${this.#path}: what arrived does not have the SHA-256 that the server states.`);
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    let response = this.#first;
    let received = 0;
    for (let broken = 0; ; broken++) {
      try {
        if (!response.body) return;
        for await (const chunk of chunks(response.body)) {
          received += chunk.length;
          yield chunk;
          broken = 0;
        }
        return;
      } catch (error) {
        this.#options.signal?.throwIfAborted();
        const wait = this.headers.get("etag") ? delay(broken, RESUMES) : undefined;
        if (wait === undefined) throw new DownloadError(`${this.#path} was interrupted after ${received} bytes.`, { cause: error });
        await sleep(wait, this.#options.signal);
        response = await this.#rest(received);
      }
    }
  }

  async #rest(received: number): Promise<Response> {
    const headers = { Accept: "*/*", Range: `bytes=${received}-`, "If-Range": this.headers.get("etag") ?? "" };
    const response = await this.#transport.send({ method: "GET", path: this.#path, headers, ...this.#options });
    if (response.status !== 206) throw new DownloadError(`${this.#path} has changed on the server meanwhile.`);
    return response;
  }
}
