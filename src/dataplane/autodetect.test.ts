import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix, parseInterfaceAddress } from "../ip/prefix.ts";
import { AutodetectError, detectAddress, parseMethod, type DetectInput, type DetectLink } from "./autodetect.ts";

const link = (name: string, ...addresses: string[]): DetectLink => ({
  name,
  up: true,
  addresses: addresses.map(parseInterfaceAddress),
});

/** In the kernel's order. Method and machine give the address, the interface and the reason; or why there is none. */
const MACHINE: readonly DetectLink[] = [
  link("lo", "127.0.0.1/8", "::1/128"),
  link("eth0", "192.0.2.7/26", "192.0.2.8/26", "2001:db8::7/64", "fe80::1/64"),
  link("eth1", "198.51.100.7/24"),
  { ...link("eth2", "203.0.113.7/24"), up: false },
  link("docker0", "172.17.0.1/16"),
  link("cali12345678901", "169.254.1.1/32"),
  link("vxlan.calico", "10.244.0.1/32"),
];

function detect(method: string, input: Partial<DetectInput> = {}): string {
  const { address, interfaceName, reason } = detectAddress(parseMethod(method), {
    family: 4,
    links: MACHINE,
    sourceTowards: () => undefined,
    internalAddresses: [],
    ...input,
  });
  return `${formatPrefix(address)} on ${interfaceName}: ${reason}`;
}

