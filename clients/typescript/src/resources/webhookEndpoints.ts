import { list, type ListOptions, type Page } from "../pages.ts";
import { path, type RequestOptions, type Transport } from "../transport.ts";
import type {
  Answer,
  WebhookDelivery,
  WebhookEndpoint,
  WebhookEndpointCreate,
  WebhookEndpointUpdate,
  WebhookEndpointWithSecret,
} from "../types.ts";
import { unwrap } from "../webhooks.ts";

/** `/v1/webhook_endpoints`: who receives which events, and whether a delivery is from your server. */
export class Webhooks {
  readonly #transport: Transport;
  /** Verify a delivery and return its event. It needs no connection. */
  readonly unwrap = unwrap;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  async eventTypes(options: RequestOptions = {}): Promise<string[]> {
    return (await this.#transport.json<{ data: string[] }>({ method: "GET", path: "/webhook_event_types", ...options })).data;
  }

  /** The answer alone has the `signing_secret`. */
  async create(body: WebhookEndpointCreate, options: RequestOptions = {}): Promise<WebhookEndpointWithSecret> {
    return await this.#transport.json({ method: "POST", path: "/webhook_endpoints", json: body, maxRetries: 0, ...options });
  }

  async list(options: ListOptions = {}): Promise<Page<WebhookEndpoint>> {
    return await list(this.#transport, "/webhook_endpoints", options);
  }

  async retrieve(id: string, options: RequestOptions = {}): Promise<WebhookEndpoint> {
    return await this.#transport.json({ method: "GET", path: path`/webhook_endpoints/${id}`, ...options });
  }

  async update(id: string, body: WebhookEndpointUpdate, options: RequestOptions = {}): Promise<WebhookEndpoint> {
    return await this.#transport.json({ method: "POST", path: path`/webhook_endpoints/${id}`, json: body, ...options });
  }

  async delete(id: string, options: RequestOptions = {}): Promise<{ id: string; deleted: boolean }> {
    return await this.#transport.json({ method: "DELETE", path: path`/webhook_endpoints/${id}`, ...options });
  }

  /** Make a new secret; the old one may sign as well for one more day. */
  async rotateSecret(id: string, keepOld = false, options: RequestOptions = {}): Promise<WebhookEndpointWithSecret> {
    const json = { keep_old_secret_active_for_24_hours: keepOld };
    const at = path`/webhook_endpoints/${id}/rotate_secret`;
    return await this.#transport.json({ method: "POST", path: at, json, maxRetries: 0, ...options });
  }

  async test(
    id: string,
    eventType: string,
    options: RequestOptions = {},
  ): Promise<Answer<"/v1/webhook_endpoints/{webhook_endpoint_id}/test", "post">> {
    const json = { event_type: eventType };
    return await this.#transport.json({ method: "POST", path: path`/webhook_endpoints/${id}/test`, json, ...options });
  }

  /** Every attempt, newest first. */
  async deliveries(id: string, options: ListOptions = {}): Promise<Page<WebhookDelivery>> {
    return await list(this.#transport, path`/webhook_endpoints/${id}/deliveries`, options);
  }
}
