import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { Failure } from "../lib/errors.ts";
import { ENVIRONMENT, memoryNode, podFacts, requestBytes, type MemoryNode } from "./node.testing.ts";
import { createCniPlugin, type Answer } from "./plugin.ts";

const WEB = "cali68caf03a5f4"; // sha1("default.web")

type Variables = Readonly<Record<string, string | undefined>>;
type Config = Readonly<Record<string, unknown>>;

function start(node: MemoryNode = memoryNode()) {
  const plugin = createCniPlugin(node, "cali");
  const call = (command: string, environment: Variables = {}, config: Config | string = {}): Promise<Answer> =>
    plugin.answer(requestBytes({ CNI_COMMAND: command, ...environment }, config));
  return { node, call };
}

/** The answer's JSON, and that it succeeded. */
function result(answer: Answer): { ips?: { address: string }[]; routes?: unknown; interfaces?: unknown } {
  assert.equal(answer.ok, true, answer.text);
  return JSON.parse(answer.text) as object;
}

function refused(answer: Answer, code: number, message: RegExp): void {
  assert.equal(answer.ok, false);
  const error = JSON.parse(answer.text) as { code: number; msg: string; details: string };
  assert.match(`${error.msg}: ${error.details}`, message);
  assert.equal(error.code, code);
}

const another = (containerId: string, uid = "uid-1"): Variables => ({
  CNI_CONTAINERID: containerId,
  CNI_NETNS: `/run/netns/${containerId}`,
  CNI_ARGS: ENVIRONMENT["CNI_ARGS"]!.replace("uid-1", uid),
});

