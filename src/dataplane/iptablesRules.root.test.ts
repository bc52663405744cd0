import assert from "node:assert/strict";
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { inside } from "../netlink/namespace.testing.ts";
import type { Family } from "../ip/address.ts";
import { codeOf } from "../lib/errors.ts";
import { anyHistory } from "../policy/anyWorld.testing.ts";
import { SETTINGS } from "../policy/world.testing.ts";
import { applyUpdate, emptyWorld } from "../policy/world.ts";
import { factsFor, nodeOf } from "./ruleWorld.testing.ts";
import { anyRuleset } from "./anyRules.testing.ts";
import {
  BACKENDS,
  bench,
  chain,
  changeTo,
  DROP,
  everything,
  FAMILIES,
  nothing,
  RETURN,
  simple,
} from "./iptables.testing.ts";
import { chainKeyOf, type ChainRule } from "./ruleset.ts";
import { emptyRuleset, type Ruleset } from "./ruleset.testing.ts";

/** Of a world with a little of everything: what a node's builder makes of it. */
function ofPolicy(): Readonly<Record<Family, Ruleset>> {
  const settings = {
    ...SETTINGS,
    natPortRange: "40000:50000",
    logActionRateLimit: "10/minute",
    serviceLoopPrevention: "Reject",
  } as const;
  const world = emptyWorld(settings);
  world.interfaces.set("node1", [{ name: "eth0", addresses: ["10.0.0.1"] }]);
  for (const history of fc.sample(anyHistory, { seed: 5, numRuns: 40 }))
    for (const update of history) applyUpdate(world, update);
  const facts = factsFor(settings, {
    settings: {
      interfacePrefix: ["wep"],
      natPortRange: "40000:50000",
      logActionRateLimit: "10/minute",
      serviceLoopPrevention: "Reject",
      floatingIPs: "Enabled",
    },
    nflog: true,
    tunnels: ([4, 6] as const).map((of) => ({
      kind: "vxlan",
      family: of,
      device: "vxlan.calico",
      addresses: of === 4 ? ["10.65.0.0"] : ["fd00:65::"],
    })),
    hosts: ["192.0.2.1", "2001:db8::1"],
    vxlanHosts: ["192.0.2.1", "2001:db8::1"],
    serviceCidrs: ["10.96.0.0/12", "fd00:96::/112"],
    pools: ["10.65.0.0/16", "fd00:65::/48"].map((cidr) => ({
      cidr,
      natOutgoing: true,
      disabled: false,
      isLoadBalancer: false,
    })),
  });
  return nodeOf(world, "node1", facts).rulesets;
}

const policy = ofPolicy();

