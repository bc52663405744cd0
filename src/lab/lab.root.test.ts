import assert from "node:assert/strict";
import { existsSync, statSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { labFiles, namespacePrefix, nodeFiles } from "./files.ts";
import { agentReport, caracal, eventually, inPod, onMember, startLab } from "./lab.testing.ts";
import type { ProbeResult } from "./matrix.ts";
import { namespacesWithPrefix } from "./process.io.ts";
import { labDown } from "./up.io.ts";

/** The contract of the command line, on a lab of two segments with both address families. */

const LAB = "test-lab";
const OTHER = "test-other";
const DEFINITION = {
  kind: "Lab",
  segments: [
    { subnet: "192.0.2.0/26", subnet6: "2001:db8:0:1::/64", nodes: ["node1", "node2"], hosts: ["tor1"] },
    { subnet: "192.0.2.64/26", subnet6: "2001:db8:0:2::/64", nodes: ["node3"] },
  ],
};

const PODS = `
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { app: web } }
spec:
  nodeName: node1
  containers:
    - { name: main, image: nginx, ports: [{ containerPort: 8080, name: http }, { containerPort: 53, protocol: UDP }] }
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: shop, labels: { app: client } }
spec: { nodeName: node2, containers: [{ name: main, image: curl }] }
---
apiVersion: v1
kind: Pod
metadata: { name: far, labels: { app: client } }
spec: { nodeName: node3, containers: [{ name: main, image: curl }] }
---
apiVersion: v1
kind: Pod
metadata: { name: anywhere }
spec: { containers: [{ name: main, image: curl }] }
`;

interface PodObject {
  readonly spec: { readonly nodeName: string };
  readonly status: {
    readonly phase: string;
    readonly podIP: string;
    readonly podIPs: readonly { readonly ip: string }[];
  };
  readonly metadata: { readonly annotations: Readonly<Record<string, string>> };
}

describe("a lab of two segments, IPv4 and IPv6", () => {
  before(async () => {
    await startLab(LAB, DEFINITION);
    const { code, output, errors } = await caracal(LAB, ["apply", "-f", "-", "--wait"], PODS);
    assert.equal(code, 0, errors);
    assert.match(output, /^namespace\/shop created\npod\/web created\n/);
  });
  after(async () => {
    await labDown(LAB, () => undefined);
    await labDown(OTHER, () => undefined);
  });

  async function pod(name: string, namespace: string): Promise<PodObject> {
    const { code, output, errors } = await caracal(LAB, ["get", "pod", name, "-n", namespace, "-o", "json"]);
    assert.equal(code, 0, errors);
    return JSON.parse(output) as PodObject;
  }

  async function probe(...args: string[]): Promise<ProbeResult[]> {
    const { code, output, errors } = await caracal(LAB, ["probe", "-o", "json", ...args]);
    assert.equal(code, 0, errors);
    return JSON.parse(output) as ProbeResult[];
  }

  test("every pod runs with an address of each family, and its object says so", async () => {
    for (const [name, namespace] of [
      ["web", "shop"],
      ["client", "shop"],
      ["far", "default"],
      ["anywhere", "default"],
    ] as const) {
      const { status } = await pod(name, namespace);
      assert.equal(status.phase, "Running");
      assert.deepEqual(
        status.podIPs.map(({ ip }) => ip.includes(":")),
        [false, true],
      );
      await eventually(async () => {
        const { metadata: now } = await pod(name, namespace);
        assert.equal(now.annotations["cni.projectcalico.org/podIP"], `${status.podIP}/32`);
      });
    }
  });

  test("every pod reaches every other: TCP, UDP and ICMP, both families, on a node and across segments", async () => {
    for (const protocol of ["TCP", "UDP", "ICMP"]) {
      const results = await probe("--protocol", protocol);
      const failed = results.filter(({ connected }) => !connected);
      assert.deepEqual(failed, [], protocol);
      const pairs = new Set(results.map(({ from, to, address }) => `${from} ${to} ${address.includes(":") ? 6 : 4}`));
      assert.equal(pairs.size, 4 * 3 * 2, `${protocol}: every ordered pair in both families`);
    }
  });

  test("a probe sees what does not answer, and takes selectors", async () => {
    const closed = await probe("--port", "9", "--from", "shop/client", "--to", "app=web", "--timeout", "300");
    assert.deepEqual(
      closed.map(({ from, to, port, connected }) => ({ from, to, port, connected })),
      [
        { from: "shop/client", to: "shop/web", port: 9, connected: false },
        { from: "shop/client", to: "shop/web", port: 9, connected: false },
      ],
    );
    const open = await probe(
      "--from",
      "app == 'client' && projectcalico.org/namespace == 'default'",
      "--to",
      "shop/web",
    );
    assert.deepEqual(
      [...new Set(open.map(({ from, port, connected }) => `${from} ${port} ${connected}`))],
      ["default/far 8080 true"],
    );
  });

  test("a pod greets with its name and echoes", async () => {
    const { status } = await pod("web", "shop");
    const script = `exec 3<>/dev/tcp/${status.podIP}/8080; echo hello >&3; head -n 2 <&3`;
    const { output, errors } = await inPod(LAB, "shop/client", ["bash", "-c", script]);
    assert.equal(output, "shop/web node1\nhello\n", errors);
  });

  test("a node's routes are Calico's", async () => {
    const { status } = await pod("web", "shop");
    const { output } = await onMember(LAB, "node1", ["ip", "route"]);
    assert.match(output, new RegExp(`^${status.podIP.replaceAll(".", "\\.")} dev cali[0-9a-f]{11} scope link`, "m"));
    assert.match(output, /^blackhole 10\.244\.\d+\.\d+\/26 proto 80/m);
    assert.match(output, /^10\.244\.\d+\.\d+\/26 via 192\.0\.2\.12 dev eth0 proto bird/m, "node2 is on the link");
    assert.match(output, /^10\.244\.\d+\.\d+\/26 via 192\.0\.2\.1 dev eth0 proto bird/m, "node3 is behind the router");
    const inside = await inPod(LAB, "shop/web", ["ip", "route"]);
    assert.equal(inside.output, "default via 169.254.1.1 dev eth0 \n169.254.1.1 dev eth0 scope link \n");
  });

  test("routes that somebody deletes or bends are put right within a second", async () => {
    const before = (await onMember(LAB, "node1", ["ip", "route"])).output;
    const learned = /^(10\.244\.\S+) via 192\.0\.2\.12 /m.exec(before)?.[1] ?? "";
    await onMember(LAB, "node1", ["ip", "route", "del", learned]);
    await onMember(LAB, "node1", ["ip", "route", "flush", "type", "blackhole"]);
    await eventually(async () => assert.equal((await onMember(LAB, "node1", ["ip", "route"])).output, before), 1000);
    await onMember(LAB, "node1", ["ip", "route", "replace", learned, "via", "192.0.2.1", "proto", "bird"]);
    await eventually(async () => assert.equal((await onMember(LAB, "node1", ["ip", "route"])).output, before), 1000);
    await onMember(LAB, "node1", ["ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1"]);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.match(
      (await onMember(LAB, "node1", ["ip", "route"])).output,
      /^198\.51\.100\.0\/24/m,
      "others' routes are left alone",
    );
    await onMember(LAB, "node1", ["ip", "route", "del", "198.51.100.0/24"]);
  });

  test("applying again changes what the manifest names and keeps what the system set", async () => {
    const earlier = await pod("anywhere", "default");
    const changed = PODS.replace("metadata: { name: anywhere }", "metadata: { name: anywhere, labels: { tier: new } }");
    const { output } = await caracal(LAB, ["apply", "-f", "-", "--wait"], changed);
    assert.match(output, /pod\/anywhere configured/);
    assert.match(output, /pod\/web unchanged/);
    const now = await pod("anywhere", "default");
    assert.equal(now.spec.nodeName, earlier.spec.nodeName);
    assert.equal(now.status.podIP, earlier.status.podIP);
  });

  test("bad input is refused with its path, and changes nothing", async () => {
    const pool =
      "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: { name: more }\nspec: { cidr: 10.99.0.0/16, blockSzie: 27 }\n";
    const typo = await caracal(LAB, ["apply", "-f", "-"], `${PODS}\n---\n${pool}`);
    assert.equal(typo.code, 1);
    assert.match(typo.errors, /spec\.blockSzie: unknown field, did you mean "?blockSize"?\?/);
    const stranger = await caracal(
      LAB,
      ["apply", "-f", "-"],
      `${pool.replace("blockSzie", "blockSize")}---\nkind: Gadget\napiVersion: v1\nmetadata: { name: x }\n`,
    );
    assert.equal(stranger.code, 1);
    assert.match(stranger.errors, /document 2, line 6: kind: there is no Gadget/);
    assert.equal((await caracal(LAB, ["get", "ippool", "more"])).code, 1);
  });

  test("a policy is in force when apply --wait returns, and gone when delete --wait does", async () => {
    const policy = `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"deny","namespace":"shop"},"spec":{"podSelector":{"matchLabels":{"app":"web"}}}}`;
    const connections = async (): Promise<boolean[]> =>
      (await probe("--to", "shop/web", "--timeout", "300")).map(({ connected }) => connected);
    assert.equal((await caracal(LAB, ["apply", "-f", "-", "--wait"], policy)).code, 0);
    assert.deepEqual(new Set(await connections()), new Set([false]));
    assert.match((await caracal(LAB, ["get", "netpol", "-n", "shop", "-o", "wide"])).output, /^deny .* 3\/3 nodes$/m);
    assert.equal((await caracal(LAB, ["delete", "networkpolicy", "deny", "-n", "shop", "--wait"])).code, 0);
    assert.deepEqual(new Set(await connections()), new Set([true]));
  });

  test("a pod on the node's network has the node's address", async () => {
    const host = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"host"},"spec":{"nodeName":"node2","hostNetwork":true,"containers":[{"name":"a","image":"b","ports":[{"containerPort":7000}]}]}}`;
    assert.equal((await caracal(LAB, ["apply", "-f", "-", "--wait"], host)).code, 0);
    assert.equal((await pod("host", "default")).status.podIP, "192.0.2.12");
    assert.deepEqual(
      (await probe("--to", "default/host", "--from", "shop/web")).map(({ connected }) => connected),
      [true],
    );
    assert.equal((await caracal(LAB, ["delete", "pod", "host", "--wait"])).code, 0);
  });

  test("exec runs in pods, on nodes, hosts and the router, and gives the exit code back", async () => {
    assert.equal((await caracal(LAB, ["exec", "shop/web", "--", "sh", "-c", "exit 7"])).code, 7);
    const { output } = await caracal(LAB, ["lab", "exec", "tor1", "--", "ip", "-br", "addr", "show", "eth0"]);
    assert.match(output, /192\.0\.2\.13\/26/);
    assert.match(
      (await caracal(LAB, ["lab", "exec", "router", "--", "ip", "route"])).output,
      /10\.244\.\d+\.\d+\/26 via 192\.0\.2\.75/,
    );
    assert.match((await caracal(LAB, ["lab", "exec", "nobody", "--", "true"])).errors, /has no "nobody"/);
    assert.match((await caracal(LAB, ["exec", "shop/nobody", "--", "true"])).errors, /no pod shop\/nobody/);
  });

  test("node status, bgp and ipam speak JSON", async () => {
    const status = JSON.parse((await caracal(LAB, ["node", "status", "-o", "json"])).output) as {
      node: string;
      ready: boolean;
    }[];
    assert.deepEqual(
      status.map(({ node, ready }) => [node, ready]),
      [
        ["node1", true],
        ["node2", true],
        ["node3", true],
      ],
    );
    const peers = JSON.parse((await caracal(LAB, ["bgp", "peers", "node1", "-o", "json"])).output) as {
      name: string;
      state: string;
    }[];
    assert.deepEqual(peers.map(({ name }) => name).toSorted(), [
      "Mesh_192_0_2_12",
      "Mesh_192_0_2_75",
      "Mesh_2001_db8_0_1__12",
      "Mesh_2001_db8_0_2__11",
      "Node_192_0_2_1",
      "Node_2001_db8_0_1__1",
    ]);
    assert.ok(peers.every(({ state }) => state === "established"));
    const routes = JSON.parse((await caracal(LAB, ["bgp", "routes", "node1", "-o", "json"])).output) as {
      prefix: string;
    }[];
    assert.ok(routes.length >= 6);
    const check = await caracal(LAB, ["ipam", "check"]);
    assert.equal(check.code, 0, check.output);
    assert.match(check.output, /Check complete; found 0 problems\./);
    assert.match((await caracal(LAB, ["ipam", "show"])).output, /10\.244\.0\.0\/16/);
  });

  test("sockets that can change the network are root's alone", () => {
    const sockets = [
      labFiles(LAB).apiSocket,
      `${nodeFiles(LAB, "node1").runDirectory}/cni.sock`,
      `${nodeFiles(LAB, "node1").runDirectory}/agent.sock`,
    ];
    for (const path of sockets) assert.equal((statSync(path).mode & 0o777).toString(8), "600", path);
    assert.equal((statSync(labFiles(LAB).directory).mode & 0o777).toString(8), "700");
  });

  test("health answers on the node's port 9099", async () => {
    const ask = (path: string) =>
      onMember(LAB, "node1", [
        "bash",
        "-c",
        `exec 3<>/dev/tcp/localhost/9099; printf 'GET ${path} HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3`,
      ]);
    assert.match((await ask("/readiness")).output, /^HTTP\/1\.1 200/);
    assert.match((await ask("/liveness")).output, /^HTTP\/1\.1 200/);
  });

  test("two labs stand beside each other, with the same addresses and strangers to each other", async () => {
    await startLab(OTHER, { kind: "Lab", segments: [{ subnet: "192.0.2.0/26", nodes: ["node1", "node2"] }] });
    const one = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"alone"},"spec":{"containers":[{"name":"a","image":"b"}]}}`;
    assert.equal((await caracal(OTHER, ["apply", "-f", "-", "--wait"], one)).code, 0);
    const listed = JSON.parse((await caracal(LAB, ["lab", "list", "-o", "json"])).output) as {
      name: string;
      running: boolean;
    }[];
    for (const name of [LAB, OTHER])
      assert.deepEqual(
        listed.find((lab) => lab.name === name),
        { name, running: true },
      );
    assert.match((await caracal(OTHER, ["get", "pods", "-A"])).output, /alone/);
    assert.doesNotMatch((await caracal(LAB, ["get", "pods", "-A"])).output, /alone/);
    await labDown(OTHER, () => undefined);
    assert.deepEqual(namespacesWithPrefix(namespacePrefix(OTHER)), []);
    assert.equal(existsSync(labFiles(OTHER).directory), false);
    assert.ok((await agentReport(LAB, "node1")).ready, "the first lab goes on");
  });

  test("deleted pods are gone: interface, routes and address", async () => {
    const { code, errors } = await caracal(LAB, ["delete", "-f", "-", "--wait"], PODS);
    assert.equal(code, 0, errors);
    for (const node of ["node1", "node2", "node3"]) {
      await eventually(async () =>
        assert.doesNotMatch((await onMember(LAB, node, ["ip", "-br", "link"])).output, /cali/),
      );
    }
    await eventually(async () => {
      const { output } = await caracal(LAB, ["get", "ipamblocks", "-o", "json"]);
      const { items } = JSON.parse(output) as { items: { spec: { allocations: (number | null)[] } }[] };
      assert.deepEqual(
        items.flatMap(({ spec }) => spec.allocations.filter((each) => each !== null)),
        [],
      );
    });
  });
});
