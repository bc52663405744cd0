import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { examine, type Asked, type Finding, type Outcome, type Path } from "./pathCheck.ts";
import { createCheckPlan } from "./pathCheckPlan.ts";
import { pathsTo, podAddresses, type Surroundings } from "./pathCheckTargets.ts";
import type { KnownNode } from "./tunnelFacts.ts";

const NODE = "192.0.2.70";
const TUNNEL = "10.65.9.1";
const POD = "10.65.9.7";
const ROUTER = "192.0.2.1";

/** A network of words: what of the packets that are sent gets where. */
interface Net {
  /** The node answers echoes, or TCP. */
  readonly echoes?: boolean;
  readonly tcp?: boolean;
  /** The largest packet that passes, 0 for none; who says so, if anybody does, and what. */
  readonly passes?: number;
  readonly says?: { readonly mtu: number };
  /** Of packets for pods: how many routers are on the way, and whether they know it. */
  readonly routers?: number;
  readonly knowsWay?: boolean;
  readonly saysExpired?: boolean;
  /** The routers alone say nothing. */
  readonly muteRouters?: boolean;
  readonly podAnswers?: boolean;
  /** So many packets are lost, the first ones. */
  readonly loses?: number;
}

function world(net: Net): {
  asked: Asked[];
  self: string;
  echo(asked: Asked): Promise<Outcome>;
  answersTcp(): Promise<boolean>;
} {
  const { echoes = true, tcp = false, passes = 9000, routers = 0, knowsWay = true, saysExpired = true } = net;
  const asked: Asked[] = [];
  const reply = (from: string): Outcome => ({ kind: "reply", from: parseAddress(from), milliseconds: 1 });
  const error = (from: string, reason: Extract<Outcome, { kind: "error" }>["reason"]): Outcome => ({
    kind: "error",
    from: parseAddress(from),
    reason,
    milliseconds: 1,
  });
  function outcome({ to, length, hops = 64 }: Asked): Outcome {
    if (asked.length <= (net.loses ?? 0)) return { kind: "silence" };
    const target = formatAddress(to);
    if (target === NODE) return echoes ? reply(NODE) : { kind: "silence" };
    if (length > passes) return net.says === undefined ? { kind: "silence" } : error(ROUTER, net.says);
    if (target === TUNNEL) return reply(TUNNEL);
    if (hops <= routers)
      return saysExpired && net.muteRouters !== true ? error(ROUTER, "expired") : { kind: "silence" };
    if (!knowsWay) return error(ROUTER, "unreachable");
    if (hops === routers + 1) return saysExpired ? error(NODE, "expired") : { kind: "silence" };
    return net.podAnswers === true ? reply(POD) : { kind: "silence" };
  }
  return {
    asked,
    self: "node1",
    echo(request) {
      asked.push(request);
      return Promise.resolve(outcome(request));
    },
    answersTcp: () => Promise.resolve(tcp),
  };
}

const ipip: Path = {
  node: "node3",
  kind: "ipip",
  device: "tunl0",
  target: parseAddress(TUNNEL),
  isPod: false,
  nodeAddress: parseAddress(NODE),
  mtu: 1480,
};
const vxlan: Path = { ...ipip, kind: "vxlan", port: 4789, device: "vxlan.calico", mtu: 1450 };
const udp: Path = { ...ipip, kind: "flannel udp", port: 8285, device: "flannel0", mtu: 1472 };
const plain: Path = { ...ipip, kind: "none", device: "eth0", target: parseAddress(POD), isPod: true, mtu: 1500 };

const show = ({ verdict, largest, text }: Finding): string => `${verdict} ${largest ?? "-"} ${text}`.trim();

