/**
 * A world for the SDK's tests: a clock that moves when a test says so, random numbers that the test chose,
 * and sockets whose other end is the test.
 */

import { RingwayClient } from "../sdk/dist/ringway.js";

export class World {
  time = 1_000_000;
  /** What `random()` gives. */
  chance = 0.5;
  sockets = [];
  requests = [];
  /** Answers HTTP requests; a test sets its own. */
  answer = () => new Response("{}", { status: 404 });
  #timers = new Map();
  #lastTimer = 0;
  #network = new Set();

  environment = {
    openSocket: (url, protocols) => {
      const socket = new FakeSocket(url, protocols);
      this.sockets.push(socket);
      return socket;
    },
    fetch: async (url, request) => {
      this.requests.push({ url, ...request });
      return this.answer(url, request);
    },
    random: () => this.chance,
    now: () => this.time,
    setTimeout: (run, milliseconds) => {
      this.#lastTimer += 1;
      this.#timers.set(this.#lastTimer, { at: this.time + milliseconds, run });
      return this.#lastTimer;
    },
    clearTimeout: (timer) => void this.#timers.delete(timer),
    watchNetwork: (listener) => {
      this.#network.add(listener);
      return () => this.#network.delete(listener);
    },
  };

  /** The socket that was opened last. */
  get socket() {
    return this.sockets.at(-1);
  }

  client(options = {}) {
    return new RingwayClient({ url: "wss://server/ws", token: () => "token", environment: this.environment, ...options });
  }

  /** A client that is online, its socket, and all that it tells, in order. */
  async online(options = {}, welcome = {}) {
    const client = this.client(options);
    const told = record(client);
    client.connect();
    const socket = await this.welcome(welcome);
    return { client, socket, told };
  }

  /** Lets the newest socket open and be welcome. */
  async welcome(fields = {}) {
    await settled();
    const { socket } = this;
    socket.open();
    socket.say({ ...WELCOME, ...fields });
    await settled();
    return socket;
  }

  network(online) {
    for (const listener of this.#network) listener(online);
  }

  /** Moves the clock, running what falls due in its order. */
  async pass(milliseconds) {
    const end = this.time + milliseconds;
    await settled();
    for (;;) {
      const due = [...this.#timers].filter(([, timer]) => timer.at <= end).sort(([, one], [, other]) => one.at - other.at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.time = Math.max(this.time, due[1].at);
      due[1].run();
      await settled();
    }
    this.time = end;
  }

  /** How long until another socket is opened, at most `max`. */
  async untilDial(max = 120_000) {
    const before = this.sockets.length;
    const from = this.time;
    await settled();
    while (this.sockets.length === before && this.time - from < max) {
      const next = Math.min(...[...this.#timers.values()].map((timer) => timer.at), from + max);
      await this.pass(next - this.time);
    }
    return this.sockets.length > before ? this.time - from : undefined;
  }
}

export const WELCOME = {
  type: "welcome",
  user_id: "alice",
  device_id: "phone",
  session_id: "1",
  resume: "r1",
  server_ts: 1,
  heartbeat_ms: 30_000,
  limits: { max_frame_bytes: 65_536, max_inflight: 256, max_queue_bytes: 262_144, send_per_s: 50, send_burst: 500, dedup_window_s: 86_400 },
};

class FakeSocket {
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  /** Frames of the client, oldest first. */
  heard = [];
  /** Whether the client closed it. */
  closedByClient = false;

  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
  }

  send(text) {
    this.heard.push(JSON.parse(text));
  }

  close() {
    this.closedByClient = true;
  }

  open() {
    this.onopen?.({});
  }

  /** The server's frames, in one WebSocket message. */
  say(...frames) {
    this.onmessage?.({ data: frames.map((frame) => JSON.stringify(frame)).join("\n") });
  }

  /** The server's end of it. */
  end(code, reason = "") {
    this.onclose?.({ code, reason });
  }

  of(type) {
    return this.heard.filter((frame) => frame.type === type);
  }
}

/** What a browser tab keeps. */
export class FakeStorage {
  #items = new Map();
  getItem = (key) => this.#items.get(key) ?? null;
  setItem = (key, value) => void this.#items.set(key, value);
  removeItem = (key) => void this.#items.delete(key);
}

/** Every event of a client, as [name, event]. */
export function record(client) {
  const told = [];
  for (const name of ["status", "message", "conversation", "gap", "failed", "error"]) {
    client.on(name, (event) => told.push([name, event]));
  }
  told.of = (name) => told.filter(([one]) => one === name).map(([, event]) => event);
  /** Seqs of a conversation, as they were told. */
  told.seqs = (conversation) =>
    told
      .filter(([name, event]) => (name === "message" || name === "conversation") && event.conversationId === conversation)
      .map(([, event]) => event.seq);
  return told;
}

/** A live message of the server. */
export function message(seq, fields = {}) {
  return { type: "message", kind: "message", conversation_id: "7", message_id: String(1_000 + seq), seq, from: "bob", server_ts: seq, text: `text ${seq}`, ...fields };
}

/** A page of a sync. */
export function page(conversation, seqs, more = false) {
  return { type: "messages", conversation_id: conversation, more, messages: seqs.map((seq) => ({ ...message(seq), conversation_id: undefined, type: undefined })) };
}

export function ack(send, seq, fields = {}) {
  return { type: "ack", client_msg_id: send.client_msg_id, conversation_id: send.conversation_id ?? "7", message_id: String(1_000 + seq), seq, server_ts: seq, duplicate: false, ...fields };
}

/** Everything that is ready to run has run. */
export function settled() {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Numbers in [0, 1) from a seed (mulberry32), so that a failing run can be run again. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