describe("ADD", () => {
  test("gives the pod its interface, address and route, and says so", async () => {
    const { node, call } = start();
    assert.deepEqual(result(await call("ADD")), {
      cniVersion: "1.0.0",
      interfaces: [
        { name: WEB, mac: "ee:ee:ee:ee:ee:ee" },
        { name: "eth0", mac: "02:00:00:00:00:01", sandbox: "/run/netns/pod" },
      ],
      ips: [{ interface: 1, address: "10.65.0.1/32" }],
      routes: [{ dst: "0.0.0.0/0", gw: "169.254.1.1" }],
      dns: {},
    });
    assert.equal(
      node.print(),
      `link ${WEB} up mtu 1450 peer eth0 02:00:00:00:00:01 in /run/netns/pod 10.65.0.1
route 10.65.0.1 dev ${WEB}
address 10.65.0.1 k8s-pod-network.abc123
endpoint abc123:eth0 default/web ${WEB} 1 families
`,
    );
    assert.equal(node.endpoints.list()[0]?.podUid, "uid-1");
  });

  test("gives a dual-stack pod one address of each family, and both default routes", async () => {
    const { call } = start(memoryNode([4, 6]));
    const { ips, routes } = result(await call("ADD"));
    assert.deepEqual(
      ips?.map(({ address }) => address),
      ["10.65.0.1/32", "fd00:10:65::1/128"],
    );
    assert.deepEqual(routes, [
      { dst: "0.0.0.0/0", gw: "169.254.1.1" },
      { dst: "::/0", gw: "fe80::ecee:eeff:feee:eeee" },
    ]);
  });

  test("reports the routes that the pod has, whatever gateway the IPAM plugin named", async () => {
    const node = memoryNode();
    node.routes = [{ destination: parsePrefix("10.0.0.0/8"), gateway: parseAddress("10.65.0.254") }];
    const { call } = start(node);
    assert.deepEqual(result(await call("ADD")).routes, [{ dst: "10.0.0.0/8", gw: "169.254.1.1" }]);
    const { routes } = result(await call("ADD", another("c2"), { include_default_routes: true }));
    assert.deepEqual(routes, [
      { dst: "10.0.0.0/8", gw: "169.254.1.1" },
      { dst: "0.0.0.0/0", gw: "169.254.1.1" },
    ]);
  });

  test("takes MTU and forwarding from the configuration", async () => {
    const { node, call } = start();
    await call("ADD", {}, { mtu: 1300, container_settings: { allow_ip_forwarding: true } });
    assert.equal(node.links.get(WEB)?.mtu, 1300);
    assert.equal(node.settings?.allowIpForwarding, true);
  });

  test("takes the MAC that the pod's owner chose", async () => {
    const { node, call } = start();
    const annotated = (mac: string) =>
      new Map([["default/web", podFacts({ annotations: { "cni.projectcalico.org/hwAddr": mac } })]]);
    node.pods = annotated("1C:0c:0a:c0:ff:ee");
    result(await call("ADD"));
    assert.equal(node.links.get(WEB)?.mac, "1c:0c:0a:c0:ff:ee");
    await call("DEL");
    for (const wrong of [
      "",
      "1c:0c:0a:c0:ff",
      "01:00:5e:00:00:01",
      "00:00:00:00:00:00",
      "1c-0c-0a-c0-ff-ee",
      "x:0c:0a:c0:ff:ee",
    ]) {
      node.pods = annotated(wrong);
      refused(await call("ADD"), 7, /hwAddr: ".*" is not a unicast MAC address/);
      assert.equal(node.print(), "", wrong);
    }
  });

  test("waits for a node that is not ready, and for a pod that is not in the datastore", async () => {
    const { node, call } = start();
    node.reason = "it waits for the datastore";
    refused(await call("ADD"), 11, /cannot set up pods yet: it waits for the datastore/);
    node.reason = undefined;
    node.pods = new Map();
    refused(await call("ADD"), 11, /pod default\/web of uid uid-1 is not in the datastore/);
    assert.equal(node.print(), "");
  });

  test("of a pod that was made again under its name is not answered with the new one's network", async () => {
    const { node, call } = start();
    node.pods = new Map([["default/web", podFacts({ uid: "uid-2" })]]);
    refused(await call("ADD"), 11, /pod default\/web of uid uid-1 is not in the datastore/);
    result(await call("ADD", { CNI_ARGS: "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web" }));
  });

  test("twice for one container leaves one of everything", async () => {
    const { node, call } = start();
    await call("ADD");
    const first = node.print();
    result(await call("ADD"));
    assert.equal(node.print().replace("00:02", "00:01"), first);
  });

  test("of a new container under the pod's name takes the place of the old one, whose DEL finds only its address", async () => {
    const { node, call } = start();
    result(await call("ADD", another("old")));
    result(await call("ADD", another("new", "uid-2")));
    const both = node.print();
    assert.match(both, /^link \w+ up .* in \/run\/netns\/new 10.65.0.2$/m);
    assert.match(both, /^address 10.65.0.1 k8s-pod-network.old$/m);
    assert.doesNotMatch(both, /endpoint old/);
    assert.equal((await call("DEL", another("old"))).ok, true);
    assert.equal(node.print(), both.replace(/^address .*old\n/m, ""));
    assert.equal((await call("DEL", { ...another("old"), CNI_NETNS: "" })).ok, true);
    assert.equal(node.print(), both.replace(/^address .*old\n/m, ""));
    await call("DEL", another("new"));
    assert.equal(node.print(), "");
  });

  test("of bare containers: each has an interface of its own", async () => {
    const { node, call } = start();
    for (const containerId of ["a.b", "a"]) {
      const interfaceName = containerId === "a" ? "b.c" : "c";
      result(await call("ADD", { CNI_CONTAINERID: containerId, CNI_IFNAME: interfaceName, CNI_ARGS: "" }));
    }
    assert.equal(node.links.size, 2);
    // Nor does a container take the place of a pod whose name its own resembles.
    result(await call("ADD", { CNI_CONTAINERID: "default", CNI_IFNAME: "web", CNI_ARGS: "" }));
    assert.equal(node.links.has(WEB), false);
  });

  for (const [kind, more] of [
    ["a pod", {}],
    ["a bare container", { CNI_ARGS: "" }],
  ] as const) {
    test(`of a second interface for ${kind} is refused, and the first stays`, async () => {
      const { node, call } = start();
      result(await call("ADD", more));
      const first = node.print();
      const second = { ...more, CNI_IFNAME: "eth1" };
      for (const name of ["k8s-pod-network", "other"]) {
        const message = /CNI_IFNAME "eth1": container abc123 is attached already, to network k8s-pod-network as eth0/;
        refused(await call("ADD", second, { name }), 4, message);
        // The runtime sends a DEL after a failed ADD.
        assert.equal((await call("DEL", second, { name })).ok, true);
      }
      assert.equal(node.print(), first);
    });
  }

  test("says with what code of the specification it failed", async () => {
    const failing = (step: string, error: Error) =>
      start(
        memoryNode([4], (at, when) => {
          if (at === step && when === "before") throw error;
        }),
      );
    const full = failing("assign", new Failure("exhausted", "no address is left"));
    refused(await full.call("ADD"), 102, /no address is left/);
    refused(await failing("createLink", new Error("no memory")).call("ADD"), 103, /no memory/);
    refused(await failing("configure", new Error("no device")).call("ADD"), 103, /no device/);
    for (const code of ["unavailable", "timeout"]) {
      for (const step of ["podFacts", "assign", "add"]) {
        const away = failing(step, new Failure(code, "the API server is away"));
        refused(await away.call("ADD"), 11, /the API server is away/);
      }
    }
  });

  test("survives an address that is refused while the interface is still being made", async () => {
    // Whatever rejects unheard ends the agent, by Node's rule for unhandled rejections.
    const { node, call } = start(
      memoryNode([4], async (step, when) => {
        if (step === "assign" && when === "before") throw new Failure("exhausted", "no address is left");
        if (step === "createLink" && when === "before") for (let turn = 0; turn < 5; turn += 1) await setImmediate();
      }),
    );
    refused(await call("ADD"), 102, /no address is left/);
    assert.equal(node.print(), "");
  });
});

