import { readFileSync } from "node:fs";
import { enableCompileCache } from "node:module";
import { messageOf } from "../lib/errors.ts";
import { COMMANDS } from "./commands.ts";
import { helpText, parseCommandLine, UsageError, type Invocation } from "./arguments.ts";
import type { Target } from "./target.ts";

/** The entry point of `caracal`. Each command loads what it needs: start-up time is a feature. */

const ROOT = new URL("../..", import.meta.url).pathname;
const PROGRAM = [process.execPath, "--disable-warning=ExperimentalWarning", new URL(import.meta.url).pathname];
// For this process, where the launcher did not set it, and for those that it starts.
process.env["NODE_COMPILE_CACHE"] ??= `${ROOT}.cache/compile`;
enableCompileCache(process.env["NODE_COMPILE_CACHE"]);

const console = { input: process.stdin, output: process.stdout, errors: process.stderr };
const progress = (line: string): void => void process.stderr.write(`${line}\n`);

async function main(argv: readonly string[]): Promise<number> {
  if (argv.length === 0 || argv[0] === "--help" || argv[0] === "-h") return help([]);
  if (argv[0] === "flannel") return flannel(argv.slice(1)); // its flags are Go's
  const dashes = argv.indexOf("--");
  const own = dashes < 0 ? argv : argv.slice(0, dashes);
  if (own.includes("--help") || own.includes("-h")) return help(own.filter((word) => !word.startsWith("-")));
  const invocation = parseCommandLine(argv, COMMANDS);
  return RUN[invocation.command.words.join(" ")]!(invocation);
}

async function flannel(args: readonly string[]): Promise<number> {
  if (args[0] === "cni") {
    const { runCniPlugin } = await import("../flannel/cni.io.ts");
    return runCniPlugin(process.env);
  }
  const { runFlannel } = await import("../flannel/run.io.ts");
  const { openFlannelKubernetes } = await import("../agent/flannelNodes.io.ts");
  return runFlannel(args, {
    version: versionOf(),
    environment: process.env,
    openKubernetes: (options) => openFlannelKubernetes(options, process.env),
  });
}

function versionOf(): string {
  return (JSON.parse(readFileSync(`${ROOT}package.json`, "utf8")) as { version: string }).version;
}

function help(words: readonly string[]): number {
  const chosen = COMMANDS.filter((command) =>
    words.every((word, index) => command.words[index] === word || index >= command.words.length),
  );
  const shown = (chosen.length === 0 ? COMMANDS : chosen).filter(
    ({ words: [first, second] }) => !(first === "lab" && second === "keep"),
  );
  process.stdout.write(`${helpText(shown)}\n`);
  return 0;
}

type Run = (invocation: Invocation) => Promise<number> | number;

