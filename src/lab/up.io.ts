import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { askAgent } from "../cli/agentClient.io.ts";
import { formatAddress } from "../ip/address.ts";
import { messageOf } from "../lib/errors.ts";
import { membersOf, parseDefinition, type LabDefinition } from "./definition.ts";
import { LabError } from "./labError.ts";
import { checkLabName, labFiles, memberNamespace, namespacePrefix, nodeFiles } from "./files.ts";
import { canalIpam, writeNetworkConfig } from "./canal.io.ts";
import { buildNetwork, removeNetwork, ROUTER } from "./network.io.ts";
import { endProcesses, isAlive, namespacesWithPrefix, processesIn, startProcess } from "./process.io.ts";
import { forgetLab, listLabs, writeLab } from "./state.io.ts";

export interface LabProgram {
  /** Starts another caracal: the pinned Node and the command line's entry point. */
  readonly command: readonly string[];
  /** The CNI plugin's executable. */
  readonly plugin: string;
}

/** How long a lab may take to become ready. A node takes part of a core for a second. */
const readyMs = (nodes: number): number => 60_000 + nodes * 3000;

/** Makes a lab and returns when all of its nodes are ready for pods. What fails takes away what it has made. */
export async function labUp(
  name: string,
  input: unknown,
  program: LabProgram,
  progress: (line: string) => void,
): Promise<LabDefinition> {
  checkLabName(name);
  const definition = parseDefinition(input);
  if (isRunning(name))
    throw new LabError("exists", `the lab "${name}" is running: "caracal lab down --name ${name}" takes it down`);
  await labDown(name, () => undefined); // what a crash has left
  const nodes = membersOf(definition, "node");
  progress(
    `building lab "${name}": ${nodes.length} nodes on ${definition.segments.length} ${definition.segments.length === 1 ? "segment" : "segments"}`,
  );
  try {
    writeLab(name, input);
    const files = labFiles(name);
    symlinkSync(program.plugin, `${files.pluginDirectory}/calico`);
    writeConflist(files.conflist, definition);
    if (definition.backend === "canal") writeNetworkConfig(files.directory, definition);
    buildNetwork(name, definition);
    const keeper = startProcess({
      netns: memberNamespace(name, ROUTER),
      command: [...program.command, "lab", "keep", "--name", name],
      environment: {},
      log: `${files.logDirectory}/keeper.log`,
      detached: true,
    });
    writeFileSync(files.pid, `${keeper.pid}\n`, { mode: 0o600 });
    progress("starting the API server and the agents");
    await waitReady(name, definition, keeper.pid, progress);
  } catch (error) {
    await labDown(name, () => undefined);
    throw error;
  }
  return definition;
}

/** Calico's own list, less the plugins for host ports and bandwidth, which a lab's pods have no use for. */
function writeConflist(path: string, definition: LabDefinition): void {
  mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true, mode: 0o700 });
  const ipam = definition.backend === "canal" ? canalIpam(definition) : { type: "calico-ipam" };
  const plugin = { type: "calico", ipam, policy: { type: "k8s" }, mtu: 0 };
  writeFileSync(
    path,
    `${JSON.stringify({ name: "k8s-pod-network", cniVersion: "1.0.0", plugins: [plugin] }, undefined, 2)}\n`,
  );
}

function isRunning(name: string): boolean {
  const { pid } = labFiles(name);
  return (
    existsSync(pid) &&
    isAlive(Number(readFileSync(pid, "utf8"))) &&
    processesIn([memberNamespace(name, ROUTER)]).includes(Number(readFileSync(pid, "utf8")))
  );
}

interface NodeReport {
  readonly ready: boolean;
  readonly waitingFor: readonly string[];
  readonly bgp: {
    readonly settled: boolean;
    readonly peers: readonly {
      readonly name: string;
      readonly address: string;
      readonly state: string;
      readonly reason: string;
    }[];
  };
}

/** Until each agent is ready and every BGP session is up. */
async function waitReady(
  name: string,
  definition: LabDefinition,
  keeper: number,
  progress: (line: string) => void,
): Promise<void> {
  const began = performance.now();
  const waiting = new Map<string, string>(
    membersOf(definition, "node").map((node) => [node.name, "it has not started"]),
  );
  const deadline = began + readyMs(waiting.size);
  while (waiting.size > 0) {
    for (const node of waiting.keys()) {
      const reason = await unreadiness(name, node, definition);
      if (reason === undefined) {
        waiting.delete(node);
        progress(`${node} is ready after ${((performance.now() - began) / 1000).toFixed(1)} s`);
      } else waiting.set(node, reason);
    }
    if (waiting.size === 0) return;
    const list = [...waiting].map(([node, reason]) => `${node}: ${reason}`).join("; ");
    const log = labFiles(name).logDirectory;
    if (!isAlive(keeper)) throw new LabError("failed", `the lab's keeper has ended: ${lastLines(`${log}/keeper.log`)}`);
    if (performance.now() > deadline)
      throw new LabError("timeout", `the lab is not ready in time: ${list}. ${lastLines(`${log}/keeper.log`)}`);
    await sleep(15);
  }
}

/** Hosts are not waited for: nobody has started their daemons yet. */
async function unreadiness(lab: string, node: string, definition: LabDefinition): Promise<string | undefined> {
  let report: NodeReport;
  try {
    report = (await askAgent(`${nodeFiles(lab, node).runDirectory}/agent.sock`, "/status")) as NodeReport;
  } catch (error) {
    return `the agent does not answer (${messageOf(error)})`;
  }
  if (!report.ready) return `waits for ${report.waitingFor.join(" and ")}`;
  if (report.bgp.peers.length === 0 && definition.router === "bgp") return "it has no BGP peers yet";
  const hosts = new Set(
    definition.segments.flatMap(({ members }) =>
      members.flatMap(({ role, address, address6 }) =>
        role === "node"
          ? []
          : [address, address6].flatMap((each) => (each === undefined ? [] : [formatAddress(each.address)])),
      ),
    ),
  );
  const down = report.bgp.peers.find(({ state, address }) => state !== "established" && !hosts.has(address));
  return down === undefined
    ? undefined
    : `BGP peer ${down.name}: ${down.state}${down.reason === "" ? "" : `, ${down.reason}`}`;
}

function lastLines(path: string): string {
  try {
    return readFileSync(path, "utf8").trimEnd().split("\n").slice(-5).join("\n");
  } catch {
    return "";
  }
}

/** Removes every process, namespace and file of the lab, also of one that has crashed. Says whether there was any. */
export async function labDown(name: string, progress: (line: string) => void): Promise<boolean> {
  checkLabName(name);
  const files = labFiles(name);
  const namespaces = namespacesWithPrefix(namespacePrefix(name));
  const existed = existsSync(files.directory) || namespaces.length > 0;
  // The keeper first: it would start the others again.
  const keeper = existsSync(files.pid) ? Number(readFileSync(files.pid, "utf8")) : 0;
  const own = processesIn(namespaces);
  if (own.includes(keeper)) {
    progress("ending the lab's processes");
    await endProcesses([keeper], 5000);
  }
  // Also those that are still being born while the first are ended.
  for (let round = 0; round < 5; round += 1) {
    const left = processesIn(namespaces);
    if (left.length === 0) break;
    await endProcesses(left, 1000);
  }
  removeNetwork(name);
  forgetLab(name);
  return existed;
}

export function runningLabs(): { name: string; running: boolean }[] {
  return listLabs().map((name) => ({ name, running: isRunning(name) }));
}
