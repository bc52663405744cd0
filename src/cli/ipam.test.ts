import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { memoryDatastore } from "../datastore/memory.ts";
import type { Datastore } from "../datastore/datastore.ts";
import { KIND } from "../resources/registry.ts";
import { ipamCheck, ipamShow, type IpamShowArguments } from "./ipam.io.ts";

async function cluster(): Promise<Datastore> {
  let uids = 0;
  const uid = (): string => `00000000-0000-4000-8000-${String((uids += 1)).padStart(12, "0")}`;
  const datastore = memoryDatastore({ now: () => 1_800_000_000_000, uid });
  const v3 = "projectcalico.org/v3";
  const pools = { pods: "10.244.0.0/16", "pods-v6": "fd00:10:244::/64" };
  for (const [name, cidr] of Object.entries(pools)) {
    await datastore.create(
      "IPPool",
      KIND.IPPool.parse({ apiVersion: v3, kind: "IPPool", metadata: { name }, spec: { cidr } }),
    );
  }
  await datastore.create(
    "Node",
    KIND.Node.parse({ apiVersion: "v1", kind: "Node", metadata: { name: "node1" }, spec: {} }),
  );
  const block = {
    apiVersion: v3,
    kind: "IPAMBlock",
    metadata: { name: "10-244-9-0-30" },
    spec: {
      cidr: "10.244.9.0/30",
      affinity: "host:node1",
      allocations: [0, 1, null, null],
      unallocated: [2, 3],
      attributes: [
        { handle_id: "net.a", secondary: { node: "node1", namespace: "default", pod: "web" } },
        { handle_id: "net.b", secondary: { node: "node2", namespace: "default", pod: "db" } },
      ],
    },
  };
  await datastore.create("IPAMBlock", KIND.IPAMBlock.parse(block));
  const pod = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "web", namespace: "default", annotations: { "cni.projectcalico.org/podIP": "10.244.9.0/32" } },
    spec: { nodeName: "node1", containers: [{ name: "main", image: "echo" }] },
  };
  await datastore.create("Pod", KIND.Pod.parse(pod));
  return datastore;
}

async function printed(
  print: (console: { output: { write(text: string): unknown } }) => Promise<unknown>,
): Promise<string> {
  let text = "";
  await print({ output: { write: (more) => (text += more) } });
  return text;
}

const show = async (args: IpamShowArguments): Promise<string> => {
  const datastore = await cluster();
  return printed((console) => ipamShow(datastore, args, console));
};

describe("ipam show", () => {
  test("prints Calico's table of pools and blocks", async () => {
    assert.equal(
      await show({ showBlocks: true }),
      `\
+----------+------------------+------------+------------+-------------------+
| GROUPING |       CIDR       | IPS TOTAL  | IPS IN USE |     IPS FREE      |
+----------+------------------+------------+------------+-------------------+
| IP Pool  | 10.244.0.0/16    | 65536      | 2 (0%)     | 65534 (100%)      |
| Block    | 10.244.9.0/30    | 4          | 2 (50%)    | 2 (50%)           |
| IP Pool  | fd00:10:244::/64 | 1.8447e+19 | 0 (0%)     | 1.8447e+19 (100%) |
+----------+------------------+------------+------------+-------------------+
`,
    );
  });

  test("says who has an address", async () => {
    assert.equal(
      await show({ ip: "10.244.9.0" }),
      "IP 10.244.9.0 is in use\nAttributes:\n  block: 10.244.9.0/30\n  handle: net.a\n  namespace: default\n  node: node1\n  pod: web\n",
    );
    assert.equal(await show({ ip: "10.244.9.2" }), "10.244.9.2 is not assigned\n");
    await assert.rejects(show({ ip: "10.244.9" }), { code: "bad-address" });
  });

  test("lists borrowed addresses, and the configuration", async () => {
    assert.match(
      await show({ showBorrowed: true }),
      /\| 10\.244\.9\.1 \| node2 +\| 10\.244\.9\.0\/30 \| node1 +\| pod +\| default\/db +\|/,
    );
    assert.match(await show({ showConfiguration: true }), /\| StrictAffinity +\| false +\|/);
  });

  test("as JSON has counts as numbers, and as text where JSON has none", async () => {
    const pools: unknown = JSON.parse(await show({ output: "json" }));
    assert.deepEqual(pools, [
      {
        name: "pods",
        cidr: "10.244.0.0/16",
        total: 65536,
        inUse: 2,
        coolingDown: 0,
        reserved: 0,
        free: 65534,
        blocks: [{ cidr: "10.244.9.0/30", total: 4, inUse: 2, coolingDown: 0, reserved: 0, free: 2, owner: "node1" }],
      },
      {
        name: "pods-v6",
        cidr: "fd00:10:244::/64",
        total: "18446744073709551616",
        inUse: 0,
        coolingDown: 0,
        reserved: 0,
        free: "18446744073709551616",
        blocks: [],
      },
    ]);
  });
});

describe("ipam check", () => {
  test("ends with the number of problems", async () => {
    const datastore = await cluster();
    const text = await printed(async (console) => assert.equal(await ipamCheck(datastore, {}, console), 2));
    assert.match(text, /^Checking IPAM for inconsistencies\.\.\.\n/);
    assert.match(
      text,
      /\n {2}10\.244\.9\.1 is allocated to default\/db, but not in use: pod default\/db does not exist, nor does node node2\nFound 1 IPs that are allocated/,
    );
    assert.match(text, /\nCheck complete; found 2 problems\.\n$/);
  });

  test("as JSON is the whole report", async () => {
    const datastore = await cluster();
    const report = JSON.parse(await printed((console) => ipamCheck(datastore, { output: "json" }, console))) as Record<
      string,
      unknown
    >;
    assert.equal(report["allocations"], 2);
    assert.deepEqual(report["activePools"], ["10.244.0.0/16", "fd00:10:244::/64"]);
  });
});
