import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import { codeOf } from "../lib/errors.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { inside, temporaryNamespace } from "../netlink/namespace.testing.ts";
import { describeRoute, type Route } from "../netlink/route.ts";
import { familiesOf, hostSysctls, podSysctls, type Endpoint, type PodSettings, type Sysctl } from "./endpoint.ts";
import { testNode, type TestNode } from "./node.testing.ts";
import { createPodInterfaces, writeSysctls, type PodInterfaces } from "./podInterfaces.io.ts";
import { workloadRoute } from "./routes.ts";

const CALI = "cali68caf03a5f4";
const SETTINGS: PodSettings = { allowIpForwarding: false, routes: [], includeDefaultRoutes: false };

interface Bench {
  readonly node: TestNode;
  readonly interfaces: PodInterfaces;
  /** What `onRoutes` was last told, by the node's end. */
  readonly routes: Map<string, readonly Route[]>;
  readonly errors: unknown[];
  /** In the node's namespace, as the agent is. */
  configure(endpoint: Endpoint, settings?: PodSettings): void;
  differences(endpoint: Endpoint): string[];
  attach(endpoint: Endpoint, settings?: PodSettings): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

function bench(): Bench {
  const node = testNode();
  const routes = new Map<string, readonly Route[]>();
  const errors: unknown[] = [];
  const interfaces = inNamespace(node.path, () =>
    createPodInterfaces({
      rtnetlink: node.rtnetlink,
      routeProtocol: () => 3,
      onRoutes: (hostInterface, told) => void routes.set(hostInterface, told),
      onError: (error) => void errors.push(error),
    }),
  );
  const configure = (endpoint: Endpoint, settings = SETTINGS): void =>
    inNamespace(node.path, () => interfaces.configure(endpoint, settings));
  return {
    node,
    interfaces,
    routes,
    errors,
    configure,
    differences: (endpoint) => inNamespace(node.path, () => interfaces.differences(endpoint)),
    async attach(endpoint, settings) {
      await interfaces.createLink(endpoint);
      configure(endpoint, settings);
    },
    async [Symbol.asyncDispose]() {
      await interfaces.settled();
      node[Symbol.dispose]();
      assert.deepEqual(errors, []);
    },
  };
}

let count = 0;
function pod(netns: string, fields: Partial<Endpoint> = {}): Endpoint {
  count += 1;
  return {
    containerId: `c${count}`,
    podInterface: "eth0",
    hostInterface: CALI,
    mac: `02:00:00:00:00:${String(count).padStart(2, "0")}`,
    mtu: 1400,
    addresses: [parseAddress(`10.65.0.${count}`), parseAddress(`fd00:10:65::${count}`)],
    netns,
    network: "net",
    ...fields,
  };
}

type Row = Readonly<Record<string, unknown>>;
const json = (name: string, ...command: string[]): Row[] => JSON.parse(inside(name, "ip", "-j", ...command)) as Row[];

/** Settings that are not as they should be. */
function unset(path: string, rows: readonly Sysctl[]): string[] {
  return inNamespace(path, () =>
    rows
      .map(({ key, value }) => ({ key, value, found: readFileSync(`/proc/sys/net/${key}`, "latin1").trim() }))
      .filter(({ value, found }) => value !== found)
      .map(({ key, value, found }) => `${key} is ${found}, not ${value}`),
  );
}

const ping = (name: string, address: string): string =>
  inside(name, "ping", "-c", "1", "-W", "2", "-i", "0.2", address);

describe("a pod's pair", () => {
  test("is as `ip` shows Calico's", async () => {
    using namespace = temporaryNamespace();
    await using it = bench();
    const endpoint = pod(namespace.path);
    const [v4, v6] = ["10.65.0.1", "fd00:10:65::1"];
    await it.attach(endpoint);

    const link = (name: string, device: string): Row => json(name, "-d", "link", "show", device)[0]!;
    assert.partialDeepStrictEqual(link(it.node.name, CALI), {
      mtu: 1400,
      operstate: "UP",
      address: "ee:ee:ee:ee:ee:ee",
      linkinfo: { info_kind: "veth" },
    });
    assert.partialDeepStrictEqual(link(namespace.name, "eth0"), {
      mtu: 1400,
      operstate: "UP",
      address: endpoint.mac,
      linkinfo: { info_kind: "veth" },
    });

    const addresses = (name: string, device: string): string[] =>
      (json(name, "addr", "show", device)[0]!["addr_info"] as Row[]).map(
        ({ local, prefixlen, scope, tentative }) =>
          `${String(local)}/${String(prefixlen)} ${String(scope)}${tentative ? " tentative" : ""}`,
      );
    assert.deepEqual(
      addresses(namespace.name, "eth0").filter((text) => !text.endsWith(" link")),
      [`${v4}/32 global`, `${v6}/128 global`],
    );
    assert.deepEqual(addresses(it.node.name, CALI), ["fe80::ecee:eeff:feee:eeee/64 link"]);

    const routes = (name: string, ...filter: string[]): string[] =>
      inside(name, "ip", ...filter)
        .split("\n")
        .map((line) => line.trim())
        .filter((line) => line !== "");
    assert.deepEqual(routes(namespace.name, "-4", "route"), [
      "default via 169.254.1.1 dev eth0",
      "169.254.1.1 dev eth0 scope link",
    ]);
    assert.deepEqual(
      routes(namespace.name, "-6", "route").filter((line) => !line.startsWith("fe80::/64")),
      [
        `${v6} dev eth0 proto kernel metric 256 pref medium`,
        "default via fe80::ecee:eeff:feee:eeee dev eth0 metric 1024 pref medium",
      ],
    );
    assert.deepEqual(routes(it.node.name, "-4", "route", "show", "dev", CALI), [`${v4} scope link metric 1024`]);
    assert.deepEqual(
      routes(it.node.name, "-6", "route", "show", "dev", CALI).filter((line) => !line.startsWith("fe80::/64")),
      [`${v6} metric 1024 pref medium`],
    );

    const families = familiesOf(endpoint.addresses);
    const rpFilter = inNamespace(it.node.path, () =>
      readFileSync("/proc/sys/net/ipv4/conf/default/rp_filter", "latin1").trim(),
    );
    assert.deepEqual(unset(it.node.path, hostSysctls(CALI, families, rpFilter)), []);
    assert.deepEqual(unset(namespace.path, podSysctls("eth0", families, false)), []);

    const { index } = it.node.rtnetlink.link(CALI)!;
    assert.deepEqual(
      it.routes.get(CALI),
      endpoint.addresses.map((address) => workloadRoute(address, index)),
    );
    assert.deepEqual(it.differences(endpoint), []);
  });

  test("carries packets: to the node, to another pod, in both families, with no neighbour but ee:ee:ee:ee:ee:ee", async () => {
    using one = temporaryNamespace();
    using other = temporaryNamespace();
    await using it = bench();
    const [a, b] = [pod(one.path), pod(other.path, { hostInterface: "calib", mtu: 1500 })];
    await it.attach(a);
    await it.attach(b);
    const [a4, a6, b4, b6] = [a, b]
      .flatMap(({ addresses }) => addresses)
      .map((address) => formatPrefix({ address, length: 0 }).slice(0, -2));
    for (const address of ["192.0.2.7", "2001:db8::7", "fe80::ecee:eeff:feee:eeee%eth0", b4!, b6!]) {
      assert.match(ping(one.name, address), / 1 received/, address);
    }
    for (const address of [a4!, a6!]) {
      assert.match(ping(other.name, address), / 1 received/, address);
      assert.match(ping(it.node.name, address), / 1 received/, address);
    }
    const neighbours = json(one.name, "neigh").map(({ dst, lladdr }) => `${String(dst)} ${String(lladdr)}`);
    assert.ok(neighbours.includes("169.254.1.1 ee:ee:ee:ee:ee:ee"), neighbours.join());
    assert.ok(
      neighbours.every((line) => line.endsWith("ee:ee:ee:ee:ee:ee")),
      neighbours.join(),
    );
  });

  test("forwards inside the pod only where that is allowed, and has the routes that an IPAM plugin gave", async () => {
    using one = temporaryNamespace();
    using other = temporaryNamespace();
    await using it = bench();
    // As where the machine's own settings are inherited.
    inNamespace(one.path, () =>
      writeSysctls([
        { key: "ipv4/ip_forward", value: "1" },
        { key: "ipv6/conf/all/forwarding", value: "1" },
        { key: "ipv6/conf/default/disable_ipv6", value: "1" },
        { key: "ipv6/conf/lo/disable_ipv6", value: "1" },
      ]),
    );
    const routes = ["10.0.0.0/8", "198.51.100.0/24"].map((text) => ({ destination: parsePrefix(text) }));
    await it.attach(pod(one.path), { ...SETTINGS, routes });
    assert.deepEqual(unset(one.path, podSysctls("eth0", [4, 6], false)), []);
    assert.deepEqual(
      json(one.name, "-4", "route").map(({ dst, gateway }) => [dst, gateway]),
      [
        ["10.0.0.0/8", "169.254.1.1"],
        ["169.254.1.1", undefined],
        ["198.51.100.0/24", "169.254.1.1"],
      ],
    );
    await it.attach(pod(other.path, { hostInterface: "calib" }), { ...SETTINGS, allowIpForwarding: true });
    assert.deepEqual(unset(other.path, podSysctls("eth0", [4, 6], true)), []);
  });

  test("of one family leaves the other alone", async () => {
    using namespace = temporaryNamespace();
    await using it = bench();
    const endpoint = pod(namespace.path, { addresses: [parseAddress("10.65.0.99")] });
    await it.attach(endpoint);
    assert.deepEqual(json(namespace.name, "-6", "route", "show", "default"), []);
    assert.deepEqual(it.differences(endpoint), []);
    assert.match(ping(namespace.name, "192.0.2.7"), / 1 received/);
  });
});

describe("what is not as it was left", () => {
  /** A command in the node's or the pod's namespace, and what is then said. */
  const broken: { name: string; where: "node" | "pod"; command: string[]; said: RegExp[] }[] = [
    {
      name: "the node's end is down",
      where: "node",
      command: ["ip", "link", "set", CALI, "down"],
      said: [/^cali\w+ is down$/, /route to 10.65/, /route to fd00/],
    },
    {
      name: "the node's end has another MAC",
      where: "node",
      command: ["ip", "link", "set", CALI, "address", "02:00:00:00:00:77"],
      said: [/cali\w+ has the MAC 02:00:00:00:00:77, not ee:ee/],
    },
    {
      name: "the node's end has another MTU",
      where: "node",
      command: ["ip", "link", "set", CALI, "mtu", "1300"],
      said: [/cali\w+ has the MTU 1300, not 1400/],
    },
    ...["ipv4/conf/*/proxy_arp", "ipv4/conf/*/forwarding", "ipv6/conf/*/proxy_ndp", "ipv6/conf/*/forwarding"].map(
      (key) => ({
        name: `${key} is off`,
        where: "node" as const,
        command: ["sh", "-c", `echo 0 > /proc/sys/net/${key.replace("*", CALI)}`],
        said: [new RegExp(`^net/${key.replace("*", CALI)} is 0, not 1$`)],
      }),
    ),
    {
      name: "the node has lost a route",
      where: "node",
      command: ["sh", "-c", `ip route flush dev ${CALI} scope link`],
      said: [/^the route to 10.65.0.\d+ is missing$/],
    },
    {
      name: "the node has lost an IPv6 route",
      where: "node",
      command: ["sh", "-c", `ip -6 route flush dev ${CALI} metric 1024`],
      said: [/^the route to fd00:10:65::\d+ is missing$/],
    },
    {
      name: "the node's route is another",
      where: "node",
      command: [
        "sh",
        "-c",
        `ip route replace $(ip route show dev ${CALI} | cut -d' ' -f1) dev ${CALI} metric 1024 proto static`,
      ],
      said: [/^the route to 10.65.0.\d+ is missing$/],
    },
    {
      name: "the pod's end is down",
      where: "pod",
      command: ["ip", "link", "set", "eth0", "down"],
      said: [/^eth0 is down$/, /lost the address fd00/, /no IPv4 route out/, /no IPv6 route out/],
    },
    {
      name: "the pod's end has another MAC",
      where: "pod",
      command: ["ip", "link", "set", "eth0", "address", "02:00:00:00:00:77"],
      said: [/^eth0 has the MAC 02:00:00:00:00:77, not 02/],
    },
    {
      name: "the pod's end has another MTU",
      where: "pod",
      command: ["ip", "link", "set", "eth0", "mtu", "1300"],
      said: [/^eth0 has the MTU 1300, not 1400/],
    },
    {
      name: "the pod has lost its address",
      where: "pod",
      command: ["sh", "-c", "ip -4 addr flush dev eth0"],
      said: [/^eth0 has lost the address 10.65.0.\d+$/, /no IPv4 route out/],
    },
    {
      name: "the pod has lost its IPv6 address",
      where: "pod",
      command: ["sh", "-c", "ip -6 addr flush dev eth0 scope global"],
      said: [/^eth0 has lost the address fd00:10:65::\d+$/],
    },
    {
      name: "the pod has no way out",
      where: "pod",
      command: ["ip", "route", "del", "default"],
      said: [/^eth0 has no IPv4 route out$/],
    },
    {
      name: "the pod has no IPv6 way out",
      where: "pod",
      command: ["ip", "-6", "route", "del", "default"],
      said: [/^eth0 has no IPv6 route out$/],
    },
    {
      name: "the pod's end has another name",
      where: "pod",
      command: ["sh", "-c", "ip link set eth0 down && ip link set eth0 name eth9"],
      said: [/^eth0 is not in \/run\/netns\//],
    },
    { name: "the pair is gone", where: "node", command: ["ip", "link", "del", CALI], said: [/^cali\w+ is not there$/] },
  ];
  for (const { name, where, command, said } of broken) {
    test(`is told: ${name}`, async () => {
      using namespace = temporaryNamespace();
      await using it = bench();
      const endpoint = pod(namespace.path);
      await it.attach(endpoint);
      assert.deepEqual(it.differences(endpoint), []);
      inside(where === "node" ? it.node.name : namespace.name, ...command);
      const found = it.differences(endpoint);
      for (const expected of said)
        assert.ok(
          found.some((line) => expected.test(line)),
          `${expected.source}: ${found.join("; ")}`,
        );
      if (said.length === 1) assert.equal(found.length, 1, found.join("; "));
      // The next ADD under the name puts it right.
      await it.interfaces.removeLink(CALI);
      if (name !== "the pod's end has another name") {
        await it.attach(endpoint);
        assert.deepEqual(it.differences(endpoint), []);
      }
    });
  }

  test("does not count a MAC that is not known, of a pod that was set up by Calico", async () => {
    using namespace = temporaryNamespace();
    await using it = bench();
    const endpoint = pod(namespace.path);
    await it.attach(endpoint);
    assert.deepEqual(it.differences({ ...endpoint, mac: "" }), []);
  });
});

describe("removal", () => {
  test("is quick: the pair carries nothing any more, and is gone when all has settled", async () => {
    await using it = bench();
    const took: number[] = [];
    for (let round = 0; round < 5; round += 1) {
      using namespace = temporaryNamespace();
      await it.attach(pod(namespace.path));
      const began = performance.now();
      await it.interfaces.removeLink(CALI);
      took.push(performance.now() - began);
      assert.deepEqual(it.routes.get(CALI), []);
      assert.notEqual(it.node.rtnetlink.link(CALI)?.up, true);
      assert.deepEqual(
        it.node.rtnetlink
          .routes()
          .filter(({ protocol }) => protocol === 3)
          .map((route) => describeRoute(route)),
        [],
      );
      await it.interfaces.settled();
      assert.equal(it.node.rtnetlink.link(CALI), undefined);
      assert.deepEqual(
        json(namespace.name, "link").map(({ ifname }) => ifname),
        ["lo"],
      );
    }
    assert.ok(Math.min(...took) < 8, `removals took ${took.map((each) => each.toFixed(1)).join(", ")} ms`);
    assert.equal(it.node.ip("-j", "link", "show", "type", "veth").replaceAll(/\s/g, ""), "[]");
  });

  test("of many at once leaves none", async () => {
    using namespace = temporaryNamespace();
    await using it = bench();
    const names = Array.from({ length: 12 }, (_, index) => `cali${index}`);
    for (const [index, hostInterface] of names.entries()) {
      await it.interfaces.createLink(pod(namespace.path, { hostInterface, podInterface: `eth${index}` }));
    }
    await Promise.all(names.map((name) => it.interfaces.removeLink(name)));
    await it.interfaces.settled();
    assert.deepEqual(
      json(it.node.name, "link").map(({ ifname }) => ifname),
      ["lo", "br0"],
    );
  });

  test("of what is not there, twice, or whose pod's namespace ended, is no error", async () => {
    await using it = bench();
    await it.interfaces.removeLink("cali-none");
    {
      using namespace = temporaryNamespace();
      await it.attach(pod(namespace.path));
      await Promise.all([it.interfaces.removeLink(CALI), it.interfaces.removeLink(CALI)]);
      await it.interfaces.settled();
      await it.attach(pod(namespace.path));
    }
    // The namespace is gone, and takes its end of the pair along, sooner or later.
    await it.interfaces.removeLink(CALI);
    await it.interfaces.settled();
    assert.equal(it.node.rtnetlink.link(CALI), undefined);
  });

  test("lets the same name be used again at once, in the same pod and in another", async () => {
    using one = temporaryNamespace();
    using other = temporaryNamespace();
    await using it = bench();
    await it.attach(pod(one.path));
    for (const namespace of [one, other, one]) {
      const endpoint = pod(namespace.path);
      await it.interfaces.removeLink(CALI);
      await it.attach(endpoint);
      assert.deepEqual(it.differences(endpoint), []);
      assert.match(ping(namespace.name, "192.0.2.7"), / 1 received/);
    }
    await it.interfaces.settled();
    assert.deepEqual(
      json(other.name, "link").map(({ ifname }) => ifname),
      ["lo"],
    );
    assert.ok(it.node.rtnetlink.link(CALI)?.up);
  });
});

describe("what is in the way", () => {
  test("a link that nobody knows goes", async () => {
    using namespace = temporaryNamespace();
    await using it = bench();
    it.node.ip("link", "add", CALI, "type", "veth", "peer", "name", "stray");
    const endpoint = pod(namespace.path);
    await it.attach(endpoint);
    assert.deepEqual(it.differences(endpoint), []);
    assert.equal(it.node.rtnetlink.link("stray"), undefined);
  });

  test("a link of the pod's own stays, and ADD says so", async () => {
    using namespace = temporaryNamespace();
    await using it = bench();
    inside(namespace.name, "ip", "link", "add", "eth0", "type", "bridge");
    await assert.rejects(it.interfaces.createLink(pod(namespace.path)), (error) => {
      assert.equal(codeOf(error), "EEXIST");
      assert.match(String(error), /Cannot add veth cali\w+ with peer eth0/);
      return true;
    });
    assert.equal(it.node.rtnetlink.link(CALI), undefined);
  });

  test("a route that is there already is good; one that leads elsewhere is not taken away", async () => {
    using namespace = temporaryNamespace();
    await using it = bench();
    const endpoint = pod(namespace.path, { addresses: [parseAddress("10.65.0.200")] });
    await it.interfaces.createLink(endpoint);
    const { index } = it.node.rtnetlink.link(CALI)!;
    it.node.rtnetlink.setLink(index, { up: true });
    it.node.rtnetlink.addRoute(workloadRoute(endpoint.addresses[0]!, index));
    it.configure(endpoint);
    await it.interfaces.removeLink(CALI);

    it.node.rtnetlink.addRoute(workloadRoute(endpoint.addresses[0]!, it.node.br0));
    await it.interfaces.createLink(endpoint);
    assert.throws(() => it.configure(endpoint), /Cannot add the route to 10.65.0.200\/32: it leads to br0 already/);
    assert.match(it.node.ip("route", "show", "10.65.0.200"), /dev br0/);
  });

  test("a namespace or an interface that is not there is named", async () => {
    using namespace = temporaryNamespace();
    await using it = bench();
    await assert.rejects(it.interfaces.createLink(pod("/run/netns/caracal-none")), /caracal-none/);
    assert.throws(() => it.configure(pod(namespace.path)), /Cannot set up cali\w+: the interface is not there/);
    await it.interfaces.createLink(pod(namespace.path));
    const renamed = pod(namespace.path, { podInterface: "eth7" });
    assert.throws(() => it.configure(renamed), /eth7/);
  });

  test("of settings, only those that may be missing", () => {
    const missing = { key: "ipv6/conf/no-such-link/accept_ra", value: "0" };
    assert.throws(() => writeSysctls([missing]), /no-such-link\/accept_ra/);
    assert.doesNotThrow(() => writeSysctls([{ ...missing, optional: true }]));
  });
});
