import { Download } from "../download.ts";
import { APIError, ConnectionError, JobFailedError } from "../errors.ts";
import { list, type ListOptions, type Page } from "../pages.ts";
import { delay, worthRetrying } from "../retry.ts";
import { frames } from "../sse.ts";
import { path, sleep, type RequestOptions, type Transport } from "../transport.ts";
import type { Checkpoint, Job, JobCreate, JobEvent } from "../types.ts";

/** In a row without an event: about a minute, enough for a server's restart. */
const RECONNECTS = 12;

/** `/v1/fine_tuning/jobs` */
export class Jobs {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  async create(body: JobCreate, options: RequestOptions = {}): Promise<Job> {
    return await this.#transport.json({ method: "POST", path: "/fine_tuning/jobs", json: body, creates: true, ...options });
  }

  /** Create a job and wait for its end. Throws JobFailedError if it does not succeed. */
  async createAndWait(body: JobCreate, options: RequestOptions = {}): Promise<Job> {
    return await this.wait((await this.create(body, options)).id, options);
  }

  /** One page of the project's jobs, newest first; iterate over it for all. */
  async list(options: ListOptions & { metadata?: Record<string, string> } = {}): Promise<Page<Job>> {
    const { metadata = {}, ...rest } = options;
    const filters = Object.fromEntries(Object.entries(metadata).map(([key, value]) => [`metadata[${key}]`, value]));
    return await list(this.#transport, "/fine_tuning/jobs", rest, filters);
  }

  async retrieve(id: string, options: RequestOptions = {}): Promise<Job> {
    return await this.#transport.json({ method: "GET", path: path`/fine_tuning/jobs/${id}`, ...options });
  }

  async cancel(id: string, options: RequestOptions = {}): Promise<Job> {
    return await this.#transport.json({ method: "POST", path: path`/fine_tuning/jobs/${id}/cancel`, ...options });
  }

  /** Let a running job write a checkpoint and free its worker. */
  async pause(id: string, options: RequestOptions = {}): Promise<Job> {
    return await this.#transport.json({ method: "POST", path: path`/fine_tuning/jobs/${id}/pause`, ...options });
  }

  async resume(id: string, options: RequestOptions = {}): Promise<Job> {
    return await this.#transport.json({ method: "POST", path: path`/fine_tuning/jobs/${id}/resume`, ...options });
  }

  /** Delete an ended job with everything that it owns. */
  async delete(id: string, options: RequestOptions = {}): Promise<{ id: string; deleted: boolean }> {
    return await this.#transport.json({ method: "DELETE", path: path`/fine_tuning/jobs/${id}`, ...options });
  }

  async events(id: string, options: ListOptions = {}): Promise<Page<JobEvent>> {
    return await list(this.#transport, path`/fine_tuning/jobs/${id}/events`, options);
  }

  async checkpoints(id: string, options: ListOptions = {}): Promise<Page<Checkpoint>> {
    return await list(this.#transport, path`/fine_tuning/jobs/${id}/checkpoints`, options);
  }

  /** Yield a job's events as they happen, oldest first, each once, over lost connections; return the ended job. */
  async *stream(id: string, options: RequestOptions = {}): AsyncGenerator<JobEvent, Job, undefined> {
    const seen = new Set<string>();
    let last: string | undefined;
    for (let broken = 0; ; broken++) {
      try {
        for await (const frame of this.#frames(id, last, options)) {
          if (frame.event === "done") return JSON.parse(frame.data) as Job;
          const event = JSON.parse(frame.data) as JobEvent;
          last = frame.id ?? event.id;
          if (!seen.has(event.id)) yield event;
          seen.add(event.id);
          broken = 0;
        }
      } catch (error) {
        options.signal?.throwIfAborted();
        if (error instanceof APIError && !worthRetrying(error)) throw error;
      }
      const wait = delay(broken, RECONNECTS);
      if (wait === undefined) throw new ConnectionError(`The events of ${id} cannot be reached any more; the job still runs.`);
      await sleep(wait, options.signal);
    }
  }

  /** Wait for a job's end. Throws JobFailedError if it did not succeed. */
  async wait(id: string, options: RequestOptions = {}): Promise<Job> {
    const events = this.stream(id, options);
    let turn = await events.next();
    while (!turn.done) turn = await events.next();
    if (turn.value.status !== "succeeded") throw new JobFailedError(turn.value);
    return turn.value;
  }

  /** The trained adapter, a zip in PEFT's layout. */
  async adapter(id: string, options: RequestOptions = {}): Promise<Download> {
    return await Download.open(this.#transport, path`/fine_tuning/jobs/${id}/adapter`, options);
  }

  /** The whole model of a job that trained all weights, a zip. */
  async model(id: string, options: RequestOptions = {}): Promise<Download> {
    return await Download.open(this.#transport, path`/fine_tuning/jobs/${id}/model`, options);
  }

  /** What the training did, and whether the tuned model is better. */
  async report(id: string, options: RequestOptions = {}): Promise<Record<string, unknown>> {
    return await this.#transport.json({ method: "GET", path: path`/fine_tuning/jobs/${id}/report`, ...options });
  }

  async *#frames(id: string, last: string | undefined, options: RequestOptions): ReturnType<typeof frames> {
    const headers = { Accept: "text/event-stream", ...(last === undefined ? {} : { "Last-Event-ID": last }) };
    const response = await this.#transport.send({
      method: "GET",
      path: path`/fine_tuning/jobs/${id}/events`,
      headers,
      ...options,
      maxRetries: 0,
    });
    if (response.body) yield* frames(response.body);
  }
}
