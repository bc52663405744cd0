import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { inside, temporaryNamespace } from "./namespace.testing.ts";
import { hostBytes, portBytes } from "./nftKey.ts";
import { portIs, protocolIs } from "./nftMatch.ts";
import type { NftSet } from "./nftSet.ts";
import { accept, count, drop, jump } from "./nftStatement.ts";
import { type NftChange, removeTable } from "./nftables.ts";
import { type Nftables, openNftables, shareNftables } from "./nftables.io.ts";
import { RefusedTransaction } from "./transaction.io.ts";

const table = { family: "ip", name: "calico" } as const;
const plain: NftSet = { table, name: "plain", key: ["ipv4_addr"] };
const chain = (name: string, of = table): NftChange => ({ kind: "addChain", chain: { table: of, name } });
const rule = (to: string, ...expressions: ReturnType<typeof accept>): NftChange => ({
  kind: "addRule",
  rule: { table, chain: to, expressions },
});
const element = (number: number): { key: Uint8Array } => ({ key: hostBytes(number) });

function nft(namespace: string, script: string): void {
  execFileSync("ip", ["netns", "exec", namespace, "nft", "-f", "-"], { input: `${script}\n` });
}

describe("a watch of one table", () => {
  test("tells which chains and sets others touched, once for each of their transactions", async () => {
    using namespace = temporaryNamespace();
    const nftables = openNftables(namespace.path);
    const heard: string[] = [];
    const stop = nftables.watchTable(table, {
      changed: (chains, sets) => heard.push([...chains, "|", ...sets].join(" ")),
      overrun: (reason) => heard.push(reason),
      failed: ({ message }) => heard.push(message),
    });
    try {
      nftables.apply([{ kind: "addTable", table }, chain("a"), chain("b"), { kind: "addSet", set: plain }]);
      nft(namespace.name, "add rule ip calico a accept\nadd rule ip calico b ip saddr @plain drop");
      nft(namespace.name, "add table ip other\nadd chain ip other a\nadd rule ip other a accept\nadd table ip6 calico");
      nft(namespace.name, "add element ip calico plain { 10.0.0.1, 10.0.0.2 }\nadd rule ip other a drop");
      nftables.apply([rule("a", ...drop())]);
      nft(namespace.name, "add chain ip calico c");
      nft(namespace.name, "flush ruleset");
      for (let turns = 0; turns < 200 && heard.length < 4; turns += 1) await sleep(2); // oxlint-disable-line no-await-in-loop
      assert.deepEqual(heard.map(sorted), ["a b |", "plain |", "|", "a b |"].map(sorted));
    } finally {
      stop();
      nftables.close();
    }
  });

  test("hears nothing during work that is unheard, but that others have changed something", async () => {
    using namespace = temporaryNamespace();
    const nftables = openNftables(namespace.path);
    const heard: string[] = [];
    const stop = nftables.watchTable(table, {
      changed: (chains) => heard.push([...chains].join(" ")),
      overrun: (reason) => heard.push(reason),
      failed: ({ message }) => heard.push(message),
    });
    const sayings = async (count: number): Promise<string[]> => {
      for (let turns = 0; turns < 50 && heard.length < count; turns += 1) await sleep(2); // oxlint-disable-line no-await-in-loop
      await sleep(10);
      return heard.splice(0);
    };
    try {
      nftables.unheard(() => {
        nftables.apply([{ kind: "addTable", table }, chain("a"), chain("b")]);
        nftables.unheard(() => void nftables.apply([rule("a", ...accept())]));
        assert.throws(() => nftables.apply([chain("c"), rule("none", ...accept())]), { code: "ENOENT" });
        nftables.apply([rule("a", ...drop())], { isTrial: true });
      });
      assert.deepEqual(await sayings(0), [], "of what nobody else did nothing is said");
      const failing = (): void => {
        nft(namespace.name, "add rule ip calico a drop");
        throw new Error("the work failed");
      };
      assert.throws(() => nftables.unheard(failing), /the work failed/);
      assert.deepEqual(await sayings(1), ["others changed nf_tables while nobody listened"]);
      nft(namespace.name, "add rule ip calico b drop");
      assert.deepEqual(await sayings(1), ["b"], "and then it hears again");
    } finally {
      stop();
      nftables.close();
    }
  });
  const sorted = (text: string): string => text.split(" ").toSorted().join(" ");
});