describe("DEL", () => {
  test("takes everything back, and prints nothing; twice, without a namespace, or of the unknown, too", async () => {
    const { node, call } = start(memoryNode([4, 6]));
    await call("ADD");
    assert.deepEqual(await call("DEL"), { ok: true, text: "" });
    assert.equal(node.print(), "");
    assert.deepEqual(await call("DEL", { CNI_NETNS: "" }), { ok: true, text: "" });
    assert.deepEqual(await call("DEL", { ...another("never"), CNI_NETNS: "", CNI_ARGS: "" }), { ok: true, text: "" });
  });

  test("finds the interface of an endpoint that was made under another prefix", async () => {
    const node = memoryNode();
    await createCniPlugin(node, "old").answer(requestBytes({}));
    assert.match(node.print(), /^link old68caf/);
    await start(node).call("DEL");
    assert.equal(node.print(), "");
  });

  test("takes away what an ADD left that was never answered; but not before the node knows its pods", async () => {
    const { node, call } = start();
    const link = {
      hostInterface: WEB,
      podInterface: "eth0",
      mac: "02:00:00:00:00:09",
      mtu: 1450,
      netns: "/run/netns/pod",
    };
    await node.interfaces.createLink(link);
    // Calico may have set it up for the pod's present container: this is the second DEL of an old one.
    node.reason = "it waits for the datastore";
    assert.equal((await call("DEL", { CNI_NETNS: "" })).ok, true);
    assert.equal(node.links.size, 1);
    node.reason = undefined;
    await call("DEL");
    assert.equal(node.print(), "");
  });

  test("that fails leaves the endpoint known, so that the next one finds it", async () => {
    let away = true;
    const { node, call } = start(
      memoryNode([4], (step, when) => {
        if (step === "release" && when === "before" && away) throw new Failure("unavailable", "the API server is away");
      }),
    );
    await call("ADD");
    refused(await call("DEL"), 11, /the API server is away/);
    assert.equal(node.endpoints.list().length, 1);
    assert.equal(node.links.size, 0);
    away = false;
    assert.equal((await call("DEL")).ok, true);
    assert.equal(node.print(), "");
  });
});

