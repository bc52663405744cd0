import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { testRefusals } from "./malformed.testing.ts";
import { felixConfiguration, felixFromEnvironment, felixSettings } from "./config.ts";

const configuration = (name: string, spec: object) =>
  felixConfiguration.parse({
    apiVersion: "projectcalico.org/v3",
    kind: "FelixConfiguration",
    metadata: { name },
    spec,
  });

describe("Felix settings", () => {
  test("hold Calico's values where nobody sets them", () => {
    const settings = felixSettings({});
    assert.deepEqual(settings.interfacePrefix, ["cali"]);
    assert.equal(settings.healthPort, 9099);
    assert.equal(settings.prometheusMetricsEnabled, false);
    assert.equal(settings.prometheusMetricsPort, 9091);
    assert.equal(settings.deviceRouteProtocol, 3);
    assert.equal(settings.removeExternalRoutes, true);
    assert.equal(settings.defaultEndpointToHostAction, "Drop");
    assert.equal(settings.nftablesMarkMask, 0xffff0000);
    assert.equal(settings.nftablesRefreshInterval, 180_000);
    assert.equal(settings.routeRefreshInterval, 90_000);
    assert.equal(settings.iptablesLockProbeInterval, 50);
    assert.equal(settings.ipipEnabled, undefined);
    assert.equal(settings.vxlanVNI, 4096);
    assert.deepEqual(settings.kubeNodePortRanges, ["30000:32767"]);
    assert.deepEqual(
      settings.failsafeInboundHostPorts.map(({ protocol, port }) => `${protocol}:${port}`).join(),
      "TCP:22,UDP:68,TCP:179,TCP:2379,TCP:2380,TCP:5473,TCP:6443,TCP:6666,TCP:6667",
    );
    assert.deepEqual(
      settings.failsafeOutboundHostPorts.map(({ protocol, port }) => `${protocol}:${port}`).join(),
      "UDP:53,UDP:67,TCP:179,TCP:2379,TCP:2380,TCP:5473,TCP:6443,TCP:6666,TCP:6667",
    );
  });

  test("come from the environment before the node's object, and from that before the one for all", () => {
    const { settings: environment } = felixFromEnvironment({ FELIX_VXLANMTU: "1400" });
    const node = configuration("node.a", { vxlanMTU: 1300, ipipMTU: 1301 });
    const global = configuration("default", { vxlanMTU: 1200, ipipMTU: 1201, wireguardMTU: 1202 });
    const settings = felixSettings({ environment, node, global });
    assert.deepEqual(
      [settings.vxlanMTU, settings.ipipMTU, settings.wireguardMTU, settings.wireguardMTUV6],
      [1400, 1301, 1202, 0],
    );
  });

  test("of one caller are not those of another", () => {
    felixSettings({}).failsafeInboundHostPorts.pop();
    assert.equal(felixSettings({}).failsafeInboundHostPorts.length, 9);
  });

  test("that an object turns off with none are off", () => {
    const global = configuration("default", {
      logFilePath: "none",
      logSeveritySys: "none",
      failsafeInboundHostPorts: [],
    });
    const settings = felixSettings({ global });
    assert.deepEqual(
      [settings.logFilePath, settings.logSeveritySys, settings.failsafeInboundHostPorts],
      ["", "None", []],
    );
  });

  test("of an object are in milliseconds where they are spans of time", () => {
    assert.equal(
      felixSettings({ global: configuration("default", { reportingInterval: "1m30s" }) }).reportingInterval,
      90_000,
    );
  });
});

