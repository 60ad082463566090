/**
 * What the user said and the server has not acknowledged: kept, and sent until the ack comes.
 *
 * Always under the same client_msg_id, so that a message of which only the ack was lost is not stored
 * twice. Bounded in number; on the wire within the server's window and rate.
 */

import { RingwayError } from "./error.js";
import { backoff } from "./environment.js";
import type { Link } from "./link.js";
import type { Ack, Environment, FailedEvent, Message, Pending } from "./types.js";
import { LIMITS_DEFAULT, sendFrame, type Frame, type Limits } from "./wire.js";

const CLIENT_MSG_ID_BYTES_MAX = 64;
/** How much of the allowed rate we use: on the way, messages bunch together. */
const RATE_SHARE = 0.9;

interface Outgoing {
  pending: Pending;
  frame: string;
  /** On the wire of the present socket, without its ack. */
  underWay: boolean;
  notBefore: number;
  tries: number;
  /** Of the `send` of this page; a message from before a reload has none. */
  resolve?: (ack: Ack) => void;
  reject?: (error: Error) => void;
}

export class Outbox {
  readonly #world: Environment;
  readonly #capacity: number;
  readonly #changed: () => void;
  readonly #failed: (event: FailedEvent) => void;
  readonly #outgoing = new Map<string, Outgoing>();
  #limits: Limits = LIMITS_DEFAULT;
  #link: Link | undefined;
  /** Sends that the server's rate allows now, and when that was counted. */
  #credit = 0;
  #creditAt = 0;
  #timer: unknown;

  constructor(world: Environment, capacity: number, changed: () => void, failed: (event: FailedEvent) => void) {
    this.#world = world;
    this.#capacity = capacity;
    this.#changed = changed;
    this.#failed = failed;
  }

