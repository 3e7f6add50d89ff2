/** What goes wrong: the server's words, retries with one key, time limits, broken streams and downloads, forgeries. */

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { test } from "node:test";

import { APIError, Burnish, ConnectionError, JobFailedError, TimeoutError, unwrap, WebhookVerificationError } from "../src/index.ts";
import { Download } from "../src/download.ts";
import { frames } from "../src/sse.ts";
import { Transport } from "../src/transport.ts";
import { client, failing, ROWS } from "./server.ts";

const busy = (): Response => new Response("{}", { status: 503, headers: { "retry-after-ms": "1" } });

test("an error has the server's sentence, its code, the field and the request's id", async () => {
  await assert.rejects(client.jobs.create({ model: "gpt-4", training_file: "file-x" }), (error) => {
    assert.ok(error instanceof APIError);
    assert.ok(error.status === 404 || error.status === 400);
    assert.match(error.message, /\S+ .*\(req_/u);
    assert.ok(error.param);
    assert.ok(error.requestId);
    return true;
  });
  await assert.rejects(client.jobs.retrieve("ftjob-没有"), (error) => error instanceof APIError && error.status === 404);
  for (const id of ["", ".", ".."]) await assert.rejects(async () => await client.jobs.retrieve(id), /is not an id/u);
  await assert.rejects(client.files.retrieve("../models"), (error) => error instanceof APIError && error.status === 404);
});

test("a creation is sent again with the same key, and makes one file", async () => {
  const { fetch, sent } = failing(2, busy);
  const patient = new Burnish({ fetch });
  const before = (await patient.files.list()).data.length;
  sent.length = 0;
  const lost = failing(1, async () => busy());
  const file = await new Burnish({ fetch: lost.fetch }).files.create({ file: new Blob([ROWS]), filename: "once.jsonl" });
  const keys = lost.sent.map((headers) => headers.get("idempotency-key"));
  assert.equal(keys.length, 2);
  assert.ok(keys[0]);
  assert.equal(keys[0], keys[1]);
  const again = await client.files.create({ file: new Blob([ROWS]), filename: "once.jsonl" }, { idempotencyKey: keys[0] ?? "" });
  assert.equal(again.id, file.id);
  assert.equal((await client.files.list()).data.length, before + 1);
  await client.files.delete(file.id);
});

test("what the server says is not worth a retry is not sent again", async () => {
  const no = failing(9, () => new Response("{}", { status: 409, headers: { "x-should-retry": "false" } }));
  await assert.rejects(new Burnish({ fetch: no.fetch }).jobs.pause("ftjob-x"), APIError);
  assert.equal(no.sent.length, 1);
  const later = failing(9, () => new Response("{}", { status: 429, headers: { "retry-after": "3600" } }));
  await assert.rejects(new Burnish({ fetch: later.fetch }).models.list(), APIError);
  assert.equal(later.sent.length, 1);
  const down = failing(9, () => new Response("{}", { status: 503, headers: { "retry-after-ms": "1" } }));
  await assert.rejects(new Burnish({ fetch: down.fetch, maxRetries: 2 }).models.list(), APIError);
  assert.equal(down.sent.length, 3);
});

test("no server, a slow server and a caller who gives up are distinguished", async () => {
  const nowhere = new Burnish({ baseURL: "http://127.0.0.1:9/v1", apiKey: "x", maxRetries: 0 });
  await assert.rejects(nowhere.models.list(), (error) => error instanceof ConnectionError && /cannot be reached/u.test(error.message));
  const never: typeof fetch = async (_, init) =>
    await new Promise((_resolve, reject) => init?.signal?.addEventListener("abort", () => reject(init.signal?.reason)));
  const slow = new Burnish({ fetch: never, maxRetries: 0, timeout: 20 });
  await assert.rejects(slow.models.list(), TimeoutError);
  const given = new AbortController();
  const waiting = slow.models.list({ signal: given.signal, timeout: 10_000 });
  given.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/u);
  await assert.rejects(new Burnish({ apiKey: "wrong" }).models.list(), (error) => error instanceof APIError && error.status === 401);
});

test("a stream of events resumes after a lost connection, from the last event", async () => {
  const file = await client.files.create({ file: new Blob(['{"messages": []}']), filename: "bad.jsonl" });
  const { id } = await client.jobs.create({ model: "tiny", training_file: file.id });
  await client.jobs.wait(id).catch(() => undefined);
  const asked: (string | null)[] = [];
  const cutting: typeof fetch = async (url, init) => {
    const response = await fetch(url, init);
    asked.push(new Headers(init?.headers).get("last-event-id"));
    if (asked.length > 1 || !response.body) return response;
    const text = await response.text();
    const first = text.slice(0, text.indexOf("\n\n") + 2);
    return new Response(new Blob([first, "id: half"]).stream(), { status: 200 });
  };
  const ids: string[] = [];
  for await (const event of new Burnish({ fetch: cutting }).jobs.stream(id)) ids.push(event.id);
  assert.equal(asked.length, 2);
  assert.equal(asked[0], null);
  assert.equal(asked[1], ids[0]);
  const all = (await client.jobs.events(id, { limit: 100 })).data.map((event) => event.id);
  assert.deepEqual(ids, all.reverse());
});