const RUN: Readonly<Record<string, Run>> = {
  async "lab up"(invocation) {
    const { labUp } = await import("../lab/up.io.ts");
    const input = await labInput(invocation);
    const { preparePlugin } = await import("../lab/plugin.io.ts");
    await labUp(
      labName(invocation),
      input,
      { command: PROGRAM, plugin: preparePlugin(ROOT, process.execPath) },
      progress,
    );
    return 0;
  },
  async "lab down"(invocation) {
    const { labDown } = await import("../lab/up.io.ts");
    const name = labName(invocation);
    const existed = await labDown(name, progress);
    progress(existed ? `lab "${name}" is down` : `there is no lab "${name}"`);
    return 0;
  },
  async "lab list"(invocation) {
    const { runningLabs } = await import("../lab/up.io.ts");
    const labs = runningLabs();
    if (wantsJson(invocation)) print(labs);
    else for (const { name, running } of labs) process.stdout.write(`${name}${running ? "" : " (not running)"}\n`);
    return 0;
  },
  async "lab link"(invocation) {
    const { setLinkFault } = await import("../lab/links.io.ts");
    const { parseBlocked } = await import("../lab/links.ts");
    const lab = await chosenLab(invocation);
    const { readLab } = await import("../lab/state.io.ts");
    const mtu = invocation.number("mtu", 68, 65_535);
    const blocked = invocation.texts("block").map(parseBlocked);
    setLinkFault(lab, readLab(lab).definition, invocation.operands[0]!, {
      cut: invocation.flag("cut"),
      ...(mtu !== undefined && { mtu }),
      blocked,
    });
    return 0;
  },
  async "lab exec"(invocation) {
    const { execInLab } = await import("../lab/exec.io.ts");
    return execInLab(await chosenLab(invocation), invocation.operands[0]!, invocation.rest);
  },
  async "lab keep"(invocation) {
    const { keepLab } = await import("../lab/keeper.io.ts");
    await keepLab(labName(invocation), PROGRAM);
    return 0;
  },
  async exec(invocation) {
    const { execInPod } = await import("../lab/exec.io.ts");
    return execInPod(await chosenLab(invocation), invocation.operands[0]!, invocation.rest);
  },
  async apply(invocation) {
    const { apply } = await import("./apply.io.ts");
    const files = filesOf(invocation);
    if (files.length === 0) throw new UsageError("apply needs -f FILE, -f DIR or -f -");
    const target = await targetOf(invocation);
    return withDatastore(target, async (datastore) => {
      const { applied, failures } = await apply(datastore, { files, namespace: invocation.text("namespace") }, console);
      if (invocation.flag("wait")) {
        const { waitApplied } = await import("./wait.io.ts");
        await waitApplied(datastore, target.agents(), applied, timeoutMs(invocation));
      }
      return failures === 0 ? 0 : 1;
    });
  },
  async delete(invocation) {
    const { deleteObjects } = await import("./delete.io.ts");
    const [kind, ...names] = invocation.operands;
    const target = await targetOf(invocation);
    return withDatastore(target, async (datastore) => {
      const { deleted, failures } = await deleteObjects(
        datastore,
        {
          files: filesOf(invocation),
          kind,
          names,
          namespace: invocation.text("namespace"),
          ignoreNotFound: invocation.flag("ignore-not-found"),
        },
        console,
      );
      if (invocation.flag("wait")) {
        const { waitDeleted } = await import("./wait.io.ts");
        await waitDeleted(datastore, target.agents(), deleted, timeoutMs(invocation));
      }
      return failures === 0 ? 0 : 1;
    });
  },
  async get(invocation) {
    const { get } = await import("./get.io.ts");
    const output = oneOf(invocation, "output", ["wide", "yaml", "json", "name"] as const);
    const [kind = "", name] = invocation.operands;
    const { text, flag } = invocation;
    const target = await targetOf(invocation);
    return withDatastore(target, async (datastore) => {
      const args = {
        kind,
        name,
        namespace: text("namespace"),
        allNamespaces: flag("all-namespaces"),
        output,
        selector: text("selector"),
      };
      await get(datastore, args, console, () => target.agents());
      return 0;
    });
  },
  async probe(invocation) {
    const { probeLab } = await import("../lab/matrix.io.ts");
    return probeLab(
      await chosenLab(invocation),
      {
        protocol: oneOf(invocation, "protocol", ["TCP", "UDP", "ICMP"] as const),
        port: invocation.number("port", 1, 65535),
        from: invocation.text("from"),
        to: invocation.text("to"),
        timeoutMs: invocation.number("timeout", 1, 60_000) ?? 1000,
        json: wantsJson(invocation),
      },
      process.stdout,
    );
  },
  async "node status"(invocation) {
    const { showNodeStatus } = await import("./status.io.ts");
    return showNodeStatus((await targetOf(invocation)).agents(), wantsJson(invocation), process.stdout);
  },
  async "bgp peers"(invocation) {
    const { showPeers } = await import("./status.io.ts");
    return showPeers(await agentsOf(invocation), wantsJson(invocation), process.stdout);
  },
  async "bgp routes"(invocation) {
    const { showRoutes } = await import("./status.io.ts");
    const view = oneOf(invocation, "view", ["in", "best", "out"] as const) ?? "best";
    const { text } = invocation;
    const query = { view, peer: text("peer"), prefix: text("prefix"), family: text("family") };
    return showRoutes(await agentsOf(invocation), query, wantsJson(invocation), process.stdout);
  },
  async "bgp refresh"(invocation) {
    const { refreshPeer } = await import("./bgp.io.ts");
    const [peer = ""] = invocation.operands;
    return refreshPeer(await agentsOf(invocation, 1), peer, process.stdout);
  },
  async "bgp dump"(invocation) {
    const { dumpTables } = await import("./bgp.io.ts");
    return dumpTables(await oneAgent(invocation), invocation.text("output") ?? "-", process.stderr);
  },
  async "bgp trace"(invocation) {
    const { traceSession } = await import("./bgp.io.ts");
    const [peer = ""] = invocation.operands;
    const seconds = invocation.number("seconds", 1, 86_400);
    const file = invocation.text("output") ?? "-";
    return traceSession(await oneAgent(invocation, 1), peer, file, seconds, process.stderr);
  },
  async "policy counters"(invocation) {
    const { showCounters } = await import("./policy.io.ts");
    return showCounters(await agentsOf(invocation), wantsJson(invocation), process.stdout);
  },
  async "ipam show"(invocation) {
    const { ipamShow } = await import("./ipam.io.ts");
    const { text, flag } = invocation;
    return withDatastore(await targetOf(invocation), async (datastore) => {
      const args = {
        ip: text("ip"),
        showBlocks: flag("show-blocks"),
        showBorrowed: flag("show-borrowed"),
        showConfiguration: flag("show-configuration"),
        output: wantsJson(invocation) ? ("json" as const) : undefined,
      };
      await ipamShow(datastore, args, console);
      return 0;
    });
  },
  async "ipam check"(invocation) {
    const { ipamCheck } = await import("./ipam.io.ts");
    const { flag } = invocation;
    return withDatastore(await targetOf(invocation), async (datastore) => {
      const args = {
        showAllIps: flag("show-all-ips"),
        showProblemIps: flag("show-problem-ips"),
        output: wantsJson(invocation) ? ("json" as const) : undefined,
      };
      return (await ipamCheck(datastore, args, console)) === 0 ? 0 : 1;
    });
  },
  async agent() {
    const { runAgent } = await import("../agent/run.io.ts");
    return runAgent(process.env);
  },
  async apiserver() {
    const { runApiServer } = await import("../datastore/apiserver.io.ts");
    await runApiServer(process.argv.slice(3));
    return 0;
  },
  async controller(invocation) {
    const { runControllerProcess } = await import("../controller/run.io.ts");
    return runControllerProcess(
      { socket: invocation.text("socket"), kubeconfig: invocation.text("kubeconfig") },
      process.env,
    );
  },
  async cni() {
    const { runShim } = await import("../cni/shim.io.ts");
    return runShim(process.env);
  },
  version() {
    process.stdout.write(`caracal ${versionOf()} (Node ${process.versions.node})\n`);
    return 0;
  },
  help: ({ operands }) => help(operands),
};

