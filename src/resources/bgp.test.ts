import { testRefusals } from "./malformed.testing.ts";

const filter = (fields: object) => ({ spec: { exportV4: [{ action: "Accept", ...fields }] } });

testRefusals([
  [
    "BGPConfiguration",
    { metadata: { name: "other" } },
    'metadata.name: "other" must be "default", or "node." and the name of a node',
  ],
  [
    "BGPConfiguration",
    { metadata: { name: "node.a" }, spec: { nodeToNodeMeshEnabled: true } },
    "spec.nodeToNodeMeshEnabled: may be set in the BGPConfiguration named default only",
  ],
  [
    "BGPConfiguration",
    { metadata: { name: "default" }, spec: { asNumber: 4294967296, listenPort: 0, bindMode: "Any" } },
    "spec.asNumber: 4294967296 is not 1 to 4294967295",
    "spec.listenPort: 0 is not 1 to 65535",
    'spec.bindMode: "Any" is not None or NodeIP',
  ],
  [
    "BGPConfiguration",
    { metadata: { name: "default" }, spec: { communities: [{ name: "a", value: "65536:1" }] } },
    'spec.communities[0].value: "65536:1" is not a community: expected 65535:65535 or 4294967295:4294967295:4294967295',
  ],
  [
    "BGPConfiguration",
    { metadata: { name: "default" }, spec: { communities: [{ name: "a", value: "1:1" }] } },
    "spec.communities: are not used by any of prefixAdvertisements",
  ],
  [
    "BGPConfiguration",
    { metadata: { name: "default" }, spec: { prefixAdvertisements: [{ cidr: "10.0.0.0/8", communities: ["b"] }] } },
    'spec.prefixAdvertisements[0].communities[0]: "b" is neither a community nor the name of one in communities',
  ],
  [
    "BGPConfiguration",
    { metadata: { name: "default" }, spec: { nodeToNodeMeshEnabled: false, nodeMeshMaxRestartTime: "1m" } },
    "spec.nodeMeshMaxRestartTime: has no meaning while the mesh is off",
  ],
  [
    "BGPConfiguration",
    { metadata: { name: "default" }, spec: { nodeMeshMaxRestartTime: "120" } },
    'spec.nodeMeshMaxRestartTime: "120" is not a time span such as 90s, 1m30s or 500ms',
  ],
  ["BGPPeer", { spec: {} }, "spec.peerIP: is required (or peerSelector, or localWorkloadSelector)"],
  [
    "BGPPeer",
    { spec: { node: "a", nodeSelector: "all()", peerIP: "192.0.2.1", peerSelector: "all()", asNumber: 1 } },
    "spec.node: must be absent, because nodeSelector is given",
    "spec.peerIP: must be absent, because peerSelector is given",
    "spec.asNumber: must be absent, because peerSelector is given",
  ],
  [
    "BGPPeer",
    { spec: { localWorkloadSelector: "all()" } },
    "spec.asNumber: is required, because localWorkloadSelector is given",
  ],
  [
    "BGPPeer",
    { spec: { peerIP: "2001:db8::1:1179:", asNumber: 1 } },
    'spec.peerIP: "2001:db8::1:1179:" is not an IPv6 address: "" is not one to four hex digits',
  ],
  ["BGPPeer", { spec: { peerIP: "192.0.2.1:0" } }, 'spec.peerIP: "192.0.2.1:0": port 0 is not 1 to 65535'],
  [
    "BGPPeer",
    { spec: { peerIP: "[192.0.2.1]:179" } },
    'spec.peerIP: "[192.0.2.1]:179": only IPv6 addresses stand in brackets',
  ],
  [
    "BGPPeer",
    { spec: { peerIP: "192.0.2.1", reachableBy: "fd00::1" } },
    "spec.reachableBy: is not of the same IP version as peerIP",
  ],
  [
    "BGPPeer",
    { spec: { peerIP: "192.0.2.1", keepOriginalNextHop: true, nextHopMode: "Self" } },
    "spec.keepOriginalNextHop: must be absent, because nextHopMode is given",
  ],
  [
    "BGPPeer",
    { spec: { peerIP: "192.0.2.1", asNumber: "1.65536" } },
    'spec.asNumber: expected a whole number, 1 to 4294967295, not the text "1.65536"',
  ],
  [
    "BGPPeer",
    { spec: { peerIP: "192.0.2.1", password: { secretKeyRef: { name: "a" } } } },
    "spec.password.secretKeyRef.key: is required (a string)",
  ],
  ["BGPFilter", filter({ cidr: "10.0.0.0/8" }), "spec.exportV4[0].matchOperator: is required with cidr"],
  ["BGPFilter", filter({ cidr: "fd00::/8", matchOperator: "In" }), 'spec.exportV4[0].cidr: "fd00::/8" is not IPv4'],
  ["BGPFilter", filter({ prefixLength: { min: 33 } }), "spec.exportV4[0].prefixLength.min: 33 is not 0 to 32"],
  [
    "BGPFilter",
    filter({ matchOperator: "In", prefixLength: { min: 3, max: 2 } }),
    "spec.exportV4[0].cidr: is required with matchOperator",
    "spec.exportV4[0].cidr: is required with prefixLength",
    "spec.exportV4[0].prefixLength: min 3 is greater than max 2",
  ],
  [
    "BGPFilter",
    filter({ operations: [{}, { setPriority: { value: 0 } }] }),
    "spec.exportV4[0].operations[0]: expected exactly one of addCommunity, prependASPath and setPriority",
    "spec.exportV4[0].operations[1].setPriority.value: 0 is not 1 to 2147483646",
  ],
  [
    "BGPFilter",
    filter({ action: "Reject", operations: [] }),
    "spec.exportV4[0].operations: must be absent on a Reject rule",
  ],
  [
    "BGPFilter",
    filter({ communities: { values: ["1:1", "2:2"] } }),
    "spec.exportV4[0].communities.values: has 2 items, more than 1",
  ],
  [
    "CalicoNodeStatus",
    { spec: { classes: ["BGP", "Route"] } },
    "spec.node: is required (a name)",
    'spec.classes[1]: "Route" is not Agent, BGP or Routes, did you mean "Routes"?',
  ],
]);
