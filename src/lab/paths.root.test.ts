import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { LinkFault } from "./links.ts";
import { setLinkFault } from "./links.io.ts";
import { caracal, eventually, startLab } from "./lab.testing.ts";
import type { ProbeResult } from "./matrix.ts";
import { foundPaths, passes, transfer } from "./paths.testing.ts";
import { readLab } from "./state.io.ts";
import { labDown } from "./up.io.ts";

/**
 * Every way that packets take between nodes, on one segment and across a router that knows nothing of pods, with policy in
 * force: who reaches whom, how large packets may be, whether what arrives is what was sent, and what the nodes say of it.
 */

const LAB = "test-paths";
const DEFINITION = {
  kind: "Lab",
  router: "none",
  segments: [
    { subnet: "192.0.2.0/26", subnet6: "2001:db8:0:1::/64", nodes: ["node1", "node2"] },
    { subnet: "192.0.2.64/26", subnet6: "2001:db8:0:2::/64", nodes: ["node3"] },
  ],
  environment: { CARACAL_PATH_CHECK_INTERVAL: "1s" },
};

const pod = (name: string, app: string, node: string): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, labels: { app: ${app} } }
spec: { nodeName: ${node}, containers: [{ name: main, image: server }] }
---`;
/** Servers are open to clients alone, and at port 80 alone. */
const OBJECTS = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: { name: servers }
spec:
  selector: app == 'server'
  types: [Ingress]
  ingress:
    - { action: Allow, protocol: TCP, source: { selector: "app == 'client'" }, destination: { ports: [80] } }
    - { action: Allow, protocol: ICMP, source: { selector: "app == 'client'" } }
    - { action: Allow, protocol: ICMPv6, source: { selector: "app == 'client'" } }
---${pod("client", "client", "node1")}${pod("stranger", "stranger", "node1")}${pod("near", "server", "node2")}${pod("far", "server", "node3")}`;

const pools = (ipip: string, vxlan: string, vxlan6: string): string => `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: { name: default-ipv4-ippool }
spec: { cidr: 10.244.0.0/16, ipipMode: ${ipip}, vxlanMode: ${vxlan}, natOutgoing: false }
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: { name: default-ipv6-ippool }
spec: { cidr: "fd10:244::/64", vxlanMode: ${vxlan6} }
`;

async function apply(manifest: string): Promise<void> {
  const { code, errors } = await caracal(LAB, ["apply", "-f", "-", "--wait"], manifest);
  assert.equal(code, 0, errors);
}

const isFar = (name: string): boolean => name === "default/far";
const familyOf = (address: string): 4 | 6 => (address.includes(":") ? 6 : 4);

/** `across` are the families that get across the router. Lists what is otherwise than it should be. */
async function surprises(across: readonly (4 | 6)[]): Promise<string[]> {
  const { code, output, errors } = await caracal(LAB, ["probe", "-o", "json", "--protocol", "TCP"]);
  assert.equal(code, 0, errors);
  const results = JSON.parse(output) as ProbeResult[];
  assert.equal(results.length, 4 * 3 * 2 * 2, "pods, others, families, ports");
  return results.flatMap(({ from, to, address, port, connected }) => {
    const crosses = isFar(from) !== isFar(to);
    const isServer = to === "default/near" || isFar(to);
    const allowed = !isServer || (from === "default/client" && port === 80);
    const expected = allowed && (!crosses || across.includes(familyOf(address)));
    return connected === expected ? [] : [`${from} ${to} ${address} ${port} ${connected}`];
  });
}