describe("requests for one interface", () => {
  test("wait for each other: a DEL for an ADD that the runtime gave up", async () => {
    const gate = Promise.withResolvers<void>();
    const { node, call } = start(
      memoryNode([4], (step, when) => (step === "assign" && when === "before" ? gate.promise : undefined)),
    );
    const added = call("ADD");
    const deleted = call("DEL");
    await setImmediate();
    gate.resolve();
    result(await added);
    assert.deepEqual(await deleted, { ok: true, text: "" });
    assert.equal(node.print(), "");
  });

  test("wait for each other: the old container's last DEL for the new one's ADD", async () => {
    const gate = Promise.withResolvers<void>();
    let hold = false;
    const { node, call } = start(
      memoryNode([4], (step, when) => (hold && step === "assign" && when === "before" ? gate.promise : undefined)),
    );
    await call("ADD", another("old"));
    hold = true;
    const added = call("ADD", another("new"));
    const deleted = call("DEL", { ...another("old"), CNI_NETNS: "" });
    await setImmediate();
    gate.resolve();
    result(await added);
    assert.equal((await deleted).ok, true);
    assert.match(node.print(), /^link \w+ up .* in \/run\/netns\/new 10.65.0.2$/m);
    assert.equal(node.held.size, 1);
  });

  test("do not wait for those of another", async () => {
    const gate = Promise.withResolvers<void>();
    const { call } = start(
      memoryNode([4], (step, when) => (step === "assign" && when === "before" ? gate.promise : undefined)),
    );
    const other = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=other";
    const blocked = call("ADD");
    assert.equal((await call("DEL", { CNI_CONTAINERID: "c2", CNI_ARGS: other })).ok, true);
    gate.resolve();
    result(await blocked);
  });
});

describe("CHECK", () => {
  async function added() {
    const { node, call } = start(memoryNode([4, 6]));
    const prevResult = result(await call("ADD"));
    return { node, call, check: (config: Config = {}) => call("CHECK", {}, { prevResult, ...config }), prevResult };
  }

  test("prints nothing where all is as ADD left it", async () => {
    const { check } = await added();
    assert.deepEqual(await check(), { ok: true, text: "" });
  });

  test("says everything that differs", async () => {
    const { node, check, call } = await added();
    node.links.get(WEB)!.addresses = [];
    node.broken = ["eth0 is down"];
    refused(await check(), 101, /not as ADD left it: 10.65.0.1 is lost; fd00:10:65::1 is lost; eth0 is down/);
    await call("DEL");
    refused(await check(), 3, /container abc123 has no interface eth0/);
  });

  test("needs the result of ADD, whose addresses must be this endpoint's", async () => {
    const { check, prevResult } = await added();
    refused(await check({ prevResult: undefined }), 7, /prevResult/);
    const stranger = { ...prevResult, ips: [...prevResult.ips!, { interface: 1, address: "10.9.9.9/32" }] };
    refused(await check({ prevResult: stranger }), 101, /prevResult has 10.9.9.9\/32, which this endpoint has not/);
  });

  test("passes over what other plugins of the chain have added", async () => {
    const { check, prevResult } = await added();
    const interfaces = [...(prevResult.interfaces as object[]), { name: "vpn0", sandbox: "/run/netns/pod" }];
    const ips = [...prevResult.ips!, { interface: 2, address: "10.9.9.9/32" }];
    assert.equal((await check({ prevResult: { ...prevResult, interfaces, ips } })).ok, true);
    assert.equal((await check({ prevResult: { ips: ["text", { address: 7 }, null] } })).ok, true);
    assert.equal((await check({ prevResult: {} })).ok, true);
  });
});

