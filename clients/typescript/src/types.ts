/** The wire's types, by the paths that they belong to; `openapi.ts` is generated from `openapi/openapi.json`. */

import type { paths } from "./openapi.ts";

type Json<T> = T extends { content: { "application/json": infer Body } } ? Body : never;
type Operation<P extends keyof paths, M extends keyof paths[P]> = NonNullable<paths[P][M]>;

/** The body that an operation takes. */
export type Body<P extends keyof paths, M extends keyof paths[P]> =
  Operation<P, M> extends { requestBody: infer Request } ? Json<Request> : never;

/** What an operation answers with. */
export type Answer<P extends keyof paths, M extends keyof paths[P]> =
  Operation<P, M> extends { responses: { 200: infer Response } } ? Json<Response> : never;

/** One entry of an answer that is a list. */
export type Entry<P extends keyof paths> =
  "get" extends keyof paths[P] ? (Answer<P, "get"> extends { data: (infer Item)[] } ? Item : never) : never;

export type FileObject = Entry<"/v1/files">;
export type Upload = Answer<"/v1/uploads", "post">;
export type UploadCreate = Body<"/v1/uploads", "post">;
export type UploadPart = Answer<"/v1/uploads/{upload_id}/parts", "post">;
export type Job = Entry<"/v1/fine_tuning/jobs">;
export type JobCreate = Body<"/v1/fine_tuning/jobs", "post">;
export type JobEvent = Entry<"/v1/fine_tuning/jobs/{job_id}/events">;
export type Checkpoint = Entry<"/v1/fine_tuning/jobs/{job_id}/checkpoints">;
export type Permission = Entry<"/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions">;
export type Model = Entry<"/v1/models">;
export type WebhookEndpoint = Entry<"/v1/webhook_endpoints">;
export type WebhookEndpointCreate = Body<"/v1/webhook_endpoints", "post">;
export type WebhookEndpointUpdate = Body<"/v1/webhook_endpoints/{webhook_endpoint_id}", "post">;
export type WebhookEndpointWithSecret = Answer<"/v1/webhook_endpoints", "post">;
export type WebhookDelivery = Entry<"/v1/webhook_endpoints/{webhook_endpoint_id}/deliveries">;
export type ChatCompletion = Answer<"/v1/chat/completions", "post">;
type ChatBody = Body<"/v1/chat/completions", "post">;
/** A chat's request; `stream` is decided by the method that sends it. */
export type ChatCompletionCreate = Omit<ChatBody, "stream">;

export type GraderRunCreate = Body<"/v1/fine_tuning/alpha/graders/run", "post">;
export type Grader = GraderRunCreate["grader"];
export type GraderRun = Answer<"/v1/fine_tuning/alpha/graders/run", "post">;

/** A piece of a streamed chat completion: the events of a stream are not part of an OpenAPI document. */
export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: {
    index: number;
    delta: {
      role?: "assistant";
      content?: string;
      tool_calls?: { index: number; id?: string; type?: "function"; function?: { name?: string; arguments?: string } }[];
    };
    finish_reason: "stop" | "length" | "tool_calls" | "content_filter" | "function_call" | null;
  }[];
  usage?: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
}

/** The body of a webhook. */
export interface WebhookEvent {
  id: string;
  object: "event";
  type: string;
  created_at: number;
  data: { id: string };
}
