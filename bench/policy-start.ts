import { readFileSync } from "node:fs";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import { LOCAL, namespaceAt, POLICIES, REMOTE, shapeNamed } from "./policy-objects.ts";
import { openPolicyNode } from "./policy-node.ts";

/**
 * One start of an agent's policy in a process of its own, in the network namespace that it was born in: every object of a
 * shape, then everything in force. Prints what it took as JSON. `node bench/policy-start.ts SHAPE`.
 */
export interface Start {
  /** Seconds from the first object to everything in force in the kernel, without those in which objects were made up. */
  readonly total: number;
  /** Of which in the kernel and on the way to it, after all objects were known. */
  readonly kernel: number;
  /** Processor seconds of the same: of all threads, with what the kernel did for them. */
  readonly work: number;
  /** MB, of the whole process. */
  readonly peak: number;
  readonly rest: number;
  readonly heap: number;
  readonly sets: number;
  readonly active: number;
  readonly chains: number;
}

/** So many objects at a time, as a relay has them from the API server. */
const PAGE = 1000;
/** After which an idle process has collected its garbage, in seconds. */
const REST = 10;

async function start(id: string): Promise<Start> {
  const shape = shapeNamed(id);
  const node = openPolicyNode("nft");
  const { listener, engine } = node.policy;
  let [total, work] = [0, 0];
  async function timed(what: () => unknown): Promise<number> {
    const [began, cpu] = [performance.now(), process.cpuUsage()];
    await what();
    const took = (performance.now() - began) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    total += took;
    work += (user + system) / 1e6;
    return took;
  }
  async function each<Item>(count: number, make: (at: number) => Item, tell: (item: Item) => void): Promise<void> {
    for (let at = 0; at < count; at += PAGE) {
      const page = Array.from({ length: Math.min(PAGE, count - at) }, (_, number) => make(at + number));
      await timed(() => page.forEach(tell));
      await turn();
    }
  }
  await timed(() => node.policy.guard());
  await each(shape.namespaces, namespaceAt, (item) => listener.put("Namespace", item));
  await each(
    LOCAL,
    (at) => shape.pod(at),
    (item) => node.addOwn(item),
  );
  await each(
    REMOTE,
    (at) => shape.pod(LOCAL + at),
    (item) => listener.put("Pod", item),
  );
  await each(
    POLICIES,
    (at) => shape.policy(at),
    (object) => {
      if (object.kind === "NetworkPolicy") listener.put(object.kind, object.item);
      else listener.put(object.kind, object.item);
    },
  );
  const kernel = await timed(async () => {
    node.policy.start();
    await node.inForce();
  });
  await sleep(REST * 1000);
  const { sets, active } = engine.status().size;
  const result = {
    total,
    kernel,
    work,
    peak: memory("VmHWM"),
    rest: memory("VmRSS"),
    heap: process.memoryUsage().heapUsed / 2 ** 20,
    sets,
    active,
    chains: engine.tables().endpoints.size,
  };
  await node.close();
  return result;
}

/** Of this process, in MB. */
function memory(field: string): number {
  const found = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(readFileSync("/proc/self/status", "latin1"));
  return Number(found?.[1]) / 1024;
}

if (import.meta.main) {
  console.log(JSON.stringify(await start(process.argv[2] ?? "felix")));
  process.exit(0);
}
