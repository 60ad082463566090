/**
 * Two headless Chromium windows chat through a running `ringway serve`, and lose nothing.
 *
 *     node test/browser.mjs https://127.0.0.1:8443 [folder for screenshots] [--no-restart]
 *
 * The server's data folder is a fresh one. In the middle the server has to be killed and started anew on
 * the same address: this test says `restart` on its standard output and reads `restarted` on its standard
 * input, or runs `RESTART_COMMAND` if that is set. `CHROMIUM` names the browser; else `chromium` is found
 * on the path. The certificate is a development one, so these two windows do not check it.
 */

import assert from "node:assert/strict";
import { execFileSync, execSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

const WAIT_MS = 60_000;
const words = process.argv.slice(2).filter((word) => !word.startsWith("--"));
const [url, screenshots = "screenshots"] = words;
const restarts = !process.argv.includes("--no-restart");
if (!url) {
  console.error("usage: node test/browser.mjs URL [SCREENSHOTS] [--no-restart]");
  process.exit(2);
}
mkdirSync(screenshots, { recursive: true });

const executablePath = process.env.CHROMIUM ?? execFileSync("sh", ["-c", "command -v chromium || command -v chromium-browser || true"]).toString().trim();
if (!executablePath) {
  console.error("no Chromium: install it (on Debian: apt-get install chromium), or name it in CHROMIUM");
  process.exit(2);
}

/** One user's window. */
class Window {
  static async open(browser, user, settings = {}) {
    const window = new Window();
    window.user = user;
    window.context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1080, height: 720 }, ...settings });
    window.page = await window.context.newPage();
    window.page.setDefaultTimeout(WAIT_MS);
    window.faults = [];
    window.page.on("pageerror", (error) => window.faults.push(String(error)));
    window.page.on("console", (line) => /Content Security Policy/.test(line.text()) && window.faults.push(line.text()));
    window.page.on("dialog", (dialog) => window.faults.push(`a dialog: ${dialog.message()}`));
    return window;
  }

  async status(wanted) {
    await this.page.locator(`#status[data-status="${wanted}"]`).waitFor();
  }

  async start(type, members, name) {
    await this.page.click("#new-chat");
    await this.page.check(`#new-form input[value="${type}"]`);
    if (name) await this.page.fill("#new-name", name);
    await this.page.fill("#new-members", members);
    await this.page.click("#new-form [type=submit]");
    await this.page.locator("#new-dialog").waitFor({ state: "hidden" });
  }

  async enter(title) {
    await this.page.locator("#conversations button", { has: this.page.locator(".name", { hasText: new RegExp(`^${title}$`) }) }).click();
    await this.page.locator("#room-title", { hasText: title }).waitFor();
  }

  async say(text) {
    await this.page.fill("#draft", text);
    await this.page.press("#draft", "Enter");
  }

  /** Texts of the open conversation in the order of the screen. */
  async texts() {
    return this.page.locator("#entries .text").allTextContents();
  }

  async seqs() {
    return this.page.locator("#entries > li").evaluateAll((items) => items.map((item) => Number(item.dataset.seq)));
  }

  /** Waits until the last texts are these, in this order. */
  async sees(...wanted) {
    const ends = ([all, wanted]) => JSON.stringify(all.slice(-wanted.length)) === JSON.stringify(wanted);
    await this.until(async () => ends([await this.texts(), wanted]), async () => `${this.user} sees ${JSON.stringify((await this.texts()).slice(-wanted.length - 2))} and should see ${JSON.stringify(wanted)}`);
  }

  async pending(count) {
    await this.until(async () => (await this.page.locator("#pending .pending").count()) === count, async () => `${this.user} has ${await this.page.locator("#pending .pending").count()} pending messages and should have ${count}`);
  }

  async until(condition, complaint) {
    const end = Date.now() + WAIT_MS;
    while (!(await condition())) {
      if (Date.now() > end) assert.fail(await complaint());
      await this.page.waitForTimeout(50);
    }
  }

  async picture(name) {
    await this.page.screenshot({ path: join(screenshots, `${name}.png`) });
  }
}

