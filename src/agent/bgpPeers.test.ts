import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { compileFilter, type FilterRules } from "../bgp/filters.ts";
import { wordsOfPrefix } from "../bgp/nlri.ts";
import { parseAddress } from "../ip/address.ts";
import { formatPrefix, parseInterfaceAddress, parsePrefix } from "../ip/prefix.ts";
import { bgpConfiguration, bgpPeer, type BGPConfiguration, type BGPPeer } from "../resources/bgp.ts";
import { ipPool, type IPPool } from "../resources/ippool.ts";
import { node, type Node } from "../resources/node.ts";
import { nodeNetworkPatch, type NodeNetwork } from "../resources/nodeNetwork.ts";
import { announcedBlocks, planBgp, type BgpInput } from "./bgpPeers.ts";
import { routerIdOf } from "./routing.io.ts";

const CALICO = { apiVersion: "projectcalico.org/v3" };

function machine(name: string, network: NodeNetwork, labels: Record<string, string> = {}): Node {
  const { annotations } = nodeNetworkPatch(network).metadata;
  return node.parse({ apiVersion: "v1", kind: "Node", metadata: { name, labels, annotations } });
}

const at = (last: number, more: NodeNetwork = {}): NodeNetwork => ({
  ipv4: parseInterfaceAddress(`192.0.2.${last}/26`),
  ...more,
});
const six = (last: string): NodeNetwork => ({ ipv6: parseInterfaceAddress(`2001:db8::${last}/64`) });

const configuration = (name: string, spec: object): BGPConfiguration =>
  bgpConfiguration.parse({ ...CALICO, kind: "BGPConfiguration", metadata: { name }, spec });
const peer = (name: string, spec: object): BGPPeer =>
  bgpPeer.parse({ ...CALICO, kind: "BGPPeer", metadata: { name }, spec });
const pool = (cidr: string, spec: object = {}): IPPool =>
  ipPool.parse({
    ...CALICO,
    kind: "IPPool",
    metadata: { name: cidr.replaceAll(/[.:/]/g, "-") },
    spec: { cidr, ...spec },
  });

const NODES = [machine("node1", at(11)), machine("node2", at(12)), machine("node3", at(9))];

function plan(input: Partial<BgpInput>) {
  return planBgp({
    nodeName: "node1",
    nodes: NODES,
    configurations: [],
    peers: [],
    pools: [pool("10.244.0.0/16")],
    blocks: [],
    ...input,
  });
}

/** One line for each session. */
function sessions(input: Partial<BgpInput>): string[] {
  return (plan(input)?.peers ?? []).map((each) =>
    [
      `${each.name} AS ${each.asn} at ${each.address}${each.port === undefined ? "" : ` port ${each.port}`}`,
      ...(each.localAsn === plan(input)?.asn ? [] : [`as AS ${each.localAsn}`]),
      ...(each.sourceAddress === undefined ? [] : [`from ${each.sourceAddress}`]),
      ...(each.passive === true ? ["waits"] : []),
      ...(each.nextHopSelf === true ? ["next hop self"] : []),
    ].join(" "),
  );
}