async function labInput(invocation: Invocation): Promise<unknown> {
  const file = invocation.text("file");
  const nodes = invocation.number("nodes", 1, 200);
  if (file === undefined) {
    const { nodesOnOneSegment } = await import("../lab/definition.ts");
    return nodesOnOneSegment(nodes ?? 3);
  }
  if (nodes !== undefined) throw new UsageError("--nodes and --file exclude each other");
  const { parse } = await import("yaml");
  return parse(readFileSync(file, "utf8")) as unknown;
}

const labName = (invocation: Invocation): string => invocation.text("name") ?? "default";

/** The lab that is meant: named, or the one there is. */
async function chosenLab(invocation: Invocation): Promise<string> {
  const named = invocation.text("lab") ?? process.env["CARACAL_LAB"];
  if (named !== undefined) return named;
  const { listLabs } = await import("../lab/state.io.ts");
  const labs = listLabs();
  if (labs.includes("default") || labs.length === 0) return "default";
  if (labs.length === 1) return labs[0]!;
  throw new UsageError(`several labs run (${labs.join(", ")}): name one with --lab or $CARACAL_LAB`);
}

/** A lab, unless a kubeconfig is named; one in the environment counts where no lab is named or runs. */
async function targetOf(invocation: Invocation): Promise<Target> {
  const kubeconfig = invocation.text("kubeconfig");
  const { listLabs } = await import("../lab/state.io.ts");
  const wantsLab =
    invocation.text("lab") !== undefined || process.env["CARACAL_LAB"] !== undefined || listLabs().length > 0;
  const fromEnvironment = wantsLab ? undefined : process.env["KUBECONFIG"];
  const path = kubeconfig ?? fromEnvironment;
  if (path === undefined) {
    const { labTarget } = await import("../lab/target.io.ts");
    return labTarget(await chosenLab(invocation));
  }
  const { clusterTarget } = await import("./clusterTarget.io.ts");
  return clusterTarget(path);
}

/** All agents, or that of the node which stands at this place among the operands. */
async function agentsOf(invocation: Invocation, place = 0) {
  const agents = (await targetOf(invocation)).agents();
  const node = invocation.operands[place];
  const chosen = node === undefined ? agents : agents.filter((agent) => agent.node === node);
  if (chosen.length === 0)
    throw new UsageError(`there is no node "${node}"; there are ${agents.map((agent) => agent.node).join(", ")}`);
  return chosen;
}

async function oneAgent(invocation: Invocation, place = 0) {
  const [agent, ...others] = await agentsOf(invocation, place);
  if (agent === undefined || others.length > 0) throw new UsageError("name one node");
  return agent;
}

async function withDatastore(
  target: Target,
  work: (datastore: ReturnType<Target["openDatastore"]>) => Promise<number>,
): Promise<number> {
  const datastore = target.openDatastore();
  try {
    return await work(datastore);
  } finally {
    datastore.close();
  }
}

const filesOf = (invocation: Invocation): readonly string[] => invocation.texts("filename");

const timeoutMs = (invocation: Invocation): number => (invocation.number("timeout", 1, 3600) ?? 60) * 1000;

function oneOf<const Value extends string>(
  invocation: Invocation,
  option: string,
  allowed: readonly Value[],
): Value | undefined {
  const text = invocation.text(option);
  if (text === undefined) return undefined;
  const value = allowed.find((each) => each === text);
  if (value === undefined) throw new UsageError(`--${option} ${text}: it is ${allowed.join(", ")}`);
  return value;
}

const wantsJson = (invocation: Invocation): boolean => oneOf(invocation, "output", ["json"] as const) === "json";

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}

// Who reads may stop (`caracal apply … | head`): what was begun is finished all the same.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`caracal: ${messageOf(error)}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
