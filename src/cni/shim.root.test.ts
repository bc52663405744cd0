import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { ENVIRONMENT, memoryNode, CONFIG } from "./node.testing.ts";
import { createCniPlugin } from "./plugin.ts";
import { splitRequest } from "./request.ts";

const MAIN = join(import.meta.dirname, "../cli/main.ts");
const STDIN = JSON.stringify(CONFIG);

/** A directory of the test's own. */
const temporary = mkdtempSync(join(tmpdir(), "caracal-shim-"));

function compile(name: string, ...defines: string[]): string {
  const path = join(temporary, name);
  execFileSync("gcc", [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-O1",
    ...defines,
    "-o",
    path,
    join(import.meta.dirname, "shim.c"),
  ]);
  return path;
}

interface Outcome {
  readonly code: number | null;
  readonly output: string;
}

interface Run {
  readonly command: readonly string[];
  readonly runDirectory: string;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly stdin?: string | Buffer;
}

/** Calls the plugin as a runtime does. */
function run({ command: [file = "", ...args], runDirectory, environment = {}, stdin = STDIN }: Run): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      env: { PATH: "/usr/bin:/bin", ...ENVIRONMENT, CARACAL_RUN_DIR: runDirectory, OTHER: "1", ...environment },
      stdio: ["pipe", "pipe", "inherit"],
      timeout: 20_000,
      killSignal: "SIGKILL",
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (output += chunk));
    child.stdin.on("error", () => undefined); // it ended without reading all
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, output }));
    child.stdin.end(stdin);
  });
}

