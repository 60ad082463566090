/**
 * What the page knows of each conversation: who is in it, its entries so far, what is unread.
 *
 * Entries come from two sides, live from the SDK and in pages of history, and meet here by their seq.
 */

import type { Change, Conversation, Entry, Pending } from "/ringway.js";

export interface FailedMessage {
  pending: Pending;
  reason: string;
}

export class Room {
  readonly id: string;
  type: "direct" | "group" = "group";
  name = "";
  /** Those that we know of; of a large group a list names the first only. */
  readonly members = new Set<string>();
  memberCount = 0;
  /** Ascending by seq. */
  readonly entries: Entry[] = [];
  /** The newest page of history has been read. */
  isLoaded = false;
  /** There is nothing before the first entry. */
  isWhole = false;
  unread = 0;
  readonly failed: FailedMessage[] = [];
  #last: Entry | undefined;

  constructor(id: string) {
    this.id = id;
  }

  /** What the HTTP API says of it. */
  learn(conversation: Conversation): void {
    this.type = conversation.type;
    this.name = conversation.name;
    this.memberCount = conversation.memberCount;
    if (conversation.members.length >= conversation.memberCount) this.members.clear();
    for (const { userId } of conversation.members) this.members.add(userId);
    if (conversation.lastMessage && conversation.lastMessage.seq > (this.last?.seq ?? 0)) this.#last = conversation.lastMessage;
  }

  get last(): Entry | undefined {
    const newest = this.entries.at(-1);
    return newest && newest.seq >= (this.#last?.seq ?? 0) ? newest : this.#last;
  }

  /** Puts an entry in its place; the index, or undefined if it is there already. */
  add(entry: Entry): number | undefined {
    let index = this.entries.length;
    while (index > 0 && (this.entries[index - 1]?.seq ?? 0) > entry.seq) index -= 1;
    if (this.entries[index - 1]?.seq === entry.seq) return undefined;
    this.entries.splice(index, 0, entry);
    return index;
  }

  /** A change that happened now, as opposed to one read in history. */
  apply(change: Change): void {
    if (change.type) this.type = change.type;
    if (change.kind === "created") for (const { userId } of change.members ?? []) this.members.add(userId);
    if (change.name !== undefined) this.name = change.name;
    if (change.kind === "member_added" && change.userId) this.members.add(change.userId);
    if (change.kind === "member_removed" && change.userId) this.members.delete(change.userId);
  }

  /** What `me` would call it. */
  title(me: string): string {
    const others = [...this.members].filter((member) => member !== me);
    if (this.type === "direct" && this.members.size > 0) return others[0] ?? `${me} (you)`;
    if (this.name) return this.name;
    return others.length > 0 ? others.slice(0, 4).join(", ") : "Conversation";
  }

  subtitle(me: string): string {
    if (this.type === "direct") return "One to one";
    const more = this.memberCount - this.members.size;
    const names = [...this.members].map((member) => (member === me ? "you" : member)).join(", ");
    return more > 0 ? `${names} and ${more} more` : names;
  }
}

/** An entry in a line: what a list shows of it, and what a change says. */
export function summary(entry: Entry, me: string): string {
  const name = (user: string | undefined) => (user === me ? "You" : (user ?? "Somebody"));
  switch (entry.kind) {
    case "message":
      return entry.text ?? (entry.ciphertext !== undefined ? "Encrypted message" : "Attachment");
    case "created":
      return entry.type === "direct" ? `${name(entry.from)} started the conversation` : `${name(entry.from)} made the group`;
    case "member_added":
      return entry.userId === entry.from ? `${name(entry.userId)} joined` : `${name(entry.from)} added ${name(entry.userId).replace("You", "you")}`;
    case "member_removed":
      return entry.userId === entry.from ? `${name(entry.userId)} left` : `${name(entry.from)} removed ${name(entry.userId).replace("You", "you")}`;
    case "renamed":
      return `${name(entry.from)} named the group “${entry.name ?? ""}”`;
    case "role_changed":
      return `${name(entry.userId)} is now ${entry.role ?? "member"}`;
    case "deleted":
      return `${name(entry.from)} closed the group`;
  }
}