describe("parts of a table", () => {
  const listed: NftChange[] = [
    { kind: "addTable", table },
    chain("a"),
    chain("b"),
    rule("a", ...protocolIs(6), ...portIs("destination", 80), ...count(), ...accept()),
    rule("a", ...jump("b")),
    { kind: "addSet", set: plain },
    { kind: "addElements", set: plain, elements: [element(1), element(2)] },
  ];

  function opened(): { nftables: Nftables; name: string; [Symbol.dispose](): void } {
    const namespace = temporaryNamespace();
    const nftables = openNftables(namespace.path);
    const end = (): void => {
      nftables.close();
      namespace[Symbol.dispose]();
    };
    return { nftables, name: namespace.name, [Symbol.dispose]: end };
  }

  test("are those of the whole list", () => {
    using made = opened();
    const { parts } = made.nftables;
    made.nftables.apply(listed);
    const whole = made.nftables.list(table);
    assert.ok(whole);
    assert.deepEqual(parts.table(table), whole.table);
    assert.deepEqual(parts.chains(table), whole.chains);
    assert.deepEqual(parts.sets(table), whole.sets);
    assert.deepEqual(parts.rules(table, "a"), whole.rules.get("a"));
    assert.deepEqual(parts.rules(table, "b"), []);
    assert.deepEqual(
      parts.handles(table, "a"),
      whole.rules.get("a")?.map(({ handle }) => handle),
    );
    assert.deepEqual(parts.counts(table, "a"), [{ packets: 0, bytes: 0 }, undefined]);
    assert.deepEqual(parts.elements(plain), whole.elements.get("plain"));
  });

  test("of what is not there are none", () => {
    using made = opened();
    const { parts } = made.nftables;
    for (const changes of [[], listed, removeTable(table)]) {
      made.nftables.apply(changes);
      const other = { family: "ip", name: "none" } as const;
      assert.equal(parts.table(other), undefined);
      assert.deepEqual([parts.chains(other), parts.sets(other), parts.rules(other, "a")], [[], [], []]);
      assert.deepEqual([parts.handles(table, "none"), parts.counts(table, "none")], [[], []]);
      assert.deepEqual(parts.elements({ ...plain, name: "none" }), []);
    }
  });

  test("a trial does nothing, and says what a transaction would", () => {
    using made = opened();
    const { nftables, name } = made;
    nftables.apply(listed);
    const before = [nftables.generation(), inside(name, "nft", "list", "ruleset")];
    nftables.apply([chain("c"), rule("c", ...jump("a"))], { isTrial: true });
    assert.throws(
      () => nftables.apply([chain("c"), rule("c", ...jump("none"))], { isTrial: true }),
      (error) => error instanceof RefusedTransaction && error.refusals[0]?.at === 1,
    );
    assert.deepEqual([nftables.generation(), inside(name, "nft", "list", "ruleset")], before);
    nftables.apply([rule("b", ...portIs("source", portBytes(80)[1]!), ...drop())]);
    assert.equal(nftables.generation(), Number(before[0]) + 1);
  });

  test("who shares is not told of each other, and lasts until all have closed", async () => {
    using namespace = temporaryNamespace();
    const [one, other] = [shareNftables(namespace.path), shareNftables(namespace.path)];
    const heard: string[] = [];
    const stop = one.watchTable(table, {
      changed: () => heard.push("changed"),
      overrun: () => undefined,
      failed: () => undefined,
    });
    other.apply(listed);
    other.close();
    other.close();
    assert.equal(one.parts.chains(table).length, 2);
    await sleep(20);
    assert.deepEqual(heard, []);
    stop();
    one.close();
    assert.throws(() => one.apply(listed), { code: "EBADF" });
    const again = shareNftables(namespace.path);
    assert.equal(again.parts.chains(table).length, 2);
    again.close();
  });
});
