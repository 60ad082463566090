/** Each entry once, in the order of its conversation, whatever the sockets do. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ack, FakeStorage, message, page, seeded, World } from "./fake_world.mjs";

const HEADS = { type: "heads", conversations: {}, recovered: true, resume: "r2" };

/** Loses the socket, and answers the next `hello` with these heads. */
async function comeBack(world, heads) {
  world.socket.end(1006);
  await world.untilDial();
  const socket = await world.welcome({ resume: "r-new" });
  socket.say({ ...HEADS, conversations: heads });
  return socket;
}

test("live entries follow each other, several in a frame, and duplicates are dropped", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  socket.say(message(5), message(6));
  socket.say(message(6), message(5), message(7));
  assert.deepEqual(told.seqs("7"), [5, 6, 7]);
  assert.deepEqual(told.of("message")[0], { kind: "message", conversationId: "7", messageId: "1005", seq: 5, from: "bob", serverTs: 5, own: false, text: "text 5" });
  assert.equal(socket.of("sync").length, 0);
});

test("a change has its place in the order like a message", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  socket.say(message(1), { type: "conversation", change: "renamed", conversation_id: "7", message_id: "1002", seq: 2, from: "bob", server_ts: 2, name: "Tea" }, message(3));
  assert.deepEqual(told.seqs("7"), [1, 2, 3]);
  assert.deepEqual(told.of("conversation"), [{ kind: "renamed", conversationId: "7", messageId: "1002", seq: 2, from: "bob", serverTs: 2, own: false, name: "Tea" }]);
});

test("behind a hole live entries wait until a sync has filled it", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  socket.say(message(1), message(4), message(5));
  assert.deepEqual(told.seqs("7"), [1]);
  assert.deepEqual(socket.of("sync"), [{ type: "sync", last_seen: { 7: 1 } }]);
  socket.say(page("7", [2, 3], true));
  assert.deepEqual(told.seqs("7"), [1, 2, 3]);
  socket.say(page("7", [4]), { type: "sync_done" });
  assert.deepEqual(told.seqs("7"), [1, 2, 3, 4, 5]);
  socket.say(message(6));
  assert.deepEqual(told.seqs("7"), [1, 2, 3, 4, 5, 6]);
  assert.equal(socket.of("sync").length, 1);
});

test("the ack of one's own message waits for what is before it", async () => {
  const world = new World();
  const { client, socket, told } = await world.online();
  socket.say(message(1));
  const sent = client.send({ conversationId: "7", text: "mine" });
  socket.say(ack(socket.of("send")[0], 3));
  assert.equal((await sent).seq, 3, "the ack itself is known at once");
  assert.deepEqual(told.seqs("7"), [1]);
  // The sync was answered from before 3 was stored, and 2 comes live: 3 is not let past it.
  socket.say(page("7", [2]), { type: "sync_done" });
  assert.deepEqual(told.seqs("7"), [1, 2, 3]);
});

test("an entry that came after the asking is not let past one that is still to come", async () => {
  const world = new World();
  const { client, socket, told } = await world.online();
  socket.say(message(1), { type: "gap", conversation_id: "7", after_seq: 1 });
  client.send({ conversationId: "7", text: "mine" });
  socket.say(ack(socket.of("send")[0], 3), { type: "sync_done" });
  assert.deepEqual(told.seqs("7"), [1]);
  assert.equal(socket.of("sync").length, 2, "it asks again instead");
  socket.say(page("7", [2]), { type: "sync_done" });
  assert.deepEqual(told.seqs("7"), [1, 2, 3]);
});

test("a seq that a sync leaves out is not for this user, and holds nothing up", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  socket.say(message(1), message(9));
  socket.say({ type: "sync_done" });
  assert.deepEqual(told.seqs("7"), [1, 9]);
  socket.say(message(10));
  assert.deepEqual(told.seqs("7"), [1, 9, 10]);
  assert.equal(socket.of("sync").length, 1);
});

test("one's own joining starts the stream anew, without asking for what was before", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  const joined = (seq) => ({ type: "conversation", change: "member_added", conversation_id: "7", message_id: String(1_000 + seq), seq, from: "bob", server_ts: seq, user_id: "alice", role: "member" });
  socket.say(joined(4), message(5), joined(20), message(21));
  assert.deepEqual(told.seqs("7"), [4, 5, 20, 21]);
  assert.equal(socket.of("sync").length, 0);
});

