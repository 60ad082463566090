/**
 * Compiles the SDK and the chat page, and joins each to the one ES module that the server serves.
 *
 * `node build.mjs` writes `sdk/dist` and `page/dist`, which are checked in so that cargo alone builds and
 * runs everything. `node build.mjs --check` changes nothing and fails if what is checked in is not what
 * the sources give. The compiler does the work; joining only puts modules after those they import and
 * drops the imports between them, so no two of them may declare one name.
 */

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const web = fileURLToPath(new URL(".", import.meta.url));
const compiler = join(web, "node_modules", "typescript", "bin", "tsc");
const parts = [
  { folder: "sdk", entry: "ringway", types: ["ringway.d.ts", "types.d.ts", "error.d.ts"] },
  { folder: "page", entry: "chat", types: [] },
];

const check = process.argv.includes("--check");
const scratch = mkdtempSync(join(tmpdir(), "ringway-web-"));
const stale = [];
try {
  for (const part of parts) {
    const built = build(part);
    const dist = join(web, part.folder, "dist");
    if (check) {
      for (const [name, text] of built) if (read(join(dist, name)) !== text) stale.push(`${part.folder}/dist/${name}`);
      for (const name of readdirSync(dist)) if (!built.has(name)) stale.push(`${part.folder}/dist/${name} (of no source)`);
    } else {
      rmSync(dist, { recursive: true, force: true });
      mkdirSync(dist);
      for (const [name, text] of built) writeFileSync(join(dist, name), text);
    }
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
if (stale.length > 0) {
  console.error(`not what the sources give: ${stale.join(", ")}. Run "npm run build" in web/ and commit what changes.`);
  process.exit(1);
}

/** File name → text of everything that belongs in the part's `dist`. */
function build({ folder, entry, types }) {
  const out = join(scratch, folder);
  const result = spawnSync(process.execPath, [compiler, "-p", join(web, folder), "--outDir", out], { stdio: "inherit" });
  if (result.status !== 0) process.exit(result.status ?? 1);
  const files = new Map(types.map((name) => [name, read(join(out, name))]));
  files.set(`${entry}.js`, joined(out, folder, entry));
  return files;
}

/** The module `entry` and all that it imports from its folder, as one. */
function joined(out, folder, entry) {
  const order = [];
  const seen = new Set();
  const visit = (name) => {
    if (seen.has(name)) return;
    seen.add(name);
    const text = read(join(out, `${name}.js`));
    for (const [, imported] of text.matchAll(/^import .* from "\.\/(\w+)\.js";$/gm)) visit(imported);
    order.push([name, text]);
  };
  visit(entry);
  const declared = new Map();
  let all = `// Built from web/${folder}/src by web/build.mjs: change those, then run "npm run build" there.\n`;
  for (const [name, text] of order) {
    let body = text.replace(/^import .* from "\.\/\w+\.js";\n/gm, "");
    if (name !== entry) body = body.replace(/^export (?=(async )?(class|function|const|let) )/gm, "");
    for (const [, word] of body.matchAll(/^(?:export )?(?:async )?(?:class|function|const|let) (\w+)/gm)) {
      if (declared.has(word)) throw new Error(`${word} is declared in ${declared.get(word)}.ts and in ${name}.ts: rename one`);
      declared.set(word, name);
    }
    if (name !== entry && /^export /m.test(body)) throw new Error(`${name}.ts exports in a form that build.mjs does not join`);
    all += `\n// ---- ${name}.ts\n\n${body}`;
  }
  return all;
}

function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
