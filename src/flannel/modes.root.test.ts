import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { kubernetesDatastore } from "../datastore/client.io.ts";
import { formatAddress } from "../ip/address.ts";
import { networkOf, parseInterfaceAddress, prefixContains } from "../ip/prefix.ts";
import { inside } from "../netlink/namespace.testing.ts";
import { KIND } from "../resources/registry.ts";
import { type Cluster, NODE, podAddress, startCluster, until } from "./cluster.testing.ts";

/** Flannel the other ways round: subnets from Kubernetes, two families, nf_tables, pods by the CNI plugin. */

const MAIN = new URL("../cli/main.ts", import.meta.url).pathname;

describe("flannel's other modes", () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await startCluster();
  });
  after(() => cluster.close());

  test("ipip with subnets from Kubernetes: annotations instead of etcd", async () => {
    const socket = `${cluster.directory}/api.sock`;
    const command = [...NODE, MAIN, "apiserver", "--data", `${cluster.directory}/api`, "--socket", socket];
    const server = cluster.start(cluster.nodes[1]!, ...command);
    const datastore = kubernetesDatastore({ socketPath: socket });
    await until("the API server answers", async () => (await datastore.list("Node")).items.length === 0);
    for (const node of [1, 3]) {
      const podCIDR = `10.244.${node}.0/24`;
      const object = {
        apiVersion: "v1",
        kind: "Node",
        metadata: { name: `node${node}` },
        spec: { podCIDR, podCIDRs: [podCIDR] },
      };
      await datastore.create("Node", KIND.Node.parse(object));
    }
    const config = `${cluster.directory}/net-conf.json`;
    writeFileSync(config, '{"Network":"10.244.0.0/16","Backend":{"Type":"ipip"}}');
    const nodes = await Promise.all(
      [1, 3].map((node) =>
        cluster.startFlannelWith(
          { NODE_NAME: `node${node}`, CARACAL_API_SOCKET: socket },
          node,
          "-kube-subnet-mgr",
          `-net-config-path=${config}`,
        ),
      ),
    );
    for (const node of [1, 3]) cluster.attachPod(node, `10.244.${node}.0/24`, 1480);
    await until(
      "pod 1 reaches pod 3",
      async () => (await cluster.ping(1, podAddress("10.244.3.0/24"))) !== undefined,
      4000,
    );
    assert.notEqual(await cluster.ping(3, podAddress("10.244.1.0/24"), "-M", "do", "-s", "1452"), undefined);
    const node = await datastore.get("Node", "node3");
    const { annotations = {} } = node?.metadata ?? {};
    assert.deepEqual(annotations, {
      "flannel.alpha.coreos.com/backend-data": "null",
      "flannel.alpha.coreos.com/backend-type": "ipip",
      "flannel.alpha.coreos.com/kube-subnet-manager": "true",
      "flannel.alpha.coreos.com/public-ip": "192.0.2.3",
    });
    assert.equal(node?.status?.conditions?.find(({ type }) => type === "NetworkUnavailable")?.reason, "FlannelIsUp");
    datastore.close();
    await Promise.all([...nodes, server].map((child) => cluster.stop(child)));
    cluster.detachPods();
    for (const node of [1, 3]) rmSync(cluster.subnetFile(node));
  });

  test("vxlan of both families with nf_tables, and pods that the CNI plugin attaches", async () => {
    const prefix = "/both";
    const network = { Network: "10.5.0.0/16", EnableIPv6: true, IPv6Network: "fc00:5::/48", EnableNFTables: true };
    cluster.etcdctl("put", `${prefix}/config`, JSON.stringify({ ...network, Backend: { Type: "vxlan" } }));
    const nodes = await Promise.all(
      [1, 3].map((node) => cluster.startFlannel(node, `-etcd-prefix=${prefix}`, "-ip-masq")),
    );
    const addresses = await Promise.all([1, 3].map((node) => attach(node, "ADD")));
    const [first, third] = addresses.map((text) => JSON.parse(text) as { ips: { address: string }[] });
    const of = (result: typeof first, family: 4 | 6) =>
      formatAddress(
        result!.ips
          .map(({ address }) => parseInterfaceAddress(address).address)
          .find((each) => each.family === family)!,
      );
    for (const family of [4, 6] as const) {
      const what = `pod 1 reaches pod 3 by IPv${family}`;
      await until(what, async () => (await cluster.ping(1, of(third, family))) !== undefined, 4000);
      assert.notEqual(await cluster.ping(3, of(first, family)), undefined);
    }
    assert.ok(
      prefixContains(
        networkOf(parseInterfaceAddress("10.5.0.0/16").address, 16),
        parseInterfaceAddress(first!.ips[0]!.address).address,
      ),
    );
    assert.match(inside(cluster.pods[0]!, "ip", "link", "show", "eth0"), /mtu 1430/);
    assert.match(inside(cluster.nodes[0]!, "nft", "list", "ruleset"), /table ip6 flannel-ipv6/);

    assert.deepEqual(readdirSync(`${cluster.directory}/cni1`), ["container1"]);
    for (let time = 0; time < 2; time += 1) assert.equal(await attach(1, "DEL"), "");
    assert.deepEqual(readdirSync(`${cluster.directory}/cni1`), []);
    assert.equal(await cluster.ping(3, of(first, 4)), undefined);
    await attach(3, "DEL");
    await Promise.all(nodes.map((child) => cluster.stop(child)));
  });

  test("the CNI plugin on a node that flannel has not set up says so", async () => {
    const answer = JSON.parse(await attach(2, "ADD", 1)) as { code: number; msg: string };
    assert.equal(answer.code, 5);
    assert.match(answer.msg, /flannel has not set this node up: ENOENT/);
    assert.equal(await attach(2, "DEL"), "");
    assert.match(await attach(2, "VERSION"), /"supportedVersions":\["0\.1\.0"/);
    assert.equal((JSON.parse(await attach(2, "STATUS", 1)) as { code: number }).code, 50);
  });

  /** What the plugin prints for the node's pod. */
  function attach(node: number, command: string, expected = 0): Promise<string> {
    const config = {
      cniVersion: "1.0.0",
      name: "cbr0",
      type: "flannel",
      subnetFile: cluster.subnetFile(node),
      dataDir: `${cluster.directory}/cni${node}`,
      delegate: { hairpinMode: true, isDefaultGateway: true },
      ipam: { dataDir: `${cluster.directory}/ipam${node}` },
    };
    const environment = [
      `CNI_COMMAND=${command}`,
      `CNI_CONTAINERID=container${node}`,
      `CNI_NETNS=/run/netns/${cluster.pods[node - 1]!}`,
      "CNI_IFNAME=eth0",
      "CNI_PATH=/usr/lib/cni",
    ];
    const namespace = cluster.nodes[node - 1]!;
    return new Promise((resolve, reject) => {
      const args = ["netns", "exec", namespace, "env", ...environment, ...NODE, MAIN, "flannel", "cni"];
      const child = spawn("ip", args, { stdio: ["pipe", "pipe", "inherit"] });
      let output = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
      child.on("close", (code) => {
        if (code === expected) resolve(output);
        else reject(new Error(`the plugin ended with code ${code}: ${output}`));
      });
      child.stdin.end(JSON.stringify(config));
    });
  }
});
