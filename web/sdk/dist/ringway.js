// Built from web/sdk/src by web/build.mjs: change those, then run "npm run build" there.

// ---- error.ts

/** The one error of the SDK: what failed, whether it may succeed later, and after how long. */
class RingwayError extends Error {
    code;
    temporary;
    retryAfterMs;
    name = "RingwayError";
    constructor(
    /**
     * The protocol's `error.code`, or one of ours: `network` (no HTTP answer), `no_token` (the application gave
     * none), `outbox_full`, `outcome_unknown` (see `send`), `storage`, `http_STATUS` (an answer that is not
     * the API's).
     */
    code, message, 
    /** Whether the same may succeed later. */
    temporary = false, retryAfterMs) {
        super(message);
        this.code = code;
        this.temporary = temporary;
        this.retryAfterMs = retryAfterMs;
    }
}
/** What somebody threw, as a sentence. */
function sentence(error) {
    return error instanceof Error ? error.message : String(error);
}

// ---- environment.ts

/** The world around the client as a browser has it; tests bring a world with a clock of their own. */
function browserEnvironment() {
    return {
        openSocket: (url, protocols) => new WebSocket(url, protocols),
        fetch: (...request) => fetch(...request),
        random: () => Math.random(),
        now: () => Date.now(),
        setTimeout: (run, milliseconds) => setTimeout(run, milliseconds),
        clearTimeout: (timer) => clearTimeout(timer),
        watchNetwork,
    };
}
function watchNetwork(listener) {
    const target = globalThis;
    const up = () => listener(true);
    const down = () => listener(false);
    target.addEventListener?.("online", up);
    target.addEventListener?.("offline", down);
    return () => {
        target.removeEventListener?.("online", up);
        target.removeEventListener?.("offline", down);
    };
}
/** 128 random bits in hex. (`crypto.randomUUID` is there on secure pages only.) */
function randomId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
/** Back-off after a lost socket or a refusal: full jitter over a span that doubles from the first to the last. */
const BACKOFF_MS_BASE = 1_000;
/** See `BACKOFF_MS_BASE`. */
const BACKOFF_MS_MAX = 60_000;
/** How long to wait before the try after `attempt` (from 0) failed ones. */
function backoff(world, attempt) {
    return world.random() * Math.min(BACKOFF_MS_MAX, BACKOFF_MS_BASE * 2 ** attempt);
}

// ---- catch_up.ts

/**
 * Brings what a socket did not: which conversations are behind, and the `sync` that asks for them.
 *
 * A conversation gets here by `heads`, by a `gap`, or by a hole in its live seqs, and leaves when a sync
 * has brought all of it. Who is behind outlives the socket and the page: the resume cursor may move on as
 * soon as what it told is written down here.
 */
