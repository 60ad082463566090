/**
 * One socket, from dialling to its one end: deadline, heartbeat, and an end that is told once.
 *
 * What the frames mean, and whether there is another socket after this one, is the client's (`ringway.ts`).
 */

import { sentence } from "./error.js";
import type { Environment, WebSocketLike } from "./types.js";

const SUBPROTOCOL = "ringway.v1.json";
/** From dialling to `welcome`, the token included; past it the socket is given up. */
const WELCOME_MS_MAX = 15_000;
/** From `ping` to any frame; past it the socket is taken for dead. */
const ANSWER_MS_MAX = 10_000;

export class Link {
  isWelcome = false;
  /** `hello` named a cursor and the last `heads` has not answered it yet. */
  awaitsHeads = false;
  /** A `gap` without a conversation came: `hello` has to be said again, and may be once it is due. */
  gap: "none" | "waiting" | "due" = "none";
  readonly #world: Environment;
  readonly #url: string;
  readonly #ended: (code: number, reason: string) => void;
  #socket: WebSocketLike | undefined;
  /** The deadline until `welcome`, then the next beat. */
  #timer: unknown;
  #answer: unknown;
  #welcomeAt: number | undefined;
  #beats = 0;

  constructor(world: Environment, url: string, ended: (code: number, reason: string) => void) {
    this.#world = world;
    this.#url = url;
    this.#ended = ended;
    this.#timer = world.setTimeout(() => this.drop("no welcome in time"), WELCOME_MS_MAX);
  }

  open(received: (data: unknown) => void, opened: () => void): void {
    let socket: WebSocketLike;
    try {
      socket = this.#world.openSocket(this.#url, [SUBPROTOCOL]);
    } catch (error) {
      return this.drop(sentence(error));
    }
    this.#socket = socket;
    socket.onopen = opened;
    socket.onmessage = ({ data }) => {
      // Whatever it says, it says that the other side is there.
      this.#world.clearTimeout(this.#answer);
      this.#answer = undefined;
      received(data);
    };
    socket.onclose = ({ code, reason }) => {
      this.#detach();
      this.#ended(code, reason);
    };
  }

  send(frame: object): void {
    this.sendText(JSON.stringify(frame));
  }

  sendText(frame: string): void {
    this.#socket?.send(frame);
  }

  /** From now on it beats, the first time after a random part, so that many clients do not beat at once. */
  welcome(heartbeatMs: number): void {
    this.isWelcome = true;
    this.#welcomeAt = this.#world.now();
    this.#world.clearTimeout(this.#timer);
    this.#beatIn(this.#world.random() * heartbeatMs, heartbeatMs);
  }

  /** How long it has served. */
  servedMs(): number {
    return this.#welcomeAt === undefined ? 0 : this.#world.now() - this.#welcomeAt;
  }

  /** Ends it from this side, and says so. */
  drop(why: string): void {
    this.discard(why);
    this.#ended(1006, why);
  }

  /** Ends it from this side in silence. The browser may take its time to close; nothing more is heard. */
  discard(why: string): void {
    const socket = this.#detach();
    try {
      socket?.close(1000, why);
    } catch {
      // It was closed already.
    }
  }

  #beatIn(milliseconds: number, heartbeatMs: number): void {
    this.#timer = this.#world.setTimeout(() => {
      this.#beats += 1;
      this.send({ type: "ping", nonce: String(this.#beats) });
      this.#answer ??= this.#world.setTimeout(() => this.drop("no answer"), ANSWER_MS_MAX);
      this.#beatIn(heartbeatMs, heartbeatMs);
    }, milliseconds);
  }

  #detach(): WebSocketLike | undefined {
    this.#world.clearTimeout(this.#timer);
    this.#world.clearTimeout(this.#answer);
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
    return socket;
  }
}
