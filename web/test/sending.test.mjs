/** What was said is kept and sent until its ack comes, under one client_msg_id. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ack, FakeStorage, message, page, record, settled, World } from "./fake_world.mjs";

/** The next answer to a promise, without waiting for it. */
async function outcome(promise) {
  let result = "waiting";
  promise.then((value) => (result = value), (error) => (result = error));
  await settled();
  return result;
}

test("send resolves at the ack, and the message is told once, as one's own", async () => {
  const world = new World();
  const { client, socket, told } = await world.online();
  const sent = client.send({ to: "bob", text: "hello" });
  assert.equal(await outcome(sent), "waiting");
  assert.equal(told.of("message").length, 0, "nothing is shown as stored before it is");
  const [frame] = socket.of("send");
  assert.match(frame.client_msg_id, /^[0-9a-f]{32}$/);
  assert.deepEqual(frame, { type: "send", to: "bob", client_msg_id: frame.client_msg_id, text: "hello" });
  socket.say(ack(frame, 2));
  assert.deepEqual(await sent, { clientMsgId: frame.client_msg_id, conversationId: "7", messageId: "1002", seq: 2, serverTs: 2, duplicate: false });
  assert.deepEqual(told.of("message"), [
    { kind: "message", conversationId: "7", messageId: "1002", seq: 2, serverTs: 2, from: "alice", own: true, text: "hello", clientMsgId: frame.client_msg_id },
  ]);
  assert.deepEqual(client.pending, []);
  socket.say(ack(frame, 2, { duplicate: true }));
  assert.equal(told.of("message").length, 1);
});

test("whatever is lost of a send, it goes again under the same id, over as many sockets as it takes", async () => {
  const world = new World();
  const { client, told } = await world.online();
  const sent = client.send({ conversationId: "7", text: "persistent", replyTo: "1001", mediaIds: ["m"] });
  const frames = [];
  for (let round = 0; round < 5; round += 1) {
    frames.push(...world.socket.of("send"));
    world.socket.end(1006);
    await world.untilDial();
    await world.welcome();
  }
  const last = world.socket.of("send")[0];
  assert.equal(frames.length, 5, "once a socket");
  for (const frame of frames) assert.deepEqual(frame, last);
  world.socket.say({ type: "heads", conversations: {}, recovered: true, resume: "r2" }, ack(last, 5, { duplicate: true }));
  assert.equal((await sent).duplicate, true);
  assert.deepEqual(told.seqs("7"), [5]);
});

test("a message whose ack was lost comes by the sync, and is told once", async () => {
  const world = new World();
  const { client, socket, told } = await world.online();
  socket.say(message(1));
  const sent = client.send({ conversationId: "7", text: "mine" });
  const [frame] = socket.of("send");
  socket.end(1006);
  await world.untilDial();
  const next = await world.welcome({ resume: "r2" });
  next.say({ type: "heads", conversations: { 7: 2 }, recovered: true, resume: "r2" });
  const pendingWhenTold = [];
  client.on("message", () => pendingWhenTold.push(client.pending.length));
  next.say({ type: "messages", conversation_id: "7", more: false, messages: [{ ...message(2), from: "alice", client_msg_id: frame.client_msg_id }] }, { type: "sync_done" });
  assert.equal((await sent).seq, 2);
  assert.deepEqual(pendingWhenTold, [0], "what is told as stored is pending no more");
  next.say(ack(frame, 2, { duplicate: true }));
  assert.deepEqual(told.seqs("7"), [1, 2]);
});

test("what is said without a socket goes out in its order once there is one", async () => {
  const world = new World();
  const client = world.client();
  const sent = ["one", "two", "three"].map((text) => client.send({ conversationId: "7", text }));
  client.connect();
  const socket = await world.welcome();
  assert.deepEqual(socket.of("send").map(({ text }) => text), ["one", "two", "three"]);
  socket.of("send").forEach((frame, index) => socket.say(ack(frame, index + 1)));
  assert.deepEqual((await Promise.all(sent)).map(({ seq }) => seq), [1, 2, 3]);
});

test("the outbox is bounded, and says so", async () => {
  const world = new World();
  const client = world.client({ outboxMax: 2 });
  client.send({ conversationId: "7", text: "one" });
  client.send({ conversationId: "7", text: "two" });
  await assert.rejects(client.send({ conversationId: "7", text: "three" }), { code: "outbox_full", temporary: true });
  assert.equal(client.pending.length, 2);
});

test("unsent messages outlive the page", async () => {
  const storage = new FakeStorage();
  const world = new World();
  const before = await world.online({ storage });
  before.client.send({ conversationId: "7", text: "kept" });
  const [frame] = before.socket.of("send");

  const reloaded = world.client({ storage });
  const told = record(reloaded);
  assert.deepEqual(reloaded.pending.map(({ text }) => text), ["kept"]);
  reloaded.connect();
  const socket = await world.welcome();
  assert.deepEqual(socket.of("send"), [frame]);
  socket.say({ type: "heads", conversations: {}, recovered: true, resume: "r2" }, ack(frame, 1));
  assert.deepEqual(told.of("message").map(({ text }) => text), ["kept"]);
  assert.deepEqual(world.client({ storage }).pending, []);
});