describe("the mesh", () => {
  test("has a session with every other node; the lower address, as text, waits", () => {
    assert.deepEqual(sessions({}), [
      "Mesh_192_0_2_12 AS 64512 at 192.0.2.12 from 192.0.2.11 waits",
      "Mesh_192_0_2_9 AS 64512 at 192.0.2.9 from 192.0.2.11 waits", // "192.0.2.11" < "192.0.2.9"
    ]);
    assert.deepEqual(sessions({ nodeName: "node3" }), [
      "Mesh_192_0_2_11 AS 64512 at 192.0.2.11 from 192.0.2.9",
      "Mesh_192_0_2_12 AS 64512 at 192.0.2.12 from 192.0.2.9",
    ]);
    assert.deepEqual({ ...plan({}), peers: [] }, { asn: 64512, listenPort: 179, peers: [] });
  });

  test("has one session for each family that both have", () => {
    const nodes = [
      machine("node1", { ...at(11), ...six("b") }),
      machine("node2", { ...at(12), ...six("c") }),
      machine("node3", six("d")),
      machine("node4", at(14)),
      machine("node5", {}),
    ];
    assert.deepEqual(sessions({ nodes }), [
      "Mesh_192_0_2_12 AS 64512 at 192.0.2.12 from 192.0.2.11 waits",
      "Mesh_192_0_2_14 AS 64512 at 192.0.2.14 from 192.0.2.11 waits",
      "Mesh_2001_db8__c AS 64512 at 2001:db8::c from 2001:db8::b waits",
      "Mesh_2001_db8__d AS 64512 at 2001:db8::d from 2001:db8::b waits",
    ]);
  });

  test("of any two nodes has just one that waits", () => {
    for (const one of NODES) {
      for (const other of NODES) {
        if (one === other) continue;
        const waits = [one, other].map((each) => {
          const address = (each === one ? other : one).metadata.annotations?.["projectcalico.org/IPv4Address"];
          const found = plan({ nodeName: each.metadata.name })?.peers.find((session) =>
            address?.startsWith(`${session.address}/`),
          );
          return found?.passive;
        });
        assert.deepEqual(new Set(waits), new Set([false, true]));
      }
    }
  });

  test("speaks the AS of each node, and connects to the port that it listens on", () => {
    const nodes = [machine("node1", at(11)), machine("node2", at(12, { asNumber: 65002 })), machine("node3", at(13))];
    const configurations = [
      configuration("default", { asNumber: 65000, listenPort: 1179 }),
      // As with Calico, a node's AS number is the node's own, not that of its BGPConfiguration.
      configuration("node.node1", { listenPort: 2179, asNumber: 1 }),
      configuration("node.node3", { listenPort: 3179, asNumber: 3 }),
    ];
    assert.deepEqual(sessions({ nodes, configurations }), [
      "Mesh_192_0_2_12 AS 65002 at 192.0.2.12 port 1179 from 192.0.2.11 waits",
      "Mesh_192_0_2_13 AS 65000 at 192.0.2.13 port 3179 from 192.0.2.11 waits",
    ]);
    assert.deepEqual({ ...plan({ nodes, configurations }), peers: [] }, { asn: 65000, listenPort: 2179, peers: [] });
    assert.equal(plan({ nodes, nodeName: "node2" })?.asn, 65002);
  });

  test("is left by route reflectors, and can be switched off", () => {
    const nodes = [
      machine("node1", at(11)),
      machine("node2", at(12)),
      machine("rr", at(13, { routeReflectorClusterId: "1.0.0.1" })),
    ];
    assert.deepEqual(sessions({ nodes }), ["Mesh_192_0_2_12 AS 64512 at 192.0.2.12 from 192.0.2.11 waits"]);
    assert.deepEqual(sessions({ nodes, nodeName: "rr" }), []);
    const configurations = [configuration("default", { nodeToNodeMeshEnabled: false })];
    assert.deepEqual(sessions({ configurations }), []);
  });

  test("has no place for a node without an address, or that is not registered", () => {
    assert.equal(plan({ nodes: [machine("node1", {}), machine("node2", at(12))] }), undefined);
    assert.equal(plan({ nodeName: "node9" }), undefined);
  });
});

