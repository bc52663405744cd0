import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ArpTable } from "../dataplane/arpTable.ts";
import type { WorkloadAddresses } from "../dataplane/arpTable.ts";
import type { Endpoint } from "../dataplane/endpoint.ts";
import { parseAddress } from "../ip/address.ts";
import { policyArp, type PolicyArp } from "./policyArp.ts";

const endpoint = (containerId: string, hostInterface: string, ...addresses: string[]): Endpoint => ({
  containerId,
  podInterface: "eth0",
  hostInterface,
  mac: "",
  mtu: 1500,
  addresses: addresses.map(parseAddress),
  netns: "",
  network: "k8s-pod-network",
});

/** A table in memory. */
function host() {
  const table = new Map<string, readonly string[]>();
  const failures: string[] = [];
  const faults = { isBroken: false, open: 0 };
  function open(): ArpTable {
    faults.open += 1;
    let isFirst = true;
    return {
      apply(workloads: WorkloadAddresses) {
        if (faults.isBroken) throw new Error("the kernel has no memory left");
        if (isFirst) table.clear();
        isFirst = false;
        for (const [name, addresses] of workloads) {
          if (addresses === undefined) table.delete(name);
          else table.set(name, addresses);
        }
      },
      check: () => Promise.resolve(["the set had an extra member"]),
      remove: () => table.clear(),
      close: () => void (faults.open -= 1),
    };
  }
  const arp: PolicyArp = policyArp(open, (reason) => failures.push(reason));
  return { arp, table, failures, faults };
}

describe("addresses that the host does not answer for", () => {
  test("are those of all that is attached, from when that is known", async () => {
    const { arp, table } = host();
    table.set("cali0", ["of an earlier agent"]);
    arp.attach(endpoint("c1", "cali1", "10.1.0.1", "2001:db8::1"));
    assert.deepEqual([...table.keys()], ["cali0"]);
    arp.follow("nft");
    arp.attach(endpoint("c2", "cali2", "10.1.0.2"));
    assert.deepEqual(Object.fromEntries(table), { cali1: ["10.1.0.1", "2001:db8::1"], cali2: ["10.1.0.2"] });
    assert.deepEqual(await arp.check(), ["the set had an extra member"]);
    arp.attach(endpoint("c3", "cali2", "10.1.0.3"));
    arp.detach(endpoint("c2", "cali2", "10.1.0.2"));
    assert.deepEqual(table.get("cali2"), ["10.1.0.3"]);
    arp.detach(endpoint("c3", "cali2", "10.1.0.3"));
    assert.deepEqual([...table.keys()], ["cali1"]);
  });

  test("are told by nf_tables only", async () => {
    const { arp, faults } = host();
    arp.follow("iptables");
    assert.deepEqual([faults.open, await arp.check()], [0, []]);
    arp.follow("nft");
    arp.follow("nft");
    assert.equal(faults.open, 1);
    arp.follow("iptables");
    assert.equal(faults.open, 0);
    arp.close();
  });

  test("hold nobody back where they cannot be told", () => {
    const { arp, failures, faults } = host();
    faults.isBroken = true;
    arp.follow("nft");
    arp.attach(endpoint("c1", "cali1", "10.1.0.1"));
    assert.deepEqual(failures, ["the kernel has no memory left", "the kernel has no memory left"]);
  });
});