test("after a loss: the newest cursor, then a sync of what is behind and of nothing else", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  socket.say(message(1), message(3, { conversation_id: "8" }), { type: "pong", nonce: "1", server_ts: 1, resume: "r9" });
  const next = await comeBack(world, { 7: 3, 8: 3, 9: 2 });
  assert.equal(next.heard[0].resume, "r9");
  assert.deepEqual(next.of("sync"), [{ type: "sync", last_seen: { 7: 1, 9: 0 } }]);
  next.say(message(4), message(3, { conversation_id: "9" }), page("9", [1, 2]), page("7", [2, 3]), { type: "sync_done" });
  assert.deepEqual(told.seqs("7"), [1, 2, 3, 4], "what came live meanwhile waited");
  assert.deepEqual(told.seqs("8"), [3]);
  assert.deepEqual(told.seqs("9"), [1, 2, 3], "a conversation that began meanwhile, from its start");
});

test("a cursor that the server does not know: followed conversations are synced, others begin now", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  socket.say(message(1));
  const next = await comeBack(world, {});
  next.say({ ...HEADS, recovered: false, conversations: { 7: 2, 8: 500 } });
  assert.deepEqual(next.of("sync"), [{ type: "sync", last_seen: { 7: 1 } }]);
  next.say(page("7", [2]), { type: "sync_done" }, message(501, { conversation_id: "8" }));
  assert.deepEqual(told.seqs("7"), [1, 2]);
  assert.deepEqual(told.seqs("8"), [501]);
});

test("the cursor of `welcome` counts only after `heads` has told what the old one owed", async () => {
  const world = new World();
  await world.online();
  world.socket.end(1006);
  await world.untilDial();
  const second = await world.welcome({ resume: "too new" });
  second.say({ type: "pong", nonce: "1", server_ts: 1, resume: "too new as well" });
  second.end(1006);
  await world.untilDial();
  const third = await world.welcome({ resume: "r3" });
  assert.equal(third.heard[0].resume, "r1");
  third.say({ ...HEADS, resume: "r4", more: true });
  third.end(1006);
  await world.untilDial();
  const fourth = await world.welcome({ resume: "r5" });
  assert.equal(fourth.heard[0].resume, "r1", "nor after the first of several pages");
  fourth.say({ ...HEADS, resume: "r6", more: true }, { ...HEADS, resume: "r6", more: false });
  fourth.end(1006);
  await world.untilDial();
  await world.welcome();
  assert.equal(world.socket.heard[0].resume, "r6");
});

test("what was behind when the socket or the page went is still behind on the next", async () => {
  const storage = new FakeStorage();
  const world = new World();
  const { socket, told } = await world.online({ storage });
  socket.say(message(1));
  const next = await comeBack(world, { 7: 5 });
  next.say(page("7", [2, 3], true));
  const third = await comeBack(world, {});
  assert.deepEqual(third.of("sync"), [{ type: "sync", last_seen: { 7: 3 } }]);
  assert.deepEqual(told.seqs("7"), [1, 2, 3]);
  await world.pass(1_000);
  const reloaded = await world.online({ storage });
  reloaded.socket.say(HEADS);
  assert.deepEqual(reloaded.socket.of("sync"), [{ type: "sync", last_seen: { 7: 3 } }]);
  reloaded.socket.say(page("7", [4, 5]), { type: "sync_done" });
  assert.deepEqual(reloaded.told.seqs("7"), [4, 5]);
});

