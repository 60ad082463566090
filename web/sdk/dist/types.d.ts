/**
 * What an application sees of Ringway: entries of a conversation, acks, options, events.
 *
 * Only types, so that the compiled SDK stays one file. The frames on the wire are in the protocol
 * document (`docs/protocol.md`); names here are the same in camel case. Ids are decimal strings,
 * because a 64-bit number does not fit JavaScript's; places in a conversation (`seq`) are numbers.
 */
/** What has a place in a conversation: who, when, where. */
interface Placed {
    conversationId: string;
    /** Rises within a conversation; a decimal string. */
    messageId: string;
    /** The place in the conversation: 1, 2, 3 … without holes over what this user may see. */
    seq: number;
    /** Who sent it or made the change. */
    from: string;
    /** Milliseconds since 1970 by the server's clock. */
    serverTs: number;
    /** Whether this user sent it, on any device. */
    own: boolean;
    /** The sender's idempotency key; only the sender's own devices see it. */
    clientMsgId?: string;
}
/** A message of a member. */
export interface Message extends Placed {
    kind: "message";
    text?: string;
    /** Base64, opaque to the server; with `alg`. */
    ciphertext?: string;
    alg?: string;
    mediaIds?: string[];
    replyTo?: string;
}
/** What can change about a conversation. */
export type ChangeKind = "created" | "member_added" | "member_removed" | "role_changed" | "renamed" | "deleted";
/** A change of a conversation; it takes a place in the order like a message. */
export interface Change extends Placed {
    kind: ChangeKind;
    /** Of `created`: whether two people or a group. */
    type?: "direct" | "group";
    /** Of `created` and `renamed`. */
    name?: string;
    /** Of `created`: the first members. */
    members?: Member[];
    /** Of `member_added`, `member_removed`, `role_changed`: whom it is about. */
    userId?: string;
    role?: Role;
}
export type Entry = Message | Change;
export type Role = "owner" | "admin" | "member";
export interface Member {
    userId: string;
    role: Role;
}
/** A conversation as the HTTP API tells it. */
export interface Conversation {
    conversationId: string;
    type: "direct" | "group";
    name: string;
    /** All of them; in a list of conversations the first 16. */
    members: Member[];
    memberCount: number;
    /** This user's. */
    role: Role;
    lastSeq: number;
    /** The entry at `lastSeq`: a message or a change. */
    lastMessage?: Entry;
}
/** A page of history, in the order that was asked for (`before`: newest first). */
export interface HistoryPage {
    messages: Entry[];
    /** Give it as `before` (or `after`) for the next page; absent on the last one. */
    nextCursor?: string;
}
/** What to send, and where: a conversation, or a user (the 1:1 conversation, made at need). */
export interface Draft {
    conversationId?: string;
    to?: string;
    text?: string;
    ciphertext?: string;
    alg?: string;
    mediaIds?: string[];
    replyTo?: string;
    /** The idempotency key, 1 to 64 bytes; made by the SDK if absent. */
    clientMsgId?: string;
}
/** The server's word that a message is durable. */
export interface Ack {
    clientMsgId: string;
    conversationId: string;
    messageId: string;
    seq: number;
    serverTs: number;
    /** It was stored by an earlier try. */
    duplicate: boolean;
}
/** A message that waits for its ack. */
export interface Pending extends Draft {
    clientMsgId: string;
    /** Milliseconds since 1970 by this device's clock. */
    createdTs: number;
}
/**
 * Where the client is:
 * `idle` not asked to connect, or closed; `connecting` first try; `online`; `reconnecting` lost, will try
 * again; `offline` the browser says that there is no network (it tries all the same, at times);
 * `stopped` the server told it not to come back (`reason` says why): `connect()` tries anew.
 */
export type Status = "idle" | "connecting" | "online" | "reconnecting" | "offline" | "stopped";
export interface StatusEvent {
    status: Status;
    reason?: string;
    /** The close code that `stopped` it, or that it reconnects after. */
    closeCode?: number;
    /** When `reconnecting`: until the next try. */
    retryInMs?: number;
}
/** Bodies were left out on the socket; the SDK is bringing them. */
export interface GapEvent {
    /** Absent: any conversation may be concerned. */
    conversationId?: string;
    afterSeq?: number;
}
export interface FailedEvent {
    pending: Pending;
    error: Error;
}
export interface Events {
    status: StatusEvent;
    /** Each message once, in the order of its conversation; one's own come with their ack. */
    message: Message;
    /** Each change once, in the same order. */
    conversation: Change;
    gap: GapEvent;
    /** A pending message was refused for good; its `send` rejects too, if this page called it. */
    failed: FailedEvent;
    error: Error;
}
/** Where cursors and unsent messages are kept: `localStorage`, `sessionStorage`, or anything like them. */
export interface RingwayStorage {
    getItem(key: string): string | null;
    setItem(key: string, value: string): void;
    removeItem(key: string): void;
}
/** What the SDK uses of a WebSocket. */
export interface WebSocketLike {
    onopen: ((event: never) => void) | null;
    onmessage: ((event: {
        data: unknown;
    }) => void) | null;
    onclose: ((event: {
        code: number;
        reason: string;
    }) => void) | null;
    onerror: ((event: never) => void) | null;
    send(data: string): void;
    close(code?: number, reason?: string): void;
}
/** The world around the client; tests bring their own. */
export interface Environment {
    openSocket(url: string, protocols: string[]): WebSocketLike;
    fetch: typeof fetch;
    /** In [0, 1). */
    random(): number;
    /** Milliseconds since 1970. */
    now(): number;
    setTimeout(run: () => void, milliseconds: number): unknown;
    clearTimeout(timer: unknown): void;
    /** Calls the listener when the network comes or goes; returns how to stop that. */
    watchNetwork(listener: (online: boolean) => void): () => void;
}
export interface Options {
    /** `wss://HOST:PORT/ws`. */
    url: string;
    /** A fresh token; asked for at each connection, and before one expires. */
    token: () => Promise<string> | string;
    /** This device's name, if the application has one; else the server makes one and the SDK keeps it. */
    device?: string;
    /**
     * Where cursors and unsent messages survive a reload; without one they live in memory. One device is
     * one socket: give each tab its own (`sessionStorage`).
     */
    storage?: RingwayStorage;
    /** The key in the storage; give each user their own. Default `ringway`. */
    storageKey?: string;
    /** The HTTP API; default: `/api/v1` on the socket's host. */
    apiUrl?: string;
    /** Told to the server in `hello`: name/version. */
    client?: string;
    /** Unsent messages kept at most; past it `send` rejects with `outbox_full`. Default 1,000. */
    outboxMax?: number;
    environment?: Partial<Environment>;
}
export {};
