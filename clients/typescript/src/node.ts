/** What needs Node: downloads onto the disk. */

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, rename, rm } from "node:fs/promises";

import type { Download } from "./download.ts";

/**
 * Write a download to a file, by way of `PATH.part`, and check its SHA-256. Throws DownloadError, and then leaves
 * nothing.
 */
export async function save(download: Download, target: string): Promise<void> {
  const partial = `${target}.part`;
  const file = await open(partial, "w");
  try {
    for await (const chunk of download) await file.write(chunk);
  } catch (error) {
    await file.close();
    await rm(partial, { force: true });
    throw error;
  }
  await file.close();
  try {
    download.check(await sha256(partial));
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
  await rename(partial, target);
}

async function sha256(path: string): Promise<string> {
  const digest = createHash("sha256");
  for await (const chunk of createReadStream(path)) digest.update(chunk as Uint8Array);
  return digest.digest("base64");
}