const stdin = createInterface({ input: process.stdin });
const answers = stdin[Symbol.asyncIterator]();

async function restart() {
  if (process.env.RESTART_COMMAND) {
    execSync(process.env.RESTART_COMMAND, { stdio: "ignore" });
    return;
  }
  process.stdout.write("restart\n");
  const { value } = await answers.next();
  assert.equal(value, "restarted", "the caller restarts the server and says so on standard input");
}

async function signInBothWays(alice, bob) {
  await alice.page.goto(`${url}/?user=alice`);
  await bob.page.goto(url);
  await bob.picture("1-sign-in");
  await bob.page.fill("#login-user", "bob");
  await bob.page.click("#login-form [type=submit]");
  await alice.status("online");
  await bob.status("online");
  assert.equal(await alice.page.textContent("#me"), "alice");
}

async function exchange(alice, bob) {
  await alice.start("direct", "bob");
  await alice.say("Hi Bob, is this thing on?");
  await bob.enter("alice");
  await bob.sees("Hi Bob, is this thing on?");
  await bob.say("It is. And durable, they say: the tick means that it was fsynced.");
  await alice.sees("Hi Bob, is this thing on?", "It is. And durable, they say: the tick means that it was fsynced.");
  const hostile = `<img src=x onerror="alert(1)"><b>not bold</b>`;
  await alice.say(hostile);
  await bob.sees(hostile);
  assert.equal(await bob.page.locator("#entries b, #entries img").count(), 0, "text is text");
  await bob.say("Nice try.");
  await alice.sees("Nice try.");
  await alice.pending(0);
}

async function offlineAndBack(alice, bob) {
  await bob.context.setOffline(true);
  await bob.status("offline");
  const missed = ["One", "Two", "Three", "Four", "Five"].map((word) => `${word} of what bob misses`);
  for (const text of missed) await alice.say(text);
  await alice.sees(...missed);
  await bob.say("Written without a network,");
  await bob.say("and this too.");
  await bob.pending(2);
  await bob.sees("Nice try.");
  await bob.picture("2-offline");
  await bob.context.setOffline(false);
  await bob.status("online");
  await bob.pending(0);
  await bob.sees(...missed, "Written without a network,", "and this too.");
  await alice.sees(...missed, "Written without a network,", "and this too.");
}

async function group(alice, bob) {
  await bob.start("group", "alice, carol", "Tea at five");
  await bob.say("Who is in?");
  await alice.enter("Tea at five");
  await alice.sees("Who is in?");
  await alice.say("Me! With cake.");
  await bob.sees("Me! With cake.");
  await bob.picture("3-group-dark");
  await bob.enter("alice");
  await alice.enter("bob");
}

/** 220 more messages, so that history has several pages; then a reload, and all the way back. */
async function scrollBack(alice, bob) {
  const tokens = {};
  for (const user of ["alice", "bob"]) {
    const answer = await alice.context.request.post(`${url}/dev/token`, { data: { user } });
    tokens[user] = (await answer.json()).token;
  }
  const many = Array.from({ length: 220 }, (_, index) => `Message ${index + 1} of many`);
  for (const [index, text] of many.entries()) {
    const [from, to] = index % 3 === 0 ? ["bob", "alice"] : ["alice", "bob"];
    const answer = await alice.context.request.post(`${url}/api/v1/messages`, {
      headers: { Authorization: `Bearer ${tokens[from]}` },
      data: { to, client_msg_id: `many-${index}`, text },
    });
    assert.equal(answer.ok(), true, `POST /api/v1/messages: ${answer.status()} ${await answer.text()}`);
  }
  await bob.sees(...many);

  await alice.page.reload();
  await alice.status("online");
  await alice.enter("bob");
  await alice.sees(...many.slice(-10));
  const { page } = alice;
  let steps = 0;
  while ((await page.textContent("#older")) !== "This is where it begins") {
    const before = await page.locator("#entries > li").count();
    // To the top: the message that is there must be there still once older ones stand above it.
    await page.evaluate(() => (document.getElementById("log").scrollTop = 40));
    const [seq, top] = await page.evaluate(() => {
      const edge = document.getElementById("log").getBoundingClientRect().top;
      const item = [...document.querySelectorAll("#entries > li")].find((one) => one.querySelector(".bubble, .said").getBoundingClientRect().top >= edge + 60);
      return [item.dataset.seq, item.querySelector(".bubble, .said").getBoundingClientRect().top];
    });
    await alice.until(async () => (await page.locator("#entries > li").count()) > before || (await page.textContent("#older")) === "This is where it begins", async () => "no older messages came");
    const after = await page.evaluate((seq) => document.querySelector(`#entries > [data-seq="${seq}"] :is(.bubble, .said)`).getBoundingClientRect().top, seq);
    assert.ok(Math.abs(after - top) < 40, `message ${seq} moved by ${after - top} pixels while older ones were put above it`);
    if (steps === 1) await alice.picture("4-scrolled-back");
    assert.ok((steps += 1) < 50, "history has an end");
  }
  const seqs = await alice.seqs();
  assert.deepEqual(seqs, Array.from({ length: seqs.length }, (_, index) => index + 1), "history is dense and in order");
  assert.ok(seqs.length > 220 && steps >= 3, `${seqs.length} entries in ${steps} steps`);
  await page.click("#newest");
}

