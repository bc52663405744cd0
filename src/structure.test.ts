import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import { test } from "node:test";

const SRC = import.meta.dirname;

/** Which folder may import which: the layers of the house, from the ground up. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  lib: [],
  ip: ["lib"],
  netlink: ["lib", "ip"],
  resources: ["lib", "ip"],
  datastore: ["lib", "resources"],
  ipam: ["lib", "ip", "resources"],
  bgp: ["lib", "ip"],
  policy: ["lib", "ip", "resources"],
  dataplane: ["lib", "ip", "netlink", "policy"],
  flannel: ["lib", "ip", "netlink", "dataplane"],
  cni: ["lib", "ip", "resources", "ipam", "dataplane"],
  flows: ["lib", "ip", "netlink"],
  controller: ["lib", "ip", "resources", "datastore", "ipam", "agent"],
  agent: [
    "lib",
    "ip",
    "netlink",
    "resources",
    "datastore",
    "ipam",
    "bgp",
    "policy",
    "dataplane",
    "flannel",
    "cni",
    "flows",
  ],
  cli: ["lib", "ip", "resources", "datastore", "ipam", "policy"],
  web: ["lib", "ip", "resources", "datastore", "policy"],
  lab: ["*"],
};

/** Modules that touch the world, which only `*.io.ts` may import. */
const WORLD =
  /^node:(fs|net|http|https|http2|dgram|child_process|worker_threads|sqlite|process|os|dns|tls|timers)(\/|$)/;
/** The clock and the dice, which pure files are handed. */
const CLOCK_OR_DICE = /\b(Date\.now\(|new Date\(\)|Math\.random\(|performance\.now\(|process\.hrtime|randomUUID\()/;

interface SourceFile {
  readonly path: string;
  readonly folder: string;
  readonly text: string;
  readonly imports: readonly string[];
}

function sourceFiles(): SourceFile[] {
  return readdirSync(SRC, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => {
      const path = relative(SRC, join(entry.parentPath, entry.name));
      const text = readFileSync(join(SRC, path), "utf8");
      const imports = [
        ...text.matchAll(/(?:^|\n)\s*(?:import|export)\s[^;]*?from\s+"([^"]+)"|import\("([^"]+)"\)/g),
      ].map((match) => match[1] ?? match[2] ?? "");
      return { path, folder: path.includes("/") ? path.slice(0, path.indexOf("/")) : "", text, imports };
    });
}

/** Files that may touch the world: shells, tests, and workers and entry points, which are shells too. */
const isShell = (path: string): boolean => /\.io\.ts$|\.test\.ts$|\.testing\.ts$/.test(path);

const files = sourceFiles();

test("every folder is in the table, and imports only what the table allows", () => {
  for (const file of files) {
    if (file.folder === "" || file.path.endsWith(".test.ts")) continue;
    const allowed = MAY_IMPORT[file.folder];
    assert.ok(allowed, `src/${file.folder} is not in the table of folders`);
    if (allowed.includes("*")) continue;
    for (const target of file.imports.filter((name) => name.startsWith("."))) {
      const folder = normalize(join(dirname(file.path), target)).split("/")[0] ?? "";
      if (file.path === "cli/main.ts") continue; // the entry point loads the command that was asked for
      assert.ok(
        folder === file.folder || allowed.includes(folder),
        `src/${file.path} imports src/${folder}, which ${file.folder}/ may not`,
      );
    }
  }
});

test("folders are one level deep", () => {
  for (const file of files) {
    const depth = file.path.split("/").length - 1;
    assert.ok(depth <= 1 || file.path.includes("/golden/"), `src/${file.path} lies deeper than one folder`);
  }
});

test("pure files import no shell, no I/O module, and have no clock and no dice", () => {
  for (const file of files) {
    if (isShell(file.path) || file.path === "cli/main.ts") continue;
    for (const target of file.imports) {
      assert.ok(!/\.(io|testing)\.ts$/.test(target), `src/${file.path} is pure but imports ${target}`);
      assert.ok(!WORLD.test(target), `src/${file.path} is pure but imports ${target}`);
    }
    const drawn = CLOCK_OR_DICE.exec(file.text.replaceAll(/\/\/.*|\/\*[\s\S]*?\*\//g, ""));
    assert.equal(drawn, null, `src/${file.path} is pure but uses ${drawn?.[0]}`);
  }
});

test("nobody imports all of node:http", () => {
  const loading = /^import (?!type )[^;]*from "node:https?";/m;
  for (const file of files) {
    if (file.path.endsWith(".test.ts")) continue;
    assert.doesNotMatch(file.text, loading, `src/${file.path}: http and https are in lib/http.io.ts, which says why`);
  }
});

test("there are no default exports and no barrel files", () => {
  for (const file of files) {
    assert.doesNotMatch(file.text, /^export default/m, `src/${file.path} has a default export`);
    assert.doesNotMatch(file.path, /(^|\/)index\.ts$/, `src/${file.path} is a barrel file`);
  }
});
