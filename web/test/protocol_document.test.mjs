/** The protocol document names every frame, field and code that the server has, and says the same of them. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const read = (path) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
const document = read("docs/protocol.md");
const names = (name) => assert.ok(document.includes(`\`${name}\``), `docs/protocol.md does not name \`${name}\``);

test("every frame and field of the published .proto", () => {
  const proto = read("protocol/proto/ringway.proto").replace(/\/\/.*$/gm, "");
  const fields = [...proto.matchAll(/^\s+(?:optional |repeated )?[\w.<>, ]+ (\w+) = \d+;/gm)].map(([, name]) => name);
  assert.ok(fields.length > 60, `${fields.length} fields were read`);
  for (const name of new Set(fields)) names(name);
});

test("every error code with its HTTP status and whether it is temporary", () => {
  const codes = [...read("protocol/src/client/error_code.rs").matchAll(/^\s+\w+ = "(\w+)", (\d+), (true|false);/gm)];
  assert.ok(codes.length >= 12);
  for (const [, code, status, temporary] of codes) {
    const row = `| \`${code}\` | ${status} | ${temporary === "true" ? "yes" : "no"} |`;
    assert.ok(document.includes(row), `docs/protocol.md has no row "${row}"`);
  }
});

test("every close code", () => {
  const codes = [...read("protocol/src/websocket/close_code.rs").matchAll(/Self = Self\((4\d{3})\);/g)].map(([, code]) => code);
  assert.ok(codes.length >= 15);
  for (const code of codes) assert.ok(document.includes(`| ${code} |`), `docs/protocol.md has no row for ${code}`);
});

test("every bound that it gives a number for", () => {
  const limits = read("protocol/src/limits.rs") + read("gateway/src/connection/limits.rs");
  const value = (name) => {
    const [, text] = limits.match(new RegExp(`pub const ${name}: \\w+ = ([\\d_ *]+);`)) ?? assert.fail(`no ${name} in limits.rs`);
    return text.replaceAll("_", "").split("*").reduce((product, factor) => product * Number(factor), 1);
  };
  const said = (text) => assert.ok(document.replaceAll("\n", " ").includes(text), `docs/protocol.md does not say "${text}"`);
  said(`\`max_frame_bytes\` | ${value("MESSAGE_BYTES_DEFAULT")}`);
  said(`\`max_inflight\` | ${value("INFLIGHT_DEFAULT")}`);
  said(`\`max_queue_bytes\` | ${value("QUEUE_BYTES_DEFAULT")}`);
  said(`${value("SEND_PER_SECOND_DEFAULT")}, ${value("SEND_BURST_DEFAULT")}`);
  said(`\`dedup_window_s\` | ${value("DEDUPLICATION_SECONDS")}`);
  said(`${value("SILENCE_MILLISECONDS") / 1_000} s without one`);
  said(`within ${value("HELLO_MILLISECONDS") / 1_000} s of the upgrade`);
  said(`past ${value("CONNECTIONS_PER_USER_DEFAULT")} sockets of one user`);
  said(`at most ${value("PAGE_ENTRIES_MAX")} entries and about ${value("PAGE_BYTES_MAX") / 1_024} KiB`);
  said(`${value("SYNC_ENTRIES_MAX").toLocaleString("en")} entries in all`);
  said(`at most ${value("SYNC_CONVERSATIONS_MAX").toLocaleString("en")})`);
  said(`${value("OTHERS_PER_SECOND")} a second, ${value("OTHERS_BURST")} in a burst`);
  said(`More than ${value("STRIKES_MAX")} refusals`);
  said(`within ${value("REQUEST_MILLISECONDS") / 1_000} s`);
  said(`at most ${value("MEDIA_IDS_MAX")}, of 1 to ${value("NAME_BYTES_MAX")} bytes each`);
  said(`${value("TOKEN_WARNING_MILLISECONDS") / 1_000} s before`);
  assert.equal(value("SYNCS_MAX"), 8);
  said("Eight syncs may be under way");
});
