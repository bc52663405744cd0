import { spawn } from "node:child_process";
import { messageOf } from "../lib/errors.ts";
import { probeResults } from "./matrix.io.ts";
import { formatMatrix } from "./matrix.ts";
import { labTarget } from "./target.io.ts";

/** The tour of `npm run demo`: the commands that a person would type, what they print, and what they show. */

const LAB = "demo";
const LATE_POD = "shop/late";
const ROOT = new URL("../..", import.meta.url).pathname;
const MAIN = `${ROOT}src/cli/main.ts`;

function say(text: string): void {
  process.stdout.write(`\n\u001b[1m${text}\u001b[0m\n`);
}

/** Runs `caracal …` as a person would, and shows the command before its output. Throws when it fails. */
function caracal(...args: string[]): Promise<void> {
  process.stdout.write(`\u001b[2m$ caracal ${args.join(" ")}\u001b[0m\n`);
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", MAIN, ...args], {
      stdio: "inherit",
      cwd: ROOT,
      env: { ...process.env, CARACAL_LAB: LAB },
    });
    child.on("error", reject);
    child.on("exit", (code) =>
      code === 0 ? resolve() : reject(new Error(`caracal ${args.join(" ")} ended with ${code}`)),
    );
  });
}

async function show(): Promise<void> {
  say("Three nodes on two segments, joined by a router. Each node runs one agent.");
  await caracal("lab", "up", "--name", LAB, "--file", "examples/two-segments.yaml");

  say("Nine pods, each attached by the CNI plugin, as a container runtime would call it.");
  await caracal("apply", "-f", "examples/nine-pods.yaml", "--wait");
  await caracal("get", "pods", "-A");

  say("The nodes tell each other, and the router, where pods are: BGP sessions.");
  await caracal("node", "status");

  say("A node's routes: its own pods, its own block (free addresses end there), the others' blocks learned in BGP.");
  await caracal("lab", "exec", "node1", "--", "ip", "route");

  say("A pod's routes: everything goes to a gateway that only the node answers for.");
  await caracal("exec", "shop/web-1", "--", "ip", "route");

  say("Every pod tries a real connection to every other.");
  await probe(72);

  say("A policy: only the API's two pods may reach the database. It is in force on every node when apply returns.");
  await caracal("apply", "-f", "examples/db-policy.yaml", "--wait");
  await caracal("get", "networkpolicies", "-A", "-o", "wide");
  await probe(72 - 6);
  await caracal("policy", "counters");

  say("How long the pods took to start: nine at once on nodes that had just started, then one more.");
  await caracal("apply", "-f", "examples/one-more-pod.yaml", "--wait");
  process.stdout.write(await startTimes());
}

/** Every pod to every other; so many of the 72 connections must work. */
async function probe(expected: number): Promise<void> {
  const results = await probeResults(
    LAB,
    { protocol: undefined, port: undefined, from: undefined, to: undefined },
    1000,
  );
  process.stdout.write(formatMatrix(results));
  const working = results.filter(({ connected }) => connected).length;
  if (results.length !== 9 * 8 || working !== expected)
    throw new Error(`${working} of ${results.length} connections work, where ${expected} of 72 should`);
}

/** From the pods' own conditions: what the CNI plugin took, and from seeing the pod to its answering. */
async function startTimes(): Promise<string> {
  const datastore = labTarget(LAB).openDatastore();
  try {
    const { items } = await datastore.list("Pod");
    const times = items.flatMap(({ metadata, status }) => {
      const message = status?.conditions?.find(({ type }) => type === "Ready")?.message ?? "";
      const found = /network in ([\d.]+) ms, running in ([\d.]+) ms/.exec(message);
      return found === null
        ? []
        : [{ pod: `${metadata.namespace}/${metadata.name}`, network: Number(found[1]), running: Number(found[2]) }];
    });
    const late = times.filter(({ pod }) => pod === LATE_POD);
    const early = times.filter(({ pod }) => pod !== LATE_POD);
    const median = (values: readonly number[]): number =>
      values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
    const line = (name: string, of: readonly { network: number; running: number }[]): string => {
      const [network, running] = [median(of.map((each) => each.network)), median(of.map((each) => each.running))];
      return `${name.padEnd(24)}network ${network.toFixed(1).padStart(6)} ms   running ${running.toFixed(1).padStart(6)} ms\n`;
    };
    return [
      ...early.map((each) => line(each.pod, [each])),
      line("median of the nine", early),
      line(LATE_POD, late),
    ].join("");
  } finally {
    datastore.close();
  }
}

const keep = process.argv.includes("--keep");
let failed: unknown;
try {
  await show();
} catch (error) {
  failed = error;
}
if (keep && failed === undefined) {
  say("The lab is kept. Look around, and take it down when you are done:");
  process.stdout.write(
    `  export CARACAL_LAB=${LAB}\n  ./caracal exec shop/web-1 -- ping 10.244.0.1\n  ./caracal lab down --name ${LAB}\n`,
  );
} else {
  say("Taking it down again.");
  await caracal("lab", "down", "--name", LAB).catch((error: unknown) => {
    failed ??= error;
  });
}
if (failed !== undefined) {
  process.stderr.write(`caracal: the demo failed: ${messageOf(failed)}\n`);
  process.exitCode = 1;
}
