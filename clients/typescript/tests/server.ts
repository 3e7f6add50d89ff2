/** The server that these tests talk to is started by `tests/clients/typescript/test_typescript.py`. */

import { Burnish } from "../src/index.ts";

export const client = new Burnish({ timeout: 30_000 });

export const ROWS = Array.from({ length: 12 }, (_, n) =>
  JSON.stringify({
    messages: [
      { role: "user", content: `第${n}个问题: hello` },
      { role: "assistant", content: "好的, fine" },
    ],
  }),
).join("\n");

export const QUICK = {
  type: "supervised" as const,
  supervised: { hyperparameters: { n_epochs: 1, batch_size: 4, lora: { rank: 2, alpha: 4 } } },
};

/** A `fetch` that fails `times` times in a way of its own before it lets requests through, and notes the headers. */
export function failing(times: number, fail: () => Response | Promise<Response>): { fetch: typeof fetch; sent: Headers[] } {
  const sent: Headers[] = [];
  let left = times;
  const wrapped: typeof fetch = async (url, init) => {
    sent.push(new Headers(init?.headers));
    return left-- > 0 ? await fail() : await fetch(url, init);
  };
  return { fetch: wrapped, sent };
}