function streamOf(pieces: Uint8Array[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start: (controller) => {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
}

test("a stream of events outlasts a server that has too much to do", async () => {
  const file = await client.files.create({ file: new Blob(['{"messages": []}']), filename: "bad.jsonl" });
  const { id } = await client.jobs.create({ model: "tiny", training_file: file.id });
  const limited = failing(2, () => new Response("{}", { status: 429, headers: { "retry-after-ms": "1" } }));
  await assert.rejects(new Burnish({ fetch: limited.fetch }).jobs.wait(id), JobFailedError);
  assert.equal(limited.sent.length, 3);
  const never = failing(9, () => new Response("{}", { status: 404 }));
  await assert.rejects(new Burnish({ fetch: never.fetch }).jobs.wait(id), APIError);
  assert.equal(never.sent.length, 1);
});

test("frames are found however the bytes are cut", async () => {
  const wire = new TextEncoder().encode(": hi\r\nid: 1\r\nevent: a\r\ndata: 好\r\ndata:  b\u2028\r\n\r\ndata: c\n\nid: 2\rdata\r\rdata: never");
  const expected = [
    { event: "a", data: "好\n b\u2028", id: "1" },
    { event: "message", data: "c", id: "1" },
    { event: "message", data: "", id: "2" },
  ];
  for (const size of [1, 2, 3, 7, 1000]) {
    const pieces = Array.from({ length: Math.ceil(wire.length / size) }, (_, n) => wire.slice(n * size, (n + 1) * size));
    const found = [];
    for await (const frame of frames(streamOf(pieces))) found.push(frame);
    assert.deepEqual(found, expected, `cut every ${size} bytes`);
  }
});

test("a download resumes by Range, and a damaged one is refused", async () => {
  const file = await client.files.create({ file: new Blob([ROWS]), filename: "range.jsonl" });
  const ranges: (string | null)[] = [];
  const cutting: typeof fetch = async (url, init) => {
    ranges.push(new Headers(init?.headers).get("range"));
    const response = await fetch(url, init);
    if (ranges.length > 1) return response;
    const bytes = new Uint8Array(await response.arrayBuffer());
    const broken = new ReadableStream({
      start: (controller) => controller.enqueue(bytes.slice(0, 100)),
      pull: (controller) => controller.error(new Error("cut")),
    });
    return new Response(broken, response);
  };
  const download = await new Burnish({ fetch: cutting }).files.content(file.id);
  assert.equal(await download.text(), ROWS);
  assert.deepEqual(ranges, [null, "bytes=100-"]);
  const damaging: typeof fetch = async (url, init) => {
    const response = await fetch(url, init);
    return new Response(`x${(await response.text()).slice(1)}`, response);
  };
  await assert.rejects((await new Burnish({ fetch: damaging }).files.content(file.id)).bytes(), /does not have the SHA-256/u);
  const options = { baseURL: client.baseURL, apiKey: process.env["BURNISH_API_KEY"] ?? "", timeout: 5000, maxRetries: 0 };
  await assert.rejects(Download.open(new Transport({ ...options, fetch }), "/files/file-none/content"), APIError);
  await client.files.delete(file.id);
});

test("a chat that breaks off is an error, not an end", async () => {
  const said = `data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}]}\n\n`;
  const body = { model: "tiny", messages: [{ role: "user" as const, content: "x" }] };
  const streaming = (text: string): Burnish => new Burnish({ fetch: async () => new Response(text) });
  await assert.rejects(async () => { for await (const _ of streaming(said).chat.text(body)); }, ConnectionError);
  const failed = `${said}data: {"error": {"message": "the engine died", "code": "engine_died"}}\n\n`;
  await assert.rejects(async () => { for await (const _ of streaming(failed).chat.text(body)); }, /the engine died/u);
});

test("a delivery is believed if its signature, its time and its body fit", async () => {
  const key = Buffer.alloc(32, 7);
  const secret = `whsec_${key.toString("base64")}`;
  const body = JSON.stringify({ id: "evt_1", object: "event", type: "fine_tuning.job.succeeded", created_at: 1, data: { id: "ftjob-好" } });
  const headersAt = (seconds: number): Record<string, string> => ({
    "Webhook-Id": "evt_1",
    "webhook-timestamp": String(seconds),
    "webhook-signature": `v1,bm8= v2,xx v1,${createHmac("sha256", key).update(`evt_1.${seconds}.${body}`).digest("base64")}`,
  });
  const now = Math.floor(Date.now() / 1000);
  assert.equal((await unwrap(body, headersAt(now), secret)).data.id, "ftjob-好");
  assert.equal((await unwrap(new TextEncoder().encode(body), new Headers(headersAt(now)), secret)).type, "fine_tuning.job.succeeded");
  const refused = async (reason: RegExp, ...given: Parameters<typeof unwrap>): Promise<void> =>
    await assert.rejects(unwrap(...given), (error) => error instanceof WebhookVerificationError && reason.test(error.message));
  await refused(/no signature/u, `${body} `, headersAt(now), secret);
  await refused(/no signature/u, body, headersAt(now), `whsec_${Buffer.alloc(32, 8).toString("base64")}`);
  await refused(/seconds from now/u, body, headersAt(now - 301), secret);
  await refused(/seconds from now/u, body, headersAt(now + 301), secret);
  await refused(/seconds from now/u, body, { ...headersAt(now), "webhook-timestamp": "soon" }, secret);
  await refused(/webhook-id is missing/u, body, {}, secret);
  await refused(/secret is none/u, body, headersAt(now), "whsec_short");
});
