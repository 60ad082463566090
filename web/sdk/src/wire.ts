/**
 * Between the protocol's JSON and the types of the application: snake case and camel case, and fields that
 * are absent on one side stay absent on the other. The frames are described in `docs/protocol.md`.
 */

import { RingwayError } from "./error.js";
import type { ChangeKind, Change, Conversation, Entry, Member, Message, Pending } from "./types.js";

/** A JSON object of the server, before anybody has looked at it. */
export type Frame = Record<string, any>;

/** The limits of `welcome` that bind a sender. */
export interface Limits {
  max_frame_bytes: number;
  max_inflight: number;
  send_per_s: number;
  send_burst: number;
  dedup_window_s: number;
}

/** The protocol's defaults, until the first `welcome` says the server's own. */
export const LIMITS_DEFAULT: Limits = {
  max_frame_bytes: 65_536,
  max_inflight: 256,
  send_per_s: 50,
  send_burst: 500,
  dedup_window_s: 86_400,
};

/** The `send` frame of a message; the same text at every try. */
export function sendFrame(pending: Pending): string {
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
export function entryOf(frame: Frame, conversationId: string, user: string | undefined): Entry {
  const entry: Record<string, unknown> = {
    kind: (frame.change ?? frame.kind ?? "message") as ChangeKind | "message",
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
  for (const name of Object.keys(entry)) if (entry[name] === undefined) delete entry[name];
  return entry as unknown as Message | Change;
}

/** Whether a user's stream starts with this change: a conversation just made, or just joined. */
export function beginsStream(frame: Frame, user: string | undefined): boolean {
  return frame.change === "created" || (frame.change === "member_added" && frame.user_id === user);
}

export function conversationOf(item: Frame, user: string | undefined): Conversation {
  const conversation: Conversation = {
    conversationId: item.conversation_id,
    type: item.type,
    name: item.name ?? "",
    members: membersOf(item.members ?? []),
    memberCount: item.member_count ?? item.members?.length ?? 0,
    role: item.role,
    lastSeq: item.last_seq ?? 0,
  };
  if (item.last_message) conversation.lastMessage = entryOf(item.last_message, item.conversation_id, user);
  return conversation;
}

export function errorOf(frame: Frame): RingwayError {
  const temporary = frame.temporary ?? ["unavailable", "rate_limited", "window_full"].includes(frame.code);
  return new RingwayError(frame.code, frame.message ?? frame.code, temporary, frame.retry_after_ms);
}

function membersOf(members: Frame[]): Member[] {
  return members.map((member) => ({ userId: member.user_id, role: member.role }));
}
