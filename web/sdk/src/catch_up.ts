/**
 * Brings what a socket did not: which conversations are behind, and the `sync` that asks for them.
 *
 * A conversation gets here by `heads`, by a `gap`, or by a hole in its live seqs, and leaves when a sync
 * has brought all of it. Who is behind outlives the socket and the page: the resume cursor may move on as
 * soon as what it told is written down here.
 */

import { RingwayError } from "./error.js";
import { backoff } from "./environment.js";
import type { Link } from "./link.js";
import type { Sequencer } from "./sequencer.js";
import type { Entry, Environment } from "./types.js";

/** Conversations in one `sync`; the server serves that many without further asking. */
const CONVERSATIONS_MAX = 200;
/** Without a page for this long, a `sync` is asked again. */
const SILENCE_MS_MAX = 30_000;

/** The `sync` under way. */
interface Sync {
  /** Not yet complete. */
  asked: Set<string>;
  /** Fell behind again while it ran. */
  again: Set<string>;
  /** Of these the last page said that there is more. */
  unfinished: Set<string>;
  /** Whether it brought anything new. */
  progress: boolean;
  timer: unknown;
}

export class CatchUp {
  readonly #world: Environment;
  readonly #sequencer: Sequencer;
  /** Conversations that have more than we have seen → the last seq we heard of. */
  readonly #behind = new Map<string, number>();
  #link: Link | undefined;
  #sync: Sync | undefined;
  /** Syncs in a row that brought nothing. */
  #idle = 0;

  constructor(world: Environment, sequencer: Sequencer) {
    this.#world = world;
    this.#sequencer = sequencer;
  }

  /** Conversations that are behind, with the last seq heard of. */
  all(): Record<string, number> {
    return Object.fromEntries(this.#behind);
  }

  clear(): void {
    this.#behind.clear();
    this.detach();
  }

  /** From now on it is asked on this socket. */
  attach(link: Link): void {
    this.detach();
    this.#link = link;
    this.pump();
  }

  /** The socket is gone, and a sync under way with it. */
  detach(): void {
    this.#world.clearTimeout(this.#sync?.timer);
    this.#sync = undefined;
    this.#link = undefined;
  }

  /** Notes that there is something up to `seq`; live entries of the conversation wait for it. */
  fallBehind(conversation: string, seq: number): void {
    this.#behind.set(conversation, Math.max(seq, this.#behind.get(conversation) ?? 0));
    this.#sequencer.hold(conversation);
    this.#sync?.again.add(conversation);
  }

  /** Asks for what is missing, one `sync` at a time. */
  pump(): void {
    if (!this.#link || this.#sync || this.#behind.size === 0) return;
    const asked = [...this.#behind.keys()].slice(0, CONVERSATIONS_MAX);
    const none = { again: new Set<string>(), unfinished: new Set<string>(), progress: false, timer: undefined };
    this.#sync = { asked: new Set(asked), ...none };
    this.#endIn(this.#sync, SILENCE_MS_MAX);
    const places = asked.map((conversation) => [conversation, this.#sequencer.ask(conversation)]);
    this.#link.send({ type: "sync", last_seen: Object.fromEntries(places) });
  }

  /** A page of `messages` came. */
  page(conversation: string, entries: Entry[], more: boolean): void {
    const progress = this.#sequencer.page(conversation, entries);
    const sync = this.#sync;
    if (!sync) return;
    sync.progress ||= progress;
    this.#endIn(sync, SILENCE_MS_MAX);
    if (more) sync.unfinished.add(conversation);
    else this.#complete(sync, conversation);
  }

  /** `sync_done` came. */
  done(): void {
    const sync = this.#sync;
    if (!sync) return;
    for (const conversation of sync.asked) {
      if (sync.unfinished.has(conversation)) continue;
      // No page at all. Either there was nothing for us, or the server came to its bound of messages before
      // it; then something else moved, and asking again goes on from there.
      const missing = (this.#behind.get(conversation) ?? 0) > (this.#sequencer.seen(conversation) ?? 0);
      if (!(missing && sync.progress)) this.#complete(sync, conversation);
    }
    this.#idle = sync.progress ? 0 : this.#idle + 1;
    // What cannot be read now (the error and the gap said so) is not asked for in a tight circle.
    this.#endIn(sync, this.#idle > 1 ? backoff(this.#world, this.#idle) : 0);
  }

  /**
   * An `error` came that is not about a send. A sync over the rate will not be answered and is asked again;
   * any other one is about one conversation of it, and the sync goes on to its end.
   */
  refused(error: RingwayError): void {
    if (this.#sync && error.code === "rate_limited") {
      this.#endIn(this.#sync, error.retryAfterMs ?? backoff(this.#world, 0));
    }
  }

  #complete(sync: Sync, conversation: string): void {
    sync.asked.delete(conversation);
    // What fell behind while the sync ran is not known to be in it.
    if (sync.again.has(conversation)) return;
    this.#behind.delete(conversation);
    this.#sequencer.release(conversation);
  }

  /** After so long the sync is over, and what is still missing is asked for anew. */
  #endIn(sync: Sync, milliseconds: number): void {
    this.#world.clearTimeout(sync.timer);
    const end = () => {
      if (this.#sync !== sync) return;
      this.#sync = undefined;
      this.pump();
    };
    if (milliseconds > 0) sync.timer = this.#world.setTimeout(end, milliseconds);
    else end();
  }
}
