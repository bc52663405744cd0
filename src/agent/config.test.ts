import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { ConfigError, readConfig, type AddressChoice, type AgentConfig, type DefaultPool } from "./config.ts";

type Environment = Readonly<Record<string, string>>;

const read = (environment: Environment = {}) => readConfig(environment, "Host7.example.org");

test("an empty environment is calico/node's defaults, in a pod of the cluster", () => {
  const config = read();
  assert.deepEqual(
    { ...config, address: undefined, defaultPools: config.defaultPools.map(printPool) },
    {
      nodeName: "host7.example.org",
      runDirectory: "/var/run/calico",
      libDirectory: "/var/lib/calico",
      datastore: { kind: "in-cluster" },
      address: undefined,
      networkingBackend: "bird",
      defaultPools: ["default-ipv4-ippool 192.168.0.0/16 IPIP Never VXLAN Never NAT true nodes all()"],
      autodetectIntervalMs: 60_000,
      pathCheckIntervalMs: 60_000,
      cutForbiddenFlows: false,
      ownsTables: true,
      secretNamespace: "kube-system",
      felix: {},
    },
  );
  assert.equal(printChoice(config.address[4]), "first-found");
  assert.equal(printChoice(config.address[6]), "none");
});

function printPool(pool: DefaultPool): string {
  const { name, cidr, blockSize, ipipMode, vxlanMode, natOutgoing, nodeSelector, disableBGPExport } = pool;
  return [
    `${name} ${formatPrefix(cidr)}${blockSize === undefined ? "" : ` blocks /${blockSize}`}`,
    `IPIP ${ipipMode} VXLAN ${vxlanMode} NAT ${natOutgoing} nodes ${nodeSelector}`,
    ...(disableBGPExport ? ["not exported"] : []),
  ].join(" ");
}

function printChoice(choice: AddressChoice): string {
  if (choice.kind === "none") return "none";
  if (choice.kind === "detect") return choice.method.kind;
  return "length" in choice.address ? formatPrefix(choice.address) : formatAddress(choice.address);
}

