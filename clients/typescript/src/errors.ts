/**
 * BurnishError
 * ├── APIError                  the server answered with an error: `status`, `code`, `param`, `requestId`
 * ├── ConnectionError           no answer
 * │   └── TimeoutError          none in time
 * ├── DownloadError             what arrived is not what the server has
 * ├── JobFailedError            the job that was waited for did not succeed: `job`
 * └── WebhookVerificationError  the delivery is not from your server, or too old
 */

import type { Job } from "./types.ts";

export class BurnishError extends Error {
  override name = this.constructor.name;
}

/** The server's own words, in OpenAI's shape. */
export class APIError extends BurnishError {
  readonly status: number;
  readonly type: string | undefined;
  readonly code: string | undefined;
  readonly param: string | undefined;
  readonly requestId: string | undefined;
  readonly headers: Headers;

  constructor(response: Response, body: unknown) {
    const said = (body as { error?: Record<string, unknown> } | null)?.error ?? {};
    const text = (key: string): string | undefined => (typeof said[key] === "string" ? said[key] : undefined);
    const requestId = response.headers.get("x-request-id") ?? undefined;
    super(`${text("message") ?? `The server answered with status ${response.status}.`}${requestId ? ` (${requestId})` : ""}`);
    this.status = response.status;
    this.type = text("type");
    this.code = text("code");
    this.param = text("param");
    this.requestId = requestId;
    this.headers = response.headers;
  }
}

export class ConnectionError extends BurnishError {}

export class TimeoutError extends ConnectionError {}

export class DownloadError extends BurnishError {}

export class WebhookVerificationError extends BurnishError {}

export class JobFailedError extends BurnishError {
  readonly job: Job;

  constructor(job: Job) {
    super(`Job ${job.id} ended as ${job.status}${job.error ? `: ${job.error.message}` : "."}`);
    this.job = job;
  }
}
