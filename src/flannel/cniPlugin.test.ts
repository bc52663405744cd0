import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { containerFile, delegateConfig, parsePluginConfig, PluginError } from "./cniPlugin.ts";
import { parseSubnetEnv } from "./subnetEnv.ts";

const env = parseSubnetEnv(
  "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
);
const both = parseSubnetEnv(
  "FLANNEL_NETWORK=10.5.0.0/16,10.6.0.0/16\nFLANNEL_SUBNET=10.5.34.1/24\nFLANNEL_IPV6_NETWORK=fc00:5::/48\nFLANNEL_IPV6_SUBNET=fc00:5:0:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n",
);
const config = (more: object) =>
  parsePluginConfig(JSON.stringify({ type: "flannel", name: "cbr0", cniVersion: "0.3.1", ...more }));

describe("the plugin flannel", () => {
  const cases: { name: string; more: object; env: typeof env; delegate: object }[] = [
    {
      name: "the stock configuration",
      more: { delegate: { hairpinMode: true, isDefaultGateway: true } },
      env,
      delegate: {
        type: "bridge",
        name: "cbr0",
        cniVersion: "0.3.1",
        hairpinMode: true,
        isDefaultGateway: true,
        isGateway: true,
        ipMasq: false,
        mtu: 1450,
        ipam: {
          type: "host-local",
          ranges: [[{ subnet: "10.5.34.0/24" }]],
          routes: [{ dst: "10.5.0.0/16" }],
        },
      },
    },
    {
      name: "what it says itself comes first",
      more: {
        delegate: { type: "ptp", ipMasq: false, mtu: 9000 },
        ipam: { dataDir: "/x", routes: [{ dst: "192.0.2.0/24" }] },
        runtimeConfig: { portMappings: [] },
      },
      env: both,
      delegate: {
        type: "ptp",
        name: "cbr0",
        cniVersion: "0.3.1",
        ipMasq: false,
        mtu: 9000,
        runtimeConfig: { portMappings: [] },
        ipam: {
          type: "host-local",
          dataDir: "/x",
          ranges: [[{ subnet: "10.5.34.0/24" }], [{ subnet: "fc00:5:0:1::/64" }]],
          routes: [{ dst: "192.0.2.0/24" }, { dst: "10.5.0.0/16" }, { dst: "10.6.0.0/16" }, { dst: "fc00:5::/48" }],
        },
      },
    },
    {
      name: "it masquerades where flannel does not",
      more: {},
      env: both,
      delegate: {
        type: "bridge",
        name: "cbr0",
        cniVersion: "0.3.1",
        isGateway: true,
        ipMasq: true,
        mtu: 1450,
        ipam: {
          type: "host-local",
          ranges: [[{ subnet: "10.5.34.0/24" }], [{ subnet: "fc00:5:0:1::/64" }]],
          routes: [{ dst: "10.5.0.0/16" }, { dst: "10.6.0.0/16" }, { dst: "fc00:5::/48" }],
        },
      },
    },
  ];
  for (const { name, more, env: given, delegate } of cases) {
    test(name, () => assert.deepEqual(delegateConfig(config(more), given).config, delegate));
  }
  test("has flannel's files where nothing else is said", () => {
    const { subnetFile, dataDir } = config({});
    assert.deepEqual([subnetFile, dataDir], ["/run/flannel/subnet.env", "/var/lib/cni/flannel"]);
  });
  const wrong: { json: string; reason: RegExp }[] = [
    { json: "{", reason: /not JSON/ },
    { json: "{}", reason: /name is missing/ },
    { json: '{"name":"x","delegate":{"name":"y"}}', reason: /delegate\.name/ },
    { json: '{"name":"x","delegate":{"ipam":{}}}', reason: /delegate\.ipam/ },
    { json: '{"name":"x","delegate":7}', reason: /delegate is not a JSON object/ },
    { json: '{"name":7}', reason: /name is not text/ },
  ];
  for (const { json, reason } of wrong) {
    test(`refused: ${json}`, () => {
      assert.throws(
        () => parsePluginConfig(json),
        (error) => error instanceof PluginError && error.code === "bad-config" && reason.test(error.message),
      );
    });
  }
  test("keeps files of containers only", () => {
    assert.equal(containerFile("/d", "abc-1"), "/d/abc-1");
    for (const id of ["", "../x", "a/b", ".x"]) assert.throws(() => containerFile("/d", id), PluginError);
  });
});