describe("a variable", () => {
  const rows: { environment: Environment; reads: (config: ReturnType<typeof read>) => unknown; value: unknown }[] = [
    { environment: { NODENAME: "Node1" }, reads: ({ nodeName }) => nodeName, value: "node1" },
    { environment: { NODENAME: "" }, reads: ({ nodeName }) => nodeName, value: "host7.example.org" },
    { environment: { CARACAL_RUN_DIR: "/run/x" }, reads: ({ runDirectory }) => runDirectory, value: "/run/x" },
    { environment: { CARACAL_LIB_DIR: "/lib/x" }, reads: ({ libDirectory }) => libDirectory, value: "/lib/x" },
    {
      environment: { KUBECONFIG: "/etc/kube" },
      reads: ({ datastore }) => datastore,
      value: { kind: "kubeconfig", path: "/etc/kube" },
    },
    {
      environment: { KUBECONFIG: "/etc/kube", CARACAL_API_SOCKET: "/run/api.sock", DATASTORE_TYPE: "kubernetes" },
      reads: ({ datastore }) => datastore,
      value: { kind: "socket", path: "/run/api.sock" },
    },
    { environment: { AS: "65001" }, reads: ({ asNumber }) => asNumber, value: 65001 },
    { environment: { AS: "1.10" }, reads: ({ asNumber }) => asNumber, value: 65546 },
    { environment: { AS: "4294967295" }, reads: ({ asNumber }) => asNumber, value: 4294967295 },
    { environment: { CALICO_NETWORKING_BACKEND: "none" }, reads: (config) => config.networkingBackend, value: "none" },
    {
      environment: { CALICO_NETWORKING_BACKEND: "vxlan" },
      reads: (config) => config.networkingBackend,
      value: "vxlan",
    },
    { environment: {}, reads: ({ secretNamespace }) => secretNamespace, value: "kube-system" },
    {
      environment: { NAMESPACE: "calico-system" },
      reads: ({ secretNamespace }) => secretNamespace,
      value: "calico-system",
    },
    { environment: { CALICO_ROUTER_ID: "hash" }, reads: ({ routerId }) => routerId, value: "hash" },
    { environment: { CALICO_ROUTER_ID: "192.0.2.1" }, reads: ({ routerId }) => routerId, value: "192.0.2.1" },
    { environment: { IP: "none" }, reads: ({ address }) => printChoice(address[4]), value: "none" },
    { environment: { IP: "autodetect" }, reads: ({ address }) => printChoice(address[4]), value: "first-found" },
    { environment: { IP: "192.0.2.7/26" }, reads: ({ address }) => printChoice(address[4]), value: "192.0.2.7/26" },
    { environment: { IP: "192.0.2.7" }, reads: ({ address }) => printChoice(address[4]), value: "192.0.2.7" },
    { environment: { IP6: "autodetect" }, reads: ({ address }) => printChoice(address[6]), value: "first-found" },
    {
      environment: { IP6: "2001:db8::7/64" },
      reads: ({ address }) => printChoice(address[6]),
      value: "2001:db8::7/64",
    },
    {
      environment: { IP_AUTODETECTION_METHOD: "can-reach=192.0.2.1" },
      reads: ({ address }) => printChoice(address[4]),
      value: "can-reach",
    },
    {
      environment: { IP6: "autodetect", IP6_AUTODETECTION_METHOD: "kubernetes-internal-ip" },
      reads: ({ address }) => printChoice(address[6]),
      value: "kubernetes-internal-ip",
    },
    // What is not used may be wrong.
    {
      environment: { IP: "none", IP_AUTODETECTION_METHOD: "nonsense" },
      reads: ({ address }) => printChoice(address[4]),
      value: "none",
    },
    ...(
      [
        ["0", 0],
        ["45", 45_000],
        ["500ms", 500],
        ["1.5s", 1500],
        ["1m30s", 90_000],
        ["2h", 7_200_000],
      ] as const
    ).map(([text, value]) => ({
      environment: { AUTODETECT_POLL_INTERVAL: text },
      reads: ({ autodetectIntervalMs }: ReturnType<typeof read>) => autodetectIntervalMs,
      value,
    })),
    ...(["60s", "0", "1m30s"] as const).map((text, index) => ({
      environment: index === 0 ? {} : { CARACAL_PATH_CHECK_INTERVAL: text },
      reads: ({ pathCheckIntervalMs }: AgentConfig) => pathCheckIntervalMs,
      value: [60_000, 0, 90_000][index],
    })),
    { environment: {}, reads: ({ flannel }) => flannel, value: undefined },
    {
      environment: {
        CALICO_NETWORKING_BACKEND: "none",
        CARACAL_FLANNEL: "true",
        FLANNELD_IFACE: "eth1",
        FLANNELD_NET_CONFIG_PATH: "/etc/net.json",
      },
      reads: ({ flannel }) => [flannel?.external.interfaces, flannel?.kubernetes?.configFile, flannel?.ipMasq],
      value: [["eth1"], "/etc/net.json", false],
    },
    {
      environment: { FELIX_INTERFACEPREFIX: "cali,tap", FELIX_X: "", OTHER: "1" },
      reads: ({ felix }) => felix,
      value: { FELIX_INTERFACEPREFIX: "cali,tap", FELIX_X: "" },
    },
  ];
  for (const { environment, reads, value } of rows) {
    test(JSON.stringify(environment), () => assert.deepEqual(reads(read(environment)), value));
  }
});

