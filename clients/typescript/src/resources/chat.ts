import { APIError, ConnectionError } from "../errors.ts";
import { frames } from "../sse.ts";
import type { RequestOptions, Transport } from "../transport.ts";
import type { ChatCompletion, ChatCompletionChunk, ChatCompletionCreate } from "../types.ts";

/** Milliseconds: a model that has to be loaded first takes its time. */
const FIRST_TOKEN = 600_000;

/** `/v1/chat/completions` */
export class Chat {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Answer a conversation. */
  async create(body: ChatCompletionCreate, options: RequestOptions = {}): Promise<ChatCompletion> {
    return await this.#transport.json({ ...sent(body, options), json: body });
  }

  /** Yield an answer's pieces as they come. Leaving the loop ends the answer. Throws APIError on the way, too. */
  async *stream(body: ChatCompletionCreate, options: RequestOptions = {}): AsyncGenerator<ChatCompletionChunk, void, undefined> {
    const json = { ...body, stream: true };
    const response = await this.#transport.send({ ...sent(body, options), json, headers: { Accept: "text/event-stream" } });
    if (!response.body) return;
    for await (const { data } of frames(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data) as ChatCompletionChunk | { error: unknown };
      if ("error" in chunk) throw new APIError(response, chunk);
      yield chunk;
    }
    throw new ConnectionError("The answer was cut off before its end.");
  }

  /** Yield an answer's text as it comes. */
  async *text(body: ChatCompletionCreate, options: RequestOptions = {}): AsyncGenerator<string, void, undefined> {
    for await (const chunk of this.stream(body, options)) {
      const piece = chunk.choices[0]?.delta.content;
      if (piece) yield piece;
    }
  }
}

function sent(_body: ChatCompletionCreate, options: RequestOptions): { method: "POST"; path: string } & RequestOptions {
  return { method: "POST", path: "/chat/completions", timeout: FIRST_TOKEN, ...options };
}
