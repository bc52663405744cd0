/** A namespace whose rules are kept, for tests that look at them from outside. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { temporaryNamespace } from "../netlink/namespace.testing.ts";
import { openNftables } from "../netlink/nftables.io.ts";
import { content } from "./nftListing.testing.ts";
import { type NftKernelRulesOptions, openNftKernelRules } from "./nftRules.io.ts";
import type { KernelRules } from "./ruleset.ts";

export interface RulesNode extends Disposable {
  readonly name: string;
  readonly path: string;
  readonly rules: KernelRules;
  /** What was put right, each time that something was. */
  readonly repaired: (readonly string[])[];
  /** Another agent takes the place of this one, with other options where they are given. */
  again(options?: Partial<NftKernelRulesOptions>): KernelRules;
}

/** IPv4 where not said otherwise. A failure in the background is one of the test. */
export function rulesNode(options: Partial<NftKernelRulesOptions> = {}): RulesNode {
  const namespace = temporaryNamespace();
  const repaired: (readonly string[])[] = [];
  const failures: unknown[] = [];
  const open = (others: Partial<NftKernelRulesOptions>): KernelRules =>
    openNftKernelRules({
      family: 4,
      namespace: namespace.path,
      onRepaired: (what) => repaired.push(what),
      onFailure: (error) => failures.push(error),
      ...options,
      ...others,
    });
  let rules = open({});
  return {
    name: namespace.name,
    path: namespace.path,
    get rules() {
      return rules;
    },
    repaired,
    again(others = {}) {
      rules.close();
      rules = open(others);
      return rules;
    },
    [Symbol.dispose]() {
      rules.close();
      namespace[Symbol.dispose]();
      assert.deepEqual(failures, []);
    },
  };
}

/** How many transactions the namespace has seen, whoever sent them. */
export function generation(path: string): number {
  const nftables = openNftables(path);
  try {
    return nftables.generation();
  } finally {
    nftables.close();
  }
}

/** The rules of a chain, as nft lists them. */
export function linesOf(name: string, chain: string): string[] {
  const block = content(name).find((one) => one.includes(`chain ${chain} {`)) ?? "";
  const lines = block.split("\n").slice(1, -1);
  return lines.map((line) => line.trim());
}

/** Returns how many milliseconds it took. Fails as it failed last. */
export async function until(what: () => void, milliseconds = 1000): Promise<number> {
  const began = performance.now();
  for (;;) {
    try {
      what();
      return performance.now() - began;
    } catch (error) {
      if (performance.now() - began > milliseconds) throw error;
      await sleep(2);
    }
  }
}