describe("the default pools", () => {
  const rows: { environment: Environment; pools: string[] }[] = [
    { environment: { NO_DEFAULT_POOLS: "true" }, pools: [] },
    { environment: { NO_DEFAULT_POOLS: "True" }, pools: [] },
    { environment: { CALICO_IPV4POOL_CIDR: "none" }, pools: [] },
    {
      environment: {
        CALICO_IPV4POOL_CIDR: "10.244.0.0/16",
        CALICO_IPV4POOL_BLOCK_SIZE: "24",
        CALICO_IPV4POOL_IPIP: "Always",
      },
      pools: ["default-ipv4-ippool 10.244.0.0/16 blocks /24 IPIP Always VXLAN Never NAT true nodes all()"],
    },
    {
      environment: { CALICO_IPV4POOL_CIDR: "10.244.7.9/16", CALICO_IPV4POOL_IPIP: "off" },
      pools: ["default-ipv4-ippool 10.244.0.0/16 IPIP Never VXLAN Never NAT true nodes all()"],
    },
    {
      environment: {
        CALICO_IPV4POOL_VXLAN: "cross-subnet",
        CALICO_IPV4POOL_NAT_OUTGOING: "false",
        CALICO_IPV4POOL_NODE_SELECTOR: "zone == 'a'",
        CALICO_IPV4POOL_DISABLE_BGP_EXPORT: "true",
      },
      pools: [
        "default-ipv4-ippool 192.168.0.0/16 IPIP Never VXLAN CrossSubnet NAT false nodes zone == 'a' not exported",
      ],
    },
    {
      environment: {
        CALICO_IPV4POOL_CIDR: "none",
        CALICO_IPV6POOL_CIDR: "fd10:244::/64",
        CALICO_IPV6POOL_BLOCK_SIZE: "120",
      },
      pools: ["default-ipv6-ippool fd10:244::/64 blocks /120 IPIP Never VXLAN Never NAT false nodes all()"],
    },
    {
      environment: {
        CALICO_IPV6POOL_CIDR: "fd10:244::/64",
        CALICO_IPV6POOL_VXLAN: "ALWAYS",
        CALICO_IPV6POOL_NAT_OUTGOING: "1",
      },
      pools: [
        "default-ipv4-ippool 192.168.0.0/16 IPIP Never VXLAN Never NAT true nodes all()",
        "default-ipv6-ippool fd10:244::/64 IPIP Never VXLAN Always NAT true nodes all()",
      ],
    },
  ];
  for (const { environment, pools } of rows) {
    test(JSON.stringify(environment), () => assert.deepEqual(read(environment).defaultPools.map(printPool), pools));
  }
});