  /** Oldest first. */
  get pending(): Pending[] {
    return [...this.#outgoing.values()].map((outgoing) => outgoing.pending);
  }

  /** What an earlier page left. */
  restore(pendings: Pending[]): void {
    for (const pending of pendings) {
      this.#outgoing.set(pending.clientMsgId, { pending, frame: sendFrame(pending), underWay: false, notBefore: 0, tries: 0 });
    }
  }

  add(pending: Pending): Promise<Ack> {
    const frame = sendFrame(pending);
    return new Promise((resolve, reject) => {
      const refusal = this.#refusal(pending, frame);
      if (refusal) return reject(refusal);
      this.#outgoing.set(pending.clientMsgId, { pending, frame, underWay: false, notBefore: 0, tries: 0, resolve, reject });
      this.#changed();
      this.pump();
    });
  }

  /** A new socket: everything goes on it, again or for the first time. */
  attach(link: Link, limits: Limits): void {
    this.detach();
    this.#link = link;
    this.#limits = limits;
    this.#credit = limits.send_burst * RATE_SHARE;
    this.#creditAt = this.#world.now();
    this.pump();
  }

  /** The socket is gone; which of its sends arrived is not known. */
  detach(): void {
    this.#world.clearTimeout(this.#timer);
    this.#link = undefined;
    for (const outgoing of this.#outgoing.values()) outgoing.underWay = false;
  }

  /** Puts on the wire what may go: within the window, the rate, and each message's own wait. */
  pump(): void {
    const link = this.#link;
    if (!link) return;
    const now = this.#world.now();
    const ratePerMs = (this.#limits.send_per_s * RATE_SHARE) / 1_000;
    this.#credit = Math.min(this.#limits.send_burst * RATE_SHARE, this.#credit + (now - this.#creditAt) * ratePerMs);
    this.#creditAt = now;
    let window = this.#limits.max_inflight;
    for (const outgoing of this.#outgoing.values()) if (outgoing.underWay) window -= 1;
    let wait = Infinity;
    for (const outgoing of [...this.#outgoing.values()]) {
      if (outgoing.underWay || this.#expire(outgoing, now)) continue;
      if (outgoing.notBefore > now) {
        wait = Math.min(wait, outgoing.notBefore - now);
        continue;
      }
      if (window <= 0) break;
      if (this.#credit < 1) {
        wait = Math.min(wait, (1 - this.#credit) / ratePerMs);
        break;
      }
      window -= 1;
      this.#credit -= 1;
      outgoing.underWay = true;
      outgoing.tries += 1;
      link.sendText(outgoing.frame);
    }
    this.#world.clearTimeout(this.#timer);
    if (wait !== Infinity) this.#timer = this.#world.setTimeout(() => this.pump(), Math.ceil(wait));
  }

  /**
   * An entry of one's own came from the log. If it is one of these, it is stored and its ack was lost with
   * an earlier socket: it need not be waited for.
   */
  stored(entry: Message): void {
    const pending = this.#outgoing.get(entry.clientMsgId ?? "")?.pending;
    if (!entry.own || pending?.conversationId !== entry.conversationId) return;
    const { conversationId, messageId, seq, serverTs } = entry;
    this.acked({ clientMsgId: pending.clientMsgId, conversationId, messageId, seq, serverTs, duplicate: true });
  }

  /** The message that an `ack` is for; undefined for the ack of a second try. */
  acked(ack: Ack): Pending | undefined {
    const outgoing = this.#outgoing.get(ack.clientMsgId);
    if (!outgoing) return undefined;
    this.#outgoing.delete(ack.clientMsgId);
    this.#changed();
    outgoing.resolve?.(ack);
    return outgoing.pending;
  }

  /** Whether an `error` was about one of these messages. */
  refused(frame: Frame, error: RingwayError): boolean {
    const outgoing = this.#outgoing.get(frame.client_msg_id);
    if (!outgoing) return false;
    if (error.temporary) {
      outgoing.underWay = false;
      outgoing.notBefore = this.#world.now() + (error.retryAfterMs ?? backoff(this.#world, outgoing.tries));
      // One refusal for the rate speaks for all: to go on would end in 4104.
      if (error.code === "rate_limited") this.#credit = Math.min(this.#credit, 0);
    } else {
      this.#fail(outgoing, error);
    }
    this.pump();
    return true;
  }

  failAll(error: RingwayError): void {
    for (const outgoing of [...this.#outgoing.values()]) this.#fail(outgoing, error);
  }

  #refusal(pending: Pending, frame: string): RingwayError | undefined {
    if ((pending.to === undefined) === (pending.conversationId === undefined)) {
      return new RingwayError("invalid", "a message goes to one place: give `to` or `conversationId`");
    }
    if (!pending.clientMsgId || byteLength(pending.clientMsgId) > CLIENT_MSG_ID_BYTES_MAX) {
      return new RingwayError("invalid", `clientMsgId has 1 to ${CLIENT_MSG_ID_BYTES_MAX} bytes`);
    }
    if (this.#outgoing.has(pending.clientMsgId)) {
      return new RingwayError("invalid", "a message with this clientMsgId is under way");
    }
    // The server would close the socket (1009), again at each try.
    if (byteLength(frame) > this.#limits.max_frame_bytes) {
      return new RingwayError("too_large", `a message has at most ${this.#limits.max_frame_bytes} bytes with its envelope`);
    }
    if (this.#outgoing.size >= this.#capacity) {
      return new RingwayError("outbox_full", `${this.#capacity} messages wait to be sent already`, true);
    }
    return undefined;
  }

  /** Past the server's memory of client_msg_ids, another try could store the message a second time. */
  #expire(outgoing: Outgoing, now: number): boolean {
    if (now - outgoing.pending.createdTs <= this.#limits.dedup_window_s * 1_000) return false;
    const why = "it waited longer than the server remembers what was sent: look whether it is in the conversation";
    this.#fail(outgoing, new RingwayError("outcome_unknown", why));
    return true;
  }

  #fail(outgoing: Outgoing, error: RingwayError): void {
    this.#outgoing.delete(outgoing.pending.clientMsgId);
    this.#changed();
    outgoing.reject?.(error);
    this.#failed({ pending: outgoing.pending, error });
  }
}

function byteLength(value: string): number {
  return new TextEncoder().encode(value).length;
}
