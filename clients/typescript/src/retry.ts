/** The one rule about trying again: how often, after what, and after how long. */

/** Seconds. A server that asks for a longer pause gets no second request: the caller decides. */
export const LONGEST_WAIT = 60;

const BASE = 0.5;
const CAP = 8;

/** Return the seconds to wait after failed attempt number `attempt` (from 0), `undefined` to give up. */
export function delay(attempt: number, maxRetries: number, response?: Response): number | undefined {
  if (attempt >= maxRetries || (response && !worthRetrying(response))) return undefined;
  const asked = response && retryAfter(response.headers);
  if (asked !== undefined) return asked <= LONGEST_WAIT ? asked : undefined;
  // Up to a quarter less, so that many clients do not return at the same moment.
  return Math.min(BASE * 2 ** attempt, CAP) * (0.75 + Math.random() / 4);
}

/** Tell whether the same request may succeed later. */
export function worthRetrying(response: { status: number; headers: Headers }): boolean {
  const said = response.headers.get("x-should-retry");
  if (said === "true" || said === "false") return said === "true";
  return [408, 409, 429].includes(response.status) || response.status >= 500;
}

/** Read `retry-after-ms`, then `retry-after` in seconds or as a date (RFC 9110, 10.2.3). */
function retryAfter(headers: Headers): number | undefined {
  const milliseconds = count(headers.get("retry-after-ms"));
  if (milliseconds !== undefined) return milliseconds / 1000;
  const text = headers.get("retry-after");
  const seconds = count(text);
  if (seconds !== undefined || text === null) return seconds;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, (date - Date.now()) / 1000);
}

function count(text: string | null): number | undefined {
  const value = text === null || text.trim() === "" ? NaN : Number(text);
  return Number.isFinite(value) && value >= 0 ? value : undefined;
}
