import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { PeerConfig } from "../bgp/config.ts";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix, parseInterfaceAddress } from "../ip/prefix.ts";
import { BFD_ANNOTATION } from "./bgpBfd.ts";
import { planBgp, type BgpInput, type BgpPlan } from "./bgpPlan.ts";
import { configuration, machine, NO_SERVICES, peer, pool, type NodeNetwork } from "./bgp.testing.ts";
import { routerIdOf } from "./routerId.ts";

const at = (last: number, more: NodeNetwork = {}): NodeNetwork => ({
  ipv4: parseInterfaceAddress(`192.0.2.${last}/26`),
  ...more,
});
const six = (last: string): NodeNetwork => ({ ipv6: parseInterfaceAddress(`2001:db8::${last}/64`) });

const NODES = [machine("node1", at(11)), machine("node2", at(12)), machine("node3", at(9))];

function plan(input: Partial<BgpInput>): BgpPlan | undefined {
  return planBgp({
    nodeName: "node1",
    nodes: NODES,
    configurations: [],
    peers: [],
    filters: [],
    pools: [pool("10.244.0.0/16")],
    blocks: [],
    borrowed: [],
    services: NO_SERVICES,
    interfaces: [],
    kernelRoutes: [],
    workloadPrefixes: ["cali"],
    workloads: [],
    secret: (name, key) => (name === "bgp" ? `${key}-password` : undefined),
    tunnels: new Set(),
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
    const { asn, listenPort, listenAddresses } = plan({})!;
    assert.deepEqual({ asn, listenPort, listenAddresses }, { asn: 64512, listenPort: 179, listenAddresses: undefined });
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
    const { asn, listenPort } = plan({ nodes, configurations })!;
    assert.deepEqual({ asn, listenPort }, { asn: 65000, listenPort: 2179 });
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
    {
      name: "of local workloads, where there are none",
      spec: { localWorkloadSelector: "all()", asNumber: 65100 },
      sessions: [],
    },
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

describe("what a BGPPeer says of its session", () => {
  const off = [configuration("default", { nodeToNodeMeshEnabled: false })];
  const tor = { peerIP: "192.0.2.1", asNumber: 65100 };
  const rows: { name: string; spec: object; annotations?: Record<string, string>; session: Record<string, unknown> }[] =
    [
      {
        name: "all paths are told and taken, as Calico does",
        spec: {},
        session: { addPath: { send: true, receive: true } },
      },
      { name: "next hop kept", spec: { nextHopMode: "Keep" }, session: { nextHopKeep: true } },
      {
        name: "next hop kept, in the older words",
        spec: { keepOriginalNextHop: true },
        session: { nextHopKeep: true },
      },
      {
        name: "next hop kept, in the older words: not in iBGP",
        spec: { keepOriginalNextHop: true, asNumber: 64512 },
        session: { nextHopKeep: undefined },
      },
      { name: "next hop: the usual one", spec: { nextHopMode: "Auto" }, session: { nextHopKeep: undefined } },
      { name: "restart time", spec: { maxRestartTime: "1m30s" }, session: { restartTime: 90 } },
      {
        name: "restart time, more than the protocol has room for",
        spec: { maxRestartTime: "2h" },
        session: { restartTime: 4095 },
      },
      { name: "keepalive time", spec: { keepaliveTime: "20s" }, session: { keepaliveTime: 20 } },
      { name: "own AS in paths", spec: { numAllowedLocalASNumbers: 2 }, session: { allowOwnAs: 2 } },
      { name: "TTL security", spec: { ttlSecurity: 1 }, session: { ttlSecurity: 1 } },
      { name: "TTL security off", spec: { ttlSecurity: 0 }, session: { ttlSecurity: undefined } },
      {
        name: "password",
        spec: { password: { secretKeyRef: { name: "bgp", key: "tor" } } },
        session: { password: "tor-password" },
      },
      { name: "BFD", spec: {}, annotations: { [BFD_ANNOTATION]: "true" }, session: { bfd: {} } },
      {
        name: "BFD as told",
        spec: {},
        annotations: { [BFD_ANNOTATION]: "interval=100ms, multiplier=5" },
        session: { bfd: { interval: 100, multiplier: 5 } },
      },
      { name: "no BFD", spec: {}, annotations: { [BFD_ANNOTATION]: "false" }, session: { bfd: undefined } },
    ];
  for (const { name, spec, annotations = {}, session } of rows) {
    test(name, () => {
      const made = plan({ configurations: off, peers: [peer("p", { ...tor, ...spec }, annotations)] })!;
      const [only] = made.peers;
      assert.ok(only !== undefined && made.peers.length === 1);
      for (const [field, value] of Object.entries(session))
        assert.deepEqual(only[field as keyof PeerConfig], value, field);
      assert.deepEqual(made.problems, []);
    });
  }

  test("that cannot be read is told, and the session goes without", () => {
    for (const text of ["yes", "interval=fast", "interval=1ms", "multiplier=0", "multiplier=x", "speed=9"]) {
      const made = plan({ configurations: off, peers: [peer("p", tor, { [BFD_ANNOTATION]: text })] })!;
      assert.equal(made.peers[0]?.bfd, undefined);
      assert.match(made.problems.join(), /^BGPPeer p: annotation caracal.dev\/bfd: /, text);
    }
  });

  test("a password that is not there holds the session back: it is not begun without", () => {
    const made = plan({
      configurations: off,
      peers: [
        peer("p", { ...tor, password: { secretKeyRef: { name: "gone", key: "tor" } } }),
        peer("q", { peerIP: "192.0.2.2", asNumber: 65100 }),
      ],
    })!;
    assert.deepEqual(
      made.peers.map(({ name }) => name),
      ["Global_192_0_2_2"],
    );
    assert.deepEqual(
      made.held.map(({ name, reason }) => ({ name, reason })),
      [{ name: "Global_192_0_2_1", reason: 'password? There is no key "tor" in a Secret "gone"' }],
    );
    assert.deepEqual(made.secrets, ["gone"]);
  });

  test("the mesh has a password, a restart time and BFD of its own", () => {
    const configurations = [
      configuration(
        "default",
        { nodeMeshPassword: { secretKeyRef: { name: "bgp", key: "mesh" } }, nodeMeshMaxRestartTime: "300s" },
        { [BFD_ANNOTATION]: "true" },
      ),
    ];
    for (const { password, restartTime, bfd } of plan({ configurations })!.peers) {
      assert.deepEqual({ password, restartTime, bfd }, { password: "mesh-password", restartTime: 300, bfd: {} });
    }
  });

  test("a gateway of its own is a static route to the peer", () => {
    const peers = [peer("p", { peerIP: "198.51.100.1", asNumber: 65100, reachableBy: "192.0.2.1" })];
    assert.deepEqual(
      plan({ configurations: off, peers })!.staticRoutes.map(
        ({ destination, gateway }) => `${formatPrefix(destination)} via ${formatAddress(gateway)}`,
      ),
      ["198.51.100.1/32 via 192.0.2.1"],
    );
  });

  test("another port of the same address has no session, and is told", () => {
    const peers = [peer("p", tor), peer("q", { ...tor, peerIP: "192.0.2.1:1179" })];
    const made = plan({ configurations: off, peers })!;
    assert.deepEqual(
      made.peers.map(({ name }) => name),
      ["Global_192_0_2_1"],
    );
    assert.match(made.problems.join(), /Global_192_0_2_1_port_1179 has no session/);
  });

  test("a filter that is not there is told", () => {
    const made = plan({ configurations: off, peers: [peer("p", { ...tor, filters: ["nobody"] })] })!;
    assert.deepEqual(made.problems, ["there is no BGPFilter nobody: peers that name it do without"]);
  });
});

describe("a route reflector", () => {
  const nodes = [
    machine("node1", at(11)),
    machine("node2", at(12)),
    machine("rr1", at(21, { routeReflectorClusterId: "1.0.0.1" }), { role: "rr" }),
    machine("rr2", at(22, { routeReflectorClusterId: "1.0.0.1" }), { role: "rr" }),
    machine("rr3", at(23, { routeReflectorClusterId: "1.0.0.2" }), { role: "rr" }),
  ];
  const clients = (nodeName: string, spec: object): string[] =>
    plan({ nodes, nodeName, peers: [peer("p", spec)] })!.peers.map(
      ({ address, routeReflectorClient, clusterId }) =>
        `${address} ${routeReflectorClient === undefined ? "plain" : routeReflectorClient ? "client" : "not a client"} ${clusterId ?? "-"}`,
    );

  test("has peers without its cluster ID as clients", () => {
    assert.deepEqual(clients("rr1", { peerSelector: "role == 'rr'" }), [
      "192.0.2.22 not a client 1.0.0.1",
      "192.0.2.23 client 1.0.0.1",
      "192.0.2.11 client 1.0.0.1",
      "192.0.2.12 client 1.0.0.1",
    ]);
    assert.deepEqual(clients("rr1", { nodeSelector: "all()", peerIP: "192.0.2.22" }), [
      "192.0.2.22 not a client 1.0.0.1",
    ]);
    assert.deepEqual(clients("rr1", { peerIP: "192.0.2.99" }), ["192.0.2.99 client 1.0.0.1"]);
  });

  test("does not reflect in eBGP", () => {
    assert.deepEqual(clients("rr1", { peerIP: "192.0.2.99", asNumber: 65100 }), ["192.0.2.99 plain -"]);
    assert.deepEqual(
      clients("rr1", { nodeSelector: "role == 'rr'", peerSelector: "!has(role)", localASNumber: 65200 }),
      ["192.0.2.11 plain -", "192.0.2.12 plain -"],
    );
  });

  test("is nothing special to its clients", () => {
    assert.deepEqual(clients("node1", { nodeSelector: "!has(role)", peerSelector: "role == 'rr'" }).slice(1), [
      "192.0.2.21 plain -",
      "192.0.2.22 plain -",
      "192.0.2.23 plain -",
    ]);
  });
});

describe("nodes without IPv4", () => {
  const nodes = [machine("node1", six("b")), machine("node2", six("c")), machine("node3", { ...at(13), ...six("d") })];
  test("carry IPv4 over IPv6 sessions (RFC 8950)", () => {
    const peers = [peer("tor", { peerIP: "2001:db8::1", asNumber: 65100 })];
    for (const { families } of plan({ nodes, peers })!.peers) assert.deepEqual(families, [6, 4]);
    assert.deepEqual(
      plan({ nodes, nodeName: "node3", peers })!.peers.map(
        ({ name, families }) => `${name} ${families?.join() ?? "-"}`,
      ),
      ["Global_2001_db8__1 -", "Mesh_2001_db8__b 6,4", "Mesh_2001_db8__c 6,4"],
    );
  });
});

describe("pods of this node as peers", () => {
  const workloads = [
    {
      labels: { app: "router" },
      addresses: [parseAddress("10.244.9.1"), parseAddress("fd00::1")],
      hostInterface: "cali1",
    },
    { labels: { app: "web" }, addresses: [parseAddress("10.244.9.2")], hostInterface: "cali2" },
  ];
  const nodes = [machine("node1", { ...at(11), ...six("b") }), machine("node2", at(12))];
  const routers = peer("routers", { localWorkloadSelector: "app == 'router'", asNumber: 65400 });

  test("are those that the selector means, at the node's address for them", () => {
    const configurations = [
      configuration("default", {
        nodeToNodeMeshEnabled: false,
        localWorkloadPeeringIPV4: "169.254.1.179",
        localWorkloadPeeringIPV6: "fe80::179",
      }),
    ];
    const input = { nodes, configurations, peers: [routers], workloads };
    assert.deepEqual(sessions(input), [
      "Local_Workload_10_244_9_1 AS 65400 at 10.244.9.1 from 169.254.1.179",
      "Local_Workload_fd00__1 AS 65400 at fd00::1 from fe80::179",
    ]);
    assert.deepEqual(
      plan(input)!.peeringAddresses.map(({ hostInterface, address }) => `${hostInterface} ${formatAddress(address)}`),
      ["cali1 169.254.1.179", "cali1 fe80::179"],
    );
  });

  test("speak with the node's own address where there is no other; and only on nodes that are selected", () => {
    const configurations = [configuration("default", { nodeToNodeMeshEnabled: false })];
    const input = { nodes, configurations, workloads };
    assert.deepEqual(sessions({ ...input, peers: [routers] }), [
      "Local_Workload_10_244_9_1 AS 65400 at 10.244.9.1 from 192.0.2.11",
      "Local_Workload_fd00__1 AS 65400 at fd00::1 from 2001:db8::b",
    ]);
    assert.deepEqual(plan({ ...input, peers: [routers] })!.peeringAddresses, []);
    const elsewhere = peer("routers", { node: "node2", localWorkloadSelector: "app == 'router'", asNumber: 65400 });
    assert.deepEqual(sessions({ ...input, peers: [elsewhere] }), []);
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
