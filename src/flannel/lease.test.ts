import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { parseAddress } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import { parseNetworkConfig } from "./config.ts";
import {
  formatLeaseValue,
  formatVtepData,
  type Lease,
  leaseKey,
  LeaseError,
  parseLeaseKey,
  parseLeaseValue,
  parseVtepData,
} from "./lease.ts";
import { formatSubnetEnv, parseSubnetEnv, SubnetEnvError, subnetEnvOf } from "./subnetEnv.ts";
import { fitsConfig, freeSubnets, overlapsAny } from "./subnets.ts";

describe("leases in etcd", () => {
  const keys: { key: string; subnets: Lease["subnets"] }[] = [
    { key: "10.5.34.0-24", subnets: { ipv4: parsePrefix("10.5.34.0/24") } },
    {
      key: "10.5.34.0-24&fc00:5:6:1::-64",
      subnets: { ipv4: parsePrefix("10.5.34.0/24"), ipv6: parsePrefix("fc00:5:6:1::/64") },
    },
    { key: "0.0.0.0-0&fc00:5:6:1::-64", subnets: { ipv6: parsePrefix("fc00:5:6:1::/64") } },
  ];
  for (const { key, subnets } of keys) {
    test(`the key ${key}`, () => {
      assert.equal(leaseKey(subnets), key);
      assert.deepEqual(parseLeaseKey(key), subnets);
    });
  }
  for (const key of [
    "",
    "config",
    "10.5.34.0",
    "10.5.34.0-33",
    "10.5.340.0-24",
    "10.5.34.0-24/x",
    "10.5.34.0-24&xyz-64",
  ]) {
    test(`"${key}" names no subnet`, () => assert.equal(parseLeaseKey(key), undefined));
  }

  const publicIp = parseAddress("172.16.0.5");
  const values: { name: string; value: string; attributes: Lease["attributes"] }[] = [
    { name: "udp", value: '{"PublicIP":"172.16.0.5","PublicIPv6":null}', attributes: { publicIp, backendType: "udp" } },
    {
      name: "host-gw",
      value: '{"PublicIP":"172.16.0.5","PublicIPv6":null,"BackendType":"host-gw"}',
      attributes: { publicIp, backendType: "host-gw" },
    },
    {
      name: "vxlan",
      value:
        '{"PublicIP":"172.16.0.5","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:0f"}}',
      attributes: { publicIp, backendType: "vxlan", backendData: formatVtepData({ vni: 1, mac: "aa:bb:cc:dd:ee:0f" }) },
    },
    {
      name: "vxlan of both families",
      value:
        '{"PublicIP":"172.16.0.5","PublicIPv6":"fd00::5","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:0f"},"BackendV6Data":{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:10"}}',
      attributes: {
        publicIp,
        publicIpv6: parseAddress("fd00::5"),
        backendType: "vxlan",
        backendData: formatVtepData({ vni: 1, mac: "aa:bb:cc:dd:ee:0f" }),
        backendV6Data: formatVtepData({ vni: 1, mac: "aa:bb:cc:dd:ee:10" }),
      },
    },
  ];
  for (const { name, value, attributes } of values) {
    test(`the value of ${name}`, () => {
      assert.equal(formatLeaseValue(attributes), value);
      assert.deepEqual(parseLeaseValue(value), attributes);
    });
  }
  test("IPv6 alone has an address of zeros for IPv4", () => {
    const attributes = { publicIpv6: parseAddress("fd00::5"), backendType: "vxlan" };
    assert.equal(formatLeaseValue(attributes), '{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::5","BackendType":"vxlan"}');
    assert.deepEqual(parseLeaseValue(formatLeaseValue(attributes)), attributes);
  });
  for (const value of ["", "7", '{"PublicIP":"x"}', '{"PublicIP":7}', '{"BackendType":7}']) {
    test(`refused: ${value}`, () => assert.throws(() => parseLeaseValue(value), LeaseError));
  }
  test("data of no vxlan node", () => {
    for (const data of [undefined, null, 7, {}, { VtepMAC: "no" }]) assert.equal(parseVtepData(data), undefined);
    assert.deepEqual(parseVtepData({ VtepMAC: "AA:BB:cc:dd:ee:0f" }), { vni: 1, mac: "aa:bb:cc:dd:ee:0f" });
  });
});