describe("GC", () => {
  const gc = { cniVersion: "1.1.0" };
  const bare = (containerId: string): Variables => ({ CNI_CONTAINERID: containerId, CNI_ARGS: "" });
  const attachments = (...containers: string[]): Config => ({
    ...gc,
    "cni.dev/valid-attachments": containers.map((containerID) => ({ containerID, ifname: "eth0" })),
  });

  test("takes away what the runtime does not know, with its addresses, and nothing of other networks", async () => {
    const { node, call } = start();
    for (const containerId of ["c1", "c2", "c3"]) await call("ADD", bare(containerId));
    await call("ADD", bare("c1.x"), { name: "other" });
    // A network whose name begins with this one's, and a dot.
    await call("ADD", bare("c4"), { name: "k8s-pod-network.v2" });
    assert.deepEqual(await call("GC", {}, attachments("c2")), { ok: true, text: "" });
    assert.deepEqual(
      [...node.held.values()].map(({ network, containerId }) => `${network} ${containerId}`),
      ["k8s-pod-network c2", "other c1.x", "k8s-pod-network.v2 c4"],
    );
    assert.deepEqual(
      node.endpoints.list().map(({ containerId }) => containerId),
      ["c2", "c1.x", "c4"],
    );
    assert.equal(node.links.size, 3);
  });

  test("gives back addresses of which no endpoint is known", async () => {
    const { node, call } = start();
    await call("ADD", bare("c1"));
    await node.endpoints.remove(node.endpoints.list()[0]!);
    await node.interfaces.removeLink([...node.links.keys()][0]!);
    assert.notEqual(node.print(), "");
    await call("GC", {}, attachments());
    assert.equal(node.print(), "");
  });

  test("counts an attachment by its interface too", async () => {
    const { node, call } = start();
    await call("ADD", { ...bare("c1"), CNI_IFNAME: "eth1" });
    await call("GC", {}, attachments("c1"));
    assert.equal(node.print(), "");
  });

  test("needs the list, and a node that knows its pods", async () => {
    const { node, call } = start();
    await call("ADD", bare("c1"));
    refused(await call("GC", {}, gc), 7, /valid-attachments/);
    node.reason = "it waits for the datastore";
    refused(await call("GC", {}, attachments()), 11, /it waits for the datastore/);
    assert.equal(node.links.size, 1);
  });
});

describe("STATUS, VERSION, and nonsense", () => {
  test("STATUS says why pods cannot be set up", async () => {
    const { node, call } = start();
    const config = { cniVersion: "1.1.0" };
    assert.deepEqual(await call("STATUS", {}, config), { ok: true, text: "" });
    node.reason = "it waits for the datastore";
    refused(await call("STATUS", {}, config), 50, /cannot set up pods now: it waits for the datastore/);
  });

  test("VERSION is answered whatever the configuration speaks, also while the node is not ready", async () => {
    const { node, call } = start();
    node.reason = "it waits";
    assert.equal(
      (await call("VERSION", {}, '{"cniVersion":"0.1.0"}')).text,
      '{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}\n',
    );
  });

  test("what cannot be read is an error in the specification's form, in the version that was asked for", async () => {
    const { call } = start();
    refused(await createCniPlugin(memoryNode(), "cali").answer(new Uint8Array([1, 2, 3])), 6, /environment/);
    refused(await call("ADD", {}, "{"), 6, /JSON/);
    refused(await call("FLY"), 4, /CNI_COMMAND/);
    const answer = await call("CHECK", {}, { cniVersion: "0.4.0" });
    assert.equal((JSON.parse(answer.text) as { cniVersion: string }).cniVersion, "0.4.0");
    assert.match(answer.text, /\n$/);
  });
});
