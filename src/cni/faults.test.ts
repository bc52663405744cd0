import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import type { Endpoint } from "../dataplane/endpoint.ts";
import { formatAddress } from "../ip/address.ts";
import { Failure } from "../lib/errors.ts";
import { memoryNode, requestBytes, STEPS, type MemoryNode, type Step } from "./node.testing.ts";
import { createCniPlugin, type Answer } from "./plugin.ts";

/** ADD, DEL and GC on a node where any step may fail, before it has done anything or after it has done it all. */

interface Fault {
  readonly step: Step;
  readonly when: "before" | "after";
}

const FAULTS: readonly Fault[] = STEPS.flatMap((step) => [
  { step, when: "before" as const },
  { step, when: "after" as const },
]);

/** Steps of an undoing or a removal: if one of them fails, it is for a later DEL to finish. */
const OF_REMOVAL: ReadonlySet<Step> = new Set(["release", "removeLink", "remove"]);

function start() {
  let armed: Fault | undefined;
  const node = memoryNode([4, 6], (step, when) => {
    if (armed?.step !== step || armed.when !== when) return;
    armed = undefined;
    throw new Failure("injected", `${step} fails ${when} its work`);
  });
  const plugin = createCniPlugin(node, "cali");
  const arm = (fault: Fault | undefined): void => {
    armed = fault;
  };
  return { node, plugin, arm };
}

/** Four containers of two pods, so that two share a name, and two bare ones. */
const CONTAINERS = [
  { id: "c0", pod: "web" },
  { id: "c1", pod: "web" },
  { id: "c2", pod: "db" },
  { id: "c3", pod: "db" },
  { id: "c4", pod: undefined },
  { id: "c5", pod: undefined },
] as const;

type Command =
  | { readonly command: "ADD" | "DEL"; readonly container: number; readonly fault: Fault | undefined }
  | { readonly command: "GC"; readonly alive: readonly number[]; readonly fault: Fault | undefined };

function bytesOf(command: Command): Uint8Array {
  if (command.command === "GC") {
    const attachments = command.alive.map((index) => ({ containerID: CONTAINERS[index]!.id, ifname: "eth0" }));
    return requestBytes({ CNI_COMMAND: "GC" }, { cniVersion: "1.1.0", "cni.dev/valid-attachments": attachments });
  }
  const { id, pod } = CONTAINERS[command.container]!;
  return requestBytes({
    CNI_COMMAND: command.command,
    CNI_CONTAINERID: id,
    CNI_NETNS: `/run/netns/${id}`,
    CNI_ARGS: pod === undefined ? "" : `K8S_POD_NAMESPACE=default;K8S_POD_NAME=${pod};K8S_POD_UID=${id}`,
  });
}

/** After an ADD that succeeded, the container has all that it needs. */
function assertAttached(node: MemoryNode, containerId: string): void {
  const endpoint = node.endpoints.find(containerId, "eth0");
  assert.ok(endpoint, `${containerId} has no endpoint:\n${node.print()}`);
  const link = node.links.get(endpoint.hostInterface);
  assert.ok(link?.up, `${containerId} has no link that is up:\n${node.print()}`);
  assert.equal(link.netns, `/run/netns/${containerId}`);
  assert.equal(link.routes.length, 2);
  assertHeld(node, endpoint);
}

function assertHeld(node: MemoryNode, { containerId, addresses }: Endpoint): void {
  const holders = addresses.map((address) => node.held.get(formatAddress(address))?.containerId);
  assert.deepEqual(holders, [containerId, containerId], node.print());
}

/** Every link has an endpoint that knows it, whose address is held in its name. */
function assertConsistent(node: MemoryNode): void {
  for (const endpoint of node.endpoints.list()) {
    assert.ok(node.links.has(endpoint.hostInterface), `${endpoint.containerId} has no link:\n${node.print()}`);
    assertHeld(node, endpoint);
  }
  assert.equal(node.links.size, node.endpoints.list().length, node.print());
}