describe("a bad value is refused, with the name of its variable", () => {
  const rows: { environment: Environment; reason: RegExp }[] = [
    { environment: { DATASTORE_TYPE: "etcdv3" }, reason: /DATASTORE_TYPE: "etcdv3" is not supported/ },
    { environment: { AS: "0" }, reason: /AS: "0" is not an AS number/ },
    { environment: { AS: "4294967296" }, reason: /AS: "4294967296" is not an AS number/ },
    { environment: { AS: "1.65536" }, reason: /AS: "1.65536" is not an AS number/ },
    { environment: { AS: "x" }, reason: /AS: "x" is not an AS number/ },
    {
      environment: { CALICO_NETWORKING_BACKEND: "ipip" },
      reason: /CALICO_NETWORKING_BACKEND: "ipip" is not bird, vxlan/,
    },
    {
      environment: { CARACAL_PATH_CHECK_INTERVAL: "often" },
      reason: /CARACAL_PATH_CHECK_INTERVAL: "often" is not a dur/,
    },
    { environment: { CARACAL_FLANNEL: "true" }, reason: /CARACAL_FLANNEL: it needs CALICO_NETWORKING_BACKEND "none"/ },
    {
      environment: { CARACAL_FLANNEL: "1", CALICO_NETWORKING_BACKEND: "none", FLANNELD_IPTABLES_RESYNC: "x" },
      reason: /CARACAL_FLANNEL: -iptables-resync: "x"/,
    },
    { environment: { CALICO_ROUTER_ID: "node1" }, reason: /CALICO_ROUTER_ID: "node1" is not an IP address/ },
    { environment: { CALICO_ROUTER_ID: "0.0.0.0" }, reason: /CALICO_ROUTER_ID: "0.0.0.0" is neither/ },
    { environment: { CALICO_ROUTER_ID: "2001:db8::1" }, reason: /CALICO_ROUTER_ID: "2001:db8::1" is neither/ },
    { environment: { IP: "first-found" }, reason: /IP: "first-found" is not an IP address/ },
    { environment: { IP: "192.0.2.7/33" }, reason: /IP: "192.0.2.7\/33" is not a CIDR/ },
    { environment: { IP: "2001:db8::7" }, reason: /IP: "2001:db8::7" is not an IPv4 address/ },
    { environment: { IP6: "192.0.2.7/26" }, reason: /IP6: "192.0.2.7\/26" is not an IPv6 address/ },
    { environment: { IP_AUTODETECTION_METHOD: "interface=(" }, reason: /IP_AUTODETECTION_METHOD: .*Invalid regular/ },
    {
      environment: { IP6: "autodetect", IP6_AUTODETECTION_METHOD: "x" },
      reason: /IP6_AUTODETECTION_METHOD: .*"x" is not/,
    },
    {
      environment: { AUTODETECT_POLL_INTERVAL: "1 minute" },
      reason: /AUTODETECT_POLL_INTERVAL: "1 minute" is not a duration/,
    },
    { environment: { AUTODETECT_POLL_INTERVAL: "-5s" }, reason: /AUTODETECT_POLL_INTERVAL/ },
    { environment: { NO_DEFAULT_POOLS: "maybe" }, reason: /NO_DEFAULT_POOLS: "maybe" is not true or false/ },
    {
      environment: { NO_DEFAULT_POOLS: "true", CALICO_IPV6POOL_CIDR: "fd00::/48" },
      reason: /NO_DEFAULT_POOLS: CALICO_IPV6POOL_CIDR names a pool all the same/,
    },
    { environment: { CALICO_IPV4POOL_CIDR: "10.0.0.0" }, reason: /CALICO_IPV4POOL_CIDR: "10.0.0.0" is not a CIDR/ },
    {
      environment: { CALICO_IPV4POOL_CIDR: "fd00::/48" },
      reason: /CALICO_IPV4POOL_CIDR: "fd00::\/48" is not an IPv4 CIDR/,
    },
    {
      environment: { CALICO_IPV6POOL_CIDR: "10.0.0.0/8" },
      reason: /CALICO_IPV6POOL_CIDR: "10.0.0.0\/8" is not an IPv6/,
    },
    {
      environment: { CALICO_IPV4POOL_BLOCK_SIZE: "33" },
      reason: /CALICO_IPV4POOL_BLOCK_SIZE: "33" is not a number from 20 to 32/,
    },
    { environment: { CALICO_IPV4POOL_BLOCK_SIZE: "2e1" }, reason: /CALICO_IPV4POOL_BLOCK_SIZE: "2e1"/ },
    {
      environment: { CALICO_IPV6POOL_CIDR: "fd00::/48", CALICO_IPV6POOL_BLOCK_SIZE: "64" },
      reason: /CALICO_IPV6POOL_BLOCK_SIZE: "64" is not a number from 116 to 128/,
    },
    { environment: { CALICO_IPV4POOL_IPIP: "yes" }, reason: /CALICO_IPV4POOL_IPIP: "yes" is not Always, CrossSubnet/ },
    {
      environment: { CALICO_IPV4POOL_IPIP: "Always", CALICO_IPV4POOL_VXLAN: "CrossSubnet" },
      reason: /CALICO_IPV4POOL_VXLAN: "CrossSubnet" excludes CALICO_IPV4POOL_IPIP "Always"/,
    },
    {
      environment: { CALICO_IPV4POOL_NAT_OUTGOING: "2" },
      reason: /CALICO_IPV4POOL_NAT_OUTGOING: "2" is not true or false/,
    },
    { environment: { CALICO_IPV4POOL_NODE_SELECTOR: "zone =" }, reason: /CALICO_IPV4POOL_NODE_SELECTOR: / },
    { environment: { CALICO_IPV4POOL_DISABLE_BGP_EXPORT: "x" }, reason: /CALICO_IPV4POOL_DISABLE_BGP_EXPORT: "x"/ },
  ];
  for (const { environment, reason } of rows) {
    test(JSON.stringify(environment), () => {
      assert.throws(
        () => read(environment),
        (error) => error instanceof ConfigError && reason.test(error.message),
      );
    });
  }
});
