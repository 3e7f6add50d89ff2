/** A user's whole way, against the real server: upload, train, follow, download, chat, webhooks. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile } from "node:fs/promises";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { APIError, JobFailedError, UploadInterruptedError, type Job } from "../src/index.ts";
import { save } from "../src/node.ts";
import { client, QUICK, ROWS } from "./server.ts";

let job: Job;
let fileId: string;

before(async () => {
  const file = await client.files.create({ file: new Blob([ROWS]), filename: "训练.jsonl" });
  fileId = file.id;
  job = await client.jobs.create({ model: "tiny", training_file: file.id, method: QUICK, metadata: { 团队: "客服" }, suffix: "ts" });
});

test("events come oldest first, each once, and end with the job", async () => {
  const seen: string[] = [];
  const steps: number[] = [];
  const events = client.jobs.stream(job.id);
  let turn = await events.next();
  for (; !turn.done; turn = await events.next()) {
    seen.push(turn.value.id);
    const step = turn.value.data?.["step"];
    if (turn.value.type === "metrics" && turn.value.data?.["train_loss"] !== undefined) steps.push(step as number);
  }
  assert.equal(turn.value.status, "succeeded", JSON.stringify(turn.value.error));
  assert.equal(new Set(seen).size, seen.length);
  assert.deepEqual(steps, [1, 2, 3]);
  job = turn.value;
});

test("a job is found by its metadata, and its lists have pages", async () => {
  const found = [];
  for await (const each of await client.jobs.list({ metadata: { 团队: "客服" } })) found.push(each.id);
  assert.deepEqual(found, [job.id]);
  const events = [];
  const first = await client.jobs.events(job.id, { limit: 2 });
  assert.equal(first.data.length, 2);
  for await (const event of first) events.push(event.id);
  assert.ok(events.length > 4);
  assert.equal(new Set(events).size, events.length);
  const checkpoints = await client.jobs.checkpoints(job.id);
  assert.equal(checkpoints.data[0]?.step_number, 3);
});

test("the adapter arrives on the disk with the server's SHA-256", async () => {
  const target = join(await mkdtemp(join(tmpdir(), "burnish-")), "adapter.zip");
  await save(await client.jobs.adapter(job.id), target);
  const bytes = await readFile(target);
  assert.equal(bytes.subarray(0, 2).toString(), "PK");
  assert.deepEqual(Buffer.from(await (await client.jobs.adapter(job.id)).bytes()), bytes);
  const csv = await (await client.files.content(job.result_files[0] ?? "")).text();
  assert.match(csv, /^step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n/u);
  assert.ok(Object.keys(await client.jobs.report(job.id)).length > 3);
});

test("the model answers, whole and as a stream", async () => {
  const model = job.fine_tuned_model ?? "";
  assert.equal((await client.models.retrieve(model)).id, model);
  assert.ok((await client.models.list()).some((each) => each.id === model));
  const body = { model, messages: [{ role: "user" as const, content: "你好" }], max_tokens: 5, temperature: 0 };
  const whole = await client.chat.create(body);
  let text = "";
  for await (const piece of client.chat.text(body)) text += piece;
  assert.equal(text, whole.choices[0]?.message.content);
  assert.equal(whole.model, model);
  const counted = [];
  for await (const chunk of client.chat.stream({ ...body, stream_options: { include_usage: true } })) counted.push(chunk.usage);
  assert.deepEqual(counted.at(-1), whole.usage);
  for await (const _ of client.chat.stream({ ...body, max_tokens: 400 })) break; // lets go of the engine
  assert.equal((await client.chat.create(body)).choices[0]?.message.content, text);
});

test("graders give an answer a reward", async () => {
  const grader = {
    type: "string_check" as const,
    name: "含有答案",
    input: "{{sample.output_text}}",
    reference: "{{item.answer}}",
    operation: "like" as const,
  };
  const grade = await client.graders.run({ grader, model_sample: "答案是巴黎", item: { answer: "巴黎" } });
  assert.equal(grade.reward, 1);
  assert.deepEqual(await client.graders.validate(grader), { grader });
  const wrong = await client.graders.run({ grader, model_sample: "", item: {} });
  assert.equal(wrong.metadata.errors.invalid_variable_error, true);
});

test("a failed job is an error that names the line", async () => {
  const file = await client.files.create({ file: new Blob(['{"messages": [{"role": "robot", "content": "x"}]}']), filename: "bad.jsonl" });
  await assert.rejects(client.jobs.createAndWait({ model: "tiny", training_file: file.id }), (error) => {
    assert.ok(error instanceof JobFailedError);
    assert.match(error.message, /bad\.jsonl.*line 1.*robot/u);
    return true;
  });
});

test("jobs are paused, resumed, cancelled and deleted", async () => {
  const long = { ...QUICK, supervised: { hyperparameters: { ...QUICK.supervised.hyperparameters, n_epochs: 50 } } };
  const { id } = await client.jobs.create({ model: "tiny", training_file: fileId, method: long });
  await client.jobs.pause(id);
  let now = await client.jobs.resume(id);
  assert.ok(["validating_files", "queued", "running"].includes(now.status));
  now = await client.jobs.cancel(id);
  assert.equal(now.status, "cancelled");
  await assert.rejects(client.jobs.wait(id), JobFailedError);
  assert.equal((await client.jobs.delete(id)).deleted, true);
  await assert.rejects(client.jobs.retrieve(id), (error) => error instanceof APIError && error.status === 404);
});

test("a file goes up in parts, in parallel, and an interrupted one resumes", async () => {
  const large = new Blob(Array.from({ length: 40 }, () => `${ROWS}\n`.repeat(700)));
  assert.ok(large.size > 2 * 16 * 2 ** 20);
  const whole = { file: large, filename: "groß.jsonl", purpose: "fine-tune" };
  const file = await client.uploads.file(whole);
  assert.equal(file.bytes, large.size);
  const upload = await client.uploads.create({ filename: "x.jsonl", purpose: "fine-tune", bytes: large.size, mime_type: "text/plain" });
  await client.uploads.addPart(upload.id, large.slice(0, 16 * 2 ** 20));
  const there = (await client.uploads.retrieve(upload.id)).parts.map((part) => part.id);
  const joined = await client.uploads.resume(upload.id, large);
  assert.equal(joined.bytes, large.size);
  assert.ok(there.every((id) => id.startsWith("part_")));
  await assert.rejects(client.uploads.resume(upload.id, large), UploadInterruptedError);
  for (const id of [file.id, joined.id]) await client.files.delete(id);
});

test("webhook endpoints are created, sent an event, rotated and deleted", async () => {
  const { webhooks } = client;
  const received: { headers: IncomingHttpHeaders; body: string }[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      received.push({ headers: request.headers, body: Buffer.concat(chunks).toString() });
      response.writeHead(204).end();
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;

  const types = await webhooks.eventTypes();
  assert.ok(types.includes("fine_tuning.job.cancelled"));
  const made = await webhooks.create({ name: "我的", url, event_types: ["fine_tuning.job.cancelled"] });
  assert.equal((await webhooks.test(made.id, "fine_tuning.job.cancelled")).success, true);
  const { id } = await client.jobs.create({ model: "tiny", training_file: fileId, method: QUICK });
  await client.jobs.cancel(id);
  const of = (): typeof received => received.filter(({ body }) => body.includes(id));
  while (of().length === 0) await sleep(50);
  const [delivery] = of();
  const event = await webhooks.unwrap(delivery?.body ?? "", delivery?.headers ?? {}, made.signing_secret);
  assert.deepEqual([event.type, event.data.id], ["fine_tuning.job.cancelled", id]);
  assert.ok((await webhooks.deliveries(made.id)).data.every((attempt) => attempt.status_code === 204));

  assert.equal((await webhooks.update(made.id, { name: "别的" })).name, "别的");
  assert.notEqual((await webhooks.rotateSecret(made.id, true)).signing_secret, made.signing_secret);
  assert.ok((await webhooks.list()).data.some((each) => each.id === made.id));
  assert.equal((await webhooks.delete(made.id)).deleted, true);
  server.close();
});
