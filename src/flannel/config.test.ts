import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { NetworkConfigError, parseNetworkConfig, type SubnetRange } from "./config.ts";

const show = (range: SubnetRange | undefined): string =>
  range === undefined
    ? "none"
    : `${formatPrefix(range.network)} ${formatAddress(range.subnetMin)}..${formatAddress(range.subnetMax)} /${range.subnetLength}`;

describe("flannel's network configuration", () => {
  const ranges: { name: string; json: object; ipv4?: string; ipv6?: string }[] = [
    { name: "defaults", json: { Network: "10.5.0.0/16" }, ipv4: "10.5.0.0/16 10.5.1.0..10.5.255.0 /24" },
    { name: "a network of /22", json: { Network: "10.5.0.0/22" }, ipv4: "10.5.0.0/22 10.5.1.0..10.5.3.0 /24" },
    { name: "a network of /23", json: { Network: "10.5.0.0/23" }, ipv4: "10.5.0.0/23 10.5.0.128..10.5.1.128 /25" },
    { name: "the smallest", json: { Network: "10.5.0.0/28" }, ipv4: "10.5.0.0/28 10.5.0.4..10.5.0.12 /30" },
    { name: "host bits are dropped", json: { Network: "10.5.7.1/16" }, ipv4: "10.5.0.0/16 10.5.1.0..10.5.255.0 /24" },
    {
      name: "bounds",
      json: { Network: "10.0.0.0/8", SubnetLen: 20, SubnetMin: "10.10.0.0", SubnetMax: "10.99.0.0" },
      ipv4: "10.0.0.0/8 10.10.0.0..10.99.0.0 /20",
    },
    {
      name: "names in any case, as Go reads them",
      json: { network: "10.5.0.0/16", subnetlen: 26 },
      ipv4: "10.5.0.0/16 10.5.0.64..10.5.255.192 /26",
    },
    {
      name: "both families",
      json: { Network: "10.5.0.0/16", EnableIPv6: true, IPv6Network: "fc00::/48", Backend: { Type: "vxlan" } },
      ipv4: "10.5.0.0/16 10.5.1.0..10.5.255.0 /24",
      ipv6: "fc00::/48 fc00:0:0:1::..fc00:0:0:ffff:: /64",
    },
    {
      name: "IPv6 alone",
      json: { EnableIPv4: false, EnableIPv6: true, IPv6Network: "fc00::/63", Backend: { Type: "host-gw" } },
      ipv6: "fc00::/63 fc00::8000:0:0:0..fc00:0:0:1:8000:: /65",
    },
    {
      name: "the last subnet of all",
      json: { Network: "255.255.0.0/16" },
      ipv4: "255.255.0.0/16 255.255.1.0..255.255.255.0 /24",
    },
  ];
  for (const { name, json, ipv4 = "none", ipv6 = "none" } of ranges) {
    test(name, () => {
      const config = parseNetworkConfig(JSON.stringify(json));
      assert.equal(show(config.ipv4), ipv4);
      assert.equal(show(config.ipv6), ipv6);
    });
  }

  const backends: { json: object | undefined; backend: object }[] = [
    { json: undefined, backend: { type: "udp", port: 8285 } },
    { json: {}, backend: { type: "udp", port: 8285 } },
    { json: { Type: "udp", Port: 7890 }, backend: { type: "udp", port: 7890 } },
    { json: { Type: "vxlan" }, backend: { type: "vxlan", vni: 1, learning: false, directRouting: false } },
    {
      json: { type: "vxlan", vni: 4096, port: 4789, mtu: 1400, directRouting: true, Learning: true },
      backend: { type: "vxlan", vni: 4096, port: 4789, mtu: 1400, learning: true, directRouting: true },
    },
    { json: { Type: "host-gw" }, backend: { type: "host-gw" } },
    { json: { Type: "ipip", DirectRouting: true }, backend: { type: "ipip", directRouting: true } },
  ];
  for (const { json, backend } of backends) {
    test(`backend ${JSON.stringify(json)}`, () => {
      const config = parseNetworkConfig(JSON.stringify({ Network: "10.5.0.0/16", Backend: json }));
      assert.deepEqual(config.backend, backend);
    });
  }

  const wrong: { json: string; reason: RegExp }[] = [
    { json: "{", reason: /not JSON/ },
    { json: "[]", reason: /not a JSON object/ },
    { json: "{}", reason: /Network is missing/ },
    { json: '{"Network":"10.5.0.0/29"}', reason: /too small/ },
    { json: '{"Network":"10.5.0.0/16","SubnetLen":17}', reason: /four subnets of \/17/ },
    { json: '{"Network":"10.5.0.0/16","SubnetLen":31}', reason: /more than 30/ },
    { json: '{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}', reason: /SubnetMin: 10\.6\.0\.0 is not in/ },
    { json: '{"Network":"10.5.0.0/16","SubnetMax":"10.5.7.1"}', reason: /SubnetMax.*boundary of \/24/ },
    { json: '{"Network":"fc00::/48"}', reason: /not an IPv4 address/ },
    { json: '{"Network":7}', reason: /Network: expected text/ },
    { json: '{"Network":"10.5.0.0/16","EnableIPv6":true}', reason: /IPv6Network is missing/ },
    { json: '{"EnableIPv4":false}', reason: /neither IPv4 nor IPv6/ },
    { json: '{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"}}', reason: /"wireguard" is not one of/ },
    {
      json: '{"Network":"10.5.0.0/16","Backend":{"Type":"udp","Port":70000}}',
      reason: /Backend\.Port: expected a whole/,
    },
    { json: '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","GBP":true}}', reason: /Backend\.GBP/ },
    {
      json: '{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48"}',
      reason: /udp carries IPv4 only/,
    },
  ];
  for (const { json, reason } of wrong) {
    test(`refused: ${json}`, () => {
      assert.throws(
        () => parseNetworkConfig(json),
        (error) => error instanceof NetworkConfigError && reason.test(error.message),
      );
    });
  }
});