test("a gap of one conversation is synced from the last seen, while the others flow", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  socket.say(message(1), { type: "gap", conversation_id: "7", after_seq: 1 }, message(8), message(1, { conversation_id: "8" }));
  assert.deepEqual(told.of("gap"), [{ conversationId: "7", afterSeq: 1 }]);
  assert.deepEqual(socket.of("sync"), [{ type: "sync", last_seen: { 7: 1 } }]);
  assert.deepEqual(told.seqs("8"), [1]);
  socket.say(page("7", [2, 3, 4, 5, 6, 7, 8]), { type: "sync_done" }, message(9));
  assert.deepEqual(told.seqs("7"), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test("a gap in a conversation that was never seen begins where the gap says", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  socket.say({ type: "gap", conversation_id: "7", after_seq: 40 });
  assert.deepEqual(socket.of("sync"), [{ type: "sync", last_seen: { 7: 40 } }]);
  socket.say(page("7", [41]), { type: "sync_done" });
  assert.deepEqual(told.seqs("7"), [41]);
});

test("a gap without a conversation: hello again after `after_ms`, with the cursor of before", async () => {
  const world = new World();
  const { client, socket, told } = await world.online();
  socket.say(message(1), { type: "gap", after_ms: 400 });
  socket.say({ type: "pong", nonce: "1", server_ts: 1, resume: "after the loss" });
  await world.pass(399);
  assert.equal(socket.of("hello").length, 1);
  await world.pass(1);
  assert.equal(socket.of("hello")[1].resume, "r1");
  socket.say({ type: "welcome", user_id: "alice", device_id: "phone", resume: "r5", heartbeat_ms: 30_000 }, { ...HEADS, conversations: { 7: 3 }, resume: "r5" });
  assert.deepEqual(socket.of("sync"), [{ type: "sync", last_seen: { 7: 1 } }]);
  socket.say(page("7", [2, 3]), { type: "sync_done" });
  assert.deepEqual(told.seqs("7"), [1, 2, 3]);
  assert.equal(client.status, "online");
  assert.equal(world.sockets.length, 1);
});

test("more than one sync serves is asked for until all is here", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  const heads = Object.fromEntries(Array.from({ length: 250 }, (_, index) => [String(100 + index), 2]));
  for (const conversation of Object.keys(heads)) socket.say(message(1, { conversation_id: conversation }));
  const next = await comeBack(world, heads);
  const [first] = next.of("sync");
  const asked = Object.keys(first.last_seen);
  assert.equal(asked.length, 200);
  // The server comes to its bound in the middle of the second conversation, before the others.
  next.say(page(asked[0], [2]), page(asked[1], [2], true), { type: "sync_done" });
  const second = next.of("sync")[1];
  assert.equal(second.last_seen[asked[0]], undefined);
  assert.equal(second.last_seen[asked[1]], 2);
  assert.equal(second.last_seen[asked[2]], 1);
  for (let round = 1; round < 4; round += 1) {
    const sync = next.of("sync")[round];
    if (!sync) break;
    for (const [conversation, seq] of Object.entries(sync.last_seen)) if (seq < 2) next.say(page(conversation, [2]));
    next.say({ type: "sync_done" });
  }
  for (const conversation of Object.keys(heads)) assert.deepEqual(told.seqs(conversation), [1, 2]);
  assert.equal(next.of("sync").length, 3);
});

test("a sync that is not answered, or is over the rate, is asked again", async () => {
  const world = new World();
  const { socket } = await world.online();
  socket.say(message(1), message(3));
  await world.pass(14_000);
  socket.say({ type: "error", code: "rate_limited", message: "wait", temporary: true, retry_after_ms: 100 });
  await world.pass(100);
  assert.equal(socket.of("sync").length, 2);
  for (let beat = 0; beat < 4; beat += 1) {
    await world.pass(9_000);
    socket.say({ type: "pong", nonce: "1", server_ts: 1 });
  }
  assert.equal(socket.of("sync").length, 3);
});

test("one conversation that is refused for good does not hold up the others", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  socket.say(message(1), message(1, { conversation_id: "8" }));
  const next = await comeBack(world, { 7: 2, 8: 2 });
  const refusal = { type: "error", code: "not_found", message: "conversation 7: no such conversation", temporary: false };
  next.say(refusal, page("8", [2]), { type: "sync_done" });
  assert.deepEqual(told.seqs("8"), [1, 2]);
  assert.deepEqual(next.of("sync")[1].last_seen, { 7: 1 });
  next.say(refusal, { type: "sync_done" });
  await world.pass(10_000);
  assert.equal(next.of("sync").length, 2);
});

test("a conversation that cannot be read now is asked for again, at growing intervals", async () => {
  const world = new World();
  const { socket, told } = await world.online();
  socket.say(message(1), message(3));
  const times = [];
  for (let round = 1; round <= 5; round += 1) {
    const from = world.time;
    while (socket.of("sync").length < round) await world.pass(50);
    times.push(world.time - from);
    socket.say(
      { type: "error", code: "unavailable", message: "conversation 7: cannot be read now", temporary: true, retry_after_ms: 500 },
      { type: "gap", conversation_id: "7", after_seq: 1 },
      { type: "sync_done" },
    );
  }
  assert.deepEqual(times, [0, 0, 2_000, 4_000, 8_000]);
  while (socket.of("sync").length < 6) await world.pass(50), socket.say({ type: "pong", nonce: "1", server_ts: 1 });
  socket.say(page("7", [2, 3]), { type: "sync_done" });
  assert.deepEqual(told.seqs("7"), [1, 2, 3]);
});