describe("a node's address", () => {
  const towards = (source: string) => () => parseAddress(source);
  const found: { method: string; input?: Partial<DetectInput>; address: string }[] = [
    // Calico looks from the last link to the first.
    { method: "first-found", address: "198.51.100.7/24 on eth1: first address found, on eth1" },
    { method: "first-found", input: { family: 6 }, address: "2001:db8::7/64 on eth0: first address found, on eth0" },
    { method: "interface=eth0", address: "192.0.2.7/26 on eth0: eth0 matches interface=eth0" },
    { method: "interface=^bond, eth0", address: "192.0.2.7/26 on eth0: eth0 matches interface=^bond,eth0" },
    { method: "interface=th1", address: "198.51.100.7/24 on eth1: eth1 matches interface=th1" },
    { method: "interface=docker.*", address: "172.17.0.1/16 on docker0: docker0 matches interface=docker.*" },
    { method: "interface=eth.*", address: "198.51.100.7/24 on eth1: eth1 matches interface=eth.*" },
    {
      method: "skip-interface=eth1,eth2",
      address: "192.0.2.7/26 on eth0: first address found, on eth0, after skip-interface=eth1,eth2",
    },
    { method: "cidr=192.0.2.0/24", address: "192.0.2.7/26 on eth0: 192.0.2.7/26 lies in cidr=192.0.2.0/24" },
    { method: "cidr=192.0.2.8/29", address: "192.0.2.8/26 on eth0: 192.0.2.8/26 lies in cidr=192.0.2.8/29" },
    { method: "cidr=192.0.2.99/24", address: "192.0.2.7/26 on eth0: 192.0.2.7/26 lies in cidr=192.0.2.0/24" },
    {
      method: "cidr=10.0.0.0/8,172.16.0.0/12",
      address: "10.244.0.1/32 on vxlan.calico: 10.244.0.1/32 lies in cidr=10.0.0.0/8,172.16.0.0/12",
    },
    {
      method: "can-reach=9.9.9.9",
      input: { sourceTowards: towards("192.0.2.8") },
      address: "192.0.2.8/26 on eth0: the kernel reaches 9.9.9.9 from it",
    },
    {
      method: "kubernetes-internal-ip",
      input: { internalAddresses: ["2001:db8::7", "198.51.100.7"].map(parseAddress) },
      address: "198.51.100.7/24 on eth1: it is the Kubernetes Node's InternalIP",
    },
    {
      method: "kubernetes-internal-ip",
      input: { family: 6, internalAddresses: ["198.51.100.7", "2001:db8::7"].map(parseAddress) },
      address: "2001:db8::7/64 on eth0: it is the Kubernetes Node's InternalIP",
    },
  ];
  for (const { method, input, address } of found) {
    test(`${method}${input?.family === 6 ? " for IPv6" : ""} is ${address}`, () => {
      assert.equal(detect(method, input), address);
    });
  }

  const missing: { method: string; input?: Partial<DetectInput>; reason: RegExp }[] = [
    { method: "interface=wlan0", reason: /by interface=wlan0: .*eth1 198.51.100.7\/24: the name does not match/ },
    { method: "interface=eth2", reason: /eth2 203.0.113.7\/24: the interface is down/ },
    {
      method: "skip-interface=eth",
      reason:
        /docker0 172.17.0.1\/16: an interface of this name is never the node's; .*eth1 .*: the name is to be skipped/,
    },
    { method: "cidr=10.9.0.0/16", reason: /eth0 192.0.2.7\/26: outside the networks/ },
    { method: "can-reach=9.9.9.9", reason: /eth1 198.51.100.7\/24: no route to 9.9.9.9/ },
    {
      method: "can-reach=9.9.9.9",
      input: { sourceTowards: towards("10.1.1.1") },
      reason: /eth1 .*: the kernel reaches 9.9.9.9 from 10.1.1.1/,
    },
    { method: "kubernetes-internal-ip", reason: /eth1 198.51.100.7\/24: not an InternalIP of the Kubernetes Node/ },
    { method: "first-found", input: { links: [] }, reason: /no interface has an address of the family/ },
    { method: "first-found", input: { family: 6, links: [link("eth0", "fe80::1/64")] }, reason: /^no IPv6 address/ },
  ];
  for (const { method, input, reason } of missing) {
    test(`is not found by ${method}, for a reason: ${reason.source.slice(0, 60)}`, () => {
      assert.throws(
        () => detect(method, input),
        (error) => error instanceof AutodetectError && error.code === "nothing-found" && reason.test(error.message),
      );
    });
  }

  test("is never loopback, link-local or unspecified", () => {
    for (const text of ["127.0.0.1/8", "127.9.9.9/8", "169.254.7.7/16", "0.0.0.0/0"]) {
      assert.throws(() => detect("interface=.*", { links: [link("eth0", text)] }), AutodetectError, text);
    }
  });

  test("is on none of the interfaces that container systems make", () => {
    const names = [
      "docker0",
      "cbr0",
      "dummy0",
      "podman1",
      "virbr0",
      "lxcbr0",
      "veth1",
      "lo",
      "br-12ab",
      "cali1",
      "tunl0",
    ];
    names.push("flannel.1", "kube-ipvs0", "cni0", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali");
    for (const name of [...names, "nodelocaldns"]) {
      for (const method of ["first-found", "skip-interface=none"]) {
        assert.throws(() => detect(method, { links: [link(name, "192.0.2.7/24")] }), AutodetectError, name);
      }
    }
    for (const name of ["bridge0", "bond0", "br0", "team0", "vxlanx"]) {
      assert.match(detect("first-found", { links: [link(name, "192.0.2.7/24")] }), /^192.0.2.7\/24/);
    }
  });
});

describe("a method", () => {
  const malformed: { text: string; reason: RegExp }[] = [
    { text: "", reason: /method "" is not first-found, can-reach=/ },
    { text: "second-found", reason: /is not first-found/ },
    { text: "can-reach=", reason: /"can-reach=" needs a value/ },
    { text: "can-reach", reason: /"can-reach=" needs a value/ },
    { text: "can-reach=example.org", reason: /"can-reach=example.org": "example.org" is not an IP address/ },
    { text: "interface=", reason: /"interface=" needs a value/ },
    { text: "interface=,", reason: /"interface=" needs a value/ },
    { text: "interface=(", reason: /"interface=\(": Invalid regular expression/ },
    { text: "skip-interface=*", reason: /"skip-interface=\*": Invalid regular expression/ },
    { text: "cidr=10.0.0.0", reason: /"cidr=10.0.0.0": "10.0.0.0" is not a CIDR/ },
    { text: "cidr=10.0.0.0/8,x", reason: /"x" is not a CIDR/ },
  ];
  for (const { text, reason } of malformed) {
    test(`is refused: "${text}"`, () => {
      assert.throws(
        () => parseMethod(text),
        (error) => error instanceof AutodetectError && error.code === "bad-method" && reason.test(error.message),
      );
    });
  }

  test("of either family may be reached", () => {
    const method = parseMethod("can-reach=2001:db8::1");
    assert.ok(method.kind === "can-reach");
    assert.equal(formatAddress(method.destination), "2001:db8::1");
  });
});
