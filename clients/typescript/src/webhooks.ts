/** Whether a delivery is from your server: Standard Webhooks (HMAC-SHA256 over `id.timestamp.body`). */

import { WebhookVerificationError } from "./errors.ts";
import type { WebhookEvent } from "./types.ts";

/** Seconds by which a delivery's time may differ from ours. */
export const TOLERANCE = 300;

type HeadersLike = Headers | Record<string, string | string[] | undefined>;

/**
 * Verify a delivery and return its event. `body` is the request's body exactly as received; `secret` begins with
 * `whsec_`. Throws WebhookVerificationError.
 */
export async function unwrap(body: string | Uint8Array, headers: HeadersLike, secret: string): Promise<WebhookEvent> {
  const given = (name: string): string => header(headers, name) ?? refuse(`the header ${name} is missing`);
  const [id, timestamp, signatures] = [given("webhook-id"), given("webhook-timestamp"), given("webhook-signature")];
  const age = Math.abs(Date.now() / 1000 - (/^\d{1,15}$/u.test(timestamp) ? Number(timestamp) : NaN));
  if (!(age <= TOLERANCE)) refuse(`its time, ${timestamp}, is more than ${TOLERANCE} seconds from now`);
  const raw = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const key = await crypto.subtle.importKey("raw", secretBytes(secret), { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  const signed = new Uint8Array([...new TextEncoder().encode(`${id}.${timestamp}.`), ...raw]);
  for (const signature of signatures.split(" ")) {
    const [version, value = ""] = signature.split(",", 2);
    const mac = version === "v1" ? fromBase64(value) : undefined;
    // WebCrypto compares in constant time.
    if (mac && (await crypto.subtle.verify("HMAC", key, mac, signed))) return parse(raw);
  }
  return refuse("no signature fits the body and the secret");
}

function parse(raw: Uint8Array): WebhookEvent {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(raw)) as WebhookEvent;
  } catch {
    return refuse("its body is not JSON");
  }
}

function secretBytes(secret: string): Uint8Array<ArrayBuffer> {
  const bytes = fromBase64(secret.replace(/^whsec_/u, ""));
  return bytes && bytes.length >= 24 ? bytes : refuse("the secret is none: it is whsec_ and the base64 of 24 to 64 bytes");
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    return undefined;
  }
}

function header(headers: HeadersLike, name: string): string | undefined {
  if (headers instanceof Headers) return headers.get(name) ?? undefined;
  const found = Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1];
  return Array.isArray(found) ? found[0] : found;
}

function refuse(reason: string): never {
  throw new WebhookVerificationError(`The webhook is refused: ${reason}.`);
}