/** An agent that does with each connection what it is told, once the request is there. */
async function agent(runDirectory: string, reply: (socket: Socket, request: Buffer) => void) {
  const requests: Buffer[] = [];
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    const chunks: Buffer[] = [];
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("end", () => {
      const request = Buffer.concat(chunks);
      requests.push(request);
      reply(socket, request);
    });
  });
  await new Promise<void>((resolve) => server.listen(join(runDirectory, "cni.sock"), resolve));
  return {
    requests,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

let directories = 0;
function runDirectory(): string {
  directories += 1;
  const path = join(temporary, `run${directories}`);
  mkdirSync(path);
  return path;
}

const deferred = (directory: string): string[] => {
  const path = join(directory, "cni-deferred");
  return existsSync(path) ? readdirSync(path) : [];
};

/** What the shim itself says, where the agent does not. */
function refused({ code, output }: Outcome, expected: { code: number; msg: RegExp; details?: RegExp }): void {
  assert.equal(code, 1);
  const error = JSON.parse(output) as { cniVersion: string; code: number; msg: string; details: string };
  assert.equal(error.cniVersion, "1.0.0");
  assert.equal(error.code, expected.code);
  assert.match(error.msg, expected.msg);
  if (expected.details !== undefined) assert.match(error.details, expected.details);
}
const SILENT = /^the Caracal agent on this node does not answer$/;

const SHIMS: { name: string; prepare: () => readonly string[] }[] = [
  { name: "shim.c", prepare: () => [compile("calico")] },
  {
    name: "shim.io.ts",
    prepare: () => [process.execPath, "--disable-warning=ExperimentalWarning", MAIN, "cni"],
  },
];

after(() => rmSync(temporary, { recursive: true }));

for (const { name, prepare } of SHIMS) {
  describe(name, () => {
    let command: readonly string[] = [];
    before(() => {
      command = prepare();
    });

    const answers: { name: string; answer: string; outcome: Outcome }[] = [
      {
        name: "a result",
        answer: '+{"cniVersion":"1.0.0"}\n',
        outcome: { code: 0, output: '{"cniVersion":"1.0.0"}\n' },
      },
      { name: "nothing, as DEL and CHECK give", answer: "+", outcome: { code: 0, output: "" } },
      { name: "an error", answer: '!{"code":7}\n', outcome: { code: 1, output: '{"code":7}\n' } },
      {
        name: "a long one",
        answer: `+${"x".repeat(900_000)}\n`,
        outcome: { code: 0, output: `${"x".repeat(900_000)}\n` },
      },
    ];
    for (const { name: what, answer, outcome } of answers) {
      test(`prints the agent's answer: ${what}`, async () => {
        const directory = runDirectory();
        await using _agent = await agent(directory, (socket) => socket.end(answer));
        const { code, output } = await run({ command, runDirectory: directory });
        assert.equal(code, outcome.code);
        assert.ok(
          output === outcome.output,
          `${output.length} characters, not ${outcome.output.length}: ${output.slice(0, 80)}`,
        );
      });
    }

    test("hands over the CNI_ variables and standard input, just as they are", async () => {
      const directory = runDirectory();
      await using it = await agent(directory, (socket) => socket.end("+"));
      const odd = { CNI_ARGS: "a=b\nc=d;ä=\t", CNI_EMPTY: "", XCNI_NO: "1", CNI: "1" };
      const stdin = Buffer.concat([Buffer.from(JSON.stringify({ name: "n", text: "ä\0" })), Buffer.from("\n\n")]);
      await run({ command, runDirectory: directory, environment: odd, stdin });
      const split = splitRequest(it.requests[0] ?? new Uint8Array());
      assert.deepEqual(split.environment, { ...ENVIRONMENT, CNI_ARGS: odd.CNI_ARGS, CNI_EMPTY: "" });
      assert.equal(split.stdin, stdin.toString());

      const large = JSON.stringify({ ...CONFIG, comment: "x".repeat(900_000) });
      await run({ command, runDirectory: directory, stdin: large });
      assert.ok(splitRequest(it.requests[1] ?? new Uint8Array()).stdin === large);
      await run({ command, runDirectory: directory, stdin: "" });
      assert.equal(splitRequest(it.requests[2] ?? new Uint8Array()).stdin, "");
    });

    test("says that the agent is not there: try again later, or (STATUS) not available", async () => {
      const directory = runDirectory();
      const codes = { ADD: 11, CHECK: 11, GC: 11, VERSION: 11, STATUS: 50 };
      await Promise.all(
        Object.entries(codes).map(async ([verb, code]) => {
          const outcome = await run({ command, runDirectory: directory, environment: { CNI_COMMAND: verb } });
          refused(outcome, { code, msg: SILENT, details: /no such file|ENOENT/i });
        }),
      );
      assert.deepEqual(deferred(directory), []);
    });

    test("leaves a DEL that nobody takes to the next agent, and succeeds", async () => {
      const directory = runDirectory();
      const environment = { CNI_COMMAND: "DEL", CNI_NETNS: "" };
      assert.deepEqual(await run({ command, runDirectory: directory, environment }), { code: 0, output: "" });
      assert.deepEqual(deferred(directory), ["abc123:eth0"]);
      const path = join(directory, "cni-deferred", "abc123:eth0");
      assert.equal(statSync(path).mode & 0o777, 0o600);
      assert.equal(statSync(join(directory, "cni-deferred")).mode & 0o777, 0o700);

      // The next agent takes it for what it is.
      const node = memoryNode();
      const plugin = createCniPlugin(node, "cali");
      const addition = Buffer.from(
        readFileSync(path)
          .toString("latin1")
          .replace("CNI_COMMAND=DEL", "CNI_COMMAND=ADD")
          .replace("CNI_NETNS=\0", "CNI_NETNS=/run/netns/pod\0"),
        "latin1",
      );
      assert.equal((await plugin.answer(addition)).ok, true);
      assert.notEqual(node.print(), "");
      assert.deepEqual(await plugin.answer(readFileSync(path)), { ok: true, text: "" });
      assert.equal(node.print(), "");

      // Twice is once; another container's is another.
      await run({ command, runDirectory: directory, environment });
      await run({
        command,
        runDirectory: directory,
        environment: { ...environment, CNI_CONTAINERID: "abc123:eth0", CNI_IFNAME: "x" },
      });
      await run({
        command,
        runDirectory: directory,
        environment: { ...environment, CNI_CONTAINERID: "def", CNI_IFNAME: "eth~" },
      });
      assert.deepEqual(
        deferred(directory).toSorted((a, b) => (a < b ? -1 : 1)),
        ["abc123:eth0", "abc123:eth0:x", "def:eth~"],
      );
    });

    test("leaves it also where there is no directory yet, or a socket that nobody listens on", async () => {
      const environment = { CNI_COMMAND: "DEL" };
      const missing = join(temporary, `${name}-missing`);
      assert.deepEqual(await run({ command, runDirectory: missing, environment }), { code: 0, output: "" });
      assert.deepEqual(deferred(missing), ["abc123:eth0"]);

      const stale = runDirectory();
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(join(stale, "gone.sock"), resolve));
      execFileSync("mv", [join(stale, "gone.sock"), join(stale, "cni.sock")]); // so that closing does not remove it
      await new Promise((resolve) => server.close(resolve));
      assert.deepEqual(await run({ command, runDirectory: stale, environment }), { code: 0, output: "" });
      assert.deepEqual(deferred(stale), ["abc123:eth0"]);
      refused(await run({ command, runDirectory: stale }), { code: 11, msg: SILENT, details: /refused|ECONNREFUSED/i });
    });

    const hangUps: { name: string; reply: (socket: Socket) => void }[] = [
      { name: "without a word", reply: (socket) => socket.end() },
      { name: "abruptly", reply: (socket) => socket.destroy() },
      { name: "in the middle of its answer", reply: (socket) => socket.end('+{"cniVersion":"1.0.0","ips":[{"addr') },
      { name: "in the middle of an error", reply: (socket) => socket.end('!{"code":7,"msg":"the') },
    ];
    for (const { name: how, reply } of hangUps) {
      test(`does not take it for an answer when the agent hangs up ${how}`, async () => {
        const directory = runDirectory();
        await using _agent = await agent(directory, reply);
        refused(await run({ command, runDirectory: directory }), { code: 11, msg: SILENT, details: /./ });
        const environment = { CNI_COMMAND: "DEL" };
        assert.deepEqual(await run({ command, runDirectory: directory, environment }), { code: 0, output: "" });
        assert.deepEqual(deferred(directory), ["abc123:eth0"]);
      });
    }

    test("refuses a configuration of more than a mebibyte, and does not send or leave it", async () => {
      const directory = runDirectory();
      await using it = await agent(directory, (socket) => socket.end("+"));
      for (const verb of ["ADD", "DEL"]) {
        const environment = { CNI_COMMAND: verb };
        const outcome = await run({ command, runDirectory: directory, environment, stdin: "x".repeat(3 << 20) });
        refused(outcome, { code: 11, msg: /larger than 1 MiB/ });
      }
      assert.deepEqual(it.requests, []);
      assert.deepEqual(deferred(directory), []);
    });

    const escapes: { environment: Readonly<Record<string, string>> }[] = [
      { environment: { CNI_CONTAINERID: "../../escaped" } },
      { environment: { CNI_CONTAINERID: "/tmp/escaped" } },
      { environment: { CNI_CONTAINERID: "a/b" } },
      { environment: { CNI_CONTAINERID: ".hidden" } },
      { environment: { CNI_CONTAINERID: "" } },
      { environment: { CNI_CONTAINERID: "a\nb" } },
      { environment: { CNI_CONTAINERID: "a".repeat(200) } },
      { environment: { CNI_IFNAME: "../escaped" } },
      { environment: { CNI_IFNAME: "" } },
    ];
    test("lets nothing out of the directory of deferred DELs", async () => {
      const directory = runDirectory();
      const outcomes = await Promise.all(
        escapes.map(({ environment }) =>
          run({ command, runDirectory: directory, environment: { ...environment, CNI_COMMAND: "DEL" } }),
        ),
      );
      for (const outcome of outcomes) refused(outcome, { code: 11, msg: SILENT });
      assert.deepEqual(deferred(directory), []);
      assert.deepEqual(
        readdirSync(directory).filter((file) => file !== "cni-deferred"),
        [],
      );
      assert.equal(existsSync(join(temporary, "escaped")) || existsSync("/tmp/escaped"), false);
    });

    test("says so where a DEL cannot be left", async () => {
      const directory = runDirectory();
      writeFileSync(join(directory, "cni-deferred"), "a file in the way");
      const environment = { CNI_COMMAND: "DEL" };
      refused(await run({ command, runDirectory: directory, environment }), { code: 11, msg: SILENT });
      refused(await run({ command, runDirectory: `/${"x".repeat(120)}` }), { code: 11, msg: SILENT });
    });
  });
}