describe("a BGPPeer", () => {
  const off = [configuration("default", { nodeToNodeMeshEnabled: false })];
  const labelled = [
    machine("node1", at(11), { rack: "a" }),
    machine("node2", at(12), { rack: "b" }),
    machine("rr1", at(21), { role: "rr" }),
    machine("rr2", at(22), { role: "rr" }),
  ];
  const rows: { name: string; spec: object; of?: Partial<BgpInput>; sessions: string[] }[] = [
    {
      name: "for every node",
      spec: { peerIP: "192.0.2.1", asNumber: 65100 },
      sessions: ["Global_192_0_2_1 AS 65100 at 192.0.2.1 from 192.0.2.11"],
    },
    {
      name: "with a port",
      spec: { peerIP: "192.0.2.1:1179", asNumber: 65100 },
      sessions: ["Global_192_0_2_1_port_1179 AS 65100 at 192.0.2.1 port 1179 from 192.0.2.11"],
    },
    {
      name: "over IPv6",
      spec: { peerIP: "[2001:DB8::1]:1179", asNumber: 65100 },
      of: { nodes: [machine("node1", { ...at(11), ...six("b") })] },
      sessions: ["Global_2001_db8__1_port_1179 AS 65100 at 2001:db8::1 port 1179 from 2001:db8::b"],
    },
    { name: "over IPv6, to a node without", spec: { peerIP: "2001:db8::1", asNumber: 65100 }, sessions: [] },
    {
      name: "without an AS is in the node's",
      spec: { peerIP: "192.0.2.1" },
      sessions: ["Global_192_0_2_1 AS 64512 at 192.0.2.1 from 192.0.2.11"],
    },
    {
      name: "for this node",
      spec: { node: "node1", peerIP: "192.0.2.1", asNumber: 65100 },
      sessions: ["Node_192_0_2_1 AS 65100 at 192.0.2.1 from 192.0.2.11"],
    },
    { name: "for another node", spec: { node: "node2", peerIP: "192.0.2.1", asNumber: 65100 }, sessions: [] },
    {
      name: "for nodes of a rack",
      spec: { nodeSelector: "rack == 'a'", peerIP: "192.0.2.1", asNumber: 65100 },
      of: { nodes: labelled },
      sessions: ["Node_192_0_2_1 AS 65100 at 192.0.2.1 from 192.0.2.11"],
    },
    {
      name: "for nodes of another rack",
      spec: { nodeSelector: "rack == 'b'", peerIP: "192.0.2.1", asNumber: 65100 },
      of: { nodes: labelled },
      sessions: [],
    },
    {
      name: "with the kernel's choice of source address, next hop self and an AS of its own",
      spec: { peerIP: "192.0.2.1", asNumber: 65100, sourceAddress: "None", nextHopMode: "Self", localASNumber: 65200 },
      sessions: ["Global_192_0_2_1 AS 65100 at 192.0.2.1 as AS 65200 next hop self"],
    },
    {
      name: "of labels: the route reflectors, for clients",
      spec: { nodeSelector: "!has(role)", peerSelector: "role == 'rr'" },
      of: { nodes: labelled },
      sessions: [
        "Node_192_0_2_21 AS 64512 at 192.0.2.21 from 192.0.2.11 waits",
        "Node_192_0_2_22 AS 64512 at 192.0.2.22 from 192.0.2.11 waits",
      ],
    },
    {
      name: "of labels: the clients, for a route reflector",
      spec: { nodeSelector: "!has(role)", peerSelector: "role == 'rr'" },
      of: { nodes: labelled, nodeName: "rr1" },
      sessions: [
        "Node_192_0_2_11 AS 64512 at 192.0.2.11 from 192.0.2.21",
        "Node_192_0_2_12 AS 64512 at 192.0.2.12 from 192.0.2.21",
      ],
    },
    {
      name: "of labels, without a way back",
      spec: { nodeSelector: "!has(role)", peerSelector: "role == 'rr'", reversePeering: "Manual" },
      of: { nodes: labelled, nodeName: "rr1" },
      sessions: [],
    },
    {
      name: "of labels, for every node",
      spec: { peerSelector: "role == 'rr'" },
      of: { nodes: labelled, nodeName: "rr1" },
      sessions: [
        "Global_192_0_2_22 AS 64512 at 192.0.2.22 from 192.0.2.21 waits",
        "Node_192_0_2_11 AS 64512 at 192.0.2.11 from 192.0.2.21",
        "Node_192_0_2_12 AS 64512 at 192.0.2.12 from 192.0.2.21",
      ],
    },
    {
      name: "that is a node: the others' session with it",
      spec: { peerIP: "192.0.2.21" },
      of: { nodes: labelled },
      sessions: ["Global_192_0_2_21 AS 64512 at 192.0.2.21 from 192.0.2.11"],
    },
    {
      name: "that is this node: its sessions with the others",
      spec: { peerIP: "192.0.2.21" },
      of: { nodes: labelled, nodeName: "rr1" },
      sessions: [
        "Node_192_0_2_11 AS 64512 at 192.0.2.11 from 192.0.2.21",
        "Node_192_0_2_12 AS 64512 at 192.0.2.12 from 192.0.2.21",
        "Node_192_0_2_22 AS 64512 at 192.0.2.22 from 192.0.2.21 waits",
      ],
    },
    {
      name: "that is this node, in another AS: not meant",
      spec: { peerIP: "192.0.2.21", asNumber: 65100 },
      of: { nodes: labelled, nodeName: "rr1" },
      sessions: [],
    },
    {
      name: "that is a node, which listens on another port",
      spec: { peerIP: "192.0.2.21" },
      of: { nodes: labelled, configurations: [...off, configuration("node.rr1", { listenPort: 1179 })] },
      sessions: ["Global_192_0_2_21_port_1179 AS 64512 at 192.0.2.21 port 1179 from 192.0.2.11"],
    },
    { name: "of local workloads", spec: { localWorkloadSelector: "all()", asNumber: 65100 }, sessions: [] },
  ];
  for (const { name, spec, of, sessions: expected } of rows) {
    test(name, () => {
      assert.deepEqual(sessions({ configurations: off, peers: [peer("p", spec)], ...of }), expected);
    });
  }

  test("at the address of another: a global one before one of the node, and both before the mesh", () => {
    const global = peer("z", { peerIP: "192.0.2.12", asNumber: 64512, sourceAddress: "None" });
    const own = peer("a", { node: "node1", peerIP: "192.0.2.12", asNumber: 64512 });
    const mesh = "Mesh_192_0_2_9 AS 64512 at 192.0.2.9 from 192.0.2.11 waits";
    assert.deepEqual(sessions({ peers: [own, global] }), ["Global_192_0_2_12 AS 64512 at 192.0.2.12", mesh]);
    assert.deepEqual(sessions({ peers: [own] }), [mesh, "Node_192_0_2_12 AS 64512 at 192.0.2.12 from 192.0.2.11"]);
    assert.deepEqual(sessions({ peers: [own, { ...own, metadata: { name: "b" } }] }).length, 2);
  });
});

