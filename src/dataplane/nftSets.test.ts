import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { SetChange } from "../policy/sets.ts";
import type { KeptSetChange } from "./keptTable.ts";
import { nftAddressSets } from "./nftAddressSets.ts";
import { netsName, setName } from "./nftNames.ts";
import { dispatchForm, endpointsForm, hostsForm, isNetwork, netsForm, type SetForm } from "./nftSets.ts";

describe("members as elements", () => {
  const forms: { form: SetForm; members: string[] }[] = [
    { form: hostsForm(4, "s:a"), members: ["0.0.0.0", "10.0.0.1", "192.0.2.255", "255.255.255.255"] },
    { form: hostsForm(6, "s:a"), members: ["::", "fd00::1", "2001:db8:0:1::ff"] },
    { form: netsForm(4, "s:a"), members: ["10.0.0.0/8", "192.0.2.128/25", "0.0.0.0/0", "10.0.0.0/31"] },
    { form: netsForm(6, "s:a"), members: ["fd00::/64", "::/0", "2001:db8::/127"] },
    {
      form: endpointsForm(4, "n:a"),
      members: ["10.0.0.1,tcp:80", "10.0.0.1,udp:65535", "10.0.0.1,sctp:1", "10.0.0.1,47:0"],
    },
    { form: endpointsForm(6, "n:a"), members: ["fd00::1,tcp:8080", "2001:db8::1,udplite:1"] },
    {
      form: dispatchForm(4, { layer: "filter", name: "m" }),
      members: ["cali1 filter-cali-fw-cali1", "a-name-of-15-by x"],
    },
  ];
  for (const { form, members } of forms) {
    test(`come back as they were: ${form.nft.name} of ${form.nft.key.join()}`, () => {
      for (const member of members) assert.equal(form.decode(form.encode(member)), member);
    });
  }

  test("are refused with what is wrong with them", () => {
    const wrong: [SetForm, string][] = [
      ...["10.0.0.256", "10.0.0", "10.0.0.1.2", "10..0.1", "", "10.0.0.1x", "1000.0.0.1"].map(
        (member): [SetForm, string] => [hostsForm(4, "s:a"), member],
      ),
      [hostsForm(6, "s:a"), "fd00:::1"],
      [netsForm(4, "s:a"), "10.0.0.0/33"],
      [endpointsForm(4, "n:a"), "10.0.0.1,nothing:80"],
      [endpointsForm(4, "n:a"), "10.0.0.1"],
      [dispatchForm(4, { layer: "filter", name: "m" }), "a-name-of-16-byt x"],
    ];
    for (const [form, member] of wrong) assert.throws(() => form.encode(member), { name: "Failure" }, member);
  });
});

describe("address sets", () => {
  const MEMBERS = ["10.0.0.1", "10.0.0.2", "10.1.0.0/16", "10.2.0.0/16", "fd00::1", "fd00:1::/64"];

  test("of any changes have the halves and members that they say", () => {
    const some = fc.subarray(MEMBERS);
    const anyChange = fc.record({
      state: fc.constantFrom("new", "changed", "changed", "gone"),
      added: some,
      removed: some,
    });
    fc.assert(
      fc.property(fc.constantFrom(4 as const, 6 as const), fc.array(anyChange, { maxLength: 8 }), (family, changes) => {
        const sets = nftAddressSets(family);
        const kernel = new Map<string, Set<string>>();
        let expected: Set<string> | undefined;
        for (const { state, added, removed } of changes) {
          const change: SetChange = {
            id: "s:a",
            kind: "net",
            state,
            added: state === "gone" ? [] : added,
            removed: state === "changed" ? removed : [],
          };
          if (state === "gone") expected = undefined;
          else {
            expected = new Set(state === "new" ? [] : expected);
            for (const member of change.removed) expected.delete(member);
            for (const member of change.added) expected.add(member);
          }
          const before = sets.shapeOf("s:a");
          const told = new Map<string, KeptSetChange | undefined>();
          const isReshaped = sets.change(change, told);
          for (const [name, one] of told) follow(kernel, name, one);
          const shape = sets.shapeOf("s:a");
          assert.equal(isReshaped, before?.hosts !== shape?.hosts || before?.nets !== shape?.nets);

          const own = [...(expected ?? [])].filter((member) => member.includes(":") === (family === 6));
          const [nets, hosts] = [own.filter(isNetwork), own.filter((member) => !isNetwork(member))];
          const halves: [string, string[]][] = [];
          if (expected !== undefined && (hosts.length > 0 || nets.length === 0))
            halves.push([setName(family, "s:a"), hosts]);
          if (nets.length > 0) halves.push([netsName(family, "s:a"), nets]);
          assert.deepEqual(plain(kernel), new Map(halves.map(([name, members]) => [name, members.toSorted()])));
          assert.deepEqual(shape, expected && { hosts: hosts.length > 0 || nets.length === 0, nets: nets.length > 0 });
        }
      }),
    );
  });

  const plain = (sets: ReadonlyMap<string, ReadonlySet<string>>): Map<string, string[]> =>
    new Map([...sets].map(([name, members]) => [name, [...members].toSorted()]));

  /** As the kernel would, which has no member twice. */
  function follow(kernel: Map<string, Set<string>>, name: string, change: KeptSetChange | undefined): void {
    if (change === undefined) {
      assert.ok(kernel.delete(name), `${name} goes, and was not there`);
      return;
    }
    const members = kernel.get(name) ?? new Set();
    for (const member of change.removed) assert.ok(members.delete(member), `${member} was not in ${name}`);
    for (const member of change.added) {
      assert.ok(!members.has(member), `${member} was in ${name}`);
      members.add(member);
    }
    kernel.set(name, members);
    assert.deepEqual(members, change.set.members);
  }
});
