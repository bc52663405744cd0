import assert from "node:assert/strict";
import { closeSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { after, before, describe, test } from "node:test";
import { parseAddress, type Address } from "../ip/address.ts";
import {
  AF_INET6,
  bind,
  listen,
  setSocketOption,
  SO_REUSEADDR,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
} from "../netlink/ffi.io.ts";
import { createNamespace, deleteNamespace, socketIn } from "../netlink/namespace.io.ts";
import { PROTOCOL } from "../policy/model.ts";
import { memberNamespace, podNamespace } from "./files.ts";
import { inPod, onMember, type Outcome } from "./lab.testing.ts";
import { policyLab, type PolicyLab } from "./policyLab.testing.ts";
import type { Manifest } from "./policyObjects.testing.ts";
import type { Written } from "../cli/wait.io.ts";
import { openTalk } from "./talk.testing.ts";
import { shoot, type RawPacket, type Shot } from "./rawPackets.testing.ts";
import { sockaddr } from "./sockaddr.ts";

/**
 * What the rules do besides policy, seen from outside: addresses that are translated, sources that are made up, services
 * that nobody has, interfaces that nobody knows. By both renderers.
 */

const LAB = "test-policy-paths";
const DEFINITION = {
  kind: "Lab",
  segments: [{ subnet: "192.0.2.0/24", subnet6: "2001:db8:0:1::/64", nodes: ["node1", "node2"], hosts: ["outside"] }],
};
const CALICO = "projectcalico.org/v3";
const RENDERERS = { nft: "Enabled", iptables: "Disabled" } as const;
const OUTSIDE = { 4: "192.0.2.13", 6: "2001:db8:0:1::13" } as const;
const NODE1 = { 4: "192.0.2.11", 6: "2001:db8:0:1::11" } as const;
const [X, Y] = [
  { 4: "10.244.1.1", 6: "fd10:244::1:1" },
  { 4: "10.244.2.1", 6: "fd10:244::2:1" },
] as const;
const FLOATING = { 4: "198.51.100.50", 6: "2001:db8:50::50" } as const;

const pod = (
  name: string,
  node: number,
  ips: Readonly<Record<4 | 6, string>>,
  annotations = {},
  app = name,
): Manifest => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: {
    name,
    namespace: "default",
    labels: { app },
    annotations: { "cni.projectcalico.org/ipAddrs": JSON.stringify(Object.values(ips)), ...annotations },
  },
  spec: { nodeName: `node${node}`, containers: [{ name: "c", image: "none" }] },
});
const calico = (kind: string, name: string, spec: object, labels = {}): Manifest => ({
  apiVersion: CALICO,
  kind,
  metadata: { name, labels },
  spec,
});
const felix = (nftablesMode: string, spec: object = {}): Manifest =>
  calico("FelixConfiguration", "default", { nftablesMode, ...spec });
const PODS = [pod("x", 1, X), pod("y", 2, Y)];

