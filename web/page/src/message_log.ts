/**
 * The messages of the open conversation on the screen: in order, grouped by sender and day, with older
 * ones brought as one scrolls up and the place kept while they are put in.
 */

import type { Entry, Message, Pending } from "/ringway.js";

import { summary, type FailedMessage, type Room } from "./address_book.js";
import { byId, dayOf, element, icon, timeOf } from "./dom.js";

/** Messages of one sender within this time stand together. */
const TOGETHER_MS = 5 * 60_000;
/** How near the end counts as being there. */
const AT_END_PIXELS = 60;

export interface LogActions {
  /** Brings the page before the first entry. */
  loadOlder(room: Room): Promise<void>;
  retry(room: Room, failed: FailedMessage): void;
  discard(room: Room, failed: FailedMessage): void;
}

export class MessageLog {
  readonly #log = byId("log");
  readonly #entries = byId("entries");
  readonly #pending = byId("pending");
  readonly #older = byId("older");
  readonly #newest = byId("newest");
  readonly #newestText = byId("newest-text");
  readonly #me: string;
  readonly #actions: LogActions;
  readonly #atTop: IntersectionObserver;
  #room: Room | undefined;
  #isLoading = false;
  #unseen = 0;

  constructor(me: string, actions: LogActions) {
    this.#me = me;
    this.#actions = actions;
    this.#atTop = new IntersectionObserver((seen) => {
      if (seen.some(({ isIntersecting }) => isIntersecting)) void this.#loadOlder();
    }, { root: this.#log, rootMargin: "300px 0px 0px 0px" });
    this.#log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#newest.addEventListener("click", () => this.toEnd());
    // When the window or the composer changes its height, the end stays in view.
    let wasAtEnd = true;
    this.#log.addEventListener("scroll", () => (wasAtEnd = this.#isAtEnd()), { passive: true });
    new ResizeObserver(() => wasAtEnd && this.toEnd()).observe(this.#log);
  }

  /** Shows a conversation from its end. */
  show(room: Room, pending: Pending[]): void {
    this.#room = room;
    this.nameAuthors();
    this.#entries.replaceChildren(...room.entries.map((entry) => this.#item(entry)));
    for (let index = 0; index < room.entries.length; index += 1) this.#group(index);
    this.showPending(pending);
    this.#sayOlder();
    this.toEnd();
    this.#watchTop();
  }

  /** Where there are two, the side says who. */
  nameAuthors(): void {
    this.#entries.classList.toggle("direct", this.#room?.type === "direct");
  }

  clear(): void {
    this.#room = undefined;
    this.#atTop.disconnect();
    this.#entries.replaceChildren();
    this.#pending.replaceChildren();
  }

  /** An entry that the room took in at `index`. */
  added(entry: Entry, index: number): void {
    const wasAtEnd = this.#isAtEnd();
    this.#put(entry, index);
    if (wasAtEnd || entry.own) {
      this.toEnd();
    } else {
      this.#unseen += 1;
      this.#scrolled();
    }
  }

  /** What waits for its ack, and what was refused, below everything else. */
  showPending(pending: Pending[]): void {
    const wasAtEnd = this.#isAtEnd();
    const waiting = pending.map((message) => this.#pendingItem(message));
    const failed = (this.#room?.failed ?? []).map((message) => this.#failedItem(message));
    this.#pending.replaceChildren(...failed, ...waiting);
    if (wasAtEnd) this.toEnd();
  }

  toEnd(): void {
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#scrolled();
  }

  async #loadOlder(): Promise<void> {
    const room = this.#room;
    if (!room || !room.isLoaded || room.isWhole || this.#isLoading) return;
    this.#isLoading = true;
    this.#log.setAttribute("aria-busy", "true");
    this.#sayOlder();
    await this.#actions.loadOlder(room);
    this.#isLoading = false;
    this.#log.removeAttribute("aria-busy");
    if (this.#room === room) this.readHistory();
  }

  /** The open room was given a page of history: what is on the screen keeps its place. */
  readHistory(): void {
    const entries = this.#room?.entries ?? [];
    const shown = new Set([...this.#entries.children].map((item) => Number((item as HTMLElement).dataset["seq"])));
    const fromEnd = this.#log.scrollHeight - this.#log.scrollTop;
    // From the end, so that each finds the place of the ones after it already filled.
    for (let index = entries.length - 1; index >= 0; index -= 1) {
      const entry = entries[index];
      if (entry && !shown.has(entry.seq)) this.#put(entry, index);
    }
    this.#sayOlder();
    this.#log.scrollTop = this.#log.scrollHeight - fromEnd;
    this.#watchTop();
  }

  /** The observer tells changes only; watching anew makes it tell where we are. */
  #watchTop(): void {
    this.#atTop.disconnect();
    if (this.#room && !this.#room.isWhole) this.#atTop.observe(this.#older);
  }

  #sayOlder(): void {
    this.#older.textContent = this.#isLoading ? "Loading…" : this.#room?.isWhole ? "This is where it begins" : "";
  }

  #isAtEnd(): boolean {
    return this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < AT_END_PIXELS;
  }

  #scrolled(): void {
    const isAtEnd = this.#isAtEnd();
    if (isAtEnd) this.#unseen = 0;
    this.#newest.hidden = isAtEnd;
    this.#newestText.textContent = this.#unseen > 0 ? `${this.#unseen} new` : "Newest";
  }

  #find(seq: number): Element | null {
    return this.#entries.querySelector(`[data-seq="${seq}"]`);
  }

  #put(entry: Entry, index: number): void {
    const next = this.#room?.entries[index + 1];
    this.#entries.insertBefore(this.#item(entry), next ? this.#find(next.seq) : null);
    this.#group(index);
    this.#group(index + 1);
  }

  /** Whether an entry starts a day or a run of one sender depends on the one before it. */
  #group(index: number): void {
    const entry = this.#room?.entries[index];
    const item = entry && this.#find(entry.seq);
    if (!entry || !item) return;
    const before = this.#room?.entries[index - 1];
    const newDay = !before || dayOf(before.serverTs) !== dayOf(entry.serverTs);
    const follows = before?.kind === "message" && before.from === entry.from && entry.serverTs - before.serverTs < TOGETHER_MS;
    item.classList.toggle("new-day", newDay);
    item.classList.toggle("first", newDay || !follows);
  }