describe("free subnets", () => {
  const config = (json: object) => parseNetworkConfig(JSON.stringify(json));
  const small = config({ Network: "10.5.0.0/20" }).ipv4!;

  test("are in ascending order, without those that are taken in part or whole", () => {
    const taken = ["10.5.2.0/24", "10.5.3.128/25", "10.5.8.0/22", "10.6.0.0/16"].map(parsePrefix);
    const free = freeSubnets(small, taken).map(formatPrefix);
    assert.deepEqual(
      free,
      [1, 4, 5, 6, 7, 12, 13, 14, 15].map((number) => `10.5.${number}.0/24`),
    );
  });
  test("end with the range, also at the end of all addresses", () => {
    const { ipv4 } = config({ Network: "255.255.240.0/20" });
    assert.equal(freeSubnets(ipv4!, []).length, 15);
    assert.deepEqual(freeSubnets(ipv4!, [parsePrefix("255.255.0.0/16")]), []);
  });
  test("of a large network are the first hundred", () => {
    const { ipv4 } = config({ Network: "10.0.0.0/8" });
    assert.equal(freeSubnets(ipv4!, []).length, 100);
  });
  test("are those that overlap with nothing (naive twin)", () => {
    const one = fc.record({ at: fc.integer({ min: 0, max: 255 }), length: fc.integer({ min: 20, max: 28 }) });
    fc.assert(
      fc.property(fc.array(one, { maxLength: 12 }), (list) => {
        const taken = list.map(({ at, length }) => {
          const value = (0x0a050000n + BigInt(at * 16)) >> BigInt(32 - length);
          return { address: { family: 4 as const, value: value << BigInt(32 - length) }, length };
        });
        const expected = Array.from({ length: 15 }, (_, at) => parsePrefix(`10.5.${at + 1}.0/24`)).filter(
          (ipv4) =>
            !overlapsAny(
              { ipv4 },
              taken.map((prefix) => ({ ipv4: prefix })),
            ),
        );
        assert.deepEqual(freeSubnets(small, taken).map(formatPrefix), expected.map(formatPrefix));
      }),
    );
  });
  test("a lease fits the configuration that could have given it", () => {
    const both = config({
      Network: "10.5.0.0/16",
      EnableIPv6: true,
      IPv6Network: "fc00::/48",
      Backend: { Type: "vxlan" },
    });
    const ipv4 = parsePrefix("10.5.7.0/24");
    const ipv6 = parsePrefix("fc00:0:0:7::/64");
    assert.equal(fitsConfig({ ipv4, ipv6 }, both), true);
    assert.equal(fitsConfig({ ipv4 }, both), false);
    assert.equal(fitsConfig({ ipv4: parsePrefix("10.5.0.0/24"), ipv6 }, both), false, "before SubnetMin");
    assert.equal(fitsConfig({ ipv4: parsePrefix("10.5.7.0/25"), ipv6 }, both), false);
  });
});

describe("subnet.env", () => {
  const subnets = { ipv4: parsePrefix("10.5.34.0/24"), ipv6: parsePrefix("fc00:5:6:1::/64") };
  const text = [
    "FLANNEL_NETWORK=10.5.0.0/16",
    "FLANNEL_SUBNET=10.5.34.1/24",
    "FLANNEL_IPV6_NETWORK=fc00:5:6::/48",
    "FLANNEL_IPV6_SUBNET=fc00:5:6:1::1/64",
    "FLANNEL_MTU=1450",
    "FLANNEL_IPMASQ=true",
    "",
  ].join("\n");

  test("has flannel's lines in flannel's order", () => {
    const config = parseNetworkConfig(
      JSON.stringify({
        Network: "10.5.0.0/16",
        EnableIPv6: true,
        IPv6Network: "fc00:5:6::/48",
        Backend: { Type: "vxlan" },
      }),
    );
    const env = subnetEnvOf(config, subnets, 1450, true);
    assert.equal(formatSubnetEnv(env), text);
    assert.deepEqual(parseSubnetEnv(text), env);
  });
  test("may list several networks", () => {
    const env = parseSubnetEnv(
      "FLANNEL_NETWORK=10.5.0.0/16,10.6.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n",
    );
    assert.deepEqual(env.networks.map(formatPrefix), ["10.5.0.0/16", "10.6.0.0/16"]);
  });
  const wrong: { text: string; reason: RegExp }[] = [
    { text: "", reason: /neither FLANNEL_SUBNET/ },
    { text: "FLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_IPMASQ=true", reason: /FLANNEL_MTU "" is not/ },
    { text: "FLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450", reason: /FLANNEL_IPMASQ/ },
    { text: "FLANNEL_SUBNET=10.5.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true", reason: /FLANNEL_SUBNET: / },
  ];
  for (const { text: malformed, reason } of wrong) {
    test(`refused: ${JSON.stringify(malformed)}`, () => {
      assert.throws(
        () => parseSubnetEnv(malformed),
        (error) => error instanceof SubnetEnvError && reason.test(error.message),
      );
    });
  }
});