describe("the ways between nodes", () => {
  const addresses = new Map<string, readonly string[]>();
  before(async () => {
    await startLab(LAB, DEFINITION);
    await apply(OBJECTS);
    const { output } = await caracal(LAB, ["get", "pod", "-o", "json"]);
    const { items } = JSON.parse(output) as {
      items: { metadata: { name: string }; status: { podIPs: { ip: string }[] } }[];
    };
    for (const { metadata, status } of items) {
      addresses.set(
        metadata.name,
        status.podIPs.map(({ ip }) => ip),
      );
    }
  });
  after(() => labDown(LAB, () => undefined));

  const of = (name: string, family: 4 | 6): string => addresses.get(name)!.find((ip) => familyOf(ip) === family)!;
  const setFault = (fault: LinkFault): void => setLinkFault(LAB, readLab(LAB).definition, "node3", fault);

  interface Way {
    readonly name: string;
    readonly pools: string | undefined;
    /** Largest packet of each family to the other node of the segment, and to the one behind the router: 0 for none. */
    readonly near: { readonly 4: number; readonly 6: number };
    readonly far: { readonly 4: number; readonly 6: number };
    /** What node1 says of the ways to node2 and to node3. */
    readonly found: { readonly node2: readonly RegExp[]; readonly node3: readonly RegExp[] };
  }
  const ways: Way[] = [
    {
      name: "no encapsulation",
      pools: undefined,
      near: { 4: 1500, 6: 1500 },
      far: { 4: 0, 6: 0 },
      found: {
        node2: [/^none reachable 1500\/1500$/, /^none reachable 1500\/1500$/],
        node3: [/^none blocked 0.* do not pass between node1 and node3: 192.0.2.1 says "unr/, /^none blocked 0\/1500/],
      },
    },
    {
      name: "IPIP",
      pools: pools("Always", "Never", "Never"),
      near: { 4: 1480, 6: 1500 },
      far: { 4: 1480, 6: 0 },
      found: {
        node2: [/^ipip reachable 1480\/1480$/, /^none reachable 1480\/1480$/],
        node3: [/^ipip reachable 1480\/1480$/, /^none blocked/],
      },
    },
    {
      name: "VXLAN",
      pools: pools("Never", "Always", "Always"),
      near: { 4: 1450, 6: 1430 },
      far: { 4: 1450, 6: 1430 },
      found: {
        node2: [/^vxlan reachable 1430\/1430$/, /^vxlan reachable 1430\/1430$/],
        node3: [/^vxlan reachable 1430\/1430$/, /^vxlan reachable 1430\/1430$/],
      },
    },
  ];
  for (const way of ways) {
    test(`${way.name}: who may reaches whom, whole, in packets as large as they may be`, async () => {
      if (way.pools !== undefined) await apply(way.pools);
      const across = ([4, 6] as const).filter((family) => way.far[family] > 0);
      await eventually(async () => assert.deepEqual(await surprises(across), []));
      await Promise.all(
        (["near", "far"] as const).flatMap((name) =>
          ([4, 6] as const).map(async (family) => {
            const address = of(name, family);
            const largest = way[name][family];
            if (largest === 0) return;
            assert.ok(await passes(LAB, "default/client", address, largest), `${largest} bytes to ${name}, ${address}`);
            assert.ok(!(await passes(LAB, "default/client", address, largest + 1)), `${largest + 1} bytes to ${name}`);
            await transfer(LAB, "default/client", address);
          }),
        ),
      );
      await foundPaths(LAB, "node1", "node2", way.found.node2);
      await foundPaths(LAB, "node1", "node3", way.found.node3);
    });
  }

  test("a firewall drops VXLAN: the nodes on both sides say so", async () => {
    setFault({ blocked: [{ protocol: 17, port: 4789 }] });
    const blocked = (a: string, b: string): RegExp[] =>
      Array.from(
        { length: 2 },
        () => new RegExp(`^vxlan blocked 0/1430 UDP 4789 does not pass between ${a} and ${b}$`),
      );
    await foundPaths(LAB, "node1", "node3", blocked("node1", "node3"));
    await foundPaths(LAB, "node3", "node2", blocked("node3", "node2"));
    await foundPaths(LAB, "node1", "node2", ways[2]!.found.node2);
    const { output } = await caracal(LAB, ["node", "status"]);
    assert.match(output, /node1 .* the way to node3: see below/);
    assert.match(output, /node3 +vxlan +vxlan.calico .* blocked .* UDP 4789 does not pass between node1 and node3/);
    setFault({});
  });

  test("a firewall drops IPIP; a switch swallows what is large; the wire is cut; and all is well again", async () => {
    await apply(pools("Always", "Never", "Never"));
    const [, ipip] = ways;
    await foundPaths(LAB, "node1", "node3", ipip!.found.node3);
    const faults: { fault: LinkFault; says: RegExp }[] = [
      { fault: { blocked: [{ protocol: 4 }] }, says: /IP protocol 4 does not pass between node1 and node3$/ },
      {
        fault: { mtu: 1400 },
        says: /^ipip too large 1380\/1480 packets over 1,380 bytes do not pass between node1 and node3 though the MTU is 1,480$/,
      },
      { fault: { cut: true }, says: /^ipip down 0\/1480 node3 does not answer at 192.0.2.75: it is down, or cut off$/ },
    ];
    for (const { fault, says } of faults) {
      setFault(fault);
      await foundPaths(LAB, "node1", "node3", [says, /^none (blocked|down)/]);
    }
    setFault({});
    await foundPaths(LAB, "node1", "node3", ipip!.found.node3);
  });
});
