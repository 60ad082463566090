// Built from web/page/src by web/build.mjs: change those, then run "npm run build" there.

// ---- address_book.ts

/**
 * What the page knows of each conversation: who is in it, its entries so far, what is unread.
 *
 * Entries come from two sides, live from the SDK and in pages of history, and meet here by their seq.
 */
class Room {
    id;
    type = "group";
    name = "";
    /** Those that we know of; of a large group a list names the first only. */
    members = new Set();
    memberCount = 0;
    /** Ascending by seq. */
    entries = [];
    /** The newest page of history has been read. */
    isLoaded = false;
    /** There is nothing before the first entry. */
    isWhole = false;
    unread = 0;
    failed = [];
    #last;
    constructor(id) {
        this.id = id;
    }
    /** What the HTTP API says of it. */
    learn(conversation) {
        this.type = conversation.type;
        this.name = conversation.name;
        this.memberCount = conversation.memberCount;
        if (conversation.members.length >= conversation.memberCount)
            this.members.clear();
        for (const { userId } of conversation.members)
            this.members.add(userId);
        if (conversation.lastMessage && conversation.lastMessage.seq > (this.last?.seq ?? 0))
            this.#last = conversation.lastMessage;
    }
    get last() {
        const newest = this.entries.at(-1);
        return newest && newest.seq >= (this.#last?.seq ?? 0) ? newest : this.#last;
    }
    /** Puts an entry in its place; the index, or undefined if it is there already. */
    add(entry) {
        let index = this.entries.length;
        while (index > 0 && (this.entries[index - 1]?.seq ?? 0) > entry.seq)
            index -= 1;
        if (this.entries[index - 1]?.seq === entry.seq)
            return undefined;
        this.entries.splice(index, 0, entry);
        return index;
    }
    /** A change that happened now, as opposed to one read in history. */
    apply(change) {
        if (change.type)
            this.type = change.type;
        if (change.kind === "created")
            for (const { userId } of change.members ?? [])
                this.members.add(userId);
        if (change.name !== undefined)
            this.name = change.name;
        if (change.kind === "member_added" && change.userId)
            this.members.add(change.userId);
        if (change.kind === "member_removed" && change.userId)
            this.members.delete(change.userId);
    }
    /** What `me` would call it. */
    title(me) {
        const others = [...this.members].filter((member) => member !== me);
        if (this.type === "direct" && this.members.size > 0)
            return others[0] ?? `${me} (you)`;
        if (this.name)
            return this.name;
        return others.length > 0 ? others.slice(0, 4).join(", ") : "Conversation";
    }
    subtitle(me) {
        if (this.type === "direct")
            return "One to one";
        const more = this.memberCount - this.members.size;
        const names = [...this.members].map((member) => (member === me ? "you" : member)).join(", ");
        return more > 0 ? `${names} and ${more} more` : names;
    }
}
/** An entry in a line: what a list shows of it, and what a change says. */
function summary(entry, me) {
    const name = (user) => (user === me ? "You" : (user ?? "Somebody"));
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

// ---- dom.ts

/** The little of the DOM that the page needs. Text goes in as text, never as HTML. */
/** An element of `index.html`; its absence is a mistake of ours. */
function byId(id) {
    const found = document.getElementById(id);
    if (!found)
        throw new Error(`index.html has no element "${id}"`);
    return found;
}
/** A new element with a class and children. */
function element(name, className, ...children) {
    const made = document.createElement(name);
    if (className)
        made.className = className;
    made.append(...children);
    return made;
}
/** A symbol of `index.html`, with what it means for those who do not see it. */
function icon(name, meaning) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("aria-hidden", "true");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    use.setAttribute("href", `#icon-${name}`);
    svg.append(use);
    const both = document.createDocumentFragment();
    both.append(svg, element("span", "unseen", meaning));
    return both;
}
/** A circle with the first letter of a name, in a colour of that name. */
function paintAvatar(circle, name) {
    let sum = 0;
    for (const letter of name)
        sum = (sum * 31 + (letter.codePointAt(0) ?? 0)) % 997;
    circle.dataset["colour"] = String(sum % 8);
    circle.textContent = [...name][0] ?? "?";
}
const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
function timeOf(timestamp) {
    return TIME.format(timestamp);
}
function dayOf(timestamp) {
    return isToday(timestamp) ? "Today" : DAY.format(timestamp);
}
/** The time if it was today, else the date. */
function briefly(timestamp) {
    return isToday(timestamp) ? TIME.format(timestamp) : DATE.format(timestamp);
}
function isToday(timestamp) {
    return new Date(timestamp).toDateString() === new Date().toDateString();
}

// ---- message_log.ts

/**
 * The messages of the open conversation on the screen: in order, grouped by sender and day, with older
 * ones brought as one scrolls up and the place kept while they are put in.
 */
/** Messages of one sender within this time stand together. */
const TOGETHER_MS = 5 * 60_000;
/** How near the end counts as being there. */
const AT_END_PIXELS = 60;
class MessageLog {
    #log = byId("log");
    #entries = byId("entries");
    #pending = byId("pending");
    #older = byId("older");
    #newest = byId("newest");
    #newestText = byId("newest-text");
    #me;
    #actions;
    #atTop;
    #room;
    #isLoading = false;
    #unseen = 0;
    constructor(me, actions) {
        this.#me = me;
        this.#actions = actions;
        this.#atTop = new IntersectionObserver((seen) => {
            if (seen.some(({ isIntersecting }) => isIntersecting))
                void this.#loadOlder();
        }, { root: this.#log, rootMargin: "300px 0px 0px 0px" });
        this.#log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
        this.#newest.addEventListener("click", () => this.toEnd());
        // When the window or the composer changes its height, the end stays in view.
        let wasAtEnd = true;
        this.#log.addEventListener("scroll", () => (wasAtEnd = this.#isAtEnd()), { passive: true });
        new ResizeObserver(() => wasAtEnd && this.toEnd()).observe(this.#log);
    }
    /** Shows a conversation from its end. */
    show(room, pending) {
        this.#room = room;
        this.nameAuthors();
        this.#entries.replaceChildren(...room.entries.map((entry) => this.#item(entry)));
        for (let index = 0; index < room.entries.length; index += 1)
            this.#group(index);
        this.showPending(pending);
        this.#sayOlder();
        this.toEnd();
        this.#watchTop();
    }
    /** Where there are two, the side says who. */
    nameAuthors() {
        this.#entries.classList.toggle("direct", this.#room?.type === "direct");
    }
    clear() {
        this.#room = undefined;
        this.#atTop.disconnect();
        this.#entries.replaceChildren();
        this.#pending.replaceChildren();
    }
    /** An entry that the room took in at `index`. */
    added(entry, index) {
        const wasAtEnd = this.#isAtEnd();
        this.#put(entry, index);
        if (wasAtEnd || entry.own) {
            this.toEnd();
        }
        else {
            this.#unseen += 1;
            this.#scrolled();
        }
    }
    /** What waits for its ack, and what was refused, below everything else. */
    showPending(pending) {
        const wasAtEnd = this.#isAtEnd();
        const waiting = pending.map((message) => this.#pendingItem(message));
        const failed = (this.#room?.failed ?? []).map((message) => this.#failedItem(message));
        this.#pending.replaceChildren(...failed, ...waiting);
        if (wasAtEnd)
            this.toEnd();
    }
    toEnd() {
        this.#log.scrollTop = this.#log.scrollHeight;
        this.#scrolled();
    }
    async #loadOlder() {
        const room = this.#room;
        if (!room || !room.isLoaded || room.isWhole || this.#isLoading)
            return;
        this.#isLoading = true;
        this.#log.setAttribute("aria-busy", "true");
        this.#sayOlder();
        await this.#actions.loadOlder(room);
        this.#isLoading = false;
        this.#log.removeAttribute("aria-busy");
        if (this.#room === room)
            this.readHistory();
    }
    /** The open room was given a page of history: what is on the screen keeps its place. */
    readHistory() {
        const entries = this.#room?.entries ?? [];
        const shown = new Set([...this.#entries.children].map((item) => Number(item.dataset["seq"])));
        const fromEnd = this.#log.scrollHeight - this.#log.scrollTop;
        // From the end, so that each finds the place of the ones after it already filled.
        for (let index = entries.length - 1; index >= 0; index -= 1) {
            const entry = entries[index];
            if (entry && !shown.has(entry.seq))
                this.#put(entry, index);
        }
        this.#sayOlder();
        this.#log.scrollTop = this.#log.scrollHeight - fromEnd;
        this.#watchTop();
    }
    /** The observer tells changes only; watching anew makes it tell where we are. */
    #watchTop() {
        this.#atTop.disconnect();
        if (this.#room && !this.#room.isWhole)
            this.#atTop.observe(this.#older);
    }
    #sayOlder() {
        this.#older.textContent = this.#isLoading ? "Loading…" : this.#room?.isWhole ? "This is where it begins" : "";
    }
    #isAtEnd() {
        return this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < AT_END_PIXELS;
    }
    #scrolled() {
        const isAtEnd = this.#isAtEnd();
        if (isAtEnd)
            this.#unseen = 0;
        this.#newest.hidden = isAtEnd;
        this.#newestText.textContent = this.#unseen > 0 ? `${this.#unseen} new` : "Newest";
    }
    #find(seq) {
        return this.#entries.querySelector(`[data-seq="${seq}"]`);
    }
    #put(entry, index) {
        const next = this.#room?.entries[index + 1];
        this.#entries.insertBefore(this.#item(entry), next ? this.#find(next.seq) : null);
        this.#group(index);
        this.#group(index + 1);
    }
    /** Whether an entry starts a day or a run of one sender depends on the one before it. */
    #group(index) {
        const entry = this.#room?.entries[index];
        const item = entry && this.#find(entry.seq);
        if (!entry || !item)
            return;
        const before = this.#room?.entries[index - 1];
        const newDay = !before || dayOf(before.serverTs) !== dayOf(entry.serverTs);
        const follows = before?.kind === "message" && before.from === entry.from && entry.serverTs - before.serverTs < TOGETHER_MS;
        item.classList.toggle("new-day", newDay);
        item.classList.toggle("first", newDay || !follows);
    }
    #item(entry) {
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
    #pendingItem(message) {
        const bubble = this.#bubble(message, message.createdTs, icon("clock", "waits to be sent"));
        return element("li", "entry own pending first", bubble);
    }
    #failedItem(failed) {
        const bubble = this.#bubble(failed.pending, failed.pending.createdTs, icon("failed", "not sent"));
        const retry = element("button", "", "Try again");
        retry.addEventListener("click", () => this.#room && this.#actions.retry(this.#room, failed));
        const discard = element("button", "", "Remove");
        discard.addEventListener("click", () => this.#room && this.#actions.discard(this.#room, failed));
        const trouble = element("div", "trouble", `Not sent: ${failed.reason}`, retry, discard);
        return element("li", "entry own failed first", bubble, trouble);
    }
    #bubble(message, timestamp, mark) {
        const text = message.text ?? (message.ciphertext === undefined ? "Attachment" : "Encrypted message");
        const body = element("span", message.text === undefined ? "text sealed" : "text", text);
        const meta = element("span", "meta", timeOf(timestamp));
        if (mark)
            meta.append(mark);
        return element("div", "bubble", body, meta);
    }
}

