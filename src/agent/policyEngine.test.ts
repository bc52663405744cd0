import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { emptyRuleset, follow, printRuleset, type Ruleset } from "../dataplane/ruleset.testing.ts";
import { factsOf } from "../dataplane/ruleWorld.testing.ts";
import type { KernelRules, Refusal, RulesetChange } from "../dataplane/ruleset.ts";
import type { Timers } from "../datastore/mirror.ts";
import type { Family } from "../ip/address.ts";
import { anyHistory } from "../policy/anyWorld.testing.ts";
import { updatesOf } from "../policy/world.testing.ts";
import type { Renderer } from "./nodeFacts.ts";
import { policyEngine, type PolicyEngine } from "./policyEngine.ts";

const FAMILIES = [4, 6] as const;
/** Time that passes at once, after everything that is under way. */
const timers: Timers = {
  now: () => 0,
  setTimeout: (callback) => setImmediate(callback),
  clearTimeout: (timer) => clearImmediate(timer as NodeJS.Immediate),
};

/** A host with two packet filters in memory. Drivers keep what the rules are in `kernel`, as a kernel does when they close. */
function host() {
  const kernel = new Map<string, Ruleset>();
  const calls: string[] = [];
  const faults: {
    failures: number;
    refuse: (change: RulesetChange) => Refusal[];
    gate: Promise<void> | undefined;
    slow: { readonly family: Family; readonly until: Promise<void> } | undefined;
    clearing: Promise<void> | undefined;
  } = { failures: 0, refuse: () => [], gate: undefined, slow: undefined, clearing: undefined };
  /** How many drivers of one family were at work at once. */
  const working = { now: 0, most: 0 };
  function open(renderer: Renderer, family: Family): KernelRules {
    const key = `${renderer} ${family}`;
    // A driver that begins anew replaces what is there.
    let isFirst = true;
    return {
      async apply(change) {
        await faults.gate;
        if (family === faults.slow?.family) {
          working.now += 1;
          working.most = Math.max(working.most, working.now);
          await faults.slow.until;
          working.now -= 1;
        }
        if (faults.failures > 0) {
          faults.failures -= 1;
          throw new Error("the kernel has no memory left");
        }
        const ruleset = isFirst ? emptyRuleset(family) : (kernel.get(key) ?? emptyRuleset(family));
        isFirst = false;
        follow(ruleset, change);
        kernel.set(key, ruleset);
        calls.push(`${key}: ${[...change.chains.keys()].length} chains, ${change.sets.length} sets`);
        return faults.refuse(change);
      },
      check: () => Promise.resolve([`${key} had an extra rule`]),
      counts: () => Promise.resolve([{ counted: { of: key, direction: "ingress" }, packets: 1, bytes: 2 }]),
      remove: () => Promise.resolve(void kernel.delete(key)),
      close: () => undefined,
    };
  }
  const engine = policyEngine({
    node: "node1",
    families: FAMILIES,
    open: (renderer, family) => Promise.resolve(open(renderer, family)),
    async clear(renderer, family) {
      await faults.clearing;
      kernel.delete(`${renderer} ${family}`);
    },
    timers,
    soon: setImmediate,
    log: () => undefined,
  });
  const print = (renderer: Renderer = "nft"): string =>
    FAMILIES.map((family) => kernel.get(`${renderer} ${family}`))
      .map((ruleset) => (ruleset === undefined ? "nothing\n" : printRuleset(ruleset)))
      .join("");
  return { engine, kernel, calls, faults, working, print };
}

const WORLD = `
{apiVersion: v1, kind: Namespace, metadata: {name: a}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: a}, spec: {
  podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}}`;
const pod = (name: string, app: string, ip: string, node = "node1"): string =>
  `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: a, labels: {app: ${app}}}, spec: {nodeName: ${node},
    containers: [{name: c}]}, status: {podIPs: [{ip: ${ip}}]}}`;

function tell(engine: PolicyEngine, manifest: string): void {
  for (const update of updatesOf(manifest)) engine.update(update);
}

