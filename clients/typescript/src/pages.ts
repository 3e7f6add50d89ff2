/** Lists: one page as the server gives it, and an iterator that gets the next ones. */

import type { Query, RequestOptions, Transport } from "./transport.ts";

interface Listed<Item> {
  data: Item[];
  has_more?: boolean;
}

/** How much of a list, in which order, after which entry. */
export interface ListOptions extends RequestOptions {
  limit?: number;
  after?: string;
  order?: "asc" | "desc";
}

/** One page; iterating over it fetches all that follow. */
export class Page<Item extends { id: string }> implements AsyncIterable<Item> {
  readonly data: Item[];
  readonly hasMore: boolean;
  readonly #next: (after: string) => Promise<Page<Item>>;

  constructor(listed: Listed<Item>, next: (after: string) => Promise<Page<Item>>) {
    this.data = listed.data;
    this.hasMore = listed.has_more ?? false;
    this.#next = next;
  }

  /** Return the page after this one, `undefined` where this is the last. */
  async next(): Promise<Page<Item> | undefined> {
    const last = this.data.at(-1);
    return this.hasMore && last ? await this.#next(last.id) : undefined;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Item, void, undefined> {
    for (let page: Page<Item> | undefined = this; page; page = await page.next()) yield* page.data;
  }
}

/** Get one page of `path`. */
export async function list<Item extends { id: string }>(
  transport: Transport,
  path: string,
  { limit, after, order, ...options }: ListOptions = {},
  filters: Query = {},
): Promise<Page<Item>> {
  const get = async (from?: string): Promise<Page<Item>> => {
    const query = { ...filters, limit, order, after: from };
    return new Page(await transport.json<Listed<Item>>({ method: "GET", path, query, ...options }), get);
  };
  return await get(after);
}