// ---- new_conversation.ts

/** The dialog that starts a conversation: with one person by name, or a group with members. */
/** Opens it at the button; `start` makes the conversation, and what it throws is shown. */
function newConversationDialog(start) {
    const dialog = byId("new-dialog");
    const form = byId("new-form");
    const members = byId("new-members");
    const name = byId("new-name");
    const error = byId("new-error");
    const chosen = () => new FormData(form).get("type");
    const adapt = () => {
        const isGroup = chosen() === "group";
        byId("new-name-part").hidden = !isGroup;
        byId("new-members-label").textContent = isGroup ? "Members" : "Who";
        byId("new-hint").textContent = isGroup ? "Names with commas between them. You are one of them anyway." : "";
    };
    byId("new-chat").addEventListener("click", () => {
        form.reset();
        error.textContent = "";
        adapt();
        dialog.showModal();
        members.focus();
    });
    byId("new-cancel").addEventListener("click", () => dialog.close());
    form.addEventListener("change", adapt);
    form.addEventListener("submit", async (event) => {
        event.preventDefault();
        const type = chosen();
        const names = type === "group" ? members.value.split(",") : [members.value];
        const memberIds = names.map((one) => one.trim()).filter((one) => one !== "");
        if (memberIds.length === 0)
            return;
        const submit = form.querySelector("[type=submit]");
        if (submit)
            submit.disabled = true;
        try {
            await start({ type, memberIds, ...(type === "group" ? { name: name.value.trim() } : {}) });
            dialog.close();
        }
        catch (problem) {
            error.textContent = problem instanceof Error ? problem.message : String(problem);
        }
        finally {
            if (submit)
                submit.disabled = false;
        }
    });
}

