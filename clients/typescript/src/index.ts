/** The client of Burnish. */

export { Burnish, type BurnishOptions } from "./client.ts";
export { Download } from "./download.ts";
export * from "./errors.ts";
export { Page, type ListOptions } from "./pages.ts";
export type { FileCreate } from "./resources/files.ts";
export { UploadInterruptedError } from "./resources/uploads.ts";
export type { RequestOptions } from "./transport.ts";
export type * from "./types.ts";
export { unwrap } from "./webhooks.ts";
