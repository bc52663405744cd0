import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix, parseInterfaceAddress } from "../ip/prefix.ts";
import { nodeNetwork, nodeNetworkPatch, type NodeNetwork } from "./nodeNetwork.ts";

const annotated = (annotations: Record<string, string>) => ({ metadata: { annotations } });

const whole: Required<NodeNetwork> = {
  ipv4: parseInterfaceAddress("192.0.2.7/26"),
  ipv6: parseInterfaceAddress("2001:db8:0:1::7/64"),
  asNumber: 65001,
  routeReflectorClusterId: "244.0.0.1",
  ipipTunnel: parseAddress("10.244.9.0"),
  vxlanTunnel: parseAddress("10.244.9.1"),
  vxlanTunnelV6: parseAddress("fd00::1"),
  vxlanTunnelMac: "66:2a:00:00:00:01",
  vxlanTunnelMacV6: "66:2a:00:00:00:02",
  wireguardInterface: parseAddress("10.244.9.2"),
  wireguardInterfaceV6: parseAddress("fd00::2"),
  wireguardPublicKey: "jlkVyQYooZYzI2wFfNhSZez5eWh44yfq1wKVjLvSXgY=",
  wireguardPublicKeyV6: "hTnXVyQYooZYzI2wFfNhSZez5eWh44yfq1wKVjLvSXg=",
};

describe("a node's network", () => {
  test("is read from its annotations", () => {
    const { ipv4, asNumber, ipipTunnel, faults, ...rest } = nodeNetwork(
      annotated({
        "projectcalico.org/IPv4Address": "192.0.2.7/26",
        "projectcalico.org/ASNumber": "1.10",
        "projectcalico.org/IPv4IPIPTunnelAddr": "10.244.9.0",
        "projectcalico.org/kube-labels": "{}",
        "example.org/IPv6Address": "x",
        "projectcalico.org/IPv6Address": "",
      }),
    );
    assert.equal(formatPrefix(ipv4!), "192.0.2.7/26");
    assert.equal(asNumber, 65546);
    assert.equal(formatAddress(ipipTunnel!), "10.244.9.0");
    assert.deepEqual([rest, faults], [{}, []]);
  });

  test("is empty without annotations", () => {
    assert.deepEqual(nodeNetwork({ metadata: {} }), { faults: [] });
  });

  test("has a bare address on a subnet of its own", () => {
    assert.equal(
      formatPrefix(nodeNetwork(annotated({ "projectcalico.org/IPv6Address": "fd00::1" })).ipv6!),
      "fd00::1/128",
    );
  });

  test("leaves out what cannot be read, and says so", () => {
    const { faults, ...rest } = nodeNetwork(
      annotated({
        "projectcalico.org/IPv4Address": "fd00::1/64",
        "projectcalico.org/ASNumber": "many",
        "projectcalico.org/RouteReflectorClusterID": "7",
        "projectcalico.org/VXLANTunnelMACAddr": "66:00",
        "projectcalico.org/IPv4VXLANTunnelAddr": "10.0.0.1",
      }),
    );
    assert.deepEqual(rest, { vxlanTunnel: parseAddress("10.0.0.1") });
    assert.deepEqual(
      faults.map(({ path }) => path),
      ["IPv4Address", "ASNumber", "RouteReflectorClusterID", "VXLANTunnelMACAddr"].map(
        (name) => `metadata.annotations["projectcalico.org/${name}"]`,
      ),
    );
    assert.equal(faults[0]?.reason, '"fd00::1" is not an IPv4 address');
  });

  test("is what its patch wrote", () => {
    const { metadata } = nodeNetworkPatch(whole);
    assert.equal(metadata.annotations["projectcalico.org/IPv4Address"], "192.0.2.7/26");
    assert.deepEqual(nodeNetwork(annotated(metadata.annotations as Record<string, string>)), { ...whole, faults: [] });
  });

  test("is changed by a patch only where the patch says so", () => {
    assert.deepEqual(nodeNetworkPatch({ vxlanTunnel: null, asNumber: 5 }), {
      metadata: { annotations: { "projectcalico.org/ASNumber": "5", "projectcalico.org/IPv4VXLANTunnelAddr": null } },
    });
  });
});