test("a message older than the server's memory of ids is not tried again", async () => {
  const world = new World();
  const client = world.client();
  const told = record(client);
  const old = client.send({ conversationId: "7", text: "old" });
  await world.pass(86_400_001);
  client.send({ conversationId: "7", text: "new" });
  client.connect();
  const expired = assert.rejects(old, { code: "outcome_unknown" });
  const socket = await world.welcome();
  await expired;
  assert.deepEqual(told.of("failed").map(({ pending }) => pending.text), ["old"]);
  assert.deepEqual(socket.of("send").map(({ text }) => text), ["new"]);
});

test("a temporary error is a later try of the same; another one is the end of it", async () => {
  const world = new World();
  const { client, socket, told } = await world.online();
  const retried = client.send({ conversationId: "7", text: "retried" });
  const refused = client.send({ conversationId: "8", text: "refused" });
  const [first, second] = socket.of("send");
  socket.say({ type: "error", code: "unavailable", message: "try again", temporary: true, retry_after_ms: 250, client_msg_id: first.client_msg_id });
  socket.say({ type: "error", code: "not_found", message: "no such conversation", temporary: false, client_msg_id: second.client_msg_id });
  await assert.rejects(refused, { code: "not_found", message: "no such conversation" });
  assert.equal(told.of("failed").length, 1);
  await world.pass(249);
  assert.equal(socket.of("send").length, 2);
  await world.pass(1);
  assert.deepEqual(socket.of("send")[2], first);
  socket.say(ack(first, 1));
  assert.equal((await retried).seq, 1);
});

test("a window's worth of sends is under way at most", async () => {
  const world = new World();
  const { client, socket } = await world.online({}, { limits: { max_inflight: 3 } });
  for (let index = 0; index < 10; index += 1) client.send({ conversationId: "7", text: String(index) });
  assert.equal(socket.of("send").length, 3);
  socket.say(ack(socket.of("send")[0], 1), ack(socket.of("send")[1], 2));
  assert.equal(socket.of("send").length, 5);
});

test("sends stay within the server's burst and rate", async () => {
  const world = new World();
  const { client, socket } = await world.online({}, { limits: { send_burst: 20, send_per_s: 10 } });
  for (let index = 0; index < 60; index += 1) client.send({ conversationId: "7", text: String(index) });
  assert.equal(socket.of("send").length, 18);
  await world.pass(2_000);
  const sent = socket.of("send").length;
  assert.ok(sent >= 34 && sent <= 36, `${sent} after 2 s at 90 % of 10 a second`);
  const [frame] = socket.of("send").slice(-1);
  socket.say({ type: "error", code: "rate_limited", message: "slower", temporary: true, retry_after_ms: 1_000, client_msg_id: frame.client_msg_id });
  await world.pass(5_000);
  assert.equal(socket.of("send").filter(({ client_msg_id }) => client_msg_id === frame.client_msg_id).length, 2);
});

test("what can never be sent is refused at once", async () => {
  const world = new World();
  const { client, socket } = await world.online();
  await assert.rejects(client.send({ text: "to nobody" }), { code: "invalid" });
  await assert.rejects(client.send({ to: "bob", conversationId: "7", text: "to two" }), { code: "invalid" });
  await assert.rejects(client.send({ to: "bob", text: "x".repeat(65_536) }), { code: "too_large" });
  await assert.rejects(client.send({ to: "bob", text: "x", clientMsgId: "é".repeat(33) }), { code: "invalid" });
  client.send({ to: "bob", text: "x", clientMsgId: "mine" });
  await assert.rejects(client.send({ to: "bob", text: "x", clientMsgId: "mine" }), { code: "invalid" });
  assert.equal(socket.of("send").length, 1);
});

test("one user's unsent messages never go out as another's", async (context) => {
  const storage = new FakeStorage();
  const world = new World();
  const alice = world.client({ storage });
  alice.connect();
  (await world.welcome()).say(message(4), page("9", [1]));
  alice.send({ conversationId: "7", text: "alice's" });
  alice.close();
  context.mock.method(console, "error", () => {});
  const bob = world.client({ storage });
  const told = record(bob);
  bob.connect();
  const socket = await world.welcome({ user_id: "bob" });
  assert.equal(socket.of("send").length, 0);
  assert.deepEqual(told.of("failed").map(({ error }) => error.code), ["forbidden"]);
  socket.say({ type: "heads", conversations: { 7: 9 }, recovered: false, resume: "r2" }, message(1, { conversation_id: "8" }));
  assert.deepEqual(socket.of("sync"), []);
  assert.deepEqual(told.seqs("8"), [1]);
});
