/**
 * Puts the entries of each conversation in order, each once.
 *
 * A live entry follows the last one, or waits until what is between has been brought. What a page of a
 * sync brings is the truth about its range: a seq that it leaves out is not for this user (from before a
 * join, say). No socket and no clock here; `catch_up.ts` does the asking.
 */

import type { Entry } from "./types.js";

/** Entries of one conversation that wait behind a hole; what is past it comes by `sync` again. */
const WAITING_MAX = 1_000;

interface Stream {
  /** The last seq that the application has seen; undefined before the first. */
  last?: number;
  /** Entries that came live behind a hole, by seq. */
  waiting: Map<number, Entry>;
  /** Something before the next live entry is missing, and asked for. */
  held: boolean;
  /** The highest seq that waited when it was last asked for. */
  waitingWhenAsked: number;
}

export class Sequencer {
  readonly #streams = new Map<string, Stream>();
  readonly #deliver: (entry: Entry) => void;
  readonly #missing: (conversation: string, seq: number) => void;

  /**
   * `deliver` is given each entry in its turn. `missing` is told that a conversation has entries up to
   * `seq` at least that have to be asked for; it answers with `hold`.
   */
  constructor(deliver: (entry: Entry) => void, missing: (conversation: string, seq: number) => void) {
    this.#deliver = deliver;
    this.#missing = missing;
  }

  seen(conversation: string): number | undefined {
    return this.#streams.get(conversation)?.last;
  }

  /** Every conversation that is followed, with the last seq seen. */
  all(): Record<string, number> {
    const all: Record<string, number> = {};
    for (const [conversation, { last }] of this.#streams) if (last !== undefined) all[conversation] = last;
    return all;
  }

  clear(): void {
    this.#streams.clear();
  }

  /** A conversation that was not followed is followed from after `seq`; a known one keeps its place. */
  begin(conversation: string, seq: number): void {
    const stream = this.#stream(conversation);
    if (!stream.held) stream.last ??= seq;
  }

  /** Live entries wait from now on, until `release`. */
  hold(conversation: string): void {
    this.#stream(conversation).held = true;
  }

  /** The place to ask from. */
  ask(conversation: string): number {
    const stream = this.#stream(conversation);
    stream.waitingWhenAsked = Math.max(0, ...stream.waiting.keys());
    return stream.last ?? 0;
  }

  /** An entry that came by itself. `begins` says that nothing before it is for this user. */
  live(entry: Entry, begins = false): void {
    const stream = this.#stream(entry.conversationId);
    if (!stream.held && (begins || stream.last === undefined)) {
      stream.last = Math.max(stream.last ?? 0, entry.seq - 1);
    }
    const last = stream.last ?? 0;
    if (entry.seq <= last) return;
    if (!stream.held && entry.seq === last + 1) return this.#next(stream, entry);
    const room = stream.waiting.size < WAITING_MAX;
    if (room) stream.waiting.set(entry.seq, entry);
    if (!stream.held || !room) this.#missing(entry.conversationId, entry.seq);
  }

  /** Entries of a sync, ascending; whether any was new. */
  page(conversation: string, entries: Entry[]): boolean {
    const stream = this.#stream(conversation);
    let progress = false;
    for (const entry of entries) {
      if (entry.seq <= (stream.last ?? 0)) continue;
      progress = true;
      this.#next(stream, entry);
    }
    return progress;
  }

  /** All that there was when it was asked for has been brought: live entries go on. */
  release(conversation: string): void {
    const stream = this.#stream(conversation);
    stream.held = false;
    for (const [seq, entry] of [...stream.waiting].sort(([one], [other]) => one - other)) {
      const last = stream.last ?? 0;
      if (seq <= last) {
        stream.waiting.delete(seq);
      } else if (seq === last + 1 || seq <= stream.waitingWhenAsked) {
        this.#next(stream, entry);
      } else {
        return this.#missing(conversation, seq);
      }
    }
  }

  #next(stream: Stream, entry: Entry): void {
    stream.last = entry.seq;
    stream.waiting.delete(entry.seq);
    this.#deliver(entry);
  }

  #stream(conversation: string): Stream {
    let stream = this.#streams.get(conversation);
    if (!stream) {
      stream = { waiting: new Map(), held: false, waitingWhenAsked: 0 };
      this.#streams.set(conversation, stream);
    }
    return stream;
  }
}
