/**
 * Ringway's client: one socket that comes back by itself, and conversations that arrive in order.
 *
 * The server keeps every message; this side keeps, for each conversation, the last place (`seq`) that the
 * application has seen, and what the user said that is not acknowledged yet. From these two it makes
 * three promises over any number of lost sockets: each message is given to the application once, in the
 * order of its conversation; a message is sent until its ack comes, always under the same client_msg_id;
 * and nothing waits for a user who would have to press "reload".
 *
 * Here is what the application calls, and when there is a socket. One socket is `link.ts`; the order of
 * entries `sequencer.ts`; what was missed `catch_up.ts`; what is to be sent `outbox.ts`.
 */

import { CatchUp } from "./catch_up.js";
import { RingwayError, sentence } from "./error.js";
import { BACKOFF_MS_BASE, backoff, browserEnvironment, randomId } from "./environment.js";
import { HttpApi, query } from "./http_api.js";
import { Link } from "./link.js";
import { Outbox } from "./outbox.js";
import { Sequencer } from "./sequencer.js";
import type {
  Ack, Conversation, Draft, Entry, Environment, Events, HistoryPage, Options, Pending, Role, Status, StatusEvent,
} from "./types.js";
import { beginsStream, conversationOf, entryOf, errorOf, LIMITS_DEFAULT, type Frame } from "./wire.js";

export type * from "./types.js";
export { RingwayError };

/** A socket that served this long proves that the server is well: the back-off starts anew. */
const STEADY_MS = 10_000;
/** How long cursors may lag in the storage; what a crash loses of them arrives twice, never not at all. */
const SAVE_DELAY_MS = 200;
const OUTBOX_MAX_DEFAULT = 1_000;

/** What outlives a page, beside the outbox. One piece: a cursor without its seqs would skip messages. */
interface Saved {
  user?: string;
  device?: string;
  /** Everything before this position has arrived, or is named in `behind`. */
  resume?: string;
  seqs?: Record<string, number>;
  behind?: Record<string, number>;
}

export class RingwayClient {
  readonly #options: Options;
  readonly #world: Environment;
  readonly #key: string;
  readonly #listeners = new Map<string, Set<(event: never) => void>>();
  readonly #api: HttpApi;
  readonly #sequencer: Sequencer;
  readonly #catchUp: CatchUp;
  readonly #outbox: Outbox;

  #status: Status = "idle";
  /** Between `connect` and `close`. */
  #wanted = false;
  #everOnline = false;
  #networkGone = false;
  /** The socket that serves. */
  #current: Link | undefined;
  /** The one that is being opened: the first, the next after a loss, or the successor of `current`. */
  #opening: Link | undefined;
  #attempt = 0;
  #retry: unknown;
  #stopWatching: (() => void) | undefined;

  #user: string | undefined;
  #device: string | undefined;
  #resume: string | undefined;
  #save: unknown;

