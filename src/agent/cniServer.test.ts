import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { memoryNode, requestBytes } from "../cni/node.testing.ts";
import { Failure } from "../lib/errors.ts";
import { startCniServer } from "./cniServer.io.ts";

async function start(node = memoryNode()) {
  const runDirectory = mkdtempSync(join(tmpdir(), "caracal-cni-"));
  const errors: string[] = [];
  const seen: boolean[] = [];
  const server = await startCniServer({
    runDirectory,
    node,
    interfacePrefix: "cali",
    onRequest: (_, ok) => seen.push(ok),
    onError: (message) => errors.push(message),
  });
  const spool = join(runDirectory, "cni-deferred");
  return {
    node,
    server,
    errors,
    seen,
    runDirectory,
    ask: (bytes: Uint8Array) => ask(join(runDirectory, "cni.sock"), bytes),
    leave: (name: string, bytes: Uint8Array | string) => writeFileSync(join(spool, name), bytes),
    left: () => readdirSync(spool),
    async [Symbol.asyncDispose]() {
      await server.close();
      rmSync(runDirectory, { recursive: true });
    },
  };
}

function ask(path: string, bytes: Uint8Array): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, allowHalfOpen: true }, () => socket.end(bytes));
    let text = "";
    socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    socket.on("error", reject);
    socket.on("close", () => resolve(text));
  });
}

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 500 && !condition(); tries += 1) await sleep(2);
  assert.ok(condition());
}

describe("the agent's CNI socket", () => {
  test("answers many requests at once, and is root's alone", async () => {
    await using it = await start();
    assert.equal(statSync(join(it.runDirectory, "cni.sock")).mode & 0o777, 0o600);
    const containers = Array.from({ length: 10 }, (_, index) => ({ CNI_CONTAINERID: `c${index}`, CNI_ARGS: "" }));
    const added = await Promise.all(containers.map((each) => it.ask(requestBytes(each))));
    assert.ok(added.every((text) => text.startsWith('+{"cniVersion":"1.0.0"') && text.endsWith("\n")));
    assert.equal(it.node.links.size, 10);
    const deleted = await Promise.all(containers.map((each) => it.ask(requestBytes({ ...each, CNI_COMMAND: "DEL" }))));
    assert.deepEqual(new Set(deleted), new Set(["+"]));
    assert.match(await it.ask(requestBytes({ CNI_COMMAND: "FLY" })), /^!\{"cniVersion":"1.0.0","code":4,.*\n$/);
    assert.deepEqual([it.seen.length, it.seen.filter((ok) => !ok).length], [21, 1]);
  });

  test("drops a request that is too large, and goes on", async () => {
    await using it = await start();
    assert.equal(await it.ask(new Uint8Array(3 << 20)).catch(() => ""), "");
    assert.match(it.errors.join(), /larger than 2097152 bytes|broke off/);
    assert.equal(await it.ask(requestBytes({ CNI_COMMAND: "DEL" })), "+");
  });

  test("is gone when the server is closed", async () => {
    const it = await start();
    await it.server.close();
    await assert.rejects(it.ask(requestBytes({})), /ENOENT/);
    rmSync(it.runDirectory, { recursive: true });
  });
});

describe("DELs that came while no agent could", () => {
  const del = requestBytes({ CNI_COMMAND: "DEL", CNI_NETNS: "" });

  test("are worked off when this one can", async () => {
    await using it = await start();
    await it.ask(requestBytes({}));
    it.leave("abc123:eth0", del);
    it.node.reason = "it waits for the datastore";
    it.server.workOff();
    await sleep(10);
    assert.deepEqual(it.left(), ["abc123:eth0"]);
    it.node.reason = undefined;
    it.server.workOff();
    await until(() => it.left().length === 0);
    assert.equal(it.node.print(), "");
    assert.deepEqual(it.errors, []);
  });

  test("stay where they fail, and are tried again", async () => {
    let away = true;
    const node = memoryNode([4], (step, when) => {
      if (away && step === "release" && when === "before") throw new Failure("unavailable", "the API server is away");
    });
    await using it = await start(node);
    it.leave("abc123:eth0", del);
    it.server.workOff();
    await until(() => it.errors.length === 1);
    assert.match(it.errors[0] ?? "", /cni-deferred\/abc123:eth0 failed: .*the API server is away/);
    assert.deepEqual(it.left(), ["abc123:eth0"]);
    away = false;
    it.server.workOff();
    await until(() => it.left().length === 0);
  });

  test("go with a word where they can never succeed; one that is still being written stays", async () => {
    await using it = await start();
    it.leave("nonsense:eth0", "nonsense");
    it.leave("other:eth0", requestBytes({ CNI_COMMAND: "DEL", CNI_CONTAINERID: "a:b" }));
    it.leave(".abc123:eth0.17", del.subarray(0, 20));
    it.leave("abc123:eth0", del);
    it.server.workOff();
    await until(() => it.left().length === 1);
    assert.deepEqual(it.left(), [".abc123:eth0.17"]);
    assert.equal(it.errors.length, 2);
  });

  test("of an earlier agent's time are kept when the server starts", async () => {
    const runDirectory = mkdtempSync(join(tmpdir(), "caracal-cni-"));
    mkdirSync(join(runDirectory, "cni-deferred"));
    writeFileSync(join(runDirectory, "cni-deferred", "abc123:eth0"), del);
    const options = {
      runDirectory,
      node: memoryNode(),
      interfacePrefix: "cali",
      onRequest: () => undefined,
      onError: assert.fail,
    };
    const server = await startCniServer(options);
    assert.deepEqual(readdirSync(join(runDirectory, "cni-deferred")), ["abc123:eth0"]);
    await server.close();
    rmSync(runDirectory, { recursive: true });
  });
});
