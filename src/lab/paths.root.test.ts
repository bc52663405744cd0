import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Family } from "../ip/address.ts";
import type { LinkFault } from "./links.ts";
import { setLinkFault } from "./links.io.ts";
import { caracal, eventually, inPod, startLab } from "./lab.testing.ts";
import { foundPaths } from "./paths.testing.ts";
import { readLab } from "./state.io.ts";
import { labDown } from "./up.io.ts";
import {
  addressOf,
  assertWay,
  podAddresses,
  SEGMENTS_OF_BOTH_FAMILIES,
  WAY_OBJECTS,
  type PodAddresses,
  type Way,
} from "./ways.testing.ts";

/** The ways between nodes that pools ask for, one after another in one lab, and what the nodes find out about them. */

const LAB = "test-paths";
const DEFINITION = {
  kind: "Lab",
  router: "none",
  segments: SEGMENTS_OF_BOTH_FAMILIES,
  environment: { CARACAL_PATH_CHECK_INTERVAL: "1s" },
};

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

describe("the ways between nodes", () => {
  let pods: PodAddresses;
  before(async () => {
    await startLab(LAB, DEFINITION);
    await apply(WAY_OBJECTS);
    pods = await podAddresses(LAB);
  });
  after(() => labDown(LAB, () => undefined));

  const setFault = (fault: LinkFault, node = "node3"): void => setLinkFault(LAB, readLab(LAB).definition, node, fault);

  interface PoolWay extends Way {
    readonly pools: string | undefined;
    /** What node1 says of the ways to node2 and to node3. */
    readonly found: { readonly node2: readonly RegExp[]; readonly node3: readonly RegExp[] };
  }
  /** The router says so, as long as it is not asked too often: then it says nothing. */
  const isUnknown = (family: Family): RegExp =>
    new RegExp(
      `^none (blocked 0/1500 .* do not pass between node1 and node3: ${family === 4 ? "192.0.2.1" : "2001:.*"} says|unsure 0/1500 .* routers between may not know the way)`,
    );
  const ways: PoolWay[] = [
    {
      name: "no encapsulation",
      pools: undefined,
      near: { 4: 1500, 6: 1500 },
      far: { 4: 0, 6: 0 },
      found: {
        node2: [/^none reachable 1500\/1500$/, /^none reachable 1500\/1500$/],
        node3: [isUnknown(4), isUnknown(6)],
      },
    },
    {
      name: "IPIP",
      pools: pools("Always", "Never", "Never"),
      near: { 4: 1480, 6: 1500 },
      far: { 4: 1480, 6: 0 },
      found: {
        node2: [/^ipip reachable 1480\/1480$/, /^none reachable 1480\/1480$/],
        node3: [/^ipip reachable 1480\/1480$/, /^none (blocked|unsure)/],
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
    test(`${way.name}: who may reaches whom, whole, in packets as large as they may be, with every header in its place`, async () => {
      if (way.pools !== undefined) await apply(way.pools);
      await assertWay(LAB, pods, way);
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

  test("a firewall drops IPIP, a switch swallows what is large: the nodes say so, and by what the tunnel works", async () => {
    await apply(pools("Always", "Never", "Never"));
    const { node2, node3 } = ways[1]!.found;
    await foundPaths(LAB, "node1", "node3", node3);
    setFault({ blocked: [{ protocol: 4 }] });
    setFault({ mtu: 1400 }, "node2");
    await foundPaths(LAB, "node1", "node3", [
      /IP protocol 4 does not pass between node1 and node3$/,
      /^none (blocked|unsure)/,
    ]);
    const tooLarge = (by: string, largest: string): RegExp =>
      new RegExp(
        `^${by} too large ${largest.replace(",", "")}/1480 packets over ${largest} bytes do not pass between node1 and node2 though the MTU is 1,480$`,
      );
    await foundPaths(LAB, "node1", "node2", [tooLarge("ipip", "1,380"), tooLarge("none", "1,400")]);
    const { output } = await caracal(LAB, ["node", "status"]);
    assert.match(output, /\ntunl0 +IPIP, (BPF programs|the kernel's device) +10\.244\.\S+ +1480 +2 +-\n/);
    assert.match(output, /\nnode3 +ipip +tunl0 .* IP protocol 4 does not pass between node1 and node3\n/);
    setFault({});
    setFault({}, "node2");
    await foundPaths(LAB, "node1", "node3", node3);
    await foundPaths(LAB, "node1", "node2", node2);
  });

  test("the wire is cut: the node is down; and mended, packets pass within a second and a half", async () => {
    const { node3 } = ways[1]!.found;
    const reaches = async (): Promise<void> =>
      assert.equal((await inPod(LAB, "default/client", ["ping", "-c1", "-W0.2", addressOf(pods, "far", 4)])).code, 0);
    await reaches();
    setFault({ cut: true });
    await assert.rejects(reaches());
    const isDown = /^ipip down 0\/1480 node3 does not answer at 192.0.2.75: it is down, or cut off$/;
    await foundPaths(LAB, "node1", "node3", [isDown, /^none down/]);
    setFault({});
    // The kernel asks for a lost neighbour once a second.
    await eventually(reaches, 1500);
    await foundPaths(LAB, "node1", "node3", node3);
  });
});