  constructor(options: Options) {
    this.#options = options;
    this.#key = options.storageKey ?? "ringway";
    const world = { ...browserEnvironment(), ...options.environment };
    this.#world = world;
    const apiUrl = options.apiUrl ?? options.url.replace(/^ws/, "http").replace(/\/ws$/, "/api/v1");
    this.#api = new HttpApi(world, apiUrl, async () => options.token());
    this.#sequencer = new Sequencer(
      (entry) => this.#deliver(entry),
      (conversation, seq) => {
        this.#catchUp.fallBehind(conversation, seq);
        this.#catchUp.pump();
      },
    );
    this.#catchUp = new CatchUp(world, this.#sequencer);
    this.#outbox = new Outbox(
      world,
      options.outboxMax ?? OUTBOX_MAX_DEFAULT,
      () => this.#store(`${this.#key}:outbox`, this.#outbox.pending),
      (event) => this.#emit("failed", event),
    );
    this.#restore();
  }

  get status(): Status {
    return this.#status;
  }

  /** Who the server says we are, once it has. */
  get userId(): string | undefined {
    return this.#user;
  }

  get deviceId(): string | undefined {
    return this.#options.device ?? this.#device;
  }

  /** Messages without their ack, oldest first, also those of before a reload. */
  get pending(): Pending[] {
    return this.#outbox.pending;
  }

  /** Calls `listener` at each event of that name; returns how to stop that. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** Connects, and stays connected until `close`. Where it waits for its next try, it tries now. */
  connect(): void {
    if (!this.#wanted) this.#attempt = 0;
    this.#wanted = true;
    this.#stopWatching ??= this.#world.watchNetwork((online) => this.#network(online));
    if (!this.#current && !this.#opening) void this.#dial(this.#options.url);
  }

  /** Closes the socket and stays away. What is unsent stays in the outbox. */
  close(): void {
    this.#halt({ status: "idle" });
  }

  /**
   * Sends a message, now or when there is a socket again. Resolves when it is durable; rejects when the
   * server refuses it for good, or with `outcome_unknown` when it waited so long that another try could
   * store it twice. Both may happen long after; `pending` and the events `message` (with `own`) and
   * `failed` tell the same across a reload.
   */
  send(draft: Draft): Promise<Ack> {
    const clientMsgId = draft.clientMsgId ?? randomId();
    return this.#outbox.add({ ...draft, clientMsgId, createdTs: this.#world.now() });
  }

  // ---- the HTTP API ------------------------------------------------------------------------------

  /** This user's conversations, all of them. */
  async conversations(): Promise<Conversation[]> {
    const all: Conversation[] = [];
    let cursor: string | undefined;
    do {
      const page = await this.#api.call("GET", `/conversations${query({ cursor })}`);
      for (const item of page.conversations as Frame[]) all.push(this.#met(item));
      cursor = page.next_cursor ?? undefined;
    } while (cursor !== undefined);
    return all;
  }

  async conversation(conversationId: string): Promise<Conversation> {
    return this.#met(await this.#api.call("GET", `/conversations/${conversationId}`));
  }

  /**
   * A page of history: newest first up to `before` (a seq, or the `nextCursor` of the page before), or
   * oldest first from `after`; the newest page without either. At most 200 entries.
   */
  async history(
    conversationId: string,
    range: { before?: number | string; after?: number | string; limit?: number } = {},
  ): Promise<HistoryPage> {
    const page = await this.#api.call("GET", `/conversations/${conversationId}/messages${query(range)}`);
    const messages = (page.messages as Frame[]).map((entry) => entryOf(entry, conversationId, this.#user));
    if (range.before === undefined && range.after === undefined) {
      this.#sequencer.begin(conversationId, messages[0]?.seq ?? 0);
    }
    return page.next_cursor == null ? { messages } : { messages, nextCursor: String(page.next_cursor) };
  }

  /** Makes a group, or finds or makes the 1:1 conversation with `memberIds[0]`. */
  async createConversation(wanted: {
    type: "direct" | "group";
    name?: string;
    memberIds: string[];
  }): Promise<Conversation> {
    const body = { type: wanted.type, name: wanted.name, member_ids: wanted.memberIds };
    return this.#met(await this.#api.call("POST", "/conversations", body, { "Idempotency-Key": randomId() }));
  }

  async addMember(conversationId: string, userId: string, role: Role = "member"): Promise<void> {
    await this.#api.call("PUT", `/conversations/${conversationId}/members/${encodeURIComponent(userId)}`, { role });
  }

  /** Removes a member; with one's own name, leaves. */
  async removeMember(conversationId: string, userId: string): Promise<void> {
    await this.#api.call("DELETE", `/conversations/${conversationId}/members/${encodeURIComponent(userId)}`);
  }

  /** What the first answer about a conversation showed is where its events go on. */
  #met(item: Frame): Conversation {
    const conversation = conversationOf(item, this.#user);
    this.#sequencer.begin(conversation.conversationId, conversation.lastSeq);
    return conversation;
  }

  // ---- connecting --------------------------------------------------------------------------------

  async #dial(url: string): Promise<void> {
    this.#world.clearTimeout(this.#retry);
    const link = new Link(this.#world, url, (code, reason) => this.#closed(link, code, reason));
    this.#opening = link;
    if (!this.#current) this.#report({ status: this.#away() });
    try {
      this.#api.token = await this.#options.token();
    } catch (error) {
      this.#tokenMissing(error);
      link.drop("no token");
      return;
    }
    if (this.#opening !== link) return;
    link.open((data) => this.#received(link, data), () => this.#hello(link));
  }

  #hello(link: Link): void {
    // Until `heads` has come, a newer cursor would skip what the older one still has to tell.
    link.awaitsHeads = this.#resume !== undefined;
    link.gap = "none";
    link.send({
      type: "hello",
      token: this.#api.token,
      device_id: this.deviceId,
      client: this.#options.client ?? "ringway-js/0.1.0",
      batch: true,
      resume: this.#resume,
    });
  }

  /** The answer to the first `hello` of a socket, to a later one (after a `gap`), or to a `refresh`. */
  #welcome(link: Link, frame: Frame): void {
    if (this.#user !== frame.user_id) this.#changeUser(frame.user_id);
    this.#device = frame.device_id;
    this.#takeCursor(link, frame);
    if (link !== this.#opening) return;
    const before = this.#current;
    this.#opening = undefined;
    this.#current = link;
    before?.discard("replaced");
    link.welcome(frame.heartbeat_ms);
    this.#networkGone = false;
    this.#everOnline = true;
    if (this.#status !== "online") this.#report({ status: "online" });
    this.#outbox.attach(link, { ...LIMITS_DEFAULT, ...frame.limits });
    this.#catchUp.attach(link);
  }

  #closed(link: Link, code: number, reason: string): void {
    const served = link.servedMs();
    const wasCurrent = link === this.#current;
    if (wasCurrent) {
      this.#current = undefined;
      this.#outbox.detach();
      this.#catchUp.detach();
    } else if (link === this.#opening) {
      this.#opening = undefined;
    }
    if (!this.#wanted) return;
    // The successor is on its way. Its coming may be why this one was closed (4009): the code says nothing.
    if (this.#opening) return this.#report({ status: this.#away(), closeCode: code, reason });
    const hundred = Math.floor(code / 100);
    if (hundred === 40 && !this.#current) return this.#halt({ status: "stopped", closeCode: code, reason });
    if (served >= STEADY_MS) this.#attempt = 0;
    const atOnce = hundred === 42 && served >= BACKOFF_MS_BASE;
    const delay = atOnce ? 0 : backoff(this.#world, this.#attempt++);
    if (!this.#current) this.#report({ status: this.#away(), closeCode: code, reason, retryInMs: delay });
    this.#dialIn(delay, this.#options.url);
  }

  #dialIn(delay: number, url: string): void {
    this.#world.clearTimeout(this.#retry);
    this.#retry = this.#world.setTimeout(() => void this.#dial(url), delay);
  }

  /** What not being online is called now. */
  #away(): Status {
    return this.#networkGone ? "offline" : this.#everOnline ? "reconnecting" : "connecting";
  }

  /** The browser says that the network came or went. */
  #network(online: boolean): void {
    this.#networkGone = !online;
    if (online) {
      this.#attempt = 0;
      if (!this.#current && !this.#opening) void this.#dial(this.#options.url);
      return;
    }
    if (this.#current) {
      this.#opening?.discard("no network");
      this.#opening = undefined;
    }
    // The socket would find out in a minute; the user knows now.
    const link = this.#current ?? this.#opening;
    if (link) link.drop("no network");
    else this.#report({ status: "offline" });
  }

  /** The server will close this socket soon: another one takes over while this one still serves. */
  #reconnect(link: Link, frame: Frame): void {
    if (link !== this.#current || this.#opening) return;
    const here = this.#options.url;
    const elsewhere = typeof frame.url === "string" && isAsSafe(here, frame.url);
    this.#dialIn(Number(frame.after_ms) || 0, elsewhere ? frame.url : here);
  }

  async #refresh(link: Link): Promise<void> {
    try {
      const token = await this.#options.token();
      this.#api.token = token;
      link.send({ type: "refresh", token });
    } catch (error) {
      // The socket serves until the old token ends; the next connection asks again.
      this.#tokenMissing(error);
    }
  }

  #tokenMissing(error: unknown): void {
    this.#emit("error", new RingwayError("no_token", `the application gave no token: ${sentence(error)}`, true));
  }

  #halt(event: StatusEvent): void {
    this.#wanted = false;
    this.#world.clearTimeout(this.#retry);
    this.#stopWatching?.();
    this.#stopWatching = undefined;
    this.#outbox.detach();
    this.#catchUp.detach();
    for (const link of [this.#current, this.#opening]) link?.discard("");
    this.#current = undefined;
    this.#opening = undefined;
    this.#saveNow();
    this.#report(event);
  }

  // ---- receiving ---------------------------------------------------------------------------------

  #received(link: Link, data: unknown): void {
    for (const line of String(data).split("\n")) {
      if (line.trim() === "") continue;
      let frame: Frame;
      try {
        frame = JSON.parse(line);
      } catch {
        this.#emit("error", new RingwayError("bad_frame", "the server sent what is not JSON"));
        continue;
      }
      // A listener, or the frame before, may have ended this socket.
      if (link === this.#current || link === this.#opening) this.#frame(link, frame);
    }
  }

  #frame(link: Link, frame: Frame): void {
    switch (frame.type) {
      case "welcome":
        return this.#welcome(link, frame);
      case "heads":
        return this.#heads(link, frame);
      case "ack":
        return this.#acked(frame);
      case "message":
      case "conversation": {
        const entry = entryOf(frame, frame.conversation_id, this.#user);
        return this.#sequencer.live(entry, beginsStream(frame, this.#user));
      }
      case "messages": {
        const conversation: string = frame.conversation_id;
        const entries = (frame.messages as Frame[]).map((item) => entryOf(item, conversation, this.#user));
        this.#catchUp.page(conversation, entries, frame.more === true);
        return this.#saveSoon();
      }
      case "sync_done":
        return this.#catchUp.done();
      case "gap":
        return this.#gap(link, frame);
      case "reconnect":
        return this.#reconnect(link, frame);
      case "pong":
        return this.#takeCursor(link, frame);
      case "error":
        return this.#error(link, frame);
      default:
        return; // A later version's: the protocol says to pass over it.
    }
  }

  /** This socket gets no `message` of its own sends: the ack stands for it, in its place in the order. */
  #acked(frame: Frame): void {
    const placed = {
      clientMsgId: frame.client_msg_id as string,
      conversationId: frame.conversation_id as string,
      messageId: frame.message_id as string,
      seq: frame.seq as number,
      serverTs: frame.server_ts as number,
    };
    const pending = this.#outbox.acked({ ...placed, duplicate: frame.duplicate === true });
    if (pending) {
      const { to: _to, createdTs: _createdTs, ...said } = pending;
      this.#sequencer.live({ ...said, ...placed, kind: "message", from: this.#user ?? "", own: true });
    }
    this.#outbox.pump();
  }

  #error(link: Link, frame: Frame): void {
    if (frame.code === "token_expiring") return void this.#refresh(link);
    const error = errorOf(frame);
    if (this.#outbox.refused(frame, error)) return;
    if (frame.client_msg_id === undefined) this.#catchUp.refused(error);
    this.#emit("error", error);
  }

  /** What changed while we were away. It may name too many, never too few. */
  #heads(link: Link, frame: Frame): void {
    for (const [conversation, head] of Object.entries(frame.conversations as Record<string, number>)) {
      const seen = this.#sequencer.seen(conversation);
      if (seen === undefined && frame.recovered === false) {
        // The cursor said nothing to the server, so everything is named, and what we never followed
        // begins here, with history before it. Otherwise it began since, and all of it is news.
        this.#sequencer.begin(conversation, head);
      } else if (head > (seen ?? 0)) {
        this.#catchUp.fallBehind(conversation, head);
      }
    }
    if (frame.more !== true) {
      link.awaitsHeads = false;
      this.#takeCursor(link, frame);
      if (link.gap === "due") this.#hello(link);
    }
    this.#catchUp.pump();
  }

  /** A cursor counts once everything before it is here, or written down as behind. */
  #takeCursor(link: Link, frame: Frame): void {
    if (link.awaitsHeads || link.gap !== "none" || typeof frame.resume !== "string") return;
    this.#resume = frame.resume;
    this.#saveSoon();
  }

  #gap(link: Link, frame: Frame): void {
    if (typeof frame.conversation_id === "string") {
      const after = Number(frame.after_seq) || 0;
      this.#emit("gap", { conversationId: frame.conversation_id, afterSeq: after });
      this.#sequencer.begin(frame.conversation_id, after);
      this.#catchUp.fallBehind(frame.conversation_id, after + 1);
      this.#catchUp.pump();
      return;
    }
    this.#emit("gap", {});
    link.gap = "waiting";
    this.#world.setTimeout(() => {
      if (link !== this.#current || link.gap !== "waiting") return;
      link.gap = "due";
      // One question at a time; the answer to the last one sends the next.
      if (!link.awaitsHeads) this.#hello(link);
    }, Number(frame.after_ms) || 0);
  }

  #deliver(entry: Entry): void {
    this.#saveSoon();
    if (entry.kind === "message") {
      this.#outbox.stored(entry);
      this.#emit("message", entry);
    } else {
      this.#emit("conversation", entry);
    }
  }

  // ---- what outlives the page --------------------------------------------------------------------

  #restore(): void {
    const saved = this.#load<Saved>(this.#key);
    this.#user = saved?.user;
    this.#device = saved?.device;
    this.#resume = saved?.resume;
    for (const [conversation, seq] of Object.entries(saved?.seqs ?? {})) this.#sequencer.begin(conversation, seq);
    for (const [conversation, seq] of Object.entries(saved?.behind ?? {})) this.#catchUp.fallBehind(conversation, seq);
    this.#outbox.restore(this.#load<Pending[]>(`${this.#key}:outbox`) ?? []);
  }

  #load<Value>(key: string): Value | undefined {
    try {
      return JSON.parse(this.#options.storage?.getItem(key) ?? "null") ?? undefined;
    } catch {
      return undefined; // Not ours, or cut short: start as a new device.
    }
  }

  #store(key: string, value: unknown): void {
    try {
      this.#options.storage?.setItem(key, JSON.stringify(value));
    } catch (error) {
      const why = `cursors and unsent messages will not survive a reload: ${sentence(error)}`;
      this.#emit("error", new RingwayError("storage", why));
    }
  }

  #saveSoon(): void {
    if (this.#options.storage) this.#save ??= this.#world.setTimeout(() => this.#saveNow(), SAVE_DELAY_MS);
  }

  #saveNow(): void {
    this.#world.clearTimeout(this.#save);
    this.#save = undefined;
    this.#store(this.#key, {
      user: this.#user,
      device: this.#device,
      resume: this.#resume,
      seqs: this.#sequencer.all(),
      behind: this.#catchUp.all(),
    });
  }

  /** Another user's cursors and messages are none of this one's. */
  #changeUser(user: string): void {
    if (this.#user !== undefined) {
      this.#sequencer.clear();
      this.#catchUp.clear();
      this.#resume = undefined;
      this.#outbox.failAll(new RingwayError("forbidden", "another user of this device wrote it"));
    }
    this.#user = user;
  }

  // ---- events ------------------------------------------------------------------------------------

  #report(event: StatusEvent): void {
    this.#status = event.status;
    this.#emit("status", event);
  }

  #emit<Name extends keyof Events>(name: Name, event: Events[Name]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        (listener as (event: Events[Name]) => void)(event);
      } catch (error) {
        // The application's fault stays its own: the order and the cursors go on.
        console.error(`a listener of Ringway's "${name}" failed:`, error);
      }
    }
  }
}

/** A successor may be elsewhere; it may not be less protected. */
function isAsSafe(here: string, there: string): boolean {
  return there.startsWith("wss://") || (there.startsWith("ws://") && here.startsWith("ws://"));
}
