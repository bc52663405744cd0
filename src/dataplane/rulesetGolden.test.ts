import { join } from "node:path";
import { describe, test } from "node:test";
import { assertGolden } from "../lib/golden.testing.ts";
import { worldOf } from "../policy/world.testing.ts";
import { printRuleset } from "./ruleset.testing.ts";
import { factsOf, nodeOf, type GivenFacts } from "./ruleWorld.testing.ts";

/** Kernel's rules as a person reads them: CARACAL_UPDATE_GOLDEN=1 writes them anew. */
const golden = (name: string): string => join(import.meta.dirname, "golden", `ruleset.${name}.txt`);

const object = (kind: string, name: string, spec: string, meta = ""): string =>
  `{apiVersion: projectcalico.org/v3, kind: ${kind}, metadata: {name: ${name}${meta}}, spec: ${spec}}`;

const PODS = [
  "namespace shop",
  "pod shop/web 10.244.1.1 2001:db8:1::1 app=web http:TCP:8080",
  "pod shop/db 10.244.2.1 2001:db8:2::1 app=db @node2",
];

const KUBERNETES_POLICY = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: db}}}, {ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]
      ports: [{port: http}, {port: 443}, {protocol: UDP, port: 5000, endPort: 5010}]
  egress: [{}]`;

const rows: { name: string; objects: string[]; facts: GivenFacts; family: 4 | 6; only?: RegExp }[] = [
  {
    name: "pod.v4",
    objects: [...PODS, KUBERNETES_POLICY],
    family: 4,
    facts: {
      tunnels: [{ kind: "ipip", family: 4, device: "tunl0", addresses: ["10.244.1.0"] }],
      hosts: ["192.0.2.1", "192.0.2.2", "2001:db8:f::1"],
      pools: [
        { cidr: "10.244.0.0/16", natOutgoing: true, disabled: false, isLoadBalancer: false },
        { cidr: "172.16.0.0/12", natOutgoing: true, disabled: true, isLoadBalancer: false },
        { cidr: "198.51.100.0/24", natOutgoing: false, disabled: false, isLoadBalancer: true },
      ],
      serviceCidrs: ["10.96.0.0/12", "fd00:96::/108"],
      settings: {
        defaultEndpointToHostAction: "Accept",
        failsafeInboundHostPorts: [
          { protocol: "TCP", port: 22 },
          { protocol: "TCP", port: 6443, net: "192.0.2.0/24" },
        ],
      },
    },
  },
  {
    name: "pod.v6",
    objects: [...PODS, KUBERNETES_POLICY],
    family: 6,
    facts: {
      tunnels: [
        { kind: "vxlan", family: 4, device: "vxlan.calico", addresses: ["10.244.1.0"] },
        { kind: "vxlan", family: 6, device: "vxlan-v6.calico", addresses: ["2001:db8:1::"] },
      ],
      hosts: ["192.0.2.1", "2001:db8:f::1"],
      vxlanHosts: ["192.0.2.1", "2001:db8:f::1"],
      settings: { failsafeInboundHostPorts: [{ protocol: "TCP", port: 6443, net: "192.0.2.0/24" }] },
    },
  },
  {
    name: "tiers",
    family: 4,
    only: /cali-(p|tw|fw|gi)/,
    objects: [
      ...PODS,
      object("Tier", "security", "{order: 10, defaultAction: Pass}"),
      object(
        "GlobalNetworkPolicy",
        "guard",
        `{tier: security, order: 1, selector: app == 'web', ingress: [
          {action: Deny, source: {nets: [192.0.2.7/32]}},
          {action: Log, protocol: ICMP, icmp: {type: 8}, metadata: {annotations: {why: "seen\\n twice"}}},
          {action: Pass, protocol: TCP, destination: {ports: [80, "8000:8100"], notPorts: [8001]}}]}`,
      ),
      object(
        "NetworkPolicy",
        "open",
        "{selector: app == 'web', ingress: [{action: Allow, notProtocol: UDP, source: {notSelector: app == 'db'}}]}",
        ", namespace: shop",
      ),
      object("GlobalNetworkPolicy", `a-policy-with-a-name-${"that-is-long-".repeat(4)}x`, "{selector: app == 'web'}"),
    ],
    facts: {
      nflog: true,
      settings: {
        logPrefix: "%t %k %n/%p",
        logActionRateLimit: "30/minute",
        disableConntrackInvalidCheck: true,
        allowIPIPPacketsFromWorkloads: true,
      },
      renderer: { filterAllowAction: "Return", filterDenyAction: "Reject" },
    },
  },
  {
    name: "hosts",
    family: 4,
    only: /h-|hfw-|hep|host-endpoint|cali-p[io]-|cali-(INPUT|OUTPUT|FORWARD|POSTROUTING)/,
    objects: [
      object("HostEndpoint", "eth0", "{node: node1, interfaceName: eth0}", ", labels: {host: eth0}"),
      object(
        "HostEndpoint",
        "all",
        "{node: node1, interfaceName: '*', profiles: [projectcalico-default-allow]}",
        ", labels: {host: all}",
      ),
      object(
        "GlobalNetworkPolicy",
        "plain",
        "{selector: host == 'eth0', types: [Ingress, Egress], ingress: [{action: Allow, protocol: TCP}], egress: [{action: Allow}]}",
      ),
      object(
        "GlobalNetworkPolicy",
        "forward",
        "{selector: host == 'all', applyOnForward: true, ingress: [{action: Deny, protocol: UDP}, {action: Allow}]}",
      ),
      object(
        "GlobalNetworkPolicy",
        "early",
        "{selector: host == 'eth0', preDNAT: true, applyOnForward: true, ingress: [{action: Deny, protocol: TCP, destination: {ports: [30080]}}]}",
      ),
      object(
        "GlobalNetworkPolicy",
        "untracked",
        `{selector: host == 'eth0', doNotTrack: true, applyOnForward: true, types: [Ingress, Egress],
          ingress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}], egress: [{action: Allow, protocol: UDP, source: {ports: [53]}}]}`,
      ),
    ],
    facts: { nflog: true, settings: { defaultEndpointToHostAction: "Return" } },
  },
];

describe("the rules of a node", () => {
  for (const { name, objects, facts, family, only } of rows) {
    test(name, () => {
      const { rulesets } = nodeOf(worldOf(objects), "node1", factsOf(facts));
      assertGolden(golden(name), printRuleset(rulesets[family], only));
    });
  }
});
