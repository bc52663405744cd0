import { createInterface } from "node:readline";
import type { Renderer } from "../src/agent/nodeFacts.ts";
import type { Kinds } from "../src/resources/registry.ts";
import { openPolicyNode } from "./policy-node.ts";
import { clientPod, clientPolicy, loadScene, type Scene } from "./policy-scenes.ts";

/**
 * An agent's policy in a process of its own, which does what it is told on its standard input, a JSON object a line:
 * `node bench/policy-worker.ts RENDERER SCENE`. The first answer is a line as well, and says that the scene is in force.
 */
export type Command =
  /** Another pod becomes a client, so many times, one after the other. Answers milliseconds until each is in force. */
  | { readonly do: "join"; readonly count: number }
  /** A policy lets in another port. */
  | { readonly do: "policy"; readonly count: number }
  /** A pod as a watch would tell of it: no answer. `sent`: by the clock that all processes share. */
  | { readonly do: "pod"; readonly pod: Kinds["Pod"]; readonly sent: number }
  /** Answers what was measured of the pods since the last time, when all are in force. */
  | { readonly do: "lags" };

export interface Lags {
  /** Milliseconds from `sent` to the kernel's acknowledgement. */
  readonly lags: readonly number[];
  /** Milliseconds of processor time of the whole process. */
  readonly cpu: number;
  /** How many times something was brought into the kernel. */
  readonly rounds: number;
  /** MB */
  readonly memory: number;
}

/** CLOCK_MONOTONIC in milliseconds: the same in all processes. */
export const sharedClock = (): number => Number(process.hrtime.bigint() / 1000n) / 1000;

async function work(renderer: Renderer, scene: Scene): Promise<void> {
  const pending: { readonly told: number; readonly sent: number }[] = [];
  let lags: number[] = [];
  let rounds = 0;
  let cpu = process.cpuUsage();
  const node = openPolicyNode(renderer, () => {
    const now = sharedClock();
    rounds += 1;
    // How far the kernel is, the engine notes just after it has called this.
    queueMicrotask(() => {
      const { inKernel } = node.policy.engine.status();
      let done = 0;
      while (done < pending.length && pending[done]!.told <= inKernel) done += 1;
      for (const { sent } of pending.splice(0, done)) lags.push(now - sent);
    });
  });
  const { listener, engine } = node.policy;
  await node.policy.guard();
  loadScene(node, scene);
  node.policy.start();
  await node.inForce();
  let next = scene.of === "clients" ? scene.members : 0;

  async function timed(count: number, tell: () => void): Promise<number[]> {
    const took: number[] = [];
    for (let at = 0; at < count; at += 1) {
      const began = performance.now();
      tell();
      // oxlint-disable-next-line no-await-in-loop -- one after the other is what is measured
      await node.inForce();
      took.push(performance.now() - began);
    }
    return took;
  }

  async function obey(command: Command): Promise<unknown> {
    switch (command.do) {
      case "join":
        return timed(command.count, () => {
          listener.put("Pod", clientPod(next, true));
          next += 1;
        });
      case "policy":
        return timed(command.count, () => {
          next += 1;
          listener.put("NetworkPolicy", clientPolicy(next % 100, 100, 1000 + (next % 10_000)));
        });
      case "pod":
        listener.put("Pod", command.pod);
        pending.push({ told: engine.status().told, sent: command.sent });
        return undefined;
      case "lags": {
        await node.inForce();
        const used = process.cpuUsage(cpu);
        if (pending.length > 0) throw new Error("what is in force was not noted");
        const answer: Lags = {
          lags,
          cpu: (used.user + used.system) / 1000,
          rounds,
          memory: process.memoryUsage().rss / 2 ** 20,
        };
        lags = [];
        rounds = 0;
        cpu = process.cpuUsage();
        return answer;
      }
    }
  }

  process.stdout.write('"ready"\n');
  for await (const line of createInterface({ input: process.stdin })) {
    const answer = await obey(JSON.parse(line) as Command);
    if (answer !== undefined) process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  await node.close();
}

if (import.meta.main) {
  await work(process.argv[2] as Renderer, JSON.parse(process.argv[3] ?? "") as Scene);
  process.exit(0);
}
