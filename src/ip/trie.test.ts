import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { parseAddress } from "./address.ts";
import { crowdedAddress, crowdedPrefix } from "./address.testing.ts";
import { formatPrefix, parsePrefix, type Prefix } from "./prefix.ts";
import { naivePrefixTable } from "./trie.naive.ts";
import { prefixTrie, type PrefixEntry, type PrefixTable } from "./trie.ts";

const text = (entry: PrefixEntry<number> | undefined): string | undefined => entry && formatPrefix(entry.prefix);

for (const [name, make] of Object.entries({ trie: prefixTrie<number>, naive: naivePrefixTable<number> })) {
  describe(`prefix table: ${name}`, () => {
    const routes = ["0.0.0.0/0", "10.0.0.0/8", "10.244.0.0/16", "10.244.9.0/26", "10.244.9.7/32", "2001:db8::/32"];
    const table: PrefixTable<number> = make();
    for (const [value, route] of routes.entries()) table.set(parsePrefix(route), value);

    const lookups: { address: string; longest: string | undefined }[] = [
      { address: "10.244.9.7", longest: "10.244.9.7/32" },
      { address: "10.244.9.8", longest: "10.244.9.0/26" },
      { address: "10.244.9.64", longest: "10.244.0.0/16" },
      { address: "10.0.0.1", longest: "10.0.0.0/8" },
      { address: "192.0.2.1", longest: "0.0.0.0/0" },
      { address: "2001:db8::1", longest: "2001:db8::/32" },
      { address: "2001:db9::1", longest: undefined },
    ];
    for (const { address, longest } of lookups) {
      test(`${address} is in ${longest ?? "none"}`, () => {
        assert.equal(text(table.longestMatch(parseAddress(address))), longest);
      });
    }
    test("covering and covered", () => {
      assert.deepEqual(table.covering(parsePrefix("10.244.9.0/26")).map(text), routes.slice(0, 4));
      assert.deepEqual(table.covered(parsePrefix("10.240.0.0/12")).map(text), routes.slice(2, 5));
      assert.deepEqual(table.covered(parsePrefix("::/0")).map(text), ["2001:db8::/32"]);
    });
    test("a prefix is set once, whatever its value", () => {
      const small = make();
      small.set(parsePrefix("10.0.0.0/8"), 1);
      small.set(parsePrefix("10.0.0.0/8"), 2);
      assert.equal(small.size, 1);
      assert.equal(small.get(parsePrefix("10.0.0.0/8")), 2);
      assert.equal(small.delete(parsePrefix("10.0.0.0/9")), false);
      assert.equal(small.delete(parsePrefix("10.0.0.0/8")), true);
      assert.equal(small.size, 0);
      assert.equal(small.longestMatch(parseAddress("10.0.0.1")), undefined);
    });
  });
}

test("the trie never differs from its naive twin", () => {
  const change = fc.record({ prefix: crowdedPrefix, value: fc.nat(9), remove: fc.boolean() });
  const property = fc.property(
    fc.array(change, { maxLength: 60 }),
    fc.array(crowdedAddress, { maxLength: 10 }),
    fc.array(crowdedPrefix, { maxLength: 10 }),
    (changes, addresses, prefixes) => {
      const trie = prefixTrie<number>();
      const naive = naivePrefixTable<number>();
      for (const { prefix, value, remove } of changes) {
        if (remove) assert.equal(trie.delete(prefix), naive.delete(prefix));
        else for (const table of [trie, naive]) table.set(prefix, value);
      }
      assert.equal(trie.size, naive.size);
      assert.deepEqual(trie.entries(), naive.entries());
      for (const address of addresses) assert.deepEqual(trie.longestMatch(address), naive.longestMatch(address));
      for (const prefix of [...prefixes, ...changes.map((one): Prefix => one.prefix)]) {
        assert.equal(trie.get(prefix), naive.get(prefix));
        assert.deepEqual(trie.covering(prefix), naive.covering(prefix));
        assert.deepEqual(trie.covered(prefix), naive.covered(prefix));
      }
    },
  );
  fc.assert(property, { numRuns: 150 });
});

test("what is emptied again leaves nothing behind", () => {
  fc.assert(
    fc.property(fc.array(crowdedPrefix, { maxLength: 40 }), (prefixes) => {
      const trie = prefixTrie<number>();
      for (const prefix of prefixes) trie.set(prefix, 0);
      for (const prefix of prefixes) trie.delete(prefix);
      assert.equal(trie.size, 0);
      assert.deepEqual(trie.entries(), []);
    }),
  );
});