describe("shim.c, with less patience", () => {
  test("gives up on an agent that says nothing: ADD fails, DEL is left to the next agent", async () => {
    const command = [compile("impatient", "-DADD_SECONDS=1", "-DDEL_SECONDS=1")];
    const directory = runDirectory();
    await using _agent = await agent(directory, () => undefined);
    const environment = { CNI_COMMAND: "DEL" };
    const [added, deleted] = await Promise.all([
      run({ command, runDirectory: directory }),
      run({ command, runDirectory: directory, environment }),
    ]);
    refused(added, { code: 11, msg: SILENT, details: /^no answer in time$/ });
    assert.deepEqual(deleted, { code: 0, output: "" });
    assert.deepEqual(deferred(directory), ["abc123:eth0"]);
  });

  test("looks for the agent in /var/run/calico where nothing else is said", async () => {
    const directory = runDirectory();
    const command = [compile("usual", `-DRUN_DIRECTORY="${directory}"`)];
    await using it = await agent(directory, (socket) => socket.end("+"));
    await run({ command, runDirectory: "", environment: {} });
    assert.equal(it.requests.length, 1);
    assert.match(
      readFileSync(join(import.meta.dirname, "shim.c"), "utf8"),
      /#define RUN_DIRECTORY "\/var\/run\/calico"/,
    );
  });
});
