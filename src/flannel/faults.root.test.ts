import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { formatPrefix } from "../ip/prefix.ts";
import { inside } from "../netlink/namespace.testing.ts";
import { type Cluster, podAddress, startCluster, until } from "./cluster.testing.ts";
import { parseSubnetEnv } from "./subnetEnv.ts";

/** What goes wrong on nodes and in etcd, and how soon it is right again. Two nodes of ours, a pod on each. */

const PREFIX = "/coreos.com/network";

describe("faults", () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await startCluster();
  });
  after(async () => {
    await cluster.close();
  });

  const subnetOf = (node: number): string =>
    formatPrefix(parseSubnetEnv(readFileSync(cluster.subnetFile(node), "utf8")).subnets.ipv4!);
  const on = (node: number, ...command: string[]): string => inside(cluster.nodes[node - 1]!, ...command);

  /** Does the work with two nodes whose pods reach each other. */
  async function withPair(config: string, work: (daemons: ChildProcess[]) => Promise<void>): Promise<void> {
    cluster.etcdctl("del", "--prefix", PREFIX);
    cluster.etcdctl("put", `${PREFIX}/config`, config);
    // At the same time: in a small network they draw the same subnet now and then.
    const nodes = await Promise.all([1, 3].map((node) => cluster.startFlannel(node, "-ip-masq")));
    try {
      const { mtu } = parseSubnetEnv(readFileSync(cluster.subnetFile(1), "utf8"));
      for (const node of [1, 3]) cluster.attachPod(node, subnetOf(node), mtu);
      await until("pod 1 reaches pod 3", reaches, 5000);
      await work(nodes);
    } finally {
      await Promise.all(nodes.map((child) => cluster.stop(child)));
      cluster.detachPods();
      for (const node of [1, 3]) {
        on(node, "ip", "route", "flush", "proto", "81");
        rmSync(cluster.subnetFile(node));
      }
    }
  }

  // A lost ping is waited for a fifth of a second.
  const reaches = async (): Promise<boolean> => (await cluster.ping(1, podAddress(subnetOf(3)), "-W0.2")) !== undefined;
  /** Pings both ways work again within a second of what was done. */
  async function heals(what: string, damage: () => void): Promise<void> {
    damage();
    const began = performance.now();
    await until(`${what}: pod 1 reaches pod 3 again`, reaches, 5000);
    const took = performance.now() - began;
    assert.ok(took < 1000, `${what}: put right after ${took.toFixed(0)} ms`);
    assert.notEqual(await cluster.ping(3, podAddress(subnetOf(1))), undefined, `${what}: the way back`);
  }

  test("udp: the device, routes, addresses", async () => {
    await withPair('{"Network":"10.5.0.0/16"}', async () => {
      await heals("the device was deleted", () => on(1, "ip", "link", "delete", "flannel0"));
      await heals("its route was flushed", () => on(1, "ip", "route", "flush", "proto", "81"));
      await heals("it was set down", () => on(3, "ip", "link", "set", "flannel0", "down"));
      await heals("its address was deleted", () => on(3, "ip", "address", "flush", "dev", "flannel0"));
    });
  });

  test("vxlan: the device, entries, routes; it keeps its MAC address; the daemon killed", async () => {
    await withPair('{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}', async (daemons) => {
      const mac = () => /ether ([0-9a-f:]+)/.exec(on(1, "ip", "link", "show", "flannel.1"))?.[1];
      const before = mac();
      await heals("the device was deleted", () => on(1, "ip", "link", "delete", "flannel.1"));
      assert.equal(mac(), before);
      await heals("the forwarding entries were deleted", () => {
        const [entry = ""] = on(1, "bridge", "fdb", "show", "dev", "flannel.1").split("\n");
        on(1, "bridge", "fdb", "delete", entry.split(" ")[0]!, "dev", "flannel.1", "self");
      });
      await heals("the neighbours were flushed", () =>
        on(3, "ip", "neighbour", "flush", "dev", "flannel.1", "nud", "permanent"),
      );
      await heals("the routes were flushed", () => on(1, "ip", "route", "flush", "dev", "flannel.1"));

      const device = on(1, "ip", "link", "show", "flannel.1");
      daemons[0]!.kill("SIGKILL");
      assert.ok(await reaches(), "without a daemon all goes on");
      rmSync(cluster.subnetFile(1));
      daemons[0] = await cluster.startFlannel(1, "-ip-masq");
      await until("the new daemon knows node 3", () => cluster.status(1).peers === 1, 3000);
      assert.ok(await reaches());
      assert.equal(on(1, "ip", "link", "show", "flannel.1"), device, "the device is the same one");
    });
  });

  test("a lease that is lost is taken again, and etcd may go and come back", async () => {
    await withPair('{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}', async () => {
      const subnet = subnetOf(1);
      const key = `${PREFIX}/subnets/${subnet.replace("/", "-")}`;
      const address = podAddress(subnetOf(3));
      const overLoss = cluster.startPing(1, address);
      cluster.etcdctl("del", key);
      await until("the key is there again", () => cluster.etcdctl("get", key) !== "", 1000);
      await heals("the lease was deleted", () => undefined);
      const { lost } = await overLoss.stop();
      assert.ok(lost * 20 < 1000, `the lease was deleted: ${lost} echoes, one every 20 ms, were lost`);

      const overRestart = cluster.startPing(1, address);
      await cluster.stopEtcd();
      await sleep(500);
      assert.ok(await reaches(), "without etcd all goes on");
      await cluster.startEtcd();
      const moved = `${PREFIX}/subnets/10.5.200.0-24`;
      const lease = /lease ([0-9a-f]+)/.exec(cluster.etcdctl("lease", "grant", "60"))?.[1] ?? "";
      cluster.etcdctl(
        "put",
        `--lease=${lease}`,
        moved,
        '{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"host-gw"}',
      );
      await until(
        "a node that came after the restart is known",
        () => on(1, "ip", "route").includes("10.5.200.0/24 via 192.0.2.2"),
        6000,
      );
      const restart = await overRestart.stop();
      assert.ok(restart.sent > 25 && restart.lost === 0, `etcd was away: ${restart.lost} of ${restart.sent} were lost`);
      cluster.etcdctl("lease", "revoke", lease);
      await until(
        "and forgotten when its lease has ended",
        () => !on(1, "ip", "route").includes("10.5.200.0/24"),
        1000,
      );

      // Somebody else has the subnet now: this node moves, and says so to the runtime.
      cluster.etcdctl("put", key, '{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"host-gw"}');
      await until("node 1 has another subnet", () => subnetOf(1) !== subnet, 2000);
      assert.match(cluster.log(1), /the lease was lost to another node/);
    });
  });

  test("nodes that start at once in a small network share it out, and the one too many waits", async () => {
    cluster.etcdctl("del", "--prefix", PREFIX);
    cluster.etcdctl(
      "put",
      `${PREFIX}/config`,
      '{"Network":"10.5.0.0/22","SubnetMin":"10.5.1.0","SubnetMax":"10.5.2.0","Backend":{"Type":"host-gw"}}',
    );
    const children = await Promise.all([1, 3].map((node) => cluster.startFlannel(node)));
    assert.deepEqual([subnetOf(1), subnetOf(3)].toSorted(), ["10.5.1.0/24", "10.5.2.0/24"]);
    const late = cluster.startFlannel(2);
    await until("node 2 says why it waits", () => /all 2 are taken/.test(cluster.log(2)), 5000);
    assert.equal(existsSync(cluster.subnetFile(2)), false);
    await cluster.stop(children[1]!);
    cluster.etcdctl("del", `${PREFIX}/subnets/${subnetOf(3).replace("/", "-")}`);
    children.push(await late);
    assert.equal(subnetOf(2), subnetOf(3));
    await Promise.all(children.map((child) => cluster.stop(child)));
    for (const node of [1, 2, 3]) rmSync(cluster.subnetFile(node));
  });
});