/** Conversations in one `sync`; the server serves that many without further asking. */
const CONVERSATIONS_MAX = 200;
/** Without a page for this long, a `sync` is asked again. */
const SILENCE_MS_MAX = 30_000;
class CatchUp {
    #world;
    #sequencer;
    /** Conversations that have more than we have seen → the last seq we heard of. */
    #behind = new Map();
    #link;
    #sync;
    /** Syncs in a row that brought nothing. */
    #idle = 0;
    constructor(world, sequencer) {
        this.#world = world;
        this.#sequencer = sequencer;
    }
    /** Conversations that are behind, with the last seq heard of. */
    all() {
        return Object.fromEntries(this.#behind);
    }
    clear() {
        this.#behind.clear();
        this.detach();
    }
    /** From now on it is asked on this socket. */
    attach(link) {
        this.detach();
        this.#link = link;
        this.pump();
    }
    /** The socket is gone, and a sync under way with it. */
    detach() {
        this.#world.clearTimeout(this.#sync?.timer);
        this.#sync = undefined;
        this.#link = undefined;
    }
    /** Notes that there is something up to `seq`; live entries of the conversation wait for it. */
    fallBehind(conversation, seq) {
        this.#behind.set(conversation, Math.max(seq, this.#behind.get(conversation) ?? 0));
        this.#sequencer.hold(conversation);
        this.#sync?.again.add(conversation);
    }
    /** Asks for what is missing, one `sync` at a time. */
    pump() {
        if (!this.#link || this.#sync || this.#behind.size === 0)
            return;
        const asked = [...this.#behind.keys()].slice(0, CONVERSATIONS_MAX);
        const none = { again: new Set(), unfinished: new Set(), progress: false, timer: undefined };
        this.#sync = { asked: new Set(asked), ...none };
        this.#endIn(this.#sync, SILENCE_MS_MAX);
        const places = asked.map((conversation) => [conversation, this.#sequencer.ask(conversation)]);
        this.#link.send({ type: "sync", last_seen: Object.fromEntries(places) });
    }
    /** A page of `messages` came. */
    page(conversation, entries, more) {
        const progress = this.#sequencer.page(conversation, entries);
        const sync = this.#sync;
        if (!sync)
            return;
        sync.progress ||= progress;
        this.#endIn(sync, SILENCE_MS_MAX);
        if (more)
            sync.unfinished.add(conversation);
        else
            this.#complete(sync, conversation);
    }
    /** `sync_done` came. */
    done() {
        const sync = this.#sync;
        if (!sync)
            return;
        for (const conversation of sync.asked) {
            if (sync.unfinished.has(conversation))
                continue;
            // No page at all. Either there was nothing for us, or the server came to its bound of messages before
            // it; then something else moved, and asking again goes on from there.
            const missing = (this.#behind.get(conversation) ?? 0) > (this.#sequencer.seen(conversation) ?? 0);
            if (!(missing && sync.progress))
                this.#complete(sync, conversation);
        }
        this.#idle = sync.progress ? 0 : this.#idle + 1;
        // What cannot be read now (the error and the gap said so) is not asked for in a tight circle.
        this.#endIn(sync, this.#idle > 1 ? backoff(this.#world, this.#idle) : 0);
    }
    /**
     * An `error` came that is not about a send. A sync over the rate will not be answered and is asked again;
     * any other one is about one conversation of it, and the sync goes on to its end.
     */
    refused(error) {
        if (this.#sync && error.code === "rate_limited") {
            this.#endIn(this.#sync, error.retryAfterMs ?? backoff(this.#world, 0));
        }
    }
    #complete(sync, conversation) {
        sync.asked.delete(conversation);
        // What fell behind while the sync ran is not known to be in it.
        if (sync.again.has(conversation))
            return;
        this.#behind.delete(conversation);
        this.#sequencer.release(conversation);
    }
    /** After so long the sync is over, and what is still missing is asked for anew. */
    #endIn(sync, milliseconds) {
        this.#world.clearTimeout(sync.timer);
        const end = () => {
            if (this.#sync !== sync)
                return;
            this.#sync = undefined;
            this.pump();
        };
        if (milliseconds > 0)
            sync.timer = this.#world.setTimeout(end, milliseconds);
        else
            end();
    }
}

// ---- http_api.ts

/** One call of the HTTP API: the token, the JSON, and problems (RFC 9457) as errors of ours. */
class HttpApi {
    #world;
    #base;
    #freshToken;
    /** The newest token, whoever asked for it. */
    token;
    constructor(world, base, freshToken) {
        this.#world = world;
        this.#base = base;
        this.#freshToken = freshToken;
    }
    async call(method, path, body, headers = {}) {
        this.token ??= await this.#freshToken();
        let response = await this.#request(method, path, body, headers);
        if (response.status === 401) {
            // It may have expired since; a second refusal is one.
            this.token = await this.#freshToken();
            response = await this.#request(method, path, body, headers);
        }
        const answer = (await response.json().catch(() => ({})));
        if (response.ok)
            return answer;
        const seconds = Number(response.headers.get("Retry-After"));
        throw new RingwayError(answer.code ?? `http_${response.status}`, answer.detail ?? answer.title ?? `the server answered HTTP ${response.status}`, response.status === 408 || response.status === 429 || response.status >= 500, seconds > 0 ? seconds * 1_000 : undefined);
    }
    async #request(method, path, body, extra) {
        const headers = { Authorization: `Bearer ${this.token}`, ...extra };
        const request = { method, headers };
        if (body !== undefined) {
            headers["Content-Type"] = "application/json";
            request.body = JSON.stringify(body);
        }
        try {
            return await this.#world.fetch(this.#base + path, request);
        }
        catch (error) {
            throw new RingwayError("network", `the server cannot be reached: ${sentence(error)}`, true);
        }
    }
}
/** `?name=value…` of what is given. */
function query(parameters) {
    const given = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters))
        if (value !== undefined)
            given.set(name, String(value));
    return given.size === 0 ? "" : `?${given}`;
}

// ---- link.ts

/**
 * One socket, from dialling to its one end: deadline, heartbeat, and an end that is told once.
 *
 * What the frames mean, and whether there is another socket after this one, is the client's (`ringway.ts`).
 */
const SUBPROTOCOL = "ringway.v1.json";
/** From dialling to `welcome`, the token included; past it the socket is given up. */
const WELCOME_MS_MAX = 15_000;
/** From `ping` to any frame; past it the socket is taken for dead. */
const ANSWER_MS_MAX = 10_000;
class Link {
    isWelcome = false;
    /** `hello` named a cursor and the last `heads` has not answered it yet. */
    awaitsHeads = false;
    /** A `gap` without a conversation came: `hello` has to be said again, and may be once it is due. */
    gap = "none";
    #world;
    #url;
    #ended;
    #socket;
    /** The deadline until `welcome`, then the next beat. */
    #timer;
    #answer;
    #welcomeAt;
    #beats = 0;
    constructor(world, url, ended) {
        this.#world = world;
        this.#url = url;
        this.#ended = ended;
        this.#timer = world.setTimeout(() => this.drop("no welcome in time"), WELCOME_MS_MAX);
    }
    open(received, opened) {
        let socket;
        try {
            socket = this.#world.openSocket(this.#url, [SUBPROTOCOL]);
        }
        catch (error) {
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
    send(frame) {
        this.sendText(JSON.stringify(frame));
    }
    sendText(frame) {
        this.#socket?.send(frame);
    }
    /** From now on it beats, the first time after a random part, so that many clients do not beat at once. */
    welcome(heartbeatMs) {
        this.isWelcome = true;
        this.#welcomeAt = this.#world.now();
        this.#world.clearTimeout(this.#timer);
        this.#beatIn(this.#world.random() * heartbeatMs, heartbeatMs);
    }
    /** How long it has served. */
    servedMs() {
        return this.#welcomeAt === undefined ? 0 : this.#world.now() - this.#welcomeAt;
    }
    /** Ends it from this side, and says so. */
    drop(why) {
        this.discard(why);
        this.#ended(1006, why);
    }
    /** Ends it from this side in silence. The browser may take its time to close; nothing more is heard. */
    discard(why) {
        const socket = this.#detach();
        try {
            socket?.close(1000, why);
        }
        catch {
            // It was closed already.
        }
    }
    #beatIn(milliseconds, heartbeatMs) {
        this.#timer = this.#world.setTimeout(() => {
            this.#beats += 1;
            this.send({ type: "ping", nonce: String(this.#beats) });
            this.#answer ??= this.#world.setTimeout(() => this.drop("no answer"), ANSWER_MS_MAX);
            this.#beatIn(heartbeatMs, heartbeatMs);
        }, milliseconds);
    }
    #detach() {
        this.#world.clearTimeout(this.#timer);
        this.#world.clearTimeout(this.#answer);
        const socket = this.#socket;
        this.#socket = undefined;
        if (socket)
            socket.onopen = socket.onmessage = socket.onclose = null;
        return socket;
    }
}

// ---- wire.ts

/**
 * Between the protocol's JSON and the types of the application: snake case and camel case, and fields that
 * are absent on one side stay absent on the other. The frames are described in `docs/protocol.md`.
 */
/** The protocol's defaults, until the first `welcome` says the server's own. */
const LIMITS_DEFAULT = {
    max_frame_bytes: 65_536,
    max_inflight: 256,
    send_per_s: 50,
    send_burst: 500,
    dedup_window_s: 86_400,
};
/** The `send` frame of a message; the same text at every try. */
function sendFrame(pending) {
    return JSON.stringify({
        type: "send",
        conversation_id: pending.conversationId,
        to: pending.to,
        client_msg_id: pending.clientMsgId,
        text: pending.text,
        ciphertext: pending.ciphertext,
        alg: pending.alg,
        media_ids: pending.mediaIds,
        reply_to: pending.replyTo,
    });
}
/** A `message` or `conversation` frame, or an item of a page of `messages` or of history. */
function entryOf(frame, conversationId, user) {
    const entry = {
        kind: (frame.change ?? frame.kind ?? "message"),
        conversationId,
        messageId: frame.message_id,
        seq: frame.seq,
        from: frame.from,
        serverTs: frame.server_ts,
        own: frame.from === user,
        clientMsgId: frame.client_msg_id,
        text: frame.text,
        ciphertext: frame.ciphertext,
        alg: frame.alg,
        mediaIds: frame.media_ids,
        replyTo: frame.reply_to,
        type: frame.conversation_type,
        name: frame.name,
        members: frame.members && membersOf(frame.members),
        userId: frame.user_id,
        role: frame.role,
    };
    for (const name of Object.keys(entry))
        if (entry[name] === undefined)
            delete entry[name];
    return entry;
}
/** Whether a user's stream starts with this change: a conversation just made, or just joined. */
function beginsStream(frame, user) {
    return frame.change === "created" || (frame.change === "member_added" && frame.user_id === user);
}
function conversationOf(item, user) {
    const conversation = {
        conversationId: item.conversation_id,
        type: item.type,
        name: item.name ?? "",
        members: membersOf(item.members ?? []),
        memberCount: item.member_count ?? item.members?.length ?? 0,
        role: item.role,
        lastSeq: item.last_seq ?? 0,
    };
    if (item.last_message)
        conversation.lastMessage = entryOf(item.last_message, item.conversation_id, user);
    return conversation;
}
function errorOf(frame) {
    const temporary = frame.temporary ?? ["unavailable", "rate_limited", "window_full"].includes(frame.code);
    return new RingwayError(frame.code, frame.message ?? frame.code, temporary, frame.retry_after_ms);
}
function membersOf(members) {
    return members.map((member) => ({ userId: member.user_id, role: member.role }));
}

// ---- outbox.ts

/**
 * What the user said and the server has not acknowledged: kept, and sent until the ack comes.
 *
 * Always under the same client_msg_id, so that a message of which only the ack was lost is not stored
 * twice. Bounded in number; on the wire within the server's window and rate.
 */
const CLIENT_MSG_ID_BYTES_MAX = 64;
/** How much of the allowed rate we use: on the way, messages bunch together. */
const RATE_SHARE = 0.9;
class Outbox {
    #world;
    #capacity;
    #changed;
    #failed;
    #outgoing = new Map();
    #limits = LIMITS_DEFAULT;
    #link;
    /** Sends that the server's rate allows now, and when that was counted. */
    #credit = 0;
    #creditAt = 0;
    #timer;
    constructor(world, capacity, changed, failed) {
        this.#world = world;
        this.#capacity = capacity;
        this.#changed = changed;
        this.#failed = failed;
    }
    /** Oldest first. */
    get pending() {
        return [...this.#outgoing.values()].map((outgoing) => outgoing.pending);
    }
    /** What an earlier page left. */
    restore(pendings) {
        for (const pending of pendings) {
            this.#outgoing.set(pending.clientMsgId, { pending, frame: sendFrame(pending), underWay: false, notBefore: 0, tries: 0 });
        }
    }
    add(pending) {
        const frame = sendFrame(pending);
        return new Promise((resolve, reject) => {
            const refusal = this.#refusal(pending, frame);
            if (refusal)
                return reject(refusal);
            this.#outgoing.set(pending.clientMsgId, { pending, frame, underWay: false, notBefore: 0, tries: 0, resolve, reject });
            this.#changed();
            this.pump();
        });
    }
    /** A new socket: everything goes on it, again or for the first time. */
    attach(link, limits) {
        this.detach();
        this.#link = link;
        this.#limits = limits;
        this.#credit = limits.send_burst * RATE_SHARE;
        this.#creditAt = this.#world.now();
        this.pump();
    }
    /** The socket is gone; which of its sends arrived is not known. */
    detach() {
        this.#world.clearTimeout(this.#timer);
        this.#link = undefined;
        for (const outgoing of this.#outgoing.values())
            outgoing.underWay = false;
    }
    /** Puts on the wire what may go: within the window, the rate, and each message's own wait. */
    pump() {
        const link = this.#link;
        if (!link)
            return;
        const now = this.#world.now();
        const ratePerMs = (this.#limits.send_per_s * RATE_SHARE) / 1_000;
        this.#credit = Math.min(this.#limits.send_burst * RATE_SHARE, this.#credit + (now - this.#creditAt) * ratePerMs);
        this.#creditAt = now;
        let window = this.#limits.max_inflight;
        for (const outgoing of this.#outgoing.values())
            if (outgoing.underWay)
                window -= 1;
        let wait = Infinity;
        for (const outgoing of [...this.#outgoing.values()]) {
            if (outgoing.underWay || this.#expire(outgoing, now))
                continue;
            if (outgoing.notBefore > now) {
                wait = Math.min(wait, outgoing.notBefore - now);
                continue;
            }
            if (window <= 0)
                break;
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
        if (wait !== Infinity)
            this.#timer = this.#world.setTimeout(() => this.pump(), Math.ceil(wait));
    }
    /**
     * An entry of one's own came from the log. If it is one of these, it is stored and its ack was lost with
     * an earlier socket: it need not be waited for.
     */
    stored(entry) {
        const pending = this.#outgoing.get(entry.clientMsgId ?? "")?.pending;
        if (!entry.own || pending?.conversationId !== entry.conversationId)
            return;
        const { conversationId, messageId, seq, serverTs } = entry;
        this.acked({ clientMsgId: pending.clientMsgId, conversationId, messageId, seq, serverTs, duplicate: true });
    }
    /** The message that an `ack` is for; undefined for the ack of a second try. */
    acked(ack) {
        const outgoing = this.#outgoing.get(ack.clientMsgId);
        if (!outgoing)
            return undefined;
        this.#outgoing.delete(ack.clientMsgId);
        this.#changed();
        outgoing.resolve?.(ack);
        return outgoing.pending;
    }
    /** Whether an `error` was about one of these messages. */
    refused(frame, error) {
        const outgoing = this.#outgoing.get(frame.client_msg_id);
        if (!outgoing)
            return false;
        if (error.temporary) {
            outgoing.underWay = false;
            outgoing.notBefore = this.#world.now() + (error.retryAfterMs ?? backoff(this.#world, outgoing.tries));
            // One refusal for the rate speaks for all: to go on would end in 4104.
            if (error.code === "rate_limited")
                this.#credit = Math.min(this.#credit, 0);
        }
        else {
            this.#fail(outgoing, error);
        }
        this.pump();
        return true;
    }
    failAll(error) {
        for (const outgoing of [...this.#outgoing.values()])
            this.#fail(outgoing, error);
    }
    #refusal(pending, frame) {
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
    #expire(outgoing, now) {
        if (now - outgoing.pending.createdTs <= this.#limits.dedup_window_s * 1_000)
            return false;
        const why = "it waited longer than the server remembers what was sent: look whether it is in the conversation";
        this.#fail(outgoing, new RingwayError("outcome_unknown", why));
        return true;
    }
    #fail(outgoing, error) {
        this.#outgoing.delete(outgoing.pending.clientMsgId);
        this.#changed();
        outgoing.reject?.(error);
        this.#failed({ pending: outgoing.pending, error });
    }
}
function byteLength(value) {
    return new TextEncoder().encode(value).length;
}

// ---- sequencer.ts

/**
 * Puts the entries of each conversation in order, each once.
 *
 * A live entry follows the last one, or waits until what is between has been brought. What a page of a
 * sync brings is the truth about its range: a seq that it leaves out is not for this user (from before a
 * join, say). No socket and no clock here; `catch_up.ts` does the asking.
 */
/** Entries of one conversation that wait behind a hole; what is past it comes by `sync` again. */
const WAITING_MAX = 1_000;
class Sequencer {
    #streams = new Map();
    #deliver;
    #missing;
    /**
     * `deliver` is given each entry in its turn. `missing` is told that a conversation has entries up to
     * `seq` at least that have to be asked for; it answers with `hold`.
     */
    constructor(deliver, missing) {
        this.#deliver = deliver;
        this.#missing = missing;
    }
    seen(conversation) {
        return this.#streams.get(conversation)?.last;
    }
    /** Every conversation that is followed, with the last seq seen. */
    all() {
        const all = {};
        for (const [conversation, { last }] of this.#streams)
            if (last !== undefined)
                all[conversation] = last;
        return all;
    }
    clear() {
        this.#streams.clear();
    }
    /** A conversation that was not followed is followed from after `seq`; a known one keeps its place. */
    begin(conversation, seq) {
        const stream = this.#stream(conversation);
        if (!stream.held)
            stream.last ??= seq;
    }
    /** Live entries wait from now on, until `release`. */
    hold(conversation) {
        this.#stream(conversation).held = true;
    }
    /** The place to ask from. */
    ask(conversation) {
        const stream = this.#stream(conversation);
        stream.waitingWhenAsked = Math.max(0, ...stream.waiting.keys());
        return stream.last ?? 0;
    }
    /** An entry that came by itself. `begins` says that nothing before it is for this user. */
    live(entry, begins = false) {
        const stream = this.#stream(entry.conversationId);
        if (!stream.held && (begins || stream.last === undefined)) {
            stream.last = Math.max(stream.last ?? 0, entry.seq - 1);
        }
        const last = stream.last ?? 0;
        if (entry.seq <= last)
            return;
        if (!stream.held && entry.seq === last + 1)
            return this.#next(stream, entry);
        const room = stream.waiting.size < WAITING_MAX;
        if (room)
            stream.waiting.set(entry.seq, entry);
        if (!stream.held || !room)
            this.#missing(entry.conversationId, entry.seq);
    }
    /** Entries of a sync, ascending; whether any was new. */
    page(conversation, entries) {
        const stream = this.#stream(conversation);
        let progress = false;
        for (const entry of entries) {
            if (entry.seq <= (stream.last ?? 0))
                continue;
            progress = true;
            this.#next(stream, entry);
        }
        return progress;
    }
    /** All that there was when it was asked for has been brought: live entries go on. */
    release(conversation) {
        const stream = this.#stream(conversation);
        stream.held = false;
        for (const [seq, entry] of [...stream.waiting].sort(([one], [other]) => one - other)) {
            const last = stream.last ?? 0;
            if (seq <= last) {
                stream.waiting.delete(seq);
            }
            else if (seq === last + 1 || seq <= stream.waitingWhenAsked) {
                this.#next(stream, entry);
            }
            else {
                return this.#missing(conversation, seq);
            }
        }
    }
    #next(stream, entry) {
        stream.last = entry.seq;
        stream.waiting.delete(entry.seq);
        this.#deliver(entry);
    }
    #stream(conversation) {
        let stream = this.#streams.get(conversation);
        if (!stream) {
            stream = { waiting: new Map(), held: false, waitingWhenAsked: 0 };
            this.#streams.set(conversation, stream);
        }
        return stream;
    }
}

// ---- ringway.ts

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
export { RingwayError };
/** A socket that served this long proves that the server is well: the back-off starts anew. */
const STEADY_MS = 10_000;
/** How long cursors may lag in the storage; what a crash loses of them arrives twice, never not at all. */
const SAVE_DELAY_MS = 200;
const OUTBOX_MAX_DEFAULT = 1_000;
export class RingwayClient {
    #options;
    #world;
    #key;
    #listeners = new Map();
    #api;
    #sequencer;
    #catchUp;
    #outbox;
    #status = "idle";
    /** Between `connect` and `close`. */
    #wanted = false;
    #everOnline = false;
    #networkGone = false;
    /** The socket that serves. */
    #current;
    /** The one that is being opened: the first, the next after a loss, or the successor of `current`. */
    #opening;
    #attempt = 0;
    #retry;
    #stopWatching;
    #user;
    #device;
    #resume;
    #save;
    constructor(options) {
        this.#options = options;
        this.#key = options.storageKey ?? "ringway";
        const world = { ...browserEnvironment(), ...options.environment };
        this.#world = world;
        const apiUrl = options.apiUrl ?? options.url.replace(/^ws/, "http").replace(/\/ws$/, "/api/v1");
        this.#api = new HttpApi(world, apiUrl, async () => options.token());
        this.#sequencer = new Sequencer((entry) => this.#deliver(entry), (conversation, seq) => {
            this.#catchUp.fallBehind(conversation, seq);
            this.#catchUp.pump();
        });
        this.#catchUp = new CatchUp(world, this.#sequencer);
        this.#outbox = new Outbox(world, options.outboxMax ?? OUTBOX_MAX_DEFAULT, () => this.#store(`${this.#key}:outbox`, this.#outbox.pending), (event) => this.#emit("failed", event));
        this.#restore();
    }
    get status() {
        return this.#status;
    }
    /** Who the server says we are, once it has. */
    get userId() {
        return this.#user;
    }
    get deviceId() {
        return this.#options.device ?? this.#device;
    }
    /** Messages without their ack, oldest first, also those of before a reload. */
    get pending() {
        return this.#outbox.pending;
    }
    /** Calls `listener` at each event of that name; returns how to stop that. */
    on(name, listener) {
        const listeners = this.#listeners.get(name) ?? new Set();
        this.#listeners.set(name, listeners.add(listener));
        return () => void listeners.delete(listener);
    }
    /** Connects, and stays connected until `close`. Where it waits for its next try, it tries now. */
    connect() {
        if (!this.#wanted)
            this.#attempt = 0;
        this.#wanted = true;
        this.#stopWatching ??= this.#world.watchNetwork((online) => this.#network(online));
        if (!this.#current && !this.#opening)
            void this.#dial(this.#options.url);
    }
    /** Closes the socket and stays away. What is unsent stays in the outbox. */
    close() {
        this.#halt({ status: "idle" });
    }
    /**
     * Sends a message, now or when there is a socket again. Resolves when it is durable; rejects when the
     * server refuses it for good, or with `outcome_unknown` when it waited so long that another try could
     * store it twice. Both may happen long after; `pending` and the events `message` (with `own`) and
     * `failed` tell the same across a reload.
     */
    send(draft) {
        const clientMsgId = draft.clientMsgId ?? randomId();
        return this.#outbox.add({ ...draft, clientMsgId, createdTs: this.#world.now() });
    }
    // ---- the HTTP API ------------------------------------------------------------------------------
    /** This user's conversations, all of them. */
    async conversations() {
        const all = [];
        let cursor;
        do {
            const page = await this.#api.call("GET", `/conversations${query({ cursor })}`);
            for (const item of page.conversations)
                all.push(this.#met(item));
            cursor = page.next_cursor ?? undefined;
        } while (cursor !== undefined);
        return all;
    }
    async conversation(conversationId) {
        return this.#met(await this.#api.call("GET", `/conversations/${conversationId}`));
    }
    /**
     * A page of history: newest first up to `before` (a seq, or the `nextCursor` of the page before), or
     * oldest first from `after`; the newest page without either. At most 200 entries.
     */
    async history(conversationId, range = {}) {
        const page = await this.#api.call("GET", `/conversations/${conversationId}/messages${query(range)}`);
        const messages = page.messages.map((entry) => entryOf(entry, conversationId, this.#user));
        if (range.before === undefined && range.after === undefined) {
            this.#sequencer.begin(conversationId, messages[0]?.seq ?? 0);
        }
        return page.next_cursor == null ? { messages } : { messages, nextCursor: String(page.next_cursor) };
    }
    /** Makes a group, or finds or makes the 1:1 conversation with `memberIds[0]`. */
    async createConversation(wanted) {
        const body = { type: wanted.type, name: wanted.name, member_ids: wanted.memberIds };
        return this.#met(await this.#api.call("POST", "/conversations", body, { "Idempotency-Key": randomId() }));
    }
    async addMember(conversationId, userId, role = "member") {
        await this.#api.call("PUT", `/conversations/${conversationId}/members/${encodeURIComponent(userId)}`, { role });
    }
    /** Removes a member; with one's own name, leaves. */
    async removeMember(conversationId, userId) {
        await this.#api.call("DELETE", `/conversations/${conversationId}/members/${encodeURIComponent(userId)}`);
    }
    /** What the first answer about a conversation showed is where its events go on. */
    #met(item) {
        const conversation = conversationOf(item, this.#user);
        this.#sequencer.begin(conversation.conversationId, conversation.lastSeq);
        return conversation;
    }
    // ---- connecting --------------------------------------------------------------------------------
    async #dial(url) {
        this.#world.clearTimeout(this.#retry);
        const link = new Link(this.#world, url, (code, reason) => this.#closed(link, code, reason));
        this.#opening = link;
        if (!this.#current)
            this.#report({ status: this.#away() });
        try {
            this.#api.token = await this.#options.token();
        }
        catch (error) {
            this.#tokenMissing(error);
            link.drop("no token");
            return;
        }
        if (this.#opening !== link)
            return;
        link.open((data) => this.#received(link, data), () => this.#hello(link));
    }
    #hello(link) {
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
    #welcome(link, frame) {
        if (this.#user !== frame.user_id)
            this.#changeUser(frame.user_id);
        this.#device = frame.device_id;
        this.#takeCursor(link, frame);
        if (link !== this.#opening)
            return;
        const before = this.#current;
        this.#opening = undefined;
        this.#current = link;
        before?.discard("replaced");
        link.welcome(frame.heartbeat_ms);
        this.#networkGone = false;
        this.#everOnline = true;
        if (this.#status !== "online")
            this.#report({ status: "online" });
        this.#outbox.attach(link, { ...LIMITS_DEFAULT, ...frame.limits });
        this.#catchUp.attach(link);
    }
    #closed(link, code, reason) {
        const served = link.servedMs();
        const wasCurrent = link === this.#current;
        if (wasCurrent) {
            this.#current = undefined;
            this.#outbox.detach();
            this.#catchUp.detach();
        }
        else if (link === this.#opening) {
            this.#opening = undefined;
        }
        if (!this.#wanted)
            return;
        // The successor is on its way. Its coming may be why this one was closed (4009): the code says nothing.
        if (this.#opening)
            return this.#report({ status: this.#away(), closeCode: code, reason });
        const hundred = Math.floor(code / 100);
        if (hundred === 40 && !this.#current)
            return this.#halt({ status: "stopped", closeCode: code, reason });
        if (served >= STEADY_MS)
            this.#attempt = 0;
        const atOnce = hundred === 42 && served >= BACKOFF_MS_BASE;
        const delay = atOnce ? 0 : backoff(this.#world, this.#attempt++);
        if (!this.#current)
            this.#report({ status: this.#away(), closeCode: code, reason, retryInMs: delay });
        this.#dialIn(delay, this.#options.url);
    }
    #dialIn(delay, url) {
        this.#world.clearTimeout(this.#retry);
        this.#retry = this.#world.setTimeout(() => void this.#dial(url), delay);
    }
    /** What not being online is called now. */
    #away() {
        return this.#networkGone ? "offline" : this.#everOnline ? "reconnecting" : "connecting";
    }
    /** The browser says that the network came or went. */
    #network(online) {
        this.#networkGone = !online;
        if (online) {
            this.#attempt = 0;
            if (!this.#current && !this.#opening)
                void this.#dial(this.#options.url);
            return;
        }
        if (this.#current) {
            this.#opening?.discard("no network");
            this.#opening = undefined;
        }
        // The socket would find out in a minute; the user knows now.
        const link = this.#current ?? this.#opening;
        if (link)
            link.drop("no network");
        else
            this.#report({ status: "offline" });
    }
    /** The server will close this socket soon: another one takes over while this one still serves. */
    #reconnect(link, frame) {
        if (link !== this.#current || this.#opening)
            return;
        const here = this.#options.url;
        const elsewhere = typeof frame.url === "string" && isAsSafe(here, frame.url);
        this.#dialIn(Number(frame.after_ms) || 0, elsewhere ? frame.url : here);
    }
    async #refresh(link) {
        try {
            const token = await this.#options.token();
            this.#api.token = token;
            link.send({ type: "refresh", token });
        }
        catch (error) {
            // The socket serves until the old token ends; the next connection asks again.
            this.#tokenMissing(error);
        }
    }
    #tokenMissing(error) {
        this.#emit("error", new RingwayError("no_token", `the application gave no token: ${sentence(error)}`, true));
    }
    #halt(event) {
        this.#wanted = false;
        this.#world.clearTimeout(this.#retry);
        this.#stopWatching?.();
        this.#stopWatching = undefined;
        this.#outbox.detach();
        this.#catchUp.detach();
        for (const link of [this.#current, this.#opening])
            link?.discard("");
        this.#current = undefined;
        this.#opening = undefined;
        this.#saveNow();
        this.#report(event);
    }
    // ---- receiving ---------------------------------------------------------------------------------
    #received(link, data) {
        for (const line of String(data).split("\n")) {
            if (line.trim() === "")
                continue;
            let frame;
            try {
                frame = JSON.parse(line);
            }
            catch {
                this.#emit("error", new RingwayError("bad_frame", "the server sent what is not JSON"));
                continue;
            }
            // A listener, or the frame before, may have ended this socket.
            if (link === this.#current || link === this.#opening)
                this.#frame(link, frame);
        }
    }
    #frame(link, frame) {
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
                const conversation = frame.conversation_id;
                const entries = frame.messages.map((item) => entryOf(item, conversation, this.#user));
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
    #acked(frame) {
        const placed = {
            clientMsgId: frame.client_msg_id,
            conversationId: frame.conversation_id,
            messageId: frame.message_id,
            seq: frame.seq,
            serverTs: frame.server_ts,
        };
        const pending = this.#outbox.acked({ ...placed, duplicate: frame.duplicate === true });
        if (pending) {
            const { to: _to, createdTs: _createdTs, ...said } = pending;
            this.#sequencer.live({ ...said, ...placed, kind: "message", from: this.#user ?? "", own: true });
        }
        this.#outbox.pump();
    }
    #error(link, frame) {
        if (frame.code === "token_expiring")
            return void this.#refresh(link);
        const error = errorOf(frame);
        if (this.#outbox.refused(frame, error))
            return;
        if (frame.client_msg_id === undefined)
            this.#catchUp.refused(error);
        this.#emit("error", error);
    }
    /** What changed while we were away. It may name too many, never too few. */
    #heads(link, frame) {
        for (const [conversation, head] of Object.entries(frame.conversations)) {
            const seen = this.#sequencer.seen(conversation);
            if (seen === undefined && frame.recovered === false) {
                // The cursor said nothing to the server, so everything is named, and what we never followed
                // begins here, with history before it. Otherwise it began since, and all of it is news.
                this.#sequencer.begin(conversation, head);
            }
            else if (head > (seen ?? 0)) {
                this.#catchUp.fallBehind(conversation, head);
            }
        }
        if (frame.more !== true) {
            link.awaitsHeads = false;
            this.#takeCursor(link, frame);
            if (link.gap === "due")
                this.#hello(link);
        }
        this.#catchUp.pump();
    }
    /** A cursor counts once everything before it is here, or written down as behind. */
    #takeCursor(link, frame) {
        if (link.awaitsHeads || link.gap !== "none" || typeof frame.resume !== "string")
            return;
        this.#resume = frame.resume;
        this.#saveSoon();
    }
    #gap(link, frame) {
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
            if (link !== this.#current || link.gap !== "waiting")
                return;
            link.gap = "due";
            // One question at a time; the answer to the last one sends the next.
            if (!link.awaitsHeads)
                this.#hello(link);
        }, Number(frame.after_ms) || 0);
    }
    #deliver(entry) {
        this.#saveSoon();
        if (entry.kind === "message") {
            this.#outbox.stored(entry);
            this.#emit("message", entry);
        }
        else {
            this.#emit("conversation", entry);
        }
    }
    // ---- what outlives the page --------------------------------------------------------------------
    #restore() {
        const saved = this.#load(this.#key);
        this.#user = saved?.user;
        this.#device = saved?.device;
        this.#resume = saved?.resume;
        for (const [conversation, seq] of Object.entries(saved?.seqs ?? {}))
            this.#sequencer.begin(conversation, seq);
        for (const [conversation, seq] of Object.entries(saved?.behind ?? {}))
            this.#catchUp.fallBehind(conversation, seq);
        this.#outbox.restore(this.#load(`${this.#key}:outbox`) ?? []);
    }
    #load(key) {
        try {
            return JSON.parse(this.#options.storage?.getItem(key) ?? "null") ?? undefined;
        }
        catch {
            return undefined; // Not ours, or cut short: start as a new device.
        }
    }
    #store(key, value) {
        try {
            this.#options.storage?.setItem(key, JSON.stringify(value));
        }
        catch (error) {
            const why = `cursors and unsent messages will not survive a reload: ${sentence(error)}`;
            this.#emit("error", new RingwayError("storage", why));
        }
    }
    #saveSoon() {
        if (this.#options.storage)
            this.#save ??= this.#world.setTimeout(() => this.#saveNow(), SAVE_DELAY_MS);
    }
    #saveNow() {
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
    #changeUser(user) {
        if (this.#user !== undefined) {
            this.#sequencer.clear();
            this.#catchUp.clear();
            this.#resume = undefined;
            this.#outbox.failAll(new RingwayError("forbidden", "another user of this device wrote it"));
        }
        this.#user = user;
    }
    // ---- events ------------------------------------------------------------------------------------
    #report(event) {
        this.#status = event.status;
        this.#emit("status", event);
    }
    #emit(name, event) {
        for (const listener of [...(this.#listeners.get(name) ?? [])]) {
            try {
                listener(event);
            }
            catch (error) {
                // The application's fault stays its own: the order and the cursors go on.
                console.error(`a listener of Ringway's "${name}" failed:`, error);
            }
        }
    }
}
/** A successor may be elsewhere; it may not be less protected. */
function isAsSafe(here, there) {
    return there.startsWith("wss://") || (there.startsWith("ws://") && here.startsWith("ws://"));
}