describe("policy on its way to the kernel", () => {
  test("waits for the start; until then a bare kernel lets no workload's packet go anywhere", async () => {
    const { engine, print } = host();
    engine.setFacts(factsOf({}), "nft");
    tell(engine, WORLD);
    tell(engine, pod("web", "web", "10.1.0.1"));
    await engine.guard(FAMILIES);
    assert.match(print(), /chain filter\/cali-FORWARD/);
    assert.doesNotMatch(print(), /cali-tw-/);
    assert.equal(engine.isSettled(), false);
    assert.equal(await engine.settled(10), false, "nothing is in force before the start");
    engine.start();
    assert.ok(await engine.settled(1000));
    assert.match(print(), /chain filter\/cali-tw-cali/);
    await engine.close();
  });

  test("holds back the one family that the kernel has no rules of, and leaves the other's as they are", async () => {
    const earlier = host();
    earlier.engine.setFacts(factsOf({}), "nft");
    tell(earlier.engine, WORLD);
    tell(earlier.engine, pod("web", "web", "10.1.0.1"));
    earlier.engine.start();
    assert.ok(await earlier.engine.settled(1000));
    await earlier.engine.close();
    const whole = earlier.print();

    const { engine, kernel, print } = host();
    kernel.set("nft 4", earlier.kernel.get("nft 4")!);
    engine.setFacts(factsOf({}), "nft");
    await engine.guard([6]);
    assert.equal(kernel.get("nft 4"), earlier.kernel.get("nft 4"));
    assert.match(printRuleset(kernel.get("nft 6")!), /chain filter\/cali-FORWARD/);
    assert.doesNotMatch(printRuleset(kernel.get("nft 6")!), /cali-tw-/);
    tell(engine, WORLD);
    tell(engine, pod("web", "web", "10.1.0.1"));
    engine.start();
    assert.ok(await engine.settled(1000));
    assert.equal(print(), whole);
    await engine.close();
  });

  test("carries out together what comes together, and says when it is there", async () => {
    const { engine, calls, print } = host();
    engine.setFacts(factsOf({}), "nft");
    engine.start();
    assert.ok(await engine.settled(1000));
    calls.length = 0;
    tell(engine, WORLD);
    tell(engine, pod("web", "web", "10.1.0.1"));
    tell(engine, pod("c1", "client", "10.1.0.2", "node2"));
    tell(engine, pod("c2", "client", "10.1.0.3", "node2"));
    assert.equal(engine.isSettled(), false);
    assert.ok(await engine.settled(1000));
    assert.equal(calls.length, 2, calls.join("\n"));
    assert.match(print(), /net: 10\.1\.0\.2 10\.1\.0\.3/);
    tell(engine, pod("c2", "other", "10.1.0.3", "node2"));
    engine.flush();
    assert.ok(await engine.settled(1000));
    assert.match(print(), /net: 10\.1\.0\.2\n/);
    await engine.close();
  });

  test("is carried out one change after the other, whatever the kernel takes its time for", async () => {
    const { engine, faults, print } = host();
    engine.setFacts(factsOf({}), "nft");
    tell(engine, WORLD);
    tell(engine, pod("web", "web", "10.1.0.1"));
    const gate = Promise.withResolvers<void>();
    faults.gate = gate.promise;
    engine.start();
    tell(engine, pod("c1", "client", "10.1.0.2", "node2"));
    const early = engine.settled(1000);
    faults.gate = undefined;
    gate.resolve();
    assert.ok(await early);
    assert.match(print(), /net: 10\.1\.0\.2\n/);
    await engine.close();
  });

  test("is tried again when the kernel fails, with everything there is", async () => {
    const { engine, faults, print } = host();
    engine.setFacts(factsOf({}), "nft");
    engine.start();
    assert.ok(await engine.settled(1000));
    faults.failures = 3;
    tell(engine, WORLD);
    tell(engine, pod("web", "web", "10.1.0.1"));
    for (let turn = 0; turn < 1000 && !engine.isSettled(); turn += 1) {
      await new Promise((resolve) => setImmediate(resolve));
      if (faults.failures === 2) assert.match(engine.status().failure ?? "", /no memory left/);
    }
    assert.equal(engine.status().failure, undefined);
    assert.match(print(), /chain filter\/cali-tw-cali/);
    await engine.close();
  });

  test("that the kernel refuses is told by what it was made of, until it is taken", async () => {
    const { engine, faults } = host();
    engine.setFacts(factsOf({}), "nft");
    faults.refuse = ({ family }) => (family === 4 ? [{ origin: "knp/a/web", reason: "no such match" }] : []);
    tell(engine, WORLD);
    tell(engine, pod("web", "web", "10.1.0.1"));
    engine.start();
    assert.ok(await engine.settled(1000));
    assert.deepEqual(engine.problems.of("policy", "knp/a/web"), ["the kernel refused it: no such match"]);
    assert.deepEqual(engine.problems.of("policy", "knp/a/other"), []);
    assert.deepEqual(engine.problems.list(), [{ id: "knp/a/web", reason: "the kernel refused it: no such match" }]);
    tell(engine, pod("c1", "client", "10.1.0.2", "node2"));
    assert.ok(await engine.settled(1000));
    assert.equal(engine.problems.list().length, 1, "another change does not mend it");
    faults.refuse = () => [];
    tell(engine, pod("c1", "other", "10.1.0.2", "node2"));
    assert.ok(await engine.settled(1000));
    assert.deepEqual(engine.problems.list(), [], "one of a set that it looks at may");
    faults.refuse = ({ family }) => (family === 6 ? [{ origin: "pro/kns.a", reason: "no memory" }] : []);
    await engine.check();
    assert.equal(engine.problems.list().length, 1);
    faults.refuse = () => [];
    await engine.check();
    assert.deepEqual(engine.problems.list(), [], "a check tries again");
    await engine.close();
  });

  test("waits for the other family where one fails, before all is done anew", async () => {
    const { engine, faults, working } = host();
    engine.setFacts(factsOf({}), "nft");
    const gate = Promise.withResolvers<void>();
    faults.refuse = ({ family }) => {
      if (family === 4) throw new Error("the kernel has no memory left");
      return [];
    };
    faults.slow = { family: 6, until: gate.promise };
    engine.start();
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(working.most, 1, "a driver was opened while its forerunner was at work");
    faults.refuse = () => [];
    gate.resolve();
    for (let turn = 0; turn < 100 && !engine.isSettled(); turn += 1)
      await new Promise((resolve) => setImmediate(resolve));
    assert.ok(engine.isSettled());
    assert.equal(working.most, 1);
    await engine.close();
  });

  test("moves whole to another renderer, and leaves the first", async () => {
    const { engine, kernel, print } = host();
    engine.setFacts(factsOf({}), "nft");
    tell(engine, WORLD);
    tell(engine, pod("web", "web", "10.1.0.1"));
    engine.start();
    assert.ok(await engine.settled(1000));
    const before = print();
    engine.setFacts(factsOf({}), "iptables");
    tell(engine, pod("c1", "client", "10.1.0.2", "node2"));
    assert.ok(await engine.settled(1000));
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([...kernel.keys()], ["iptables 4", "iptables 6"]);
    assert.equal(print("iptables").replace("net: 10.1.0.2", "net: "), before);
    assert.equal(engine.status().renderer, "iptables");
    await engine.close();
  });

  test("stays whole when it moves back before the first is gone", async () => {
    const { engine, kernel, faults } = host();
    engine.setFacts(factsOf({}), "nft");
    engine.start();
    assert.ok(await engine.settled(1000));
    for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    const gate = Promise.withResolvers<void>();
    faults.clearing = gate.promise;
    engine.setFacts(factsOf({}), "iptables");
    assert.ok(await engine.settled(1000));
    engine.setFacts(factsOf({}), "nft");
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    gate.resolve();
    for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    assert.ok(engine.isSettled());
    assert.deepEqual([...kernel.keys()], ["nft 4", "nft 6"]);
    await engine.close();
  });

  test("says that settings are not those that were asked for, and is in force with those that are", async () => {
    const { engine } = host();
    const why = "the mark mask 0x1 has 1 bits, and the rules need 5";
    engine.setFacts(factsOf({}), "nft", "", why);
    engine.start();
    assert.ok(await engine.settled(1000));
    assert.deepEqual([engine.status().failure, engine.status().fault], [undefined, why]);
    engine.setFacts(factsOf({}), "nft");
    assert.ok(engine.isSettled(), "nothing else has changed");
    assert.equal(engine.status().fault, undefined);
    await engine.close();
  });

  test("is looked at and counted in turn", async () => {
    const { engine } = host();
    engine.setFacts(factsOf({}), "nft");
    engine.start();
    const [found, counts] = await Promise.all([engine.check(), engine.counts()]);
    assert.deepEqual(found, ["nft 4 had an extra rule", "nft 6 had an extra rule"]);
    assert.deepEqual(
      counts.map(({ counted }) => counted.of),
      ["nft 4", "nft 6"],
    );
    await engine.close();
  });

  test("ends the same in whatever steps it comes, and whatever fails on the way", async () => {
    const step = fc.constantFrom("flush", "wait", "fail", "renderer", "update");
    await fc.assert(
      fc.asyncProperty(anyHistory, fc.array(step, { maxLength: 20 }), async (history, steps) => {
        const whole = host();
        whole.engine.setFacts(factsOf({}), "nft");
        for (const update of history) whole.engine.update(update);
        whole.engine.start();
        assert.ok(await whole.engine.settled(1000));
        const pieces = host();
        let renderer: Renderer = "nft";
        pieces.engine.setFacts(factsOf({}), renderer);
        pieces.engine.start();
        for (const [at, update] of history.entries()) {
          pieces.engine.update(update);
          const what = steps[at % Math.max(1, steps.length)];
          if (what === "flush") pieces.engine.flush();
          else if (what === "wait") await pieces.engine.settled(1000);
          else if (what === "fail") pieces.faults.failures = 1;
          else if (what === "renderer") {
            renderer = renderer === "nft" ? "iptables" : "nft";
            pieces.engine.setFacts(factsOf({}), renderer);
          }
        }
        pieces.engine.setFacts(factsOf({}), "nft");
        for (let turn = 0; turn < 100 && !pieces.engine.isSettled(); turn += 1)
          await new Promise((resolve) => setImmediate(resolve));
        assert.equal(pieces.print(), whole.print());
        assert.equal(pieces.print("iptables"), "nothing\nnothing\n");
        await Promise.all([whole.engine.close(), pieces.engine.close()]);
      }),
      { numRuns: 40 },
    );
  });
});