describe("an ADD that fails", () => {
  for (const fault of FAULTS.filter(({ step }) => !OF_REMOVAL.has(step))) {
    test(`leaves nothing behind: at ${fault.step}, ${fault.when} its work`, async () => {
      const { node, plugin, arm } = start();
      arm(fault);
      const answer = await plugin.answer(bytesOf({ command: "ADD", container: 0, fault }));
      assert.equal(answer.ok, false);
      assert.match(answer.text, /fails (before|after) its work/);
      assert.equal(node.print(), "");
      assert.equal((await plugin.answer(bytesOf({ command: "ADD", container: 0, fault }))).ok, true);
      assertAttached(node, "c0");
    });
  }
});

describe("whatever fails, in whatever order", () => {
  const fault = fc.option(fc.constantFrom(...FAULTS), { nil: undefined, freq: 2 });
  const container = fc.nat(CONTAINERS.length - 1);
  const command: fc.Arbitrary<Command> = fc.oneof(
    { weight: 3, arbitrary: fc.record({ command: fc.constant("ADD" as const), container, fault }) },
    { weight: 2, arbitrary: fc.record({ command: fc.constant("DEL" as const), container, fault }) },
    {
      weight: 1,
      arbitrary: fc.record({
        command: fc.constant("GC" as const),
        alive: fc.uniqueArray(container),
        fault,
      }),
    },
  );

  test("a DEL of every container leaves nothing behind", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 12 }), async (commands) => {
        const { node, plugin, arm } = start();
        for (const each of commands) {
          arm(each.fault);
          const answer = await plugin.answer(bytesOf(each));
          arm(undefined);
          if (each.command === "ADD" && answer.ok) assertAttached(node, CONTAINERS[each.container]!.id);
        }
        for (const index of CONTAINERS.keys()) {
          const answer = await plugin.answer(bytesOf({ command: "DEL", container: index, fault: undefined }));
          assert.deepEqual(answer, { ok: true, text: "" });
        }
        assert.equal(node.print(), "");
      }),
      { numRuns: 150 },
    );
  });

  test("a GC that knows of no container leaves nothing behind but links that no endpoint is known for", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 12 }), async (commands) => {
        const { node, plugin, arm } = start();
        for (const each of commands) {
          arm(each.fault);
          await plugin.answer(bytesOf(each));
          arm(undefined);
        }
        await plugin.answer(bytesOf({ command: "GC", alive: [], fault: undefined }));
        // The agent sweeps such links when it starts, and the next ADD under the name does.
        assert.doesNotMatch(node.print(), /^(address|endpoint)/m);
      }),
      { numRuns: 100 },
    );
  });

  test("requests that overlap end as if they had come one after another", async () => {
    const quiet = fc.oneof(
      fc.record({ command: fc.constant("ADD" as const), container, fault: fc.constant(undefined) }),
      fc.record({ command: fc.constant("DEL" as const), container, fault: fc.constant(undefined) }),
    );
    const slow = fc.infiniteStream(fc.nat(3));
    await fc.assert(
      fc.asyncProperty(fc.array(quiet, { minLength: 2, maxLength: 10 }), slow, async (commands, delays) => {
        const node = memoryNode([4, 6], async () => {
          const turns = delays.next().value as number;
          for (let turn = 0; turn < turns; turn += 1) await setImmediate();
        });
        const plugin = createCniPlugin(node, "cali");
        const answers: Answer[] = await Promise.all(commands.map((each) => plugin.answer(bytesOf(each))));
        for (const answer of answers) assert.equal(answer.ok, true, answer.text);
        assertConsistent(node);
        for (const { id } of CONTAINERS) {
          const last = commands.findLast(({ container: index }) => CONTAINERS[index]!.id === id);
          const { pod } = CONTAINERS.find((other) => other.id === id)!;
          const replaced =
            last !== undefined &&
            commands.slice(commands.lastIndexOf(last) + 1).some((other) => {
              const rival = CONTAINERS[other.container]!;
              return other.command === "ADD" && rival.id !== id && pod !== undefined && rival.pod === pod;
            });
          const attached = node.endpoints.find(id, "eth0") !== undefined;
          assert.equal(attached, last?.command === "ADD" && !replaced, `${id}\n${node.print()}`);
        }
      }),
      { numRuns: 50 },
    );
  });
});