const rows: { name: string; path: Path; net: Net; found: string; packets: number }[] = [
  { name: "all is well: one packet", path: ipip, net: {}, found: "reachable 1480", packets: 1 },
  { name: "the first packet is lost", path: ipip, net: { loses: 1 }, found: "reachable 1480", packets: 2 },
  {
    name: "a firewall drops IPIP",
    path: ipip,
    net: { passes: 0 },
    found: "blocked - IP protocol 4 does not pass between node1 and node3",
    packets: 6,
  },
  {
    name: "a firewall drops VXLAN",
    path: vxlan,
    net: { passes: 0 },
    found: "blocked - UDP 4789 does not pass between node1 and node3",
    packets: 6,
  },
  {
    name: "a firewall drops flannel's UDP",
    path: udp,
    net: { passes: 0 },
    found: "blocked - UDP 8285 does not pass between node1 and node3",
    packets: 6,
  },
  {
    name: "the node is down",
    path: ipip,
    net: { passes: 0, echoes: false },
    found: "down - node3 does not answer at 192.0.2.70: it is down, or cut off",
    packets: 8,
  },
  {
    name: "the node answers no ICMP, and the tunnel carries none",
    path: vxlan,
    net: { passes: 0, echoes: false, tcp: true },
    found: "unsure - node3 answers TCP at 192.0.2.70 but no ICMP: whether UDP 4789 passes cannot be told",
    packets: 8,
  },
  {
    name: "the node answers no ICMP, and its tunnel does",
    path: vxlan,
    net: { echoes: false },
    found: "reachable 1450",
    packets: 1,
  },
  {
    name: "large packets are swallowed",
    path: vxlan,
    net: { passes: 1430 },
    found: "too large 1430 packets over 1,430 bytes do not pass between node1 and node3 though the MTU is 1,450",
    packets: 20,
  },
  {
    name: "a router says what fits",
    path: vxlan,
    net: { passes: 1350, says: { mtu: 1350 } },
    found: "too large 1350 packets over 1,350 bytes do not pass between node1 and node3 though the MTU is 1,450",
    packets: 4,
  },
  {
    name: "a router says what is not so",
    path: vxlan,
    net: { passes: 1300, says: { mtu: 1400 } },
    found: "too large 1300 packets over 1,300 bytes do not pass between node1 and node3 though the MTU is 1,450",
    packets: 16,
  },
  { name: "no tunnel, same segment", path: plain, net: {}, found: "reachable 1500", packets: 2 },
  { name: "no tunnel, behind two routers", path: plain, net: { routers: 2 }, found: "reachable 1500", packets: 4 },
  {
    name: "no tunnel, and a narrow way",
    path: plain,
    net: { routers: 1, passes: 1400, says: { mtu: 1400 } },
    found: "too large 1400 packets over 1,400 bytes do not pass between node1 and node3 though the MTU is 1,500",
    packets: 6,
  },
  {
    name: "no tunnel, and a router that knows nothing of pods",
    path: plain,
    net: { routers: 1, knowsWay: false },
    found:
      'blocked - packets for 10.65.9.7, a pod\'s, do not pass between node1 and node3: 192.0.2.1 says "unreachable"',
    packets: 3,
  },
  {
    name: "routers that say nothing, and a pod that answers",
    path: plain,
    net: { routers: 1, saysExpired: false, podAnswers: true },
    found: "reachable 1500",
    packets: 8,
  },
  {
    name: "routers that say nothing, and a pod that may not be asked",
    path: plain,
    net: { routers: 1, saysExpired: false },
    found:
      "unsure - no answer to packets for 10.65.9.7, a pod's on node3, which answers itself: routers between may not know the way to it",
    packets: 8,
  },
  {
    name: "a router that says nothing, and the node behind it, which does",
    path: plain,
    net: { routers: 1, muteRouters: true },
    found: "reachable 1500",
    packets: 5,
  },
];
describe("a path to another node", () => {
  for (const { name, path, net, found, packets } of rows) {
    test(name, async () => {
      const there = world(net);
      assert.equal(show(await examine(there, path)), found);
      assert.ok(there.asked.length <= packets, `${there.asked.length} packets, not ${packets}`);
    });
  }

  test("of any width is measured to the byte, whatever a router says of it", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 28, max: 1479 }),
        fc.option(fc.integer({ min: 0, max: 1600 }), { nil: undefined }),
        async (passes, mtu) => {
          const there = world({ passes, ...(mtu !== undefined && { says: { mtu } }) });
          assert.equal((await examine(there, ipip)).largest, passes);
          assert.ok(there.asked.length <= 30, `${there.asked.length} packets`);
        },
      ),
    );
  });
});