// ---- sign_in.ts

/** Who uses the page, and the tokens for it: development ones by the server, or one that was pasted. */
/** The server gives no development tokens: a token has to be brought. */
class NoDevelopmentTokens extends Error {
}
/** An account whose tokens the server makes, tried once. */
async function developmentAccount(user) {
    let first = await developmentToken(user);
    return {
        user,
        token: async () => {
            const token = first ?? (await developmentToken(user));
            first = undefined;
            return token;
        },
    };
}
/** An account of one token, for as long as that holds. */
function tokenAccount(token) {
    return { user: subject(token), token: async () => token };
}
async function developmentToken(user) {
    const response = await fetch("/dev/token", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ user }),
    });
    if (response.status === 404 || response.status === 403) {
        throw new NoDevelopmentTokens("This server gives no development logins. Paste a token instead.");
    }
    const answer = (await response.json().catch(() => ({})));
    if (!response.ok || !answer.token)
        throw new Error(answer.detail ?? `The server answered HTTP ${response.status}.`);
    return answer.token;
}
/** The `sub` of a token, unchecked: the server checks. */
function subject(token) {
    try {
        const part = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
        const bytes = Uint8Array.from(atob(part), (letter) => letter.charCodeAt(0));
        return String(JSON.parse(new TextDecoder().decode(bytes)).sub);
    }
    catch {
        throw new Error("This is not a token: it has three parts with dots between them.");
    }
}

