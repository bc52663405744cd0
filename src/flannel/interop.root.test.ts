import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { rmSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { setTransmitChecksumOffload } from "../netlink/ethtool.io.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { inside } from "../netlink/namespace.testing.ts";
import { type Cluster, NODE, nodeAddress, podAddress, startCluster, transfer, until } from "./cluster.testing.ts";
import { parseSubnetEnv } from "./subnetEnv.ts";
import { formatPrefix } from "../ip/prefix.ts";

/** Our nodes beside one that is set up of the facts, with `ip`, `bridge`, `etcdctl` and plain relays. */

const PLAIN_RELAY = new URL("plainRelay.testing.ts", import.meta.url).pathname;
const PLAIN_IPIP = new URL("plainIpip.testing.ts", import.meta.url).pathname;
const HAND_SUBNET = "10.5.100.0/24";
const HAND_MAC = "0a:00:00:00:00:02";

/** One value as etcd has it for node 2, of each backend. */
const HAND_VALUES: Readonly<Record<string, string>> = {
  udp: '{"PublicIP":"192.0.2.2","PublicIPv6":null}',
  vxlan: `{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"${HAND_MAC}"}}`,
  "host-gw": '{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"host-gw"}',
  ipip: '{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"ipip"}',
};

interface Other {
  readonly subnet: string;
  readonly publicIp: string;
  readonly mac: string;
}

/** What the leases of nodes 1 and 3 say, read as any program would. */
function otherLeases(cluster: Cluster, prefix: string): Other[] {
  const output = cluster.etcdctl("get", "--prefix", `${prefix}/subnets/`);
  const lines = output.trim().split("\n");
  return lines.flatMap((key, at) => {
    if (at % 2 === 1 || key.endsWith("10.5.100.0-24")) return [];
    const value = JSON.parse(lines[at + 1]!) as { PublicIP: string; BackendData?: { VtepMAC: string } };
    const subnet = key.slice(`${prefix}/subnets/`.length).replace("-", "/");
    return [{ subnet, publicIp: value.PublicIP, mac: value.BackendData?.VtepMAC ?? "" }];
  });
}

/** Sets node 2 up for the backend; returns what it runs. */
function setUpByHand(cluster: Cluster, backend: string, others: readonly Other[]): ChildProcess | undefined {
  const node = cluster.nodes[1]!;
  const ip = (...args: string[]) => inside(node, "ip", ...args);
  switch (backend) {
    case "udp": {
      ip("tuntap", "add", "flannel0", "mode", "tun");
      ip("address", "add", "10.5.100.0/32", "dev", "flannel0");
      ip("link", "set", "flannel0", "mtu", "1472", "up");
      ip("route", "add", "10.5.0.0/16", "dev", "flannel0");
      const routes = others.map(({ subnet, publicIp }) => `${subnet}=${publicIp}`);
      return cluster.start(node, ...NODE, PLAIN_RELAY, "flannel0", "192.0.2.2", ...routes);
    }
    case "ipip": {
      // The kernel's own device is not everywhere; a network card would finish the checksums that a veth leaves as they are.
      for (const each of [0, 2])
        inNamespace(`/run/netns/${cluster.nodes[each]!}`, () => setTransmitChecksumOffload("eth0", false));
      ip("tuntap", "add", "hand0", "mode", "tun");
      ip("address", "add", "10.5.100.0/32", "dev", "hand0");
      ip("link", "set", "hand0", "mtu", "1480", "up");
      for (const { subnet } of others) ip("route", "add", subnet, "dev", "hand0");
      return cluster.start(
        node,
        ...NODE,
        PLAIN_IPIP,
        "hand0",
        ...others.map((each) => `${each.subnet}=${each.publicIp}`),
      );
    }
    case "vxlan":
      ip(
        "link",
        "add",
        "flannel.1",
        "address",
        HAND_MAC,
        "type",
        "vxlan",
        "id",
        "1",
        "local",
        "192.0.2.2",
        "dev",
        "eth0",
        "dstport",
        "8472",
        "nolearning",
      );
      ip("address", "add", "10.5.100.0/32", "dev", "flannel.1");
      ip("link", "set", "flannel.1", "mtu", "1450", "up");
      for (const { subnet, publicIp, mac } of others) {
        const network = subnet.replace("/24", "");
        ip("neighbour", "add", network, "lladdr", mac, "dev", "flannel.1", "nud", "permanent");
        inside(node, "bridge", "fdb", "add", mac, "dev", "flannel.1", "dst", publicIp, "self", "permanent");
        ip("route", "add", subnet, "via", network, "dev", "flannel.1", "onlink");
      }
      return undefined;
    default:
      for (const { subnet, publicIp } of others) ip("route", "add", subnet, "via", publicIp, "dev", "eth0");
      return undefined;
  }
}

function tearDownByHand(cluster: Cluster): void {
  const node = cluster.nodes[1]!;
  for (const device of ["flannel0", "flannel.1", "hand0"]) {
    try {
      inside(node, "ip", "link", "delete", device);
    } catch {
      // Another backend's.
    }
  }
  inside(node, "ip", "route", "flush", "root", "10.5.0.0/16");
}

const subnetOf = (file: string): string => formatPrefix(parseSubnetEnv(file).subnets.ipv4!);

describe("flannel's backends beside a node of the facts", () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await startCluster();
  });
  after(() => cluster.close());

  const backends = [
    { backend: "udp", mtu: 1472, ttl: 60, settings: "" },
    { backend: "vxlan", mtu: 1450, ttl: 62, settings: "" },
    { backend: "vxlan", mtu: 1450, ttl: 62, settings: ',"DirectRouting":true' },
    { backend: "host-gw", mtu: 1500, ttl: 62, settings: "" },
    { backend: "ipip", mtu: 1480, ttl: 62, settings: "" },
  ];
  for (const { backend, mtu, ttl, settings } of backends) {
    test(`${backend}${settings}: pods of all nodes reach each other`, async () => {
      const prefix = `/test/${backend}${settings.length}`;
      cluster.etcdctl(
        "put",
        `${prefix}/config`,
        `{"Network":"10.5.0.0/16","Backend":{"Type":"${backend}"${settings}}}`,
      );
      const lease = /lease ([0-9a-f]+)/.exec(cluster.etcdctl("lease", "grant", "86400"))?.[1] ?? "";
      cluster.etcdctl("put", `--lease=${lease}`, `${prefix}/subnets/10.5.100.0-24`, HAND_VALUES[backend]!);
      const ours = await Promise.all([1, 3].map((node) => cluster.startFlannel(node, `-etcd-prefix=${prefix}`)));
      const env = (node: number) => inside(cluster.nodes[node - 1]!, "cat", cluster.subnetFile(node));
      const subnets = [subnetOf(env(1)), HAND_SUBNET, subnetOf(env(3))];
      assert.equal(parseSubnetEnv(env(1)).mtu, mtu);
      const others = otherLeases(cluster, prefix);
      assert.deepEqual(others.map(({ publicIp }) => publicIp).toSorted(), [nodeAddress(1), nodeAddress(3)]);
      const relay = setUpByHand(cluster, backend, others);
      for (const [at, subnet] of subnets.entries()) cluster.attachPod(at + 1, subnet, mtu);

      const pairs = [1, 2, 3].flatMap((from) => [1, 2, 3].flatMap((to) => (from === to ? [] : [[from, to] as const])));
      for (const [from, to] of pairs) {
        const address = podAddress(subnets[to - 1]!);
        await until(`pod ${from} reaches pod ${to}`, async () => (await cluster.ping(from, address)) === ttl, 3000);
        const largest = await cluster.ping(from, address, "-M", "do", "-s", String(mtu - 28));
        assert.equal(largest, ttl, `the largest packet from pod ${from} to pod ${to}`);
      }
      const [pod1, pod2, pod3] = cluster.pods as [string, string, string];
      assert.ok(await transfer(pod1, pod3, podAddress(subnets[2]!), 30_000_000), "between ours");
      assert.ok(await transfer(pod1, pod2, podAddress(subnets[1]!), 3_000_000), "to the other");
      assert.ok(await transfer(pod2, pod3, podAddress(subnets[2]!), 3_000_000), "from the other");
      assert.deepEqual(cluster.status(1).problems, []);
      assert.equal(cluster.status(1).peers, 2);

      await Promise.all([...ours, ...(relay === undefined ? [] : [relay])].map((child) => cluster.stop(child)));
      tearDownByHand(cluster);
      cluster.detachPods();
      for (const node of [1, 3]) {
        rmSync(cluster.subnetFile(node));
        inside(cluster.nodes[node - 1]!, "ip", "route", "flush", "proto", "81");
      }
    });
  }
});
