/** One call of the HTTP API: the token, the JSON, and problems (RFC 9457) as errors of ours. */

import { RingwayError, sentence } from "./error.js";
import type { Environment } from "./types.js";
import type { Frame } from "./wire.js";

export class HttpApi {
  readonly #world: Environment;
  readonly #base: string;
  readonly #freshToken: () => Promise<string>;
  /** The newest token, whoever asked for it. */
  token: string | undefined;

  constructor(world: Environment, base: string, freshToken: () => Promise<string>) {
    this.#world = world;
    this.#base = base;
    this.#freshToken = freshToken;
  }

  async call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Frame> {
    this.token ??= await this.#freshToken();
    let response = await this.#request(method, path, body, headers);
    if (response.status === 401) {
      // It may have expired since; a second refusal is one.
      this.token = await this.#freshToken();
      response = await this.#request(method, path, body, headers);
    }
    const answer = (await response.json().catch(() => ({}))) as Frame;
    if (response.ok) return answer;
    const seconds = Number(response.headers.get("Retry-After"));
    throw new RingwayError(
      answer.code ?? `http_${response.status}`,
      answer.detail ?? answer.title ?? `the server answered HTTP ${response.status}`,
      response.status === 408 || response.status === 429 || response.status >= 500,
      seconds > 0 ? seconds * 1_000 : undefined,
    );
  }

  async #request(method: string, path: string, body: unknown, extra: Record<string, string>): Promise<Response> {
    const headers: Record<string, string> = { Authorization: `Bearer ${this.token}`, ...extra };
    const request: RequestInit = { method, headers };
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      request.body = JSON.stringify(body);
    }
    try {
      return await this.#world.fetch(this.#base + path, request);
    } catch (error) {
      throw new RingwayError("network", `the server cannot be reached: ${sentence(error)}`, true);
    }
  }
}

/** `?name=value…` of what is given. */
export function query(parameters: Record<string, string | number | undefined>): string {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) given.set(name, String(value));
  return given.size === 0 ? "" : `?${given}`;
}
