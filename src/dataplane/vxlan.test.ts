import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { describeForwarding, describeNeighbour, type ForwardingEntry, type Neighbour } from "../netlink/neigh.ts";
import { planEntries, vtepMac, type VxlanPeer } from "./vxlan.ts";

const a = parseAddress;

describe("the MAC of a node's end", () => {
  // From `printf node1 | sha1sum`: f937c37e94…; and with "-v6" after it, 0f35f260df…
  test("0x66 and the first five bytes of SHA-1 of the node's name", () => {
    assert.equal(vtepMac("node1", 4), "66:f9:37:c3:7e:94");
    assert.equal(vtepMac("node1", 6), "66:0f:35:f2:60:df");
  });
});

describe("neighbours and forwarding entries", () => {
  const DEVICE = 5;
  const peer = (number: number, node = `192.0.2.${number}`): VxlanPeer => ({
    address: a(`10.65.${number}.1`),
    mac: `66:00:00:00:00:0${number}`,
    node: a(node),
  });
  const neighbour = (number: number, mac = number, fields: Partial<Neighbour> = {}): Neighbour => ({
    device: DEVICE,
    address: a(`10.65.${number}.1`),
    linkAddress: `66:00:00:00:00:0${mac}`,
    state: "permanent",
    ...fields,
  });
  const forwarding = (
    mac: number,
    node = `192.0.2.${mac}`,
    fields: Partial<ForwardingEntry> = {},
  ): ForwardingEntry => ({
    device: DEVICE,
    linkAddress: `66:00:00:00:00:0${mac}`,
    destination: a(node),
    self: true,
    state: "permanent",
    ...fields,
  });
  const rows: {
    name: string;
    peers: VxlanPeer[];
    neighbours?: Neighbour[];
    forwarding?: ForwardingEntry[];
    changes: string[];
  }[] = [
    {
      name: "none are there",
      peers: [peer(2)],
      changes: ["+ 10.65.2.1 lladdr 66:00:00:00:00:02 dev 5", "+ 66:00:00:00:00:02 dst 192.0.2.2 dev 5"],
    },
    { name: "all are there", peers: [peer(2)], neighbours: [neighbour(2)], forwarding: [forwarding(2)], changes: [] },
    {
      name: "a node is gone",
      peers: [],
      neighbours: [neighbour(2)],
      forwarding: [forwarding(2)],
      changes: ["- 10.65.2.1 lladdr 66:00:00:00:00:02 dev 5", "- 66:00:00:00:00:02 dst 192.0.2.2 dev 5"],
    },
    {
      name: "a node has another address",
      peers: [peer(2, "192.0.2.99")],
      neighbours: [neighbour(2)],
      forwarding: [forwarding(2)],
      changes: ["+ 66:00:00:00:00:02 dst 192.0.2.99 dev 5"],
    },
    {
      name: "a second destination beside the right one",
      peers: [peer(2)],
      neighbours: [neighbour(2)],
      forwarding: [forwarding(2), forwarding(2, "192.0.2.99")],
      changes: ["- 66:00:00:00:00:02 dst 192.0.2.99 dev 5"],
    },
    {
      name: "a neighbour has another MAC",
      peers: [peer(2)],
      neighbours: [neighbour(2, 3)],
      forwarding: [forwarding(2)],
      changes: ["+ 10.65.2.1 lladdr 66:00:00:00:00:02 dev 5"],
    },
    {
      name: "what is another device's, or the kernel's own, is let be",
      peers: [],
      neighbours: [neighbour(2, 2, { device: 6 }), neighbour(3, 3, { state: "stale" })],
      forwarding: [forwarding(2, "192.0.2.2", { device: 6 })],
      changes: [],
    },
  ];
  for (const { name, peers, neighbours = [], forwarding: entries = [], changes } of rows) {
    test(name, () => {
      const plan = planEntries(DEVICE, peers, neighbours, entries);
      assert.deepEqual(
        [
          ...plan.neighbours.map((each) => `+ ${describeNeighbour(each)}`),
          ...plan.forwarding.map((each) => `+ ${describeForwarding(each)}`),
          ...plan.staleNeighbours.map((each) => `- ${describeNeighbour(each)}`),
          ...plan.staleForwarding.map((each) => `- ${describeForwarding(each)}`),
        ],
        changes,
      );
    });
  }
});