describe("besides policy", () => {
  let lab: PolicyLab;
  const servers: Server[] = [];
  before(async () => {
    lab = await policyLab(LAB, DEFINITION);
    for (const member of ["outside", "node2"]) servers.push(tellSources(memberNamespace(LAB, member)));
    // What is routed to nodes without their saying so, as a data centre's router would be told to.
    const routes = [`${FLOATING[4]} via ${NODE1[4]}`, `${FLOATING[6]} via ${NODE1[6]}`, `10.96.0.0/16 via ${NODE1[4]}`];
    for (const route of routes) await run("outside", `ip route add ${route}`);
    // Whoever sends there for want of anything better meets the router, which takes it.
    await run("router", "ip address add 10.96.0.5/32 dev lo");
  });
  after(async () => {
    for (const server of servers) server.close();
    await lab?.close();
  });

  async function run(member: string, command: string): Promise<string> {
    const outcome = await onMember(LAB, member, command.split(" "));
    assert.equal(outcome.code, 0, `${command}: ${outcome.errors}`);
    return outcome.output;
  }
  /** The address by which whoever is asked knows the pod. */
  async function sourceSeen(name: string, address: string): Promise<string> {
    const outcome = await ask(() =>
      inPod(LAB, `default/${name}`, ["bash", "-c", `exec 3<>/dev/tcp/${address}/${PORT} && head -1 <&3`]),
    );
    return outcome.output.trim().replace("::ffff:", "");
  }
  async function ask(question: () => Promise<Outcome>): Promise<Outcome> {
    const outcome = await question();
    assert.equal(outcome.code, 0, outcome.errors);
    return outcome;
  }
  const inPodOf = (name: string): string => podNamespace(LAB, "default", name);
  async function assertArrivals(
    shots: readonly (Shot & { readonly name: string })[],
    expected: readonly boolean[],
  ): Promise<void> {
    lab.forgetConnections();
    const arrived = await shoot(shots, expected);
    const lines = (of: readonly boolean[]): string[] =>
      shots.map(({ name }, at) => `${name}: ${of[at] ? "arrives" : "does not"}`);
    assert.deepEqual(lines(arrived), lines(expected));
  }

  for (const [renderer, mode] of Object.entries(RENDERERS)) {
    describe(`by ${renderer}`, () => {
      test("what leaves the pools has its node's address, what stays inside its own", async () => {
        await lab.hold([...PODS, felix(mode)]);
        const inside = tellSources(inPodOf("y"));
        try {
          assert.equal(await sourceSeen("x", OUTSIDE[4]), NODE1[4]);
          assert.equal(await sourceSeen("x", "192.0.2.12"), NODE1[4], "another node is outside");
          assert.equal(await sourceSeen("x", Y[4]), X[4]);
          assert.equal(await sourceSeen("x", OUTSIDE[6]), X[6], "the other pool says nothing of it");
          await lab.put([felix(mode, { natOutgoingExclusions: "IPPoolsAndHostIPs" })]);
          assert.equal(await sourceSeen("x", "192.0.2.12"), X[4], "unless it is said not to be");
          assert.equal(await sourceSeen("x", OUTSIDE[4]), NODE1[4]);
        } finally {
          inside.close();
        }
      });

      test("a pool of IPv6 is as good as one of IPv4", async () => {
        await lab.hold([...PODS, felix(mode)]);
        const setNat = async (natOutgoing: boolean): Promise<void> => {
          const { metadata } = await lab.datastore.patch("IPPool", "default-ipv6-ippool", undefined, {
            spec: { natOutgoing },
          });
          await lab.inForce([{ kindId: "IPPool", ...metadata, namespace: undefined }] as Written[]);
        };
        await setNat(true);
        try {
          assert.equal(await sourceSeen("x", OUTSIDE[6]), NODE1[6]);
        } finally {
          await setNat(false);
        }
        assert.equal(await sourceSeen("x", OUTSIDE[6]), X[6]);
      });

      test("a pool that is switched off is inside all the same", async () => {
        const around = calico("IPPool", "around", {
          cidr: "192.0.2.12/30",
          disabled: true,
          natOutgoing: false,
          blockSize: 32,
        });
        await lab.hold([...PODS, felix(mode), around]);
        assert.equal(await sourceSeen("x", OUTSIDE[4]), X[4]);
      });

      test("an address of the operator's own choice takes the place of the node's", async () => {
        await run("node1", "ip address add 192.0.2.111/32 dev eth0");
        try {
          await lab.hold([
            ...PODS,
            felix(mode),
            calico("FelixConfiguration", "node.node1", { natOutgoingAddress: "192.0.2.111" }),
          ]);
          assert.equal(await sourceSeen("x", OUTSIDE[4]), "192.0.2.111");
        } finally {
          await run("node1", "ip address del 192.0.2.111/32 dev eth0");
        }
      });

      test("a floating address leads in, out, and back to the pod itself", async () => {
        const floating = { "cni.projectcalico.org/floatingIPs": JSON.stringify(Object.values(FLOATING)) };
        const policy = calico("GlobalNetworkPolicy", "in", {
          selector: "app == 'x'",
          types: ["Ingress"],
          ingress: [
            {
              action: "Allow",
              protocol: "TCP",
              source: { nets: ["192.0.2.0/24", "10.244.1.0/24"] },
              destination: { ports: [80] },
            },
          ],
        });
        await lab.hold([pod("x", 1, X, floating), PODS[1]!, felix(mode, { floatingIPs: "Enabled" }), policy]);
        assert.equal(await sourceSeen("x", OUTSIDE[4]), FLOATING[4]);
        assert.equal(await sourceSeen("x", OUTSIDE[6]), FLOATING[6]);
        const greeting = (address: string, port: number): string[] => [
          "bash",
          "-c",
          `exec 3<>/dev/tcp/${address}/${port} && head -1 <&3`,
        ];
        assert.match((await ask(() => onMember(LAB, "outside", greeting(FLOATING[4], 80)))).output, /^default\/x /);
        assert.match((await ask(() => inPod(LAB, "default/x", greeting(FLOATING[4], 80)))).output, /^default\/x /);
        const closed = await onMember(LAB, "outside", ["timeout", "0.2", ...greeting(FLOATING[4], 81)]);
        assert.notEqual(closed.code, 0, "policy sees what the address stands for");
        await lab.put([felix(mode, { floatingIPs: "Disabled" })]);
        assert.equal(await sourceSeen("x", OUTSIDE[4]), NODE1[4]);
      });

      test("a made-up source goes nowhere, unless it is allowed to the pod", async () => {
        const udp = (source: string, destination: string): RawPacket => ({
          source: parseAddress(source),
          destination: parseAddress(destination),
          protocol: PROTOCOL.UDP,
          destinationPort: 80,
        });
        const shots = [
          { name: "its own", source: X[4], to: Y[4] },
          { name: "its own, IPv6", source: X[6], to: Y[6] },
          { name: "another's", source: "10.244.1.77", to: Y[4] },
          { name: "another's, IPv6", source: "fd10:244::1:77", to: Y[6] },
          { name: "its node's", source: NODE1[4], to: Y[4] },
          { name: "one that is allowed", source: "203.0.113.9", to: Y[4] },
          { name: "one beside those that are allowed", source: "203.0.113.19", to: Y[4] },
        ].map(({ name, source, to }) => ({ name, ...udp(source, to), from: inPodOf("x"), to: inPodOf("y") }));
        await lab.hold([...PODS, felix(mode)]);
        await assertArrivals(shots, [true, true, false, false, false, false, false]);
        const allowed = { "cni.projectcalico.org/allowedSourcePrefixes": JSON.stringify(["203.0.113.8/29"]) };
        await lab.hold([pod("x", 1, X, allowed), PODS[1]!, felix(mode, { workloadSourceSpoofing: "Any" })]);
        await assertArrivals(shots, [true, true, false, false, false, true, false]);
      });

      test("preDNAT policy sees a service's own address and port, policy of pods what it stands for", async () => {
        await run("node1", "nft add table ip services");
        await run("node1", "nft add chain ip services pre { type nat hook prerouting priority dstnat ; }");
        for (const port of ["30080", "30081"]) {
          await run("node1", `nft add rule ip services pre ip daddr ${NODE1[4]} tcp dport ${port} dnat to ${X[4]}:80`);
        }
        try {
          const shot = (port: number) => ({
            name: `to the node's port ${port}`,
            source: parseAddress(OUTSIDE[4]),
            destination: parseAddress(NODE1[4]),
            protocol: PROTOCOL.TCP,
            sourcePort: 40_000,
            destinationPort: port,
            from: memberNamespace(LAB, "outside"),
            to: inPodOf("x"),
          });
          const shots = [shot(30080), shot(30081)];
          const host = calico("HostEndpoint", "node1", { node: "node1", interfaceName: "eth0" }, { host: "yes" });
          await lab.hold([...PODS, felix(mode), host]);
          await assertArrivals(shots, [true, true]);
          const tcp = (action: string, port: number) => ({ action, protocol: "TCP", destination: { ports: [port] } });
          const before = calico("GlobalNetworkPolicy", "before", {
            selector: "has(host)",
            preDNAT: true,
            applyOnForward: true,
            ingress: [tcp("Deny", 30080), tcp("Deny", 80)],
          });
          await lab.put([before]);
          await assertArrivals(shots, [false, true]);
          const pods = calico("GlobalNetworkPolicy", "pods", { selector: "app == 'x'", ingress: [tcp("Deny", 80)] });
          await lab.put([pods]);
          await assertArrivals(shots, [false, false]);
        } finally {
          await run("node1", "nft delete table ip services");
        }
      });

      test("what is allowed one way has its answers the other, where nothing may begin", async () => {
        const protocols = [
          { protocol: "TCP", destination: { ports: [80] } },
          { protocol: "ICMP" },
          { protocol: "ICMPv6" },
        ];
        const allow = protocols.map((each) => ({ action: "Allow", ...each }));
        await lab.hold([
          ...PODS,
          felix(mode),
          calico("GlobalNetworkPolicy", "none", { selector: "all()", types: ["Ingress", "Egress"] }),
          calico("GlobalNetworkPolicy", "in", { selector: "app == 'x'", ingress: allow }),
          calico("GlobalNetworkPolicy", "out", { selector: "app == 'y'", egress: allow }),
        ]);
        lab.forgetConnections();
        for (const family of [4, 6] as const) {
          using talk = openTalk(inPodOf("y"), X[family], 80);
          assert.ok(await talk.says("an answer"));
          assert.throws(() => openTalk(inPodOf("x"), Y[family], 80, 150));
          await ask(() => inPod(LAB, "default/y", ["ping", "-c", "1", "-W", "2", X[family]]));
          assert.notEqual((await inPod(LAB, "default/x", ["ping", "-c", "1", "-W", "0.2", Y[family]])).code, 0);
        }
      });

      test("an established connection outlives a policy that forbids it", async () => {
        await lab.hold([...PODS, felix(mode)]);
        using talk = openTalk(inPodOf("y"), X[4], 80);
        using nearby = openTalk(memberNamespace(LAB, "node1"), X[6], 80);
        await lab.put([calico("GlobalNetworkPolicy", "none", { selector: "all()", types: ["Ingress", "Egress"] })]);
        assert.throws(() => openTalk(memberNamespace(LAB, "outside"), X[4], 80, 150));
        assert.ok(await talk.says("as before"));
        assert.ok(await nearby.says("as before"));
      });

      test("an address of a service that nobody has does not travel in circles", async () => {
        const service = (from: string, source: string) => ({
          name: `from ${source}`,
          source: parseAddress(source),
          destination: parseAddress("10.96.0.5"),
          protocol: PROTOCOL.UDP,
          destinationPort: 80,
          from,
          to: memberNamespace(LAB, "router"),
        });
        const shots = [service(memberNamespace(LAB, "outside"), OUTSIDE[4]), service(inPodOf("x"), X[4])];
        const services = calico("BGPConfiguration", "default", { serviceClusterIPs: [{ cidr: "10.96.0.0/16" }] });
        await lab.hold([...PODS, felix(mode, { serviceLoopPrevention: "Disabled" }), services]);
        await assertArrivals(shots, [true, true]);
        await lab.hold([...PODS, felix(mode), services]);
        await assertArrivals(shots, [false, false]);
      });

      test("what listens to the node alone is out of its pods' reach, where the node itself is not", async () => {
        await lab.hold([...PODS, felix(mode, { defaultEndpointToHostAction: "Accept" })]);
        const server = tellSources(memberNamespace(LAB, "node1"));
        // A pod that takes the address for another machine's.
        const way = [
          "sysctl -q -w net.ipv4.conf.all.route_localnet=1",
          "ip address del 127.0.0.1/8 dev lo",
          `ip route add 127.0.0.1/32 via 169.254.1.1 dev eth0 src ${X[4]}`,
        ];
        try {
          for (const command of way) await ask(() => inPod(LAB, "default/x", command.split(" ")));
          assert.equal(await sourceSeen("x", NODE1[4]), X[4]);
          const connect = `exec 3<>/dev/tcp/127.0.0.1/${PORT} && head -1 <&3`;
          assert.notEqual((await inPod(LAB, "default/x", ["timeout", "0.5", "bash", "-c", connect])).code, 0);
        } finally {
          server.close();
          await lab.remove(PODS);
        }
      });

      test("neighbours find each other although everything is denied", async () => {
        const none = calico("GlobalNetworkPolicy", "none", { selector: "all()", types: ["Ingress", "Egress"] });
        await lab.hold([...PODS, felix(mode), none]);
        await run("node1", "ip -6 neigh flush all");
        await ask(() => inPod(LAB, "default/x", ["ip", "-6", "neigh", "flush", "all"]));
        lab.forgetConnections();
        // Its own node may always ask, and the answer needs both to find the other.
        await run("node1", `ping -6 -c 1 -W 2 ${X[6]}`);
        await run("node1", `ping -c 1 -W 2 ${X[4]}`);
        assert.notEqual((await onMember(LAB, "outside", ["ping", "-c", "1", "-W", "0.2", X[4]])).code, 0);
      });

      test("an interface that nobody knows is shut", async () => {
        const stranger = `${memberNamespace(LAB, "stranger")}`;
        await lab.hold([...PODS, felix(mode, { removeExternalRoutes: false, defaultEndpointToHostAction: "Accept" })]);
        createNamespace(stranger, { loopback: true });
        try {
          await run(
            "node1",
            `ip link add calistranger type veth peer name eth0 netns ${stranger.slice(stranger.lastIndexOf("/") + 1)}`,
          );
          await run("node1", "ip link set calistranger up");
          await run("node1", "ip route add 10.244.1.99/32 dev calistranger proto static");
          await run("stranger", "ip address add 10.244.1.99/32 dev eth0");
          await run("stranger", "ip link set eth0 up");
          await run("stranger", `ip route add ${NODE1[4]} dev eth0`);
          await run("stranger", `ip route add default via ${NODE1[4]} dev eth0`);
          await run("node1", "sysctl -q -w net.ipv4.conf.calistranger.proxy_arp=1");
          const udp = (name: string, from: string, source: string, to: string, destination: string) => ({
            name,
            source: parseAddress(source),
            destination: parseAddress(destination),
            protocol: PROTOCOL.UDP,
            destinationPort: 80,
            from,
            to,
          });
          await assertArrivals(
            [
              udp("to a pod of the node", stranger, "10.244.1.99", inPodOf("x"), X[4]),
              udp("to a pod elsewhere", stranger, "10.244.1.99", inPodOf("y"), Y[4]),
              udp("to the node", stranger, "10.244.1.99", memberNamespace(LAB, "node1"), NODE1[4]),
              udp("from a pod", inPodOf("x"), X[4], stranger, "10.244.1.99"),
              udp("from outside", memberNamespace(LAB, "outside"), OUTSIDE[4], stranger, "10.244.1.99"),
              udp("from the node", memberNamespace(LAB, "node1"), NODE1[4], stranger, "10.244.1.99"),
            ],
            [false, false, false, false, false, true],
          );
        } finally {
          await onMember(LAB, "node1", ["ip", "link", "del", "calistranger"]);
          deleteNamespace(stranger);
        }
      });
    });
  }
});

const PORT = 7000;
const ANY: Address = { family: 6, value: 0n };

/** Tells whoever connects by which address it is known there. */
function tellSources(netns: string): Server {
  const fd = socketIn(netns, AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
  try {
    setSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    bind(fd, sockaddr(ANY, PORT));
    listen(fd, 64);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.end(`${socket.remoteAddress}\n`);
  });
  return server.listen({ fd });
}
