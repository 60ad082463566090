/** When there is a socket: back-off, close codes, hand-over to another socket, heartbeat, tokens. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ack, FakeStorage, message, settled, World } from "./fake_world.mjs";

test("hello is the first frame, with the token, and says what it is", async () => {
  const world = new World();
  const { client, socket, told } = await world.online();
  assert.deepEqual(socket.protocols, ["ringway.v1.json"]);
  const hello = socket.heard[0];
  assert.equal(hello.type, "hello");
  assert.equal(hello.token, "token");
  assert.equal(hello.batch, true);
  assert.equal("resume" in hello, false);
  assert.equal("device_id" in hello, false);
  assert.equal(client.userId, "alice");
  assert.equal(client.deviceId, "phone");
  assert.deepEqual(told.of("status").map(({ status }) => status), ["connecting", "online"]);
});

test("lost sockets back off with full jitter, doubling from 1 s to 60 s", async () => {
  for (const chance of [0, 0.25, 0.999]) {
    const world = new World();
    world.chance = chance;
    world.client().connect();
    await settled();
    for (const span of [1, 2, 4, 8, 16, 32, 60, 60, 60]) {
      world.socket.end(1006);
      const waited = await world.untilDial();
      assert.ok(Math.abs(waited - chance * span * 1_000) < 1, `${waited} ms of a span of ${span} s at ${chance}`);
    }
  }
});

test("a socket that served a while starts the back-off anew, one that fell at once does not", async () => {
  const world = new World();
  await world.online();
  world.socket.end(1006);
  assert.equal(await world.untilDial(), 500);
  await world.welcome();
  await world.pass(100);
  world.socket.end(1006);
  assert.equal(await world.untilDial(), 1_000);
  await world.welcome();
  await world.pass(10_000);
  world.socket.end(1006);
  assert.equal(await world.untilDial(), 500);
});

test("the hundred of a close code says what to do, also of one that came later", async () => {
  for (const [code, wait] of [[4200, 0], [4202, 0], [4299, 0], [4100, 500], [4102, 500], [4105, 500], [4199, 500], [1001, 500], [1011, 500], [4000, undefined], [4001, undefined], [4009, undefined], [4099, undefined]]) {
    const world = new World();
    const { client, socket, told } = await world.online();
    await world.pass(10_000);
    socket.end(code, "why");
    assert.equal(await world.untilDial(), wait, `close code ${code}`);
    if (wait === undefined) {
      assert.deepEqual(told.of("status").at(-1), { status: "stopped", closeCode: code, reason: "why" });
      client.connect();
      await settled();
      assert.equal(world.sockets.length, 2, "connect() tries anew");
    }
  }
});

test("42xx on sockets that never served does not turn into a storm", async () => {
  const world = new World();
  world.client().connect();
  await settled();
  world.socket.end(4200);
  assert.equal(await world.untilDial(), 500);
  world.socket.end(4200);
  assert.equal(await world.untilDial(), 1_000);
});

test("the browser's word on the network ends the socket and brings the next at once", async () => {
  const world = new World();
  const { client, socket, told } = await world.online();
  world.network(false);
  assert.equal(client.status, "offline");
  assert.equal(socket.closedByClient, true);
  world.network(true);
  await settled();
  assert.equal(world.sockets.length, 2);
  await world.welcome();
  assert.equal(told.of("status").at(-1).status, "online");
});

test("without the network it still tries at times, because the browser may be wrong", async () => {
  const world = new World();
  const { client } = await world.online();
  world.network(false);
  assert.equal(await world.untilDial(), 500);
  await world.welcome();
  assert.equal(client.status, "online");
});

test("close is for good, and connect after it works", async () => {
  const world = new World();
  const { client, socket } = await world.online();
  client.close();
  assert.equal(socket.closedByClient, true);
  assert.equal(await world.untilDial(), undefined);
  client.connect();
  await world.welcome();
  assert.equal(client.status, "online");
});

test("who does not want to wait for the next try asks for it", async () => {
  const world = new World();
  const client = world.client();
  client.connect();
  client.connect();
  await settled();
  assert.equal(world.sockets.length, 1);
  world.socket.end(1006);
  client.connect();
  await settled();
  assert.equal(world.sockets.length, 2);
  await world.welcome();
  client.connect();
  await world.pass(5_000);
  assert.equal(world.sockets.length, 2, "the try that it waited for is off");
});

test("a server that never welcomes is given up after 15 s", async () => {
  const world = new World();
  world.client().connect();
  await settled();
  world.socket.open();
  assert.equal(await world.untilDial(), 15_500);
});

test("on `reconnect` the old socket serves until the new one is welcome", async () => {
  const world = new World();
  const { client, socket: old, told } = await world.online();
  old.say({ type: "reconnect", reason: "drain", url: "wss://other/ws", after_ms: 700, within_ms: 5_000 });
  const sent = client.send({ conversationId: "7", text: "under way" });
  assert.equal(await world.untilDial(), 700);
  assert.equal(world.socket.url, "wss://other/ws");
  old.say(message(1));
  assert.deepEqual(told.seqs("7"), [1], "the old one still serves");
  const successor = await world.welcome({ resume: "r2" });
  assert.equal(old.closedByClient, true);
  assert.equal(client.status, "online");
  assert.deepEqual(told.of("status").map(({ status }) => status), ["connecting", "online"], "nobody noticed");
  const [first] = old.of("send");
  const [again] = successor.of("send");
  assert.deepEqual(again, first);
  successor.say({ type: "heads", conversations: {}, recovered: true, resume: "r3" }, ack(again, 2));
  assert.equal((await sent).seq, 2);
});

test("the old socket's 4009 is the successor's doing, and no reason to stop", async () => {
  const world = new World();
  const { client, socket: old } = await world.online();
  old.say({ type: "reconnect", reason: "drain", after_ms: 0, within_ms: 1_000 });
  await world.pass(0);
  old.end(4009, "the same device connected anew");
  assert.equal(client.status, "reconnecting");
  await world.welcome();
  assert.equal(client.status, "online");
});

test("a successor that fails leaves the old socket in service, and is tried again", async () => {
  const world = new World();
  const { client, socket: old } = await world.online();
  old.say({ type: "reconnect", reason: "drain", after_ms: 0, within_ms: 60_000 });
  await world.pass(0);
  world.socket.end(1006);
  assert.equal(client.status, "online");
  assert.equal(await world.untilDial(), 500);
  await world.welcome();
  assert.equal(old.closedByClient, true);
});

test("a `reconnect` to an unprotected address is not followed there", async () => {
  const world = new World();
  const { socket } = await world.online();
  socket.say({ type: "reconnect", reason: "drain", url: "ws://other/ws", after_ms: 0, within_ms: 0 });
  await world.pass(0);
  assert.equal(world.socket.url, "wss://server/ws");
});

test("the first beat comes after a random part of the interval, the others after a whole one", async () => {
  const world = new World();
  world.chance = 0.1;
  const { socket } = await world.online();
  await world.pass(2_999);
  assert.equal(socket.of("ping").length, 0);
  await world.pass(1);
  assert.equal(socket.of("ping").length, 1);
  socket.say({ type: "pong", nonce: "1", server_ts: 1, resume: "r2" });
  await world.pass(30_000);
  assert.equal(socket.of("ping").length, 2);
});

test("a beat without any answer is a lost socket; any frame is an answer", async () => {
  const world = new World();
  const { client, socket } = await world.online();
  await world.pass(15_000);
  socket.say(message(1));
  await world.pass(10_000);
  assert.equal(client.status, "online");
  await world.pass(20_000 + 9_999);
  assert.equal(client.status, "online", "the second beat still has time");
  await world.pass(1);
  assert.equal(socket.closedByClient, true);
  assert.equal(client.status, "reconnecting");
  assert.equal(await world.untilDial(), 500);
});

test("before the token expires a fresh one goes on the same socket", async () => {
  const world = new World();
  let count = 0;
  const { socket, told } = await world.online({ token: async () => `token ${(count += 1)}` });
  socket.say({ type: "error", code: "token_expiring", message: "refresh it", temporary: true });
  await settled();
  assert.deepEqual(socket.of("refresh"), [{ type: "refresh", token: "token 2" }]);
  socket.say({ type: "welcome", ...{ user_id: "alice", device_id: "phone", resume: "r2", heartbeat_ms: 30_000 } });
  assert.equal(told.of("error").length, 0);
  assert.equal(told.of("status").length, 2, "no second online");
  socket.end(1006);
  await world.untilDial();
  await world.welcome();
  assert.equal(world.socket.heard[0].token, "token 3", "and a new connection asks for its own");
});

test("an application without a token is asked again, with back-off", async () => {
  const world = new World();
  let missing = true;
  const client = world.client({ token: () => (missing ? Promise.reject(new Error("signed out")) : "token") });
  const errors = [];
  client.on("error", (error) => errors.push(error.message));
  client.connect();
  await settled();
  assert.match(errors[0], /signed out/);
  missing = false;
  assert.equal(await world.untilDial(), 500);
});

test("the device that the server made is kept for the next page", async () => {
  const storage = new FakeStorage();
  const world = new World();
  const { client } = await world.online({ storage });
  client.close();
  const next = await world.online({ storage });
  assert.equal(next.socket.heard[0].device_id, "phone");
  assert.equal(next.socket.heard[0].resume, "r1");
});

test("frames of a later version, and a listener that throws, disturb nothing", async (context) => {
  context.mock.method(console, "error", () => {});
  const world = new World();
  const { client, socket, told } = await world.online();
  client.on("message", () => { throw new Error("the application's"); });
  socket.say({ type: "hologram", of: "bob" }, message(1), message(2));
  socket.onmessage({ data: "{ not json" });
  socket.say(message(3));
  assert.deepEqual(told.seqs("7"), [1, 2, 3]);
  assert.equal(told.of("error")[0].code, "bad_frame");
});
