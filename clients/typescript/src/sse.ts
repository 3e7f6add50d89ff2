/** Server-sent events, by the rules of the WHATWG HTML standard, section 9.2.6. */

export interface Frame {
  event: string;
  data: string;
  /** The last id seen on the connection. */
  id: string | undefined;
}

/** Yield the frames of one connection; what is incomplete at its end is dropped, as it must be. */
export async function* frames(body: ReadableStream<Uint8Array>): AsyncGenerator<Frame, void, undefined> {
  let id: string | undefined;
  let event = "";
  let data: string[] = [];
  for await (const line of lines(body)) {
    if (line === "") {
      if (data.length) yield { event: event || "message", data: data.join("\n"), id };
      event = "";
      data = [];
      continue;
    }
    const [, name = "", value = ""] = /^([^:]*)(?:: ?)?(.*)$/su.exec(line) ?? [];
    if (name === "data") data.push(value);
    else if (name === "event") event = value;
    else if (name === "id" && !value.includes("\0")) id = value;
  }
}

/** Lines end by LF, CRLF or CR only: JSON may hold other separators as they are. */
async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of chunks(body)) {
    rest += decoder.decode(chunk, { stream: true });
    const held = rest.endsWith("\r") ? "\r" : ""; // the first half of CRLF, perhaps
    const found = rest.slice(0, rest.length - held.length).split(/\r\n|\n|\r/u);
    rest = (found.pop() ?? "") + held;
    yield* found;
  }
}

/** Read a body chunk by chunk, and let go of the connection however the reading ends. */
export async function* chunks(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