describe("when nodes are looked at", () => {
  test("in a cluster of 500, twice a second at most once it has settled, and each in its turn", () => {
    let seed = 1;
    const random = (): number => (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647;
    const plan = createCheckPlan({ intervalMs: 60_000, random });
    const nodes = new Map(Array.from({ length: 499 }, (_, index) => [`node${index}`, "here"]));
    plan.setNodes(nodes, 0);
    const perSecond = new Map<number, number>();
    const seen = new Map<string, number>();
    for (let now = 0; now < 900_000; now = Math.max(now + 1, plan.nextAt() ?? Infinity)) {
      const node = plan.take(now);
      if (node === undefined) continue;
      const second = Math.floor(now / 1000);
      perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
      seen.set(node, (seen.get(node) ?? 0) + 1);
      plan.done(node, true, now + 1);
    }
    assert.equal(seen.size, 499);
    assert.ok(Math.min(...seen.values()) >= 3, `somebody was looked at ${Math.min(...seen.values())} times`);
    assert.ok(Math.max(...perSecond.values()) <= 20, `${Math.max(...perSecond.values())} in one second`);
    const later = [...perSecond].filter(([second]) => second > 400).map(([, count]) => count);
    assert.ok(later.reduce((sum, count) => sum + count, 0) / 500 < 2.2);
  });

  test("soon where it is new, moves or is not well, and not while it is being looked at", () => {
    const plan = createCheckPlan({ intervalMs: 60_000, random: () => 0.5 });
    plan.setNodes(new Map([["a", "1"]]), 0);
    assert.equal(plan.take(0), undefined);
    const first = plan.nextAt() ?? 0;
    assert.ok(first > 0 && first < 5000);
    assert.equal(plan.take(first), "a");
    assert.equal(plan.take(first + 1000), undefined);
    plan.setNodes(new Map([["a", "2"]]), first + 10); // it moves meanwhile
    plan.done("a", true, first + 20);
    const second = plan.nextAt() ?? 0;
    assert.ok(second < first + 5000);
    assert.equal(plan.take(second), "a");
    plan.done("a", false, second);
    const third = plan.nextAt() ?? 0;
    assert.ok(third <= second + 15_000);
    plan.take(third);
    plan.done("a", true, third);
    assert.ok((plan.nextAt() ?? 0) >= third + 45_000);
    plan.setNodes(new Map(), third);
    assert.equal(plan.nextAt(), undefined);
  });
});

describe("which ways there are", () => {
  const links = [
    { name: "eth0", mtu: 1500 },
    { name: "tunl0", kind: "tun", mtu: 1480 },
    { name: "vxlan.calico", kind: "vxlan", mtu: 1450, vxlan: { id: 4096, port: 4789 } },
    { name: "flannel.1", kind: "vxlan", mtu: 1450, vxlan: { id: 1, port: 8472 } },
    { name: "flannel0", kind: "tun", mtu: 1472 },
    { name: "flannel.ipip", kind: "tun", mtu: 1480 },
  ];
  const around = (routes: Readonly<Record<string, string>>, podMtu = 1500): Surroundings => ({
    podMtu,
    link: (index) => links[index],
    routes: Object.entries(routes).map(([destination, device]) => ({
      destination: parsePrefix(destination),
      type: "unicast",
      table: 254,
      protocol: 80,
      scope: 0,
      metric: 0,
      nextHops: [{ device: links.findIndex(({ name }) => name === device) }],
    })),
  });
  const node = (network: Record<string, string>): KnownNode => ({
    name: "node3",
    address: {
      4: { address: parseAddress(NODE), length: 26 },
      6: { address: parseAddress("2001:db8::70"), length: 64 },
    },
    network: Object.fromEntries(Object.entries(network).map(([field, text]) => [field, parseAddress(text)])),
    vtep: {},
  });
  const print = ({ kind, port, device, target, isPod, mtu }: Path): string =>
    [kind, port, device, formatAddress(target), isPod ? "pod" : "end", mtu]
      .filter((word) => word !== undefined)
      .join(" ");

  const none = { subnets: [], pods: [] };
  const facts: { name: string; paths: Path[]; are: string[] }[] = [
    {
      name: "IPIP, and pods behind it are not asked",
      paths: pathsTo(
        { ...none, node: node({ ipipTunnel: TUNNEL }), pods: [parseAddress(POD)] },
        around({ "10.65.9.0/26": "tunl0" }),
      ),
      are: ["ipip tunl0 10.65.9.1 end 1480"],
    },
    {
      name: "past the tunnel on the same subnet, as large as pods' packets get",
      paths: pathsTo({ ...none, node: node({ ipipTunnel: TUNNEL }) }, around({ "10.65.9.0/26": "eth0" }, 1480)),
      are: ["none eth0 10.65.9.1 end 1480"],
    },
    {
      name: "VXLAN of both families",
      paths: pathsTo(
        { ...none, node: node({ vxlanTunnel: TUNNEL, vxlanTunnelV6: "fd10::9:1" }) },
        around({ "10.65.9.0/26": "vxlan.calico", "fd10::9:0/122": "vxlan.calico" }, 1430),
      ),
      are: ["vxlan 4789 vxlan.calico 10.65.9.1 end 1430", "vxlan 4789 vxlan.calico fd10::9:1 end 1430"],
    },
    {
      name: "a pool with a tunnel and one without",
      paths: pathsTo(
        { ...none, node: node({ vxlanTunnel: TUNNEL }), pods: [parseAddress(POD), parseAddress("10.66.9.3")] },
        around({ "10.65.9.0/26": "vxlan.calico", "10.66.9.0/26": "eth0" }),
      ),
      are: ["vxlan 4789 vxlan.calico 10.65.9.1 end 1450", "none eth0 10.66.9.3 pod 1500"],
    },
    {
      name: "no way but the default one, and none at all",
      paths: pathsTo({ ...none, node: node({}), pods: [parseAddress(POD)] }, around({ "0.0.0.0/0": "eth0" })),
      are: [],
    },
    ...(["flannel.1 vxlan 8472", "flannel0 flannel udp 8285", "flannel.ipip ipip"] as const).map((words) => {
      const [device = "", ...kind] = words.split(" ");
      const { mtu = 0 } = links.find(({ name }) => name === device) ?? {};
      return {
        name: `flannel's device ${device}`,
        paths: pathsTo({ ...none, node: node({}), subnets: ["10.244.2.0/24"] }, around({ "10.244.2.0/24": device })),
        are: [`${kind.join(" ")} ${device} 10.244.2.0 end ${mtu}`],
      };
    }),
    {
      name: "flannel's host-gw, which has no device: a packet for the subnet ends at the node",
      paths: pathsTo({ ...none, node: node({}), subnets: ["10.244.2.0/24"] }, around({ "10.244.2.0/24": "eth0" })),
      are: ["none eth0 10.244.2.0 pod 1500"],
    },
  ];
  for (const { name, paths, are } of facts) test(name, () => assert.deepEqual(paths.map(print), are));

  test("pods are known from the blocks: in use, of whichever node has them, and gone when they are", () => {
    const known = podAddresses();
    const block = (allocations: (number | null)[], deleted = false): Parameters<typeof known.put>[0] => ({
      apiVersion: "projectcalico.org/v3",
      kind: "IPAMBlock",
      metadata: { name: "10-65-9-0-30" },
      spec: {
        cidr: "10.65.9.0/30",
        affinity: "host:node3",
        allocations,
        unallocated: [],
        attributes: [
          { secondary: { node: "node3", type: "ipipTunnelAddress" } },
          { secondary: { node: "node3", pod: "a", namespace: "default" } },
          { secondary: { node: "node4", pod: "b", namespace: "default" } },
          { secondary: { node: "node3", pod: "c", namespace: "default" }, releasedAt: "2026-01-01T00:00:00Z" },
        ],
        sequenceNumber: 0,
        sequenceNumberForAllocation: {},
        deleted,
        strictAffinity: false,
      },
    });
    const of = (name: string): string[] => known.of(name).map(formatAddress);
    known.put(block([0, 1, 2, 3]));
    assert.deepEqual([of("node3"), of("node4"), of("node5")], [["10.65.9.1"], ["10.65.9.2"], []]);
    known.put(block([0, null, 2, 1]));
    assert.deepEqual([of("node3"), of("node4")], [["10.65.9.3"], ["10.65.9.2"]]);
    known.put(block([0, 1, 2, 3], true));
    assert.deepEqual([of("node3"), of("node4")], [[], []]);
    known.put(block([0, 1, 2, 3]));
    known.keepOnly(new Set());
    assert.deepEqual(of("node3"), []);
  });
});
