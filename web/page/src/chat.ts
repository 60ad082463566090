/**
 * The chat page: signs in, and joins the SDK's events, the list of conversations and the open one.
 *
 * What it knows of conversations is in `address_book.ts`, the messages on the screen in `message_log.ts`.
 * The order of messages, being offline and coming back are the SDK's; this page shows what it says.
 */

import { RingwayClient, type Conversation, type Draft, type Entry, type Pending, type StatusEvent } from "/ringway.js";

import { Room, summary } from "./address_book.js";
import { briefly, byId, element, paintAvatar } from "./dom.js";
import { MessageLog } from "./message_log.js";
import { newConversationDialog } from "./new_conversation.js";
import { developmentAccount, NoDevelopmentTokens, tokenAccount, type Account } from "./sign_in.js";

/** The key under which a tab remembers its user over a reload. */
const USER_KEY = "ringway-user";
const HISTORY_PAGE = 50;

class Chat {
  readonly #me: string;
  readonly #client: RingwayClient;
  readonly #rooms = new Map<string, Room>();
  readonly #log: MessageLog;
  #open: Room | undefined;

  constructor(account: Account) {
    this.#me = account.user;
    this.#client = new RingwayClient({
      url: `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`,
      token: account.token,
      storage: sessionStorage,
      storageKey: `ringway:${account.user}`,
      client: "ringway-page/0.1.0",
    });
    this.#log = new MessageLog(this.#me, {
      loadOlder: (room) => this.#loadOlder(room),
      retry: (room, failed) => {
        room.failed.splice(room.failed.indexOf(failed), 1);
        const { clientMsgId: _, createdTs: __, ...draft } = failed.pending;
        this.#send(draft);
      },
      discard: (room, failed) => {
        room.failed.splice(room.failed.indexOf(failed), 1);
        this.#showPending();
      },
    });
    this.#listen();
    this.#bind();
    byId("me").textContent = this.#me;
    this.#client.connect();
  }

  #listen(): void {
    this.#client.on("status", (event) => {
      this.#showStatus(event);
      if (event.status === "online") void this.#refresh();
    });
    this.#client.on("message", (entry) => this.#took(entry));
    this.#client.on("conversation", (entry) => {
      this.#room(entry.conversationId).apply(entry);
      this.#took(entry);
      if (this.#open?.id === entry.conversationId) this.#showTitle(this.#open);
    });
    this.#client.on("failed", ({ pending, error }) => {
      if (pending.conversationId) this.#room(pending.conversationId).failed.push({ pending, reason: error.message });
      this.#showPending();
    });
  }

  #bind(): void {
    const draft = byId<HTMLTextAreaElement>("draft");
    const composer = byId<HTMLFormElement>("composer");
    composer.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = draft.value.trim();
      if (text === "" || !this.#open) return;
      draft.value = "";
      this.#send({ conversationId: this.#open.id, text });
      draft.focus();
    });
    draft.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      composer.requestSubmit();
    });
    byId("back").addEventListener("click", () => this.#leave());
    byId("sign-out").addEventListener("click", () => {
      this.#client.close();
      sessionStorage.removeItem(USER_KEY);
      location.assign("/");
    });
    newConversationDialog(async (wanted) => {
      const room = this.#learn(await this.#client.createConversation(wanted));
      this.#showList();
      await this.#enter(room);
    });
  }

  // ---- conversations -----------------------------------------------------------------------------

  /** The room of an id; of one that is new to us the rest is asked for. */
  #room(id: string): Room {
    let room = this.#rooms.get(id);
    if (!room) {
      room = new Room(id);
      this.#rooms.set(id, room);
      void this.#client.conversation(id).then((conversation) => {
        this.#learn(conversation);
        this.#showList();
        if (this.#open?.id === id) this.#showTitle(this.#open);
      }, () => {}); // Without it the room is called by what its entries tell; the next time online asks again.
    }
    return room;
  }

  #learn(conversation: Conversation): Room {
    const room = this.#rooms.get(conversation.conversationId) ?? new Room(conversation.conversationId);
    this.#rooms.set(room.id, room);
    room.learn(conversation);
    return room;
  }

  /** After each coming online: names and members may have changed meanwhile. */
  async #refresh(): Promise<void> {
    try {
      for (const conversation of await this.#client.conversations()) this.#learn(conversation);
      byId("no-conversations").hidden = this.#rooms.size > 0;
      this.#showList();
      const open = this.#open;
      if (!open) return;
      this.#showTitle(open);
      // Its first page may have failed while there was no network.
      if (!open.isLoaded) await this.#enter(open);
    } catch (problem) {
      console.warn("the list of conversations could not be read:", problem);
    }
  }

  #took(entry: Entry): void {
    const room = this.#room(entry.conversationId);
    const index = room.add(entry);
    if (index !== undefined) {
      const isOpen = room === this.#open;
      if (isOpen) this.#log.added(entry, index);
      if (!entry.own && (!isOpen || document.hidden)) room.unread += 1;
    }
    if (entry.own) this.#showPending();
    this.#showList();
  }

  async #enter(room: Room): Promise<void> {
    this.#open = room;
    room.unread = 0;
    byId("app").classList.add("in-room");
    byId("room").classList.remove("empty-room");
    this.#showTitle(room);
    this.#log.show(room, this.#pendingOf(room));
    this.#showList();
    byId("draft").focus();
    if (room.isLoaded) return;
    const page = await this.#client.history(room.id, { limit: HISTORY_PAGE });
    for (const entry of page.messages) room.add(entry);
    room.isLoaded = true;
    room.isWhole = page.nextCursor === undefined;
    if (this.#open === room) this.#log.readHistory();
  }

  #leave(): void {
    this.#open = undefined;
    byId("app").classList.remove("in-room");
    byId("room").classList.add("empty-room");
    this.#log.clear();
    this.#showList();
  }

  async #loadOlder(room: Room): Promise<void> {
    const first = room.entries[0];
    try {
      const page = await this.#client.history(room.id, { limit: HISTORY_PAGE, ...(first ? { before: first.seq } : {}) });
      for (const entry of page.messages) room.add(entry);
      room.isWhole = page.nextCursor === undefined;
    } catch (problem) {
      // Scrolling up again asks again.
      console.warn("older messages could not be read:", problem);
      await new Promise((resolve) => setTimeout(resolve, 2_000));
    }
  }

  // ---- sending -----------------------------------------------------------------------------------

  #send(draft: Draft): void {
    // A refusal comes as the event `failed` too, which also tells of messages from before a reload; what
    // never entered the outbox is told here only.
    const before = new Set(this.#client.pending.map(({ clientMsgId }) => clientMsgId));
    const sent = this.#client.send(draft);
    const entered = this.#client.pending.some(({ clientMsgId }) => !before.has(clientMsgId));
    sent.catch((problem: Error) => {
      if (entered || !draft.conversationId) return;
      const pending: Pending = { ...draft, clientMsgId: "", createdTs: Date.now() };
      this.#room(draft.conversationId).failed.push({ pending, reason: problem.message });
      this.#showPending();
    });
    this.#showPending();
    this.#log.toEnd();
  }

  #pendingOf(room: Room): Pending[] {
    return this.#client.pending.filter(({ conversationId }) => conversationId === room.id);
  }

  #showPending(): void {
    if (this.#open) this.#log.showPending(this.#pendingOf(this.#open));
  }

  // ---- the screen --------------------------------------------------------------------------------

  #showTitle(room: Room): void {
    const title = room.title(this.#me);
    byId("room-title").textContent = title;
    byId("room-members").textContent = room.subtitle(this.#me);
    paintAvatar(byId("room-avatar"), title);
    this.#log.nameAuthors();
  }

  #showList(): void {
    const newest = (room: Room) => room.last?.serverTs ?? 0;
    const rooms = [...this.#rooms.values()].sort((one, other) => newest(other) - newest(one));
    const list = byId("conversations");
    const focused = (document.activeElement as HTMLElement | null)?.dataset["conversation"];
    list.replaceChildren(...rooms.map((room) => element("li", "", this.#listButton(room))));
    if (focused) list.querySelector<HTMLElement>(`[data-conversation="${focused}"]`)?.focus();
    list.hidden = rooms.length === 0;
    if (rooms.length > 0) byId("no-conversations").hidden = true;
    const unread = rooms.reduce((sum, room) => sum + room.unread, 0);
    document.title = unread > 0 ? `(${unread}) Ringway` : "Ringway";
  }

  #listButton(room: Room): HTMLElement {
    const title = room.title(this.#me);
    const avatar = element("span", "avatar");
    avatar.setAttribute("aria-hidden", "true");
    paintAvatar(avatar, title);
    const last = room.last;
    const said = last ? `${last.kind === "message" && last.own ? "You: " : ""}${summary(last, this.#me)}` : "";
    const button = element(
      "button", "", avatar, element("span", "name", title),
      element("span", "time", last ? briefly(last.serverTs) : ""), element("span", "last", said),
    );
    if (room.unread > 0) {
      const unread = element("span", "unread", String(room.unread));
      unread.append(element("span", "unseen", " unread"));
      button.append(unread);
    }
    button.dataset["conversation"] = room.id;
    if (room === this.#open) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => {
      this.#enter(room).catch((problem) => console.warn("history could not be read:", problem));
    });
    return button;
  }

  #showStatus(event: StatusEvent): void {
    byId("status").dataset["status"] = event.status;
    const text = byId("status-text");
    const seconds = Math.ceil((event.retryInMs ?? 0) / 1_000);
    switch (event.status) {
      case "online":
        text.textContent = "Online";
        return;
      case "offline":
        text.textContent = "Offline, sending later";
        return;
      case "reconnecting":
        if (seconds > 2) text.replaceChildren(`Reconnecting in ${seconds} s. `, this.#connectButton("Now"));
        else text.textContent = "Reconnecting…";
        return;
      case "stopped": {
        const why = event.closeCode === 4009 ? "Open in another tab. " : `Not connected: ${event.reason || "refused"}. `;
        text.replaceChildren(why, this.#connectButton("Connect here"));
        return;
      }
      default:
        text.textContent = "Connecting…";
    }
  }

  #connectButton(label: string): HTMLElement {
    const button = element("button", "", label);
    button.addEventListener("click", () => this.#client.connect());
    return button;
  }
}

// ---- signing in ------------------------------------------------------------------------------------

function start(account: Account): void {
  byId("login").hidden = true;
  byId("app").hidden = false;
  byId("room").classList.add("empty-room");
  new Chat(account);
}

async function signIn(user: string, token: string): Promise<void> {
  const error = byId("login-error");
  error.textContent = "";
  try {
    const account = token ? tokenAccount(token) : await developmentAccount(user);
    if (!token) sessionStorage.setItem(USER_KEY, user);
    history.replaceState(null, "", "/");
    start(account);
  } catch (problem) {
    if (problem instanceof NoDevelopmentTokens) {
      byId("login-token-part").hidden = false;
      byId<HTMLInputElement>("login-user").required = false;
    }
    error.textContent = problem instanceof Error ? problem.message : String(problem);
  }
}

const userField = byId<HTMLInputElement>("login-user");
byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  void signIn(userField.value.trim(), byId<HTMLTextAreaElement>("login-token").value.trim());
});
userField.value = new URLSearchParams(location.search).get("user") ?? sessionStorage.getItem(USER_KEY) ?? "";
if (userField.value) void signIn(userField.value, "");
else userField.focus();