for (const backend of BACKENDS) {
  describe(`the driver of iptables-${backend}`, () => {
    test("writes what is wanted, and adopts it with nothing changed", async () => {
      using it = bench(backend);
      assert.deepEqual(await it.rules.apply(changeTo(simple())), []);
      const written = it.everything();
      assert.deepEqual(Object.keys(written), [
        "cali40s:one net",
        "filter/FORWARD",
        "filter/cali-FORWARD",
        "filter/cali-from-wl-dispatch",
        "filter/cali-from-wl-dispatch-2",
        "filter/cali-fw-cali1",
        "filter/cali-fw-cali2",
        "nat/POSTROUTING",
        "nat/cali-POSTROUTING",
      ]);
      // Whatever writes a rule again sets its counters to nothing.
      it.iptables("-t", "filter", "-A", "INPUT", "-j", "ACCEPT");
      it.iptables(
        "-t",
        "filter",
        "-R",
        "cali-fw-cali2",
        "1",
        "-c",
        "7",
        "777",
        ...ruleWords(written["filter/cali-fw-cali2"]![0]!),
      );
      const second = it.another();
      assert.deepEqual(await second.apply(changeTo(simple())), []);
      assert.match(it.iptables("-t", "filter", "-nvxL", "cali-fw-cali2"), /^ +7 +777 DROP /m);
      assert.deepEqual(await second.check(), []);
      assert.match(it.iptables("-t", "filter", "-nvxL", "cali-fw-cali2"), /^ +7 +777 DROP /m);
    });

    test("changes what differs from an earlier agent's, and removes what that left", async () => {
      using it = bench(backend);
      const before = simple();
      before.chains.set("filter/cali-pi-old", chain("cali-pi-old", [DROP]));
      before.chains.set(
        "filter/cali-fw-cali2",
        chain("cali-fw-cali2", [{ matches: [], actions: [{ do: "jump", chain: "cali-pi-old" }] }]),
      );
      before.sets.set("s:old", { kind: "net", members: new Set(["10.0.0.9"]) });
      before.sets.set("s:one", { kind: "net", members: new Set(["10.0.0.1", "10.0.0.2"]) });
      before.hooks = before.hooks.slice(1);
      await it.rules.apply(changeTo(before));
      it.rules.close();
      const second = it.another();
      await second.apply(changeTo(simple()));
      await second.check();
      using fresh = bench(backend);
      await fresh.rules.apply(changeTo(simple()));
      assert.deepEqual(it.everything(), fresh.everything());
    });

    test("comes by any changes to what a fresh start writes", async () => {
      const samples = fc.sample(anyRuleset(4, "raw"), { seed: 41, numRuns: 6 });
      using it = bench(backend);
      let current = emptyRuleset(4);
      for (const [index, next] of samples.entries()) {
        const mixed: Ruleset = {
          ...next,
          chains: new Map(next.chains),
          maps: new Map(next.maps),
          sets: new Map(next.sets),
        };
        // Some stay as they were.
        for (const [at, [key, kept]] of [...current.chains].entries())
          if ((at + index) % 3 === 0) mixed.chains.set(key, kept);
        for (const [at, [id, kept]] of [...current.sets].entries())
          if ((at + index) % 3 === 1) mixed.sets.set(id, kept);
        // oxlint-disable-next-line no-await-in-loop -- one after the other is what it is about
        assert.deepEqual(await it.rules.apply(changeTo(mixed, current)), []);
        current = mixed;
      }
      using fresh = bench(backend);
      await fresh.rules.apply(changeTo(current));
      assert.deepEqual(it.everything(), fresh.everything());
      assert.deepEqual(await it.rules.check(), []);
      assert.deepEqual(await it.rules.apply(changeTo(simple(), current)), []);
      await it.rules.check();
      using simply = bench(backend);
      await simply.rules.apply(changeTo(simple()));
      assert.deepEqual(it.everything(), simply.everything());
    });

    for (const family of FAMILIES) {
      test(`takes all that a node has of policy, IPv${family}`, async () => {
        using it = bench(backend, family);
        const ruleset = policy[family];
        assert.ok(
          ruleset.chains.size > 40 && ruleset.sets.size > 6,
          `${ruleset.chains.size} chains, ${ruleset.sets.size} sets`,
        );
        assert.deepEqual(await it.rules.apply(changeTo(ruleset)), []);
        assert.deepEqual(await it.rules.check(), []);
        await it.rules.remove();
        assert.deepEqual(it.everything(), {});
      });
    }

    test("finds what others changed, and puts it right", async () => {
      const heard: string[] = [];
      using it = bench(backend, 4, { onRepaired: (what) => heard.push(...what) });
      await it.rules.apply(changeTo(simple()));
      assert.deepEqual(await it.rules.check(), []);
      const right = it.everything();
      const words = ruleWords(right["filter/cali-fw-cali1"]![0]!);
      it.iptables("-D", "cali-fw-cali1", "2");
      it.iptables("-I", "cali-FORWARD", "-j", "ACCEPT");
      it.iptables("-F", "cali-from-wl-dispatch-2");
      it.iptables("-I", "FORWARD", "-p", "tcp", "-j", "ACCEPT");
      it.iptables("-t", "nat", "-D", "POSTROUTING", "1");
      it.iptables("-N", "cali-strange");
      it.ipset("del", "cali40s:one", "10.0.0.1");
      it.ipset("add", "cali40s:one", "10.9.9.9");
      it.ipset("create", "cali40strange", "hash:ip");
      // Nothing is heard before this turn of the event loop is over.
      assert.deepEqual((await it.rules.check()).toSorted(), [
        "filter: chain cali-FORWARD was changed",
        "filter: chain cali-from-wl-dispatch-2 was changed",
        "filter: chain cali-fw-cali1 was changed",
        "filter: chain cali-strange is not wanted",
        "filter: our rules in FORWARD were changed or moved",
        "nat: our rules in POSTROUTING were changed or moved",
        "set cali40s:one differed by 2 members",
        "set cali40strange is not wanted",
      ]);
      assert.deepEqual(it.everything(), {
        ...right,
        "filter/FORWARD": [...right["filter/FORWARD"]!, "-p tcp -j ACCEPT"],
      });
      // The mark is kept, and the rule says something else.
      it.iptables("-R", "cali-fw-cali1", "1", ...words.map((word) => (word === "RETURN" ? "ACCEPT" : word)));
      await it.rules.check();
      const replaced = words.map((word) => (word === "src" ? "dst" : word));
      it.iptables("-R", "cali-fw-cali1", "1", ...replaced);
      const found = await it.rules.check();
      assert.deepEqual([...heard, ...found], ["filter: chain cali-fw-cali1 was changed"]);
      assert.deepEqual(it.everything()["filter/cali-fw-cali1"], right["filter/cali-fw-cali1"]);
      assert.deepEqual(await it.rules.check(), []);
    });

    const hears = backend === "nft";
    test(`finds by itself what others changed, ${hears ? "at once" : "a while after it was written"}`, async () => {
      const repaired: string[][] = [];
      using it = bench(backend, 4, {
        afterWriteMs: hears ? 60_000 : 150,
        onRepaired: (what) => repaired.push([...what]),
        onFailure: (error) => assert.fail(String(error)),
      });
      await it.rules.apply(changeTo(simple()));
      const before = it.everything();
      await sleep(hears ? 100 : 0);
      const began = performance.now();
      it.iptables("-N", "KUBE-OTHERS");
      it.iptables("-A", "KUBE-OTHERS", "-j", "ACCEPT");
      it.iptables("-F", "cali-FORWARD");
      it.iptables("-D", "FORWARD", "1");
      while (repaired.length === 0 && performance.now() - began < 1000) await sleep(5);
      assert.deepEqual(repaired, [
        ["filter: chain cali-FORWARD was changed", "filter: our rules in FORWARD were changed or moved"],
      ]);
      assert.deepEqual(it.everything()["filter/cali-FORWARD"], before["filter/cali-FORWARD"]);
      assert.deepEqual(it.everything()["filter/FORWARD"], before["filter/FORWARD"]);
    });

    test("goes on when others took away what a change counts on", async () => {
      using it = bench(backend);
      await it.rules.apply(changeTo(simple()));
      it.iptables("-F");
      it.iptables("-X");
      const back = chain("cali-fw-cali2", [{ matches: [], actions: [{ do: "goto", chain: "cali-fw-cali1" }] }]);
      assert.deepEqual(await it.rules.apply(nothing(4, { chains: new Map([["filter/cali-fw-cali2", back]]) })), []);
      assert.deepEqual(await it.rules.check(), []);
      assert.equal(it.everything()["filter/FORWARD"]?.length, 1);
    });

    test("a chain that is refused drops, and the rest is in force", async () => {
      using it = bench(backend);
      const ruleset = simple();
      // The kernel has that match for packets that come in, and only in raw and mangle.
      const bad: ChainRule = { matches: [{ on: "reversePath" }], actions: [{ do: "accept" }] };
      const missing: ChainRule = {
        matches: [{ on: "set", side: "source", set: "s:missing" }],
        actions: [{ do: "accept" }],
      };
      const many = Array.from({ length: 30 }, (_, at) =>
        chain(`cali-pi-np/a/${at}`, [at === 7 ? bad : at === 20 ? missing : RETURN]),
      );
      for (const each of many) ruleset.chains.set(chainKeyOf(each), each);
      const calling = chain(
        "cali-fw-cali2",
        many.map(({ name }) => ({ matches: [], actions: [{ do: "jump", chain: name }] })),
      );
      ruleset.chains.set(chainKeyOf(calling), calling);
      const refusals = await it.rules.apply(changeTo(ruleset));
      assert.deepEqual(refusals.map(({ origin }) => origin).sort(), ["of cali-pi-np/a/20", "of cali-pi-np/a/7"]);
      assert.match(refusals.find(({ origin }) => origin.endsWith("/20"))!.reason, /Set cali40s:missing doesn't exist/);
      const written = it.everything();
      for (const at of [7, 20]) {
        assert.match(
          written[`filter/cali-pi-np/a/${at}`]!.join("|"),
          /^-m comment --comment "cali:[\w-]{16}" -j DROP$/,
        );
      }
      assert.match(written["filter/cali-pi-np/a/8"]!.join("|"), /-j RETURN$/);
      assert.equal(written["filter/cali-fw-cali2"]!.length, 30);
      // It heals as soon as it can.
      assert.deepEqual(await it.rules.apply(nothing(4)), refusals);
      const came = { id: "s:missing", kind: "net", state: "new", added: ["10.0.0.1"], removed: [] } as const;
      const left = await it.rules.apply(nothing(4, { sets: [came] }));
      assert.deepEqual(
        left.map(({ origin }) => origin),
        ["of cali-pi-np/a/7"],
      );
      assert.match(it.everything()["filter/cali-pi-np/a/20"]!.join("|"), /-j ACCEPT$/);
      assert.match(it.everything()["filter/cali-pi-np/a/7"]!.join("|"), /-j DROP$/);
    });

    test("removes all of ours, and nothing of others'", async () => {
      using it = bench(backend);
      it.iptables("-N", "KUBE-FORWARD");
      it.iptables("-A", "FORWARD", "-m", "comment", "--comment", "not cali:AAAAAAAAAAAAAAAA's", "-j", "KUBE-FORWARD");
      it.ipset("create", "KUBE-SET", "hash:ip");
      it.iptables("-A", "KUBE-FORWARD", "-m", "set", "--match-set", "KUBE-SET", "src", "-j", "ACCEPT");
      const before = it.everything();
      const earlier = it.another();
      await earlier.apply(changeTo(simple()));
      earlier.close();
      assert.notDeepEqual(it.everything(), before);
      // Another driver, that knows nothing of it.
      await it.another().remove();
      assert.deepEqual(it.everything(), before);
      assert.equal(it.ipset("list", "-n"), "KUBE-SET\n");
      await it.rules.apply(changeTo(simple()));
      assert.notDeepEqual(it.everything(), before);
      await it.rules.remove();
      assert.deepEqual(it.everything(), before);
    });

    test("says so where a rule of others keeps a chain of ours", async () => {
      using it = bench(backend);
      await it.rules.apply(changeTo(simple()));
      it.iptables("-A", "INPUT", "-j", "cali-fw-cali2");
      await assert.rejects(
        it.rules.remove(),
        /Cannot remove filter\/cali-fw-cali2 with iptables-\w+: rules of others lead there/,
      );
      assert.deepEqual(Object.keys(it.everything()), ["filter/INPUT", "filter/cali-fw-cali2"]);
    });

    test("counts packets by rule", async () => {
      using it = bench(backend);
      const counted = { of: "np/a", direction: "ingress", index: 3 } as const;
      const input = chain("cali-INPUT", [
        {
          matches: [
            {
              on: "ports",
              side: "destination",
              ranges: [
                { first: 1, last: 1 },
                ...Array.from({ length: 15 }, (_, at) => ({ first: 10 + at, last: 10 + at })),
              ],
              sets: [],
            },
            { on: "protocol", protocols: [17] },
          ],
          actions: [{ do: "drop" }],
          counted,
        },
      ]);
      await it.rules.apply(
        nothing(4, {
          chains: new Map([[chainKeyOf(input), input]]),
          hooks: [
            {
              layer: "filter",
              hook: "INPUT",
              place: "first",
              rule: { matches: [], actions: [{ do: "jump", chain: "cali-INPUT" }] },
            },
          ],
        }),
      );
      for (const port of [1, 24, 24, 99])
        inside(it.name, "bash", "-c", `echo -n 1234 > /dev/udp/127.0.0.1/${port} || true`);
      assert.deepEqual(await it.rules.counts(), [{ counted, packets: 3, bytes: 3 * (20 + 8 + 4) }]);
    });
  });
}

/** Another program that writes rules of iptables, and takes its time: until it is killed. */
async function holdLock(): Promise<ChildProcess> {
  const lock = "/run/xtables.lock";
  // It keeps the lock to itself, so that the lock ends with it.
  const holder = spawn("sh", ["-c", `exec flock --close ${lock} sleep 20`], { stdio: "ignore" });
  while (spawnSync("sh", ["-c", `flock --nonblock ${lock} true`]).status === 0) await sleep(5);
  return holder;
}

/** The words of a rule as iptables-save prints it. */
function ruleWords(options: string): string[] {
  return [...options.matchAll(/"([^"]*)"|(\S+)/g)].map(([, inQuotes, plain]) => inQuotes ?? plain ?? "");
}

describe("the driver of iptables", () => {
  test("takes out what an earlier agent left with the other backend", async () => {
    using legacy = bench("legacy");
    await legacy.rules.apply(changeTo(simple()));
    const nft = legacy.another({ backend: "nft" });
    await nft.apply(changeTo(simple()));
    assert.deepEqual(Object.keys(legacy.everything()), ["cali40s:one net"]);
    assert.ok("filter/cali-fw-cali1" in everything(legacy.name, 4, "nft"));
    assert.deepEqual(await nft.check(), []);
  });

  test("appends where it is to append, and leaves others before it", async () => {
    using it = bench("nft", 6, { chainInsertMode: "append" });
    it.iptables("-A", "FORWARD", "-j", "ACCEPT");
    await it.rules.apply(changeTo(simple(6)));
    assert.deepEqual(
      it.everything()["filter/FORWARD"]?.map((options) => options.replace(/^.*-j/, "-j")),
      ["-j ACCEPT", "-j cali-FORWARD"],
    );
    it.iptables("-A", "FORWARD", "-j", "DROP");
    assert.deepEqual(await it.rules.check(), []);
  });

  test("says what does not end in time, and begins anew after it", async () => {
    using it = bench("legacy");
    const hasty = it.another({ commandTimeout: 300 });
    const other = await holdLock();
    try {
      await assert.rejects(hasty.apply(changeTo(simple())), (error) => {
        assert.equal(codeOf(error), "tool-timeout");
        assert.match(String(error), /Cannot run iptables-legacy-restore .*: it did not end within 300 ms/);
        return true;
      });
    } finally {
      other.kill();
    }
    hasty.close();
    await assert.rejects(hasty.check(), /they were let go/);
    assert.deepEqual(await it.rules.apply(changeTo(simple())), []);
    assert.deepEqual(await it.rules.check(), []);
  });
});
