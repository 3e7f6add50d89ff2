import { type RequestOptions, type Transport } from "../transport.ts";
import type { Grader, GraderRun, GraderRunCreate } from "../types.ts";

/** `/v1/fine_tuning/alpha/graders`: rules that give an answer a reward. */
export class Graders {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Grades one answer; what goes wrong in grading stands in `metadata.errors`, with a reward of 0. */
  async run(body: GraderRunCreate, options: RequestOptions = {}): Promise<GraderRun> {
    return await this.#transport.json({ method: "POST", path: "/fine_tuning/alpha/graders/run", json: body, ...options });
  }

  /** Checks a grader without running it. */
  async validate(grader: Grader, options: RequestOptions = {}): Promise<{ grader: Grader }> {
    const asked = { method: "POST", path: "/fine_tuning/alpha/graders/validate", json: { grader }, ...options } as const;
    return await this.#transport.json(asked);
  }
}