/** Messages are on their way when the server dies, and more are written while it is away. */
async function killed(alice, bob) {
  const before = Array.from({ length: 8 }, (_, index) => `Before and during the crash ${index + 1}`);
  const during = ["Written while the server was away,", "which nobody has to know."];
  const writing = (async () => {
    for (const text of before) await alice.say(text);
  })();
  await restart();
  await writing;
  for (const text of during) await alice.say(text);
  await alice.pending(0);
  await alice.sees(...before, ...during);
  await bob.sees(...before, ...during);
  await alice.status("online");
  await bob.status("online");
  await bob.say("All here, each once.");
  await alice.sees(...before, ...during, "All here, each once.");
  const [mine, theirs] = [await alice.seqs(), await bob.seqs()];
  for (const seqs of [mine, theirs]) {
    assert.deepEqual(seqs, Array.from({ length: seqs.length }, (_, index) => seqs[0] + index), "dense, in order, each once");
  }
  assert.equal(mine.at(-1), theirs.at(-1));
  await alice.picture("5-after-the-crash");
}

async function onAPhone(browser) {
  const phone = await Window.open(browser, "alice", { viewport: { width: 390, height: 760 }, colorScheme: "dark" });
  await phone.page.goto(`${url}/?user=alice`);
  await phone.status("online");
  await phone.page.locator("#conversations button").first().waitFor();
  await phone.picture("6-phone-list");
  await phone.enter("bob");
  await phone.page.locator("#entries .bubble").first().waitFor();
  await phone.picture("7-phone");
  await phone.page.click("#back");
  await phone.page.locator("#conversations").waitFor();
  assert.deepEqual(phone.faults, []);
}

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
let alice;
let bob;
try {
  alice = await Window.open(browser, "alice");
  bob = await Window.open(browser, "bob", { colorScheme: "dark" });
  const steps = [
    ["both sign in", () => signInBothWays(alice, bob)],
    ["they exchange messages", () => exchange(alice, bob)],
    ["bob goes offline and comes back without loss", () => offlineAndBack(alice, bob)],
    ["a group", () => group(alice, bob)],
    ["history scrolls back over 220 messages", () => scrollBack(alice, bob)],
    ...(restarts ? [["the server is killed and comes back without loss", () => killed(alice, bob)]] : []),
    ["on a phone", () => onAPhone(browser)],
  ];
  for (const [name, step] of steps) {
    const began = Date.now();
    await step();
    console.log(`ok ${name} (${Date.now() - began} ms)`);
  }
  assert.deepEqual([...alice.faults, ...bob.faults], [], "no error on either page");
} catch (problem) {
  await alice?.picture("failed-alice").catch(() => {});
  await bob?.picture("failed-bob").catch(() => {});
  console.error(problem);
  process.exitCode = 1;
} finally {
  await browser.close();
  stdin.close();
}
