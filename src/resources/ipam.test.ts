import { testRefusals } from "./malformed.testing.ts";

const block = (fields: object) => ({
  metadata: { name: "10-0-0-0-30" },
  spec: {
    cidr: "10.0.0.0/30",
    allocations: [null, null, null, null],
    unallocated: [0, 1, 2, 3],
    attributes: [],
    ...fields,
  },
});

testRefusals([
  [
    "IPReservation",
    { spec: { reservedCIDRs: ["10.0.0.1", "x"] } },
    'spec.reservedCIDRs[1]: "x" is not an IP address: expected four octets like 192.0.2.1',
  ],
  [
    "IPAMConfiguration",
    { metadata: { name: "mine" }, spec: {} },
    'metadata.name: "mine" must be "default": there is one such object',
  ],
  [
    "IPAMConfiguration",
    { metadata: { name: "default" }, spec: { ipCooldownSeconds: 1201 } },
    "spec.ipCooldownSeconds: 1201 is not 0 to 1200",
  ],
  [
    "IPAMBlock",
    block({ allocations: [null, null] }),
    "spec.allocations: has 2 entries for the 4 addresses of 10.0.0.0/30",
  ],
  [
    "IPAMBlock",
    block({ allocations: [0, null, null, null] }),
    "spec.allocations[0]: 0 is not the index of one of 0 attributes",
    "spec.unallocated[0]: 0 is allocated",
  ],
  [
    "IPAMBlock",
    block({ unallocated: [4, 1, 1] }),
    "spec.unallocated[0]: 4 is not the ordinal of one of 4 addresses",
    "spec.unallocated[2]: 1 stands there twice",
  ],
  ["IPAMBlock", block({ affinity: "node1" }), 'spec.affinity: "node1" is not "host:" or "virtual:" and a name'],
  [
    "IPAMBlock",
    { ...block({}), metadata: { name: "x" } },
    'metadata.name: must be "10-0-0-0-30", as the block is 10.0.0.0/30',
  ],
  ["IPAMBlock", block({ cidr: "10.0.0.0/8" }), "spec.cidr: a block of 16777216 addresses is larger than 4096"],
  [
    "BlockAffinity",
    { spec: { cidr: "10.0.0.0/26", node: "node1", state: "sure", deleted: "no" } },
    'spec.state: "sure" is not pending, confirmed or pendingDeletion',
    'spec.deleted: expected true or false, not the text "no"',
  ],
  [
    "IPAMHandle",
    { spec: { block: { a: -1 } } },
    "spec.handleID: is required (a string)",
    'spec.block["a"]: -1 is not 0 or more',
  ],
]);
