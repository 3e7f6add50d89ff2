import { list, type ListOptions, type Page } from "../pages.ts";
import { path, type RequestOptions, type Transport } from "../transport.ts";
import type { Model, Permission } from "../types.ts";

/** `/v1/models`: the catalog's bases and the project's fine-tuned models. */
export class Models {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  async list(options: RequestOptions = {}): Promise<Model[]> {
    return (await this.#transport.json<{ data: Model[] }>({ method: "GET", path: "/models", ...options })).data;
  }

  async retrieve(id: string, options: RequestOptions = {}): Promise<Model> {
    return await this.#transport.json({ method: "GET", path: path`/models/${id}`, ...options });
  }

  async delete(id: string, options: RequestOptions = {}): Promise<{ id: string; deleted: boolean }> {
    return await this.#transport.json({ method: "DELETE", path: path`/models/${id}`, ...options });
  }

  /** With whom a model or checkpoint is shared. */
  async permissions(id: string, options: ListOptions = {}): Promise<Page<Permission>> {
    return await list(this.#transport, path`/fine_tuning/checkpoints/${id}/permissions`, options);
  }

  async share(id: string, projectIds: string[], options: RequestOptions = {}): Promise<Permission[]> {
    const json = { project_ids: projectIds };
    const made = { method: "POST", path: path`/fine_tuning/checkpoints/${id}/permissions`, json, ...options } as const;
    return (await this.#transport.json<{ data: Permission[] }>(made)).data;
  }

  async withdraw(id: string, permissionId: string, options: RequestOptions = {}): Promise<{ id: string; deleted: boolean }> {
    const at = path`/fine_tuning/checkpoints/${id}/permissions/${permissionId}`;
    return await this.#transport.json({ method: "DELETE", path: at, ...options });
  }
}