test("a gap while heads are awaited is asked about after they came", async () => {
  const world = new World();
  const { socket } = await world.online();
  socket.say(message(1));
  world.socket.end(1006);
  await world.untilDial();
  const next = await world.welcome({ resume: "r2" });
  next.say({ type: "gap", after_ms: 100 });
  await world.pass(1_000);
  assert.equal(next.of("hello").length, 1, "the server answers one hello at a time");
  next.say({ ...HEADS, resume: "r3" });
  assert.equal(next.of("hello").length, 2);
  assert.equal(next.of("hello")[1].resume, "r1", "from before the gap");
  next.say({ ...HEADS, resume: "r4" });
  assert.equal(next.of("hello").length, 2);
});

/**
 * A server with one long conversation, that loses sockets, leaves bodies out and repeats itself as the
 * protocol allows, against the promise: every entry once, in order.
 */
test("over random losses, gaps and repetitions every entry is told once, in order", async () => {
  for (let seed = 1; seed <= 60; seed += 1) {
    const chance = seeded(seed);
    const world = new World();
    world.chance = 0;
    const { told, client } = await world.online({}, { heartbeat_ms: 1e9 });
    let stored = 0;
    let queued = 0; // The last seq that this socket was given, or told to sync.
    let answered = 0;
    const says = (seq) => (seq % 7 === 0 ? { type: "conversation", change: "renamed", conversation_id: "7", message_id: String(1_000 + seq), seq, from: "bob", server_ts: seq, name: String(seq) } : message(seq));
    world.socket.say(says((stored = queued = 1)));
    for (let step = 0; step < 120; step += 1) {
      const dice = chance();
      if (dice < 0.5) stored += 1 + Math.floor(chance() * 3);
      if (dice < 0.35 && queued < stored) world.socket.say(...Array.from({ length: stored - queued }, (_, index) => says(queued + 1 + index)));
      else if (dice < 0.5) world.socket.say({ type: "gap", conversation_id: "7", after_seq: queued }), (chance() < 0.5 && world.socket.say(says(stored)));
      else if (dice < 0.6 && queued > 2) world.socket.say(says(queued - 1), says(queued));
      else if (dice < 0.7) {
        world.socket.end(1006);
        await world.untilDial();
        answered = 0;
        await world.welcome({ resume: String(stored), heartbeat_ms: 1e9 });
        const resume = world.socket.heard[0].resume;
        if (resume !== undefined) world.socket.say({ ...HEADS, conversations: { 7: stored }, resume: String(stored) });
      } else if (dice < 0.95 || step > 110) {
        const asked = world.socket.of("sync")[answered];
        if (asked) {
          answered += 1;
          const after = asked.last_seen[7];
          const half = after + Math.ceil((stored - after) / 2);
          const seqs = (from, to) => Array.from({ length: Math.max(0, to - from) }, (_, index) => from + 1 + index);
          const items = (list, more) => ({ ...page("7", list, more), messages: list.map((seq) => ({ ...says(seq), kind: says(seq).change ?? "message" })) });
          world.socket.say(items(seqs(after, half), true));
          if (chance() < 0.3) world.socket.say({ type: "sync_done" });
          else world.socket.say(items(seqs(half, stored), false), { type: "sync_done" });
        }
      }
      queued = stored;
    }
    for (let round = 0; round < 20 && world.socket.of("sync")[answered]; round += 1) {
      const after = world.socket.of("sync")[answered].last_seen[7];
      answered += 1;
      world.socket.say(page("7", Array.from({ length: stored - after }, (_, index) => after + 1 + index)), { type: "sync_done" });
    }
    world.socket.say(says(stored + 1));
    const told7 = told.seqs("7");
    assert.deepEqual(told7, Array.from({ length: told7.length }, (_, index) => index + 1), `order, seed ${seed}`);
    assert.equal(told7.length, stored + 1, `completeness, seed ${seed}`);
    client.close();
  }
});