// ---- chat.ts

/**
 * The chat page: signs in, and joins the SDK's events, the list of conversations and the open one.
 *
 * What it knows of conversations is in `address_book.ts`, the messages on the screen in `message_log.ts`.
 * The order of messages, being offline and coming back are the SDK's; this page shows what it says.
 */
import { RingwayClient } from "/ringway.js";
/** The key under which a tab remembers its user over a reload. */
const USER_KEY = "ringway-user";
const HISTORY_PAGE = 50;
class Chat {
    #me;
    #client;
    #rooms = new Map();
    #log;
    #open;
    constructor(account) {
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
    #listen() {
        this.#client.on("status", (event) => {
            this.#showStatus(event);
            if (event.status === "online")
                void this.#refresh();
        });
        this.#client.on("message", (entry) => this.#took(entry));
        this.#client.on("conversation", (entry) => {
            this.#room(entry.conversationId).apply(entry);
            this.#took(entry);
            if (this.#open?.id === entry.conversationId)
                this.#showTitle(this.#open);
        });
        this.#client.on("failed", ({ pending, error }) => {
            if (pending.conversationId)
                this.#room(pending.conversationId).failed.push({ pending, reason: error.message });
            this.#showPending();
        });
    }
    #bind() {
        const draft = byId("draft");
        const composer = byId("composer");
        composer.addEventListener("submit", (event) => {
            event.preventDefault();
            const text = draft.value.trim();
            if (text === "" || !this.#open)
                return;
            draft.value = "";
            this.#send({ conversationId: this.#open.id, text });
            draft.focus();
        });
        draft.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing)
                return;
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
    #room(id) {
        let room = this.#rooms.get(id);
        if (!room) {
            room = new Room(id);
            this.#rooms.set(id, room);
            void this.#client.conversation(id).then((conversation) => {
                this.#learn(conversation);
                this.#showList();
                if (this.#open?.id === id)
                    this.#showTitle(this.#open);
            }, () => { }); // Without it the room is called by what its entries tell; the next time online asks again.
        }
        return room;
    }
    #learn(conversation) {
        const room = this.#rooms.get(conversation.conversationId) ?? new Room(conversation.conversationId);
        this.#rooms.set(room.id, room);
        room.learn(conversation);
        return room;
    }
    /** After each coming online: names and members may have changed meanwhile. */
    async #refresh() {
        try {
            for (const conversation of await this.#client.conversations())
                this.#learn(conversation);
            byId("no-conversations").hidden = this.#rooms.size > 0;
            this.#showList();
            const open = this.#open;
            if (!open)
                return;
            this.#showTitle(open);
            // Its first page may have failed while there was no network.
            if (!open.isLoaded)
                await this.#enter(open);
        }
        catch (problem) {
            console.warn("the list of conversations could not be read:", problem);
        }
    }
    #took(entry) {
        const room = this.#room(entry.conversationId);
        const index = room.add(entry);
        if (index !== undefined) {
            const isOpen = room === this.#open;
            if (isOpen)
                this.#log.added(entry, index);
            if (!entry.own && (!isOpen || document.hidden))
                room.unread += 1;
        }
        if (entry.own)
            this.#showPending();
        this.#showList();
    }
    async #enter(room) {
        this.#open = room;
        room.unread = 0;
        byId("app").classList.add("in-room");
        byId("room").classList.remove("empty-room");
        this.#showTitle(room);
        this.#log.show(room, this.#pendingOf(room));
        this.#showList();
        byId("draft").focus();
        if (room.isLoaded)
            return;
        const page = await this.#client.history(room.id, { limit: HISTORY_PAGE });
        for (const entry of page.messages)
            room.add(entry);
        room.isLoaded = true;
        room.isWhole = page.nextCursor === undefined;
        if (this.#open === room)
            this.#log.readHistory();
    }
    #leave() {
        this.#open = undefined;
        byId("app").classList.remove("in-room");
        byId("room").classList.add("empty-room");
        this.#log.clear();
        this.#showList();
    }
    async #loadOlder(room) {
        const first = room.entries[0];
        try {
            const page = await this.#client.history(room.id, { limit: HISTORY_PAGE, ...(first ? { before: first.seq } : {}) });
            for (const entry of page.messages)
                room.add(entry);
            room.isWhole = page.nextCursor === undefined;
        }
        catch (problem) {
            // Scrolling up again asks again.
            console.warn("older messages could not be read:", problem);
            await new Promise((resolve) => setTimeout(resolve, 2_000));
        }
    }
    // ---- sending -----------------------------------------------------------------------------------
    #send(draft) {
        // A refusal comes as the event `failed` too, which also tells of messages from before a reload; what
        // never entered the outbox is told here only.
        const before = new Set(this.#client.pending.map(({ clientMsgId }) => clientMsgId));
        const sent = this.#client.send(draft);
        const entered = this.#client.pending.some(({ clientMsgId }) => !before.has(clientMsgId));
        sent.catch((problem) => {
            if (entered || !draft.conversationId)
                return;
            const pending = { ...draft, clientMsgId: "", createdTs: Date.now() };
            this.#room(draft.conversationId).failed.push({ pending, reason: problem.message });
            this.#showPending();
        });
        this.#showPending();
        this.#log.toEnd();
    }
    #pendingOf(room) {
        return this.#client.pending.filter(({ conversationId }) => conversationId === room.id);
    }
    #showPending() {
        if (this.#open)
            this.#log.showPending(this.#pendingOf(this.#open));
    }
    // ---- the screen --------------------------------------------------------------------------------
    #showTitle(room) {
        const title = room.title(this.#me);
        byId("room-title").textContent = title;
        byId("room-members").textContent = room.subtitle(this.#me);
        paintAvatar(byId("room-avatar"), title);
        this.#log.nameAuthors();
    }
    #showList() {
        const newest = (room) => room.last?.serverTs ?? 0;
        const rooms = [...this.#rooms.values()].sort((one, other) => newest(other) - newest(one));
        const list = byId("conversations");
        const focused = document.activeElement?.dataset["conversation"];
        list.replaceChildren(...rooms.map((room) => element("li", "", this.#listButton(room))));
        if (focused)
            list.querySelector(`[data-conversation="${focused}"]`)?.focus();
        list.hidden = rooms.length === 0;
        if (rooms.length > 0)
            byId("no-conversations").hidden = true;
        const unread = rooms.reduce((sum, room) => sum + room.unread, 0);
        document.title = unread > 0 ? `(${unread}) Ringway` : "Ringway";
    }
    #listButton(room) {
        const title = room.title(this.#me);
        const avatar = element("span", "avatar");
        avatar.setAttribute("aria-hidden", "true");
        paintAvatar(avatar, title);
        const last = room.last;
        const said = last ? `${last.kind === "message" && last.own ? "You: " : ""}${summary(last, this.#me)}` : "";
        const button = element("button", "", avatar, element("span", "name", title), element("span", "time", last ? briefly(last.serverTs) : ""), element("span", "last", said));
        if (room.unread > 0) {
            const unread = element("span", "unread", String(room.unread));
            unread.append(element("span", "unseen", " unread"));
            button.append(unread);
        }
        button.dataset["conversation"] = room.id;
        if (room === this.#open)
            button.setAttribute("aria-current", "true");
        button.addEventListener("click", () => {
            this.#enter(room).catch((problem) => console.warn("history could not be read:", problem));
        });
        return button;
    }
    #showStatus(event) {
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
                if (seconds > 2)
                    text.replaceChildren(`Reconnecting in ${seconds} s. `, this.#connectButton("Now"));
                else
                    text.textContent = "Reconnecting…";
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
    #connectButton(label) {
        const button = element("button", "", label);
        button.addEventListener("click", () => this.#client.connect());
        return button;
    }
}
// ---- signing in ------------------------------------------------------------------------------------
function start(account) {
    byId("login").hidden = true;
    byId("app").hidden = false;
    byId("room").classList.add("empty-room");
    new Chat(account);
}
async function signIn(user, token) {
    const error = byId("login-error");
    error.textContent = "";
    try {
        const account = token ? tokenAccount(token) : await developmentAccount(user);
        if (!token)
            sessionStorage.setItem(USER_KEY, user);
        history.replaceState(null, "", "/");
        start(account);
    }
    catch (problem) {
        if (problem instanceof NoDevelopmentTokens) {
            byId("login-token-part").hidden = false;
            byId("login-user").required = false;
        }
        error.textContent = problem instanceof Error ? problem.message : String(problem);
    }
}
const userField = byId("login-user");
byId("login-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void signIn(userField.value.trim(), byId("login-token").value.trim());
});
userField.value = new URLSearchParams(location.search).get("user") ?? sessionStorage.getItem(USER_KEY) ?? "";
if (userField.value)
    void signIn(userField.value, "");
else
    userField.focus();