describe("the environment sets", () => {
  const read: { variable: string; value: string; setting: object }[] = [
    { variable: "FELIX_INTERFACEPREFIX", value: "cali,tap", setting: { interfacePrefix: ["cali", "tap"] } },
    { variable: "FELIX_InterfacePrefix", value: "eni", setting: { interfacePrefix: ["eni"] } },
    { variable: "felix_healthport", value: "9100", setting: { healthPort: 9100 } },
    { variable: "FELIX_HEALTHENABLED", value: "TRUE", setting: { healthEnabled: true } },
    { variable: "FELIX_HEALTHENABLED", value: "0", setting: { healthEnabled: false } },
    { variable: "FELIX_IPINIPENABLED", value: "yes", setting: { ipipEnabled: true } },
    { variable: "FELIX_IPINIPMTU", value: "1440", setting: { ipipMTU: 1440 } },
    {
      variable: "FELIX_DEFAULTENDPOINTTOHOSTACTION",
      value: "ACCEPT",
      setting: { defaultEndpointToHostAction: "Accept" },
    },
    { variable: "FELIX_LOGSEVERITYSCREEN", value: "debug", setting: { logSeverityScreen: "Debug" } },
    { variable: "FELIX_LOGSEVERITYSYS", value: "none", setting: { logSeveritySys: "None" } },
    { variable: "FELIX_LOGFILEPATH", value: "None", setting: { logFilePath: "" } },
    { variable: "FELIX_CHAININSERTMODE", value: "none", setting: { chainInsertMode: "Insert" } },
    { variable: "FELIX_NFTABLESMARKMASK", value: "0xff000000", setting: { nftablesMarkMask: 0xff000000 } },
    { variable: "FELIX_ROUTEREFRESHINTERVAL", value: "60", setting: { routeRefreshInterval: 60_000 } },
    { variable: "FELIX_ROUTEREFRESHINTERVAL", value: "1.5", setting: { routeRefreshInterval: 1500 } },
    { variable: "FELIX_ROUTEREFRESHINTERVAL", value: "2m", setting: { routeRefreshInterval: 120_000 } },
    { variable: "FELIX_REPORTINGINTERVALSECS", value: "0", setting: { reportingInterval: 0 } },
    { variable: "FELIX_IPTABLESLOCKPROBEINTERVALMILLIS", value: "70", setting: { iptablesLockProbeInterval: 70 } },
    {
      variable: "FELIX_KUBENODEPORTRANGES",
      value: "30000:32767, 80",
      setting: { kubeNodePortRanges: ["30000:32767", 80] },
    },
    { variable: "FELIX_NATPORTRANGE", value: "32768:65535", setting: { natPortRange: "32768:65535" } },
    { variable: "FELIX_FAILSAFEINBOUNDHOSTPORTS", value: "none", setting: { failsafeInboundHostPorts: [] } },
    {
      variable: "FELIX_FAILSAFEINBOUNDHOSTPORTS",
      value: "tcp:22, udp:10.0.0.0/8:68,179,tcp:fd00::/8:53",
      setting: {
        failsafeInboundHostPorts: [
          { protocol: "TCP", port: 22 },
          { protocol: "UDP", port: 68, net: "10.0.0.0/8" },
          { protocol: "TCP", port: 179 },
          { protocol: "TCP", port: 53, net: "fd00::/8" },
        ],
      },
    },
    { variable: "FELIX_VXLANMTU", value: "", setting: {} },
    { variable: "FELIX_DATASTORETYPE", value: "kubernetes", setting: {} },
    { variable: "FELIX_TYPHAK8SSERVICENAME", value: "none", setting: {} },
    { variable: "PATH", value: "/bin", setting: {} },
  ];
  for (const { variable, value, setting } of read) {
    test(`${JSON.stringify(setting)} by ${variable}="${value}"`, () => {
      assert.deepEqual(felixFromEnvironment({ [variable]: value }), { settings: setting, faults: [] });
    });
  }

  const refused: { variable: string; value: string; reason: string }[] = [
    { variable: "FELIX_VXLANMUT", value: "1", reason: 'unknown variable, did you mean "FELIX_VXLANMTU"?' },
    { variable: "FELIX_ZZZ", value: "1", reason: "unknown variable" },
    { variable: "FELIX_HEALTHPORT", value: "http", reason: 'expected a whole number, 0 to 65535, not the text "http"' },
    { variable: "FELIX_HEALTHPORT", value: "65536", reason: "65536 is not 0 to 65535" },
    { variable: "FELIX_BPFENABLED", value: "maybe", reason: 'expected true or false, not the text "maybe"' },
    { variable: "FELIX_ROUTESOURCE", value: "BGP", reason: '"BGP" is not CalicoIPAM or WorkloadIPs' },
    { variable: "FELIX_NATOUTGOINGADDRESS", value: "fd00::1", reason: '"fd00::1" is not IPv4' },
    {
      variable: "FELIX_FAILSAFEINBOUNDHOSTPORTS",
      value: "tcp:x",
      reason: '[0]: expected an object, not the text "tcp:x"',
    },
    {
      variable: "FELIX_NETLINKTIMEOUTSECS",
      value: "soon",
      reason: '"soon" is not a time span such as 90s, 1m30s or 500ms',
    },
  ];
  for (const { variable, value, reason } of refused) {
    test(`nothing by ${variable}="${value}", and says why`, () => {
      assert.deepEqual(felixFromEnvironment({ [variable]: value }), {
        settings: {},
        faults: [{ path: variable, reason }],
      });
    });
  }
});

testRefusals([
  [
    "FelixConfiguration",
    { metadata: { name: "default" }, spec: { logSeverityScren: "Info" } },
    'spec.logSeverityScren: unknown field, did you mean "logSeverityScreen"?',
  ],
  [
    "FelixConfiguration",
    {
      metadata: { name: "default" },
      spec: { defaultEndpointToHostAction: "Refuse", vxlanPort: 65536, reportingInterval: 30 },
    },
    'spec.defaultEndpointToHostAction: "Refuse" is not Drop, Accept, Return or Reject',
    "spec.vxlanPort: 65536 is not 0 to 65535",
    "spec.reportingInterval: expected a time span such as 90s, not the number 30",
  ],
  [
    "FelixConfiguration",
    { metadata: { name: "default" }, spec: { mtuIfacePattern: "(" } },
    'spec.mtuIfacePattern: "(" is not a regular expression',
  ],
  [
    "FelixConfiguration",
    {
      metadata: { name: "default" },
      spec: { natPortRange: "http", kubeNodePortRanges: Array.from({ length: 8 }, () => 1) },
    },
    'spec.natPortRange: "http" is not a port number or range',
  ],
  [
    "FelixConfiguration",
    { metadata: { name: "default" }, spec: { kubeNodePortRanges: Array.from({ length: 8 }, () => 1) } },
    "spec.kubeNodePortRanges: has more than 7 items",
  ],
  [
    "FelixConfiguration",
    {
      metadata: { name: "default" },
      spec: {
        failsafeInboundHostPorts: [
          { protocol: "ICMP", port: 1 },
          { net: "x", port: 0 },
        ],
      },
    },
    'spec.failsafeInboundHostPorts[0].protocol: "ICMP" is not TCP, UDP or SCTP',
    "spec.failsafeInboundHostPorts[1].port: 0 is not 1 to 65535",
    'spec.failsafeInboundHostPorts[1].net: "x" is not an IP address: expected four octets like 192.0.2.1',
  ],
  [
    "KubeControllersConfiguration",
    { metadata: { name: "default" }, spec: { controllers: { node: { leakGracePeriod: "1y" } } } },
    'spec.controllers.node.leakGracePeriod: "1y" is not a time span such as 90s, 1m30s or 500ms',
  ],
  [
    "ClusterInformation",
    { metadata: { name: "default" }, spec: { datastoreReady: "yes" } },
    'spec.datastoreReady: expected true or false, not the text "yes"',
  ],
]);
