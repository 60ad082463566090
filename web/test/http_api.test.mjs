/** History and conversations over HTTP, and how they meet the live stream. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { message, World } from "./fake_world.mjs";

const json = (body, status = 200, headers = {}) => new Response(JSON.stringify(body), { status, headers });

test("history is asked with a token, and comes as entries", async () => {
  const world = new World();
  const { client } = await world.online();
  world.answer = () => json({ messages: [{ ...message(9), from: "alice" }, message(8)], next_cursor: "c8" });
  const { messages, nextCursor } = await client.history("7", { before: 10, limit: 2 });
  const [request] = world.requests;
  assert.equal(request.url, "https://server/api/v1/conversations/7/messages?before=10&limit=2");
  assert.equal(request.headers.Authorization, "Bearer token");
  assert.deepEqual(messages.map(({ seq, own }) => [seq, own]), [[9, true], [8, false]]);
  assert.equal(nextCursor, "c8");
});

test("all pages of the conversations are read", async () => {
  const world = new World();
  const { client } = await world.online();
  const item = (id) => ({ conversation_id: id, type: "group", name: `group ${id}`, members: [{ user_id: "bob", role: "owner" }], member_count: 1, role: "member", last_seq: 3, last_message: message(3, { conversation_id: id }) });
  world.answer = (url) => (url.endsWith("cursor=2") ? json({ conversations: [item("9")], next_cursor: null }) : json({ conversations: [item("7"), item("8")], next_cursor: "2" }));
  const all = await client.conversations();
  assert.deepEqual(all.map(({ conversationId }) => conversationId), ["7", "8", "9"]);
  assert.deepEqual(all[0].members, [{ userId: "bob", role: "owner" }]);
  assert.equal(all[0].lastMessage.text, "text 3");
});

test("events go on where the first answer ended, so that nothing is between the two", async () => {
  const world = new World();
  const { client, socket, told } = await world.online();
  world.answer = () => json({ messages: [message(3), message(2)], next_cursor: null });
  await client.history("7");
  socket.say(message(3), message(4), message(6));
  assert.deepEqual(told.seqs("7"), [4]);
  assert.deepEqual(socket.of("sync"), [{ type: "sync", last_seen: { 7: 4 } }]);
});

test("a refused token is asked for anew, once", async () => {
  const world = new World();
  let count = 0;
  const client = world.client({ token: () => `token ${(count += 1)}` });
  world.answer = (_, { headers }) => (headers.Authorization === "Bearer token 2" ? json({ conversations: [] }) : json({ code: "unauthorized" }, 401));
  assert.deepEqual(await client.conversations(), []);
  world.answer = () => json({ code: "unauthorized", detail: "the token is expired" }, 401);
  await assert.rejects(client.conversations(), { code: "unauthorized", message: "the token is expired" });
  assert.equal(world.requests.length, 4);
});

test("a problem becomes an error that says what to do and when", async () => {
  const world = new World();
  const client = world.client();
  world.answer = () => json({ code: "rate_limited", title: "Too many requests", detail: "slower" }, 429, { "Retry-After": "3" });
  await assert.rejects(client.conversation("7"), { code: "rate_limited", message: "slower", temporary: true, retryAfterMs: 3_000 });
  world.answer = () => Promise.reject(new TypeError("fetch failed"));
  await assert.rejects(client.conversation("7"), { code: "network", temporary: true });
  world.answer = () => new Response("<h1>Bad gateway</h1>", { status: 502 });
  await assert.rejects(client.conversation("7"), { code: "http_502", temporary: true });
});

test("making a conversation names its idempotency key", async () => {
  const world = new World();
  const client = world.client();
  world.answer = () => json({ conversation_id: "7", type: "direct", members: [], member_count: 2, role: "owner", last_seq: 1 }, 201);
  const made = await client.createConversation({ type: "direct", memberIds: ["bob"] });
  assert.equal(made.conversationId, "7");
  const [request] = world.requests;
  assert.equal(request.method, "POST");
  assert.deepEqual(JSON.parse(request.body), { type: "direct", member_ids: ["bob"] });
  assert.match(request.headers["Idempotency-Key"], /^[0-9a-f]{32}$/);
});
