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
import { RingwayError } from "./error.js";
import type { Ack, Conversation, Draft, Events, HistoryPage, Options, Pending, Role, Status } from "./types.js";
export type * from "./types.js";
export { RingwayError };
export declare class RingwayClient {
    #private;
    constructor(options: Options);
    get status(): Status;
    /** Who the server says we are, once it has. */
    get userId(): string | undefined;
    get deviceId(): string | undefined;
    /** Messages without their ack, oldest first, also those of before a reload. */
    get pending(): Pending[];
    /** Calls `listener` at each event of that name; returns how to stop that. */
    on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
    /** Connects, and stays connected until `close`. Where it waits for its next try, it tries now. */
    connect(): void;
    /** Closes the socket and stays away. What is unsent stays in the outbox. */
    close(): void;
    /**
     * Sends a message, now or when there is a socket again. Resolves when it is durable; rejects when the
     * server refuses it for good, or with `outcome_unknown` when it waited so long that another try could
     * store it twice. Both may happen long after; `pending` and the events `message` (with `own`) and
     * `failed` tell the same across a reload.
     */
    send(draft: Draft): Promise<Ack>;
    /** This user's conversations, all of them. */
    conversations(): Promise<Conversation[]>;
    conversation(conversationId: string): Promise<Conversation>;
    /**
     * A page of history: newest first up to `before` (a seq, or the `nextCursor` of the page before), or
     * oldest first from `after`; the newest page without either. At most 200 entries.
     */
    history(conversationId: string, range?: {
        before?: number | string;
        after?: number | string;
        limit?: number;
    }): Promise<HistoryPage>;
    /** Makes a group, or finds or makes the 1:1 conversation with `memberIds[0]`. */
    createConversation(wanted: {
        type: "direct" | "group";
        name?: string;
        memberIds: string[];
    }): Promise<Conversation>;
    addMember(conversationId: string, userId: string, role?: Role): Promise<void>;
    /** Removes a member; with one's own name, leaves. */
    removeMember(conversationId: string, userId: string): Promise<void>;
}