  #item(entry: Entry): HTMLElement {
    const item = element("li", "entry", element("span", "day", dayOf(entry.serverTs)));
    item.dataset["seq"] = String(entry.seq);
    if (entry.kind !== "message") {
      item.classList.add("change");
      item.append(element("span", "said", summary(entry, this.#me)));
      return item;
    }
    item.classList.toggle("own", entry.own);
    item.append(element("span", "author", entry.from), this.#bubble(entry, entry.serverTs, entry.own ? icon("tick", "stored") : undefined));
    return item;
  }

  #pendingItem(message: Pending): HTMLElement {
    const bubble = this.#bubble(message, message.createdTs, icon("clock", "waits to be sent"));
    return element("li", "entry own pending first", bubble);
  }

  #failedItem(failed: FailedMessage): HTMLElement {
    const bubble = this.#bubble(failed.pending, failed.pending.createdTs, icon("failed", "not sent"));
    const retry = element("button", "", "Try again");
    retry.addEventListener("click", () => this.#room && this.#actions.retry(this.#room, failed));
    const discard = element("button", "", "Remove");
    discard.addEventListener("click", () => this.#room && this.#actions.discard(this.#room, failed));
    const trouble = element("div", "trouble", `Not sent: ${failed.reason}`, retry, discard);
    return element("li", "entry own failed first", bubble, trouble);
  }

  #bubble(message: Pick<Message, "text" | "ciphertext">, timestamp: number, mark: Node | undefined): HTMLElement {
    const text = message.text ?? (message.ciphertext === undefined ? "Attachment" : "Encrypted message");
    const body = element("span", message.text === undefined ? "text sealed" : "text", text);
    const meta = element("span", "meta", timeOf(timestamp));
    if (mark) meta.append(mark);
    return element("div", "bubble", body, meta);
  }
}