describe("what a node tells its peers", () => {
  const accepted = (rules: FilterRules | undefined, text: string, source: "local" | "peers" = "local"): boolean => {
    const prefix = parsePrefix(text);
    const { family } = prefix.address;
    const { w0, w1, w2, w3, length } = wordsOfPrefix(prefix);
    const filter = compileFilter(rules ?? { rules: [], otherwise: "reject" }, family, "iBGP");
    return filter.evaluate(w0, w1, w2, w3, length, { origin: "igp", asPath: [] }, source).accept;
  };

  test("are its own blocks, and what it has borrowed; nothing of pods one by one, nothing of its peers", () => {
    const { exportFilter, importFilter } = plan({ blocks: [parsePrefix("10.244.9.0/26")] })!.peers[0]!;
    assert.equal(accepted(exportFilter, "10.244.9.0/26"), true);
    assert.equal(accepted(exportFilter, "10.244.9.1/32"), false);
    assert.equal(accepted(exportFilter, "10.244.77.1/32"), true);
    assert.equal(accepted(exportFilter, "172.16.0.0/12"), false);
    assert.equal(accepted(exportFilter, "10.244.7.0/26", "peers"), false);
    assert.equal(accepted(importFilter, "172.16.0.0/12", "peers"), true);
  });

  test("leaves out pools that are not to be exported", () => {
    const silent = pool("10.245.0.0/16", { disableBGPExport: true });
    const pools = [pool("10.244.0.0/16"), silent];
    const { exportFilter } = plan({ pools, blocks: [parsePrefix("10.244.9.0/26")] })!.peers[0]!;
    assert.equal(accepted(exportFilter, "10.245.1.1/32"), false);
    const blocks = ["10.244.9.0/26", "10.245.9.0/26", "10.246.9.0/26", "fd00::/122"].map(parsePrefix);
    assert.deepEqual(announcedBlocks(blocks, pools).map(formatPrefix), [
      "10.244.9.0/26",
      "10.246.9.0/26",
      "fd00::/122",
    ]);
  });
});

describe("a node's router id", () => {
  test("is what is set, or its IPv4 address", () => {
    assert.equal(routerIdOf("192.0.2.99", "node1", parseAddress("192.0.2.11")), "192.0.2.99");
    assert.equal(routerIdOf(undefined, "node1", parseAddress("192.0.2.11")), "192.0.2.11");
  });

  test("comes from its name where that is asked for, or where it has no IPv4 address", () => {
    const hashed = routerIdOf("hash", "node1", parseAddress("192.0.2.11"));
    assert.equal(routerIdOf(undefined, "node1", undefined), hashed);
    assert.notEqual(routerIdOf("hash", "node2", undefined), hashed);
    for (let index = 0; index < 1000; index += 1) {
      const { family, value } = parseAddress(routerIdOf("hash", `node${index}`, undefined));
      assert.equal(family, 4);
      assert.ok(value >> 24n >= 1n && value >> 24n <= 223n);
    }
  });
});
