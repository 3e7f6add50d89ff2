/** Requests: the key, retries, time limits, and errors in the server's words. No resource uses `fetch` itself. */

import { APIError, BurnishError, ConnectionError, TimeoutError } from "./errors.ts";
import { delay } from "./retry.ts";

export type Query = Record<string, string | number | boolean | undefined | null>;

/** What a caller may say about one request. */
export interface RequestOptions {
  /** Gives the request up. */
  signal?: AbortSignal;
  /** Milliseconds for one attempt, to the answer's headers. */
  timeout?: number;
  maxRetries?: number;
  /** Names a creation, so that it is made once however often it is sent; a fresh one by default. */
  idempotencyKey?: string;
}

export interface Outgoing extends RequestOptions {
  method: "GET" | "POST" | "DELETE";
  path: string;
  query?: Query;
  json?: unknown;
  form?: () => FormData;
  headers?: Record<string, string>;
  /** Whether it makes something: it gets an `Idempotency-Key`, the same over its retries. */
  creates?: boolean;
}

export interface TransportOptions {
  baseURL: string;
  apiKey: string;
  timeout: number;
  maxRetries: number;
  fetch: typeof globalThis.fetch;
}

export class Transport {
  readonly #options: TransportOptions;

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** Send a request and return the JSON of its answer. Throws APIError, ConnectionError, TimeoutError. */
  async json<T>(outgoing: Outgoing): Promise<T> {
    const response = await this.send(outgoing);
    try {
      return (await response.json()) as T;
    } catch (error) {
      throw new ConnectionError(`The answer to ${outgoing.method} ${outgoing.path} is not JSON or was cut off.`, { cause: error });
    }
  }

  /** Send a request until it succeeds or another try is useless. */
  async send(outgoing: Outgoing): Promise<Response> {
    const headers = this.#headers(outgoing);
    const limit = outgoing.maxRetries ?? this.#options.maxRetries;
    for (let attempt = 0; ; attempt++) {
      const outcome = await this.#once(outgoing, headers);
      if (outcome instanceof Response && outcome.ok) return outcome;
      const wait = delay(attempt, limit, outcome instanceof Response ? outcome : undefined);
      if (wait === undefined) throw outcome instanceof Response ? await apiError(outcome) : outcome;
      if (outcome instanceof Response) await outcome.body?.cancel();
      await sleep(wait, outgoing.signal);
    }
  }

  async #once(outgoing: Outgoing, headers: Headers): Promise<Response | BurnishError> {
    const late = new AbortController();
    const milliseconds = outgoing.timeout ?? this.#options.timeout;
    const timer = setTimeout(() => late.abort(), milliseconds);
    const signal = outgoing.signal ? AbortSignal.any([outgoing.signal, late.signal]) : late.signal;
    const body = outgoing.form ? outgoing.form() : outgoing.json === undefined ? null : JSON.stringify(outgoing.json);
    try {
      return await this.#options.fetch(this.#url(outgoing), { method: outgoing.method, headers, body, signal });
    } catch (error) {
      outgoing.signal?.throwIfAborted();
      if (late.signal.aborted) {
        return new TimeoutError(`${outgoing.method} ${outgoing.path} was not answered within ${milliseconds / 1000} s.`);
      }
      return new ConnectionError(`${this.#options.baseURL} cannot be reached: ${reason(error)}.`, { cause: error });
    } finally {
      clearTimeout(timer); // the body may take longer than the headers
    }
  }

  #headers(outgoing: Outgoing): Headers {
    const headers = new Headers({ Accept: "application/json", ...outgoing.headers });
    headers.set("Authorization", `Bearer ${this.#options.apiKey}`);
    headers.set("User-Agent", "burnish-typescript/0.1.0");
    if (outgoing.json !== undefined) headers.set("Content-Type", "application/json");
    if (outgoing.creates) headers.set("Idempotency-Key", outgoing.idempotencyKey ?? crypto.randomUUID());
    return headers;
  }

  #url({ path, query }: Outgoing): string {
    const known = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null);
    const text = new URLSearchParams(known.map(([name, value]) => [name, String(value)])).toString();
    return `${this.#options.baseURL}${path}${text ? `?${text}` : ""}`;
  }
}

/** Put values from outside into a path: ids hold colons, and nothing of them may leave their segment. */
export function path(parts: TemplateStringsArray, ...values: string[]): string {
  return parts.reduce((before, part, index) => {
    const value = values[index - 1] ?? "";
    if (value === "" || value === "." || value === "..") throw new BurnishError(`'${value}' is not an id.`);
    return before + encodeURIComponent(value).replaceAll("%3A", ":") + part;
  });
}

/** Wait; throws the signal's reason as soon as it is aborted. */
export async function sleep(seconds: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const give = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", give);
      resolve();
    }, seconds * 1000);
    signal?.addEventListener("abort", give, { once: true });
  });
}

async function apiError(response: Response): Promise<APIError> {
  return new APIError(response, await response.json().catch(() => null));
}

function reason(error: unknown): string {
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  return cause instanceof Error ? cause.message || cause.name : String(cause);
}
