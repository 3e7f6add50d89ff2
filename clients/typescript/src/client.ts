import { BurnishError } from "./errors.ts";
import { Chat } from "./resources/chat.ts";
import { Files } from "./resources/files.ts";
import { Graders } from "./resources/graders.ts";
import { Jobs } from "./resources/jobs.ts";
import { Models } from "./resources/models.ts";
import { Uploads } from "./resources/uploads.ts";
import { Webhooks } from "./resources/webhookEndpoints.ts";
import { Transport } from "./transport.ts";

export interface BurnishOptions {
  /** Ending in `/v1`; in Node, BURNISH_BASE_URL by default. */
  baseURL?: string;
  /** In Node, BURNISH_API_KEY by default. */
  apiKey?: string;
  /** Milliseconds for one attempt, to the answer's headers. */
  timeout?: number;
  maxRetries?: number;
  fetch?: typeof globalThis.fetch;
}

/** A client of one Burnish server. */
export class Burnish {
  readonly baseURL: string;
  readonly files: Files;
  readonly uploads: Uploads;
  readonly jobs: Jobs;
  readonly models: Models;
  readonly chat: Chat;
  readonly graders: Graders;
  readonly webhooks: Webhooks;

  constructor(options: BurnishOptions = {}) {
    this.baseURL = (options.baseURL ?? fromEnvironment("BURNISH_BASE_URL") ?? missing("baseURL")).replace(/\/+$/u, "");
    const transport = new Transport({
      baseURL: this.baseURL,
      apiKey: options.apiKey ?? fromEnvironment("BURNISH_API_KEY") ?? missing("apiKey"),
      timeout: options.timeout ?? 60_000,
      maxRetries: options.maxRetries ?? 3,
      fetch: options.fetch ?? globalThis.fetch.bind(globalThis),
    });
    this.uploads = new Uploads(transport);
    this.files = new Files(transport, this.uploads);
    this.jobs = new Jobs(transport);
    this.models = new Models(transport);
    this.chat = new Chat(transport);
    this.graders = new Graders(transport);
    this.webhooks = new Webhooks(transport);
  }
}

function fromEnvironment(name: string): string | undefined {
  return (globalThis as { process?: { env?: Record<string, string | undefined> } }).process?.env?.[name];
}

function missing(name: string): never {
  const variable = name === "apiKey" ? "BURNISH_API_KEY" : "BURNISH_BASE_URL";
  throw new BurnishError(`${name} is missing: give it to \`new Burnish({ ${name} })\` or set ${variable}.`);
}
