import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatPrefix } from "../ip/prefix.ts";
import { hostInterfaceName } from "../resources/names.ts";
import type { Kinds } from "../resources/registry.ts";
import { formatSelector } from "../resources/selector.ts";
import { isPolicyKind, removalOf } from "./convert.ts";
import { podToEndpoint } from "./convertEndpoint.ts";
import { convertClusterPolicy, simplifyPorts } from "./convertKubernetes.ts";
import { convertRules } from "./convertRule.ts";
import type { Entity, Policy, Rule } from "./model.ts";
import { objectsOf, updatesOf } from "./world.testing.ts";

function policyOf(manifest: string): Policy {
  const [update] = updatesOf(manifest);
  assert.ok(update?.kind === "policy" && update.value !== undefined);
  return update.value;
}

function sideText(side: string, { nets, notNets, selector, notSelector, ports, notPorts, service }: Entity): string[] {
  const portText = (port: NonNullable<Entity["ports"]>[number]): string =>
    "name" in port ? port.name : `${port.first}-${port.last}`;
  return [
    ...(nets === undefined ? [] : [`${side} in ${nets.map(formatPrefix).join(" ")}`]),
    ...(notNets === undefined ? [] : [`${side} not in ${notNets.map(formatPrefix).join(" ")}`]),
    ...(selector === undefined ? [] : [`${side} ${formatSelector(selector)}`]),
    ...(notSelector === undefined ? [] : [`${side} not ${formatSelector(notSelector)}`]),
    ...(ports === undefined ? [] : [`${side} ports ${ports.map(portText).join(" ")}`]),
    ...(notPorts === undefined ? [] : [`${side} not ports ${notPorts.map(portText).join(" ")}`]),
    ...(service === undefined ? [] : [`${side} service ${service}`]),
  ];
}

const ruleText = ({ origin, action, protocol, source, destination }: Rule): string =>
  [
    `${origin} ${action}`,
    ...(protocol === undefined ? [] : [`protocol ${protocol}`]),
    ...sideText("from", source),
    ...sideText("to", destination),
  ].join(", ");

const POD_SELECTOR = 'projectcalico.org/orchestrator == "k8s"';

describe("a Kubernetes NetworkPolicy becomes", () => {
  const policy = policyOf(`
    {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {
      podSelector: {matchLabels: {b: "2", a: "1"}, matchExpressions: [{key: c, operator: NotIn, values: [y, x]}]},
      policyTypes: [Ingress, Egress],
      ingress: [{
        from: [{podSelector: {}}, {namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}],
        ports: [{port: 80}, {port: 81}, {port: http}, {port: 90, endPort: 99}, {protocol: UDP}]}],
      egress: [{}]}}`);

  test("a policy of the tier default with order 1000", () => {
    assert.deepEqual(
      [policy.id, policy.tier, policy.order, policy.directions, policy.stage, policy.problems],
      ["knp/shop/p", "default", 1000, ["ingress", "egress"], "normal", []],
    );
  });
  test("whose selector means pods of its namespace", () => {
    assert.equal(
      formatSelector(policy.selector),
      `((${POD_SELECTOR} && a == "1" && b == "2" && c not in {"x", "y"}) && projectcalico.org/namespace == "shop")`,
    );
  });
  test("with a rule for every peer and protocol, neighbouring ports put together", () => {
    const from = [
      `from (projectcalico.org/namespace == "shop" && ${POD_SELECTOR})`,
      `from (has(projectcalico.org/namespace) && ${POD_SELECTOR})`,
      "from in 10.0.0.0/8, from not in 10.1.0.0/16",
    ];
    assert.deepEqual(policy.ingress.map(ruleText), [
      ...from.map((peer) => `ingress[0] allow, protocol 6, ${peer}, to ports http 80-81 90-99`),
      ...from.map((peer) => `ingress[0] allow, protocol 17, ${peer}`),
    ]);
    assert.deepEqual(policy.egress.map(ruleText), ["egress[0] allow"]);
  });
});

test("ports are put together in the fewest ranges", () => {
  const ports = [
    { first: 5, last: 9 },
    { name: "a" },
    { first: 1, last: 1 },
    { first: 10, last: 10 },
    { first: 6, last: 7 },
  ];
  assert.deepEqual(simplifyPorts(ports), [{ name: "a" }, { first: 1, last: 1 }, { first: 5, last: 10 }]);
});

describe("a ClusterNetworkPolicy becomes", () => {
  test("a policy of the tier, with the priority as order, for the directions that have rules", () => {
    const policy = policyOf(`
      {apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, spec: {
        tier: Baseline, priority: 7, subject: {namespaces: {matchLabels: {a: b}}},
        egress: [{name: why, action: Accept, to: [{networks: [10.0.0.0/8, 2001:db8::/32]}],
          protocols: [{udp: {}}, {tcp: {destinationPort: {number: 5}}}]}]}}`);
    assert.deepEqual(
      [policy.id, policy.tier, policy.order, policy.directions, formatSelector(policy.selector)],
      ["kcnp/c", "kube-baseline", 7, ["egress"], `(${POD_SELECTOR} && pcns.a == "b")`],
    );
    assert.deepEqual(policy.egress.map(ruleText), [
      "egress[0] allow, protocol 6, to in 10.0.0.0/8 2001:db8::/32, to ports 5-5",
      "egress[0] allow, protocol 17, to in 10.0.0.0/8 2001:db8::/32",
    ]);
    assert.deepEqual(policy.egress[0]?.annotations, { "policy.networking.k8s.io/rule-name": "why" });
  });
  test("a policy that denies what a rule it does not understand would deny or pass, and leaves out an Accept", () => {
    const [object] = objectsOf(`
      {apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, spec: {
        tier: Admin, priority: 7, subject: {namespaces: {}}, egress: [
          {action: Accept, to: [{namespaces: {}}]}, {action: Deny, to: [{namespaces: {}}]}, {action: Pass, to: [{namespaces: {}}]}]}}`);
    assert.ok(object?.id === "ClusterNetworkPolicy");
    const spec = structuredClone(object.item.spec);
    // As a newer API server hands it out.
    for (const rule of spec.egress ?? []) rule.to = [{ domainNames: ["example.com"] } as object];
    const updates = removalOf(
      { id: "ClusterNetworkPolicy", item: { ...object.item, spec } },
      { interfacePrefix: "cali" },
    );
    assert.deepEqual(updates, { kind: "policy", id: "kcnp/c" });
    const policy = convertClusterPolicy({ ...object.item, spec });
    assert.deepEqual(policy.egress.map(ruleText), ["egress[1] deny", "egress[2] deny"]);
    assert.deepEqual(policy.problems, [
      "egress[0]: a peer with domainNames is not known; it is left out",
      "egress[1]: a peer with domainNames is not known; everything is denied in its place",
      "egress[2]: a peer with domainNames is not known; everything is denied in its place",
    ]);
  });
});

describe("Calico's rules", () => {
  const bad: { name: string; rule: object; problem: RegExp }[] = [
    {
      name: "a field of a newer version",
      rule: { action: "Allow", ttl: 3 },
      problem: /ttl is a field that this version/,
    },
    {
      name: "a field of a newer version in a side",
      rule: { action: "Allow", destination: { domains: ["example.com"] } },
      problem: /destination.domains is a field/,
    },
    { name: "an action of a newer version", rule: { action: "Maybe" }, problem: /the action Maybe is not known/ },
    {
      name: "ports without a protocol",
      rule: { action: "Allow", source: { ports: [1] } },
      problem: /source.ports need/,
    },
    {
      name: "services on the wrong side",
      rule: { action: "Allow", destination: { services: { name: "s", namespace: "n" } } },
      problem: /destination.services may not stand in an ingress rule/,
    },
    {
      name: "services without a namespace in a global policy",
      rule: { action: "Allow", source: { services: { name: "s" } } },
      problem: /source.services.namespace is required/,
    },
    {
      name: "a selector that cannot be read",
      rule: { action: "Allow", source: { selector: "a =" } },
      problem: /at character 3/,
    },
  ];
  for (const { name, rule, problem } of bad) {
    test(`${name}: an Allow is left out, a Deny denies everything, both are reported`, () => {
      const convert = (action: string) =>
        convertRules([{ ...rule, ...(name.includes("action") ? {} : { action }) } as never], "ingress", undefined);
      const allow = convert("Allow");
      assert.match(allow.problems.join(), problem);
      assert.deepEqual(allow.rules.map(ruleText), name.includes("action") ? ["ingress[0] deny"] : []);
      const deny = convert("Deny");
      assert.match(deny.problems.join(), problem);
      assert.deepEqual(deny.rules.map(ruleText), ["ingress[0] deny"]);
    });
  }

  test("combine namespaces, service accounts and selectors into one, as Calico does", () => {
    const policy = policyOf(`
      {apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {
        selector: has(a), serviceAccountSelector: has(b), ingress: [
          {action: Allow, source: {selector: has(c), notSelector: has(d), serviceAccounts: {names: [y, x], selector: has(e)}}},
          {action: Allow, source: {namespaceSelector: "has(f) || all()"}}]}}`);
    assert.equal(formatSelector(policy.selector), '((has(a) && projectcalico.org/namespace == "shop") && has(pcsa.b))');
    assert.deepEqual(policy.ingress.map(ruleText), [
      'ingress[0] allow, from ((projectcalico.org/namespace == "shop" && ((has(pcsa.e) && ' +
        'projectcalico.org/serviceaccount in {"x", "y"}) && has(c))) && !has(d))',
      "ingress[1] allow, from (has(pcns.f) || has(projectcalico.org/namespace))",
    ]);
  });
});

describe("a pod becomes an endpoint", () => {
  const pod = (extra: string): Kinds["Pod"] => {
    const [object] = objectsOf(
      `{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: shop, labels: {app: web}, ${extra.split("|")[0] ?? ""}},
        spec: {nodeName: n-1, serviceAccountName: bob, ${extra.split("|")[1] ?? ""} containers: [{name: c, ports: [
          {name: http, containerPort: 8080}, {containerPort: 9}, {name: dns, containerPort: 53, protocol: UDP}]}]},
        status: {${extra.split("|")[2] ?? "podIPs: [{ip: 10.0.0.1}, {ip: '2001:db8::1'}]"}}}`,
    );
    assert.ok(object?.id === "Pod");
    return object.item;
  };
  const options = { interfacePrefix: "cali" };

  test("with its labels, those of the system, its profiles, addresses and named ports", () => {
    assert.deepEqual(podToEndpoint(pod(""), options), {
      id: "wep/shop/n--1-k8s-web--0-eth0",
      kind: "workload",
      namespace: "shop",
      name: "web-0",
      node: "n-1",
      interfaceName: hostInterfaceName("shop", "web-0", "cali"),
      labels: {
        app: "web",
        "projectcalico.org/namespace": "shop",
        "projectcalico.org/orchestrator": "k8s",
        "projectcalico.org/serviceaccount": "bob",
      },
      profiles: ["kns.shop", "ksa.shop.bob"],
      nets: ["10.0.0.1", "2001:db8::1"],
      ports: [
        { name: "http", protocol: 6, port: 8080 },
        { name: "dns", protocol: 17, port: 53 },
      ],
    });
  });
  test("whose interface is named on its own node only", () => {
    assert.match(podToEndpoint(pod(""), { ...options, node: "n-1" })?.interfaceName ?? "", /^cali[0-9a-f]{11}$/);
    assert.equal(podToEndpoint(pod(""), { ...options, node: "n-2" })?.interfaceName, undefined);
  });

  const without: { name: string; extra: string }[] = [
    { name: "on the host's network", extra: "|hostNetwork: true,|" },
    { name: "without an address", extra: "||phase: Pending" },
    { name: "that has succeeded", extra: "||phase: Succeeded, podIP: 10.0.0.1" },
    { name: "that has failed", extra: "||phase: Failed, podIP: 10.0.0.1" },
    {
      name: "whose addresses were taken while it ends",
      extra: "deletionTimestamp: x, annotations: {cni.projectcalico.org/podIP: ''}||podIP: 10.0.0.1",
    },
  ];
  for (const { name, extra } of without) {
    test(`but not one ${name}`, () => assert.equal(podToEndpoint(pod(extra), options), undefined));
  }

  const addresses: { name: string; extra: string; nets: string[] }[] = [
    { name: "its status", extra: "||podIP: 10.0.0.5", nets: ["10.0.0.5"] },
    {
      name: "the plugin's annotation",
      extra: "annotations: {cni.projectcalico.org/podIPs: '10.0.0.6/32,2001:db8::6/128'}||phase: Pending",
      nets: ["10.0.0.6", "2001:db8::6"],
    },
    {
      name: "the plugin's older annotation",
      extra: "annotations: {cni.projectcalico.org/podIP: 10.0.0.7/32}||phase: Pending",
      nets: ["10.0.0.7"],
    },
  ];
  for (const { name, extra, nets } of addresses) {
    test(`with the addresses of ${name}`, () => assert.deepEqual(podToEndpoint(pod(extra), options)?.nets, nets));
  }

  test("with floating addresses and allowed source prefixes from annotations, without what cannot be read", () => {
    const annotated = pod(
      `annotations: {cni.projectcalico.org/floatingIPs: '["198.51.100.9"]', cni.projectcalico.org/allowedSourcePrefixes: '["10.9.0.0/16"]'}||podIP: 10.0.0.5`,
    );
    assert.deepEqual(podToEndpoint(annotated, options)?.local, {
      floatingIPs: [{ internal: "10.0.0.5", external: "198.51.100.9" }],
      allowedSourcePrefixes: ["10.9.0.0/16"],
    });
    const broken = pod("annotations: {cni.projectcalico.org/floatingIPs: 'x'}||podIP: 10.0.0.5");
    assert.deepEqual(podToEndpoint(broken, options)?.local, { floatingIPs: [], allowedSourcePrefixes: [] });
    assert.match(podToEndpoint(broken, options)?.problems?.[0] ?? "", /floatingIPs.*it is left out/);
  });
});

describe("other objects", () => {
  const table: { name: string; manifest: string; value: object }[] = [
    {
      name: "a namespace: the profile of its pods",
      manifest: "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {a: b}}}",
      value: {
        kind: "profile",
        id: "kns.shop",
        value: {
          name: "kns.shop",
          labels: {
            "pcns.a": "b",
            "pcns.kubernetes.io/metadata.name": "shop",
            "pcns.projectcalico.org/name": "shop",
          },
          ingress: [{ action: "allow", source: {}, destination: {}, origin: "ingress[0]" }],
          egress: [{ action: "allow", source: {}, destination: {}, origin: "egress[0]" }],
          problems: [],
        },
      },
    },
    {
      name: "a service account: labels, and no rules",
      manifest: "{apiVersion: v1, kind: ServiceAccount, metadata: {name: bob, namespace: shop, labels: {a: b}}}",
      value: {
        kind: "profile",
        id: "ksa.shop.bob",
        value: {
          name: "ksa.shop.bob",
          labels: { "pcsa.a": "b", "pcsa.projectcalico.org/name": "bob" },
          ingress: [],
          egress: [],
          problems: [],
        },
      },
    },
    {
      name: "a network set: networks with the labels of their namespace",
      manifest:
        "{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: s, namespace: shop, labels: {a: b}}, spec: {nets: [10.0.0.0/8, 192.0.2.1, 192.0.2.1/32]}}",
      value: {
        kind: "endpoint",
        id: "netset/shop/s",
        value: {
          id: "netset/shop/s",
          kind: "set",
          namespace: "shop",
          name: "s",
          labels: { a: "b", "projectcalico.org/namespace": "shop" },
          profiles: ["kns.shop"],
          nets: ["10.0.0.0/8", "192.0.2.1"],
          ports: [],
        },
      },
    },
    {
      name: "a slice: addresses and ports of its service",
      manifest:
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv6, metadata: {name: s-1, namespace: shop, labels: {kubernetes.io/service-name: s}}, endpoints: [{addresses: ['2001:DB8::1']}], ports: [{port: 80}, {name: any}]}",
      value: {
        kind: "slice",
        id: "shop/s-1",
        value: { id: "shop/s-1", service: "shop/s", addresses: ["2001:db8::1"], ports: [{ protocol: 6, port: 80 }] },
      },
    },
    {
      name: "a slice of names: nothing",
      manifest:
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: FQDN, metadata: {name: s-2, namespace: shop, labels: {kubernetes.io/service-name: s}}, endpoints: [{addresses: [example.com]}]}",
      value: { kind: "slice", id: "shop/s-2" },
    },
    {
      name: "a host endpoint: expected addresses and named ports",
      manifest:
        "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: n, interfaceName: eth0, expectedIPs: [192.0.2.1], ports: [{name: ssh, protocol: TCP, port: 22}]}}",
      value: {
        kind: "endpoint",
        id: "hep/h",
        value: {
          id: "hep/h",
          kind: "host",
          name: "h",
          node: "n",
          interfaceName: "eth0",
          labels: {},
          profiles: [],
          nets: ["192.0.2.1"],
          ports: [{ name: "ssh", protocol: 6, port: 22 }],
        },
      },
    },
    {
      name: "a tier without an order: the last",
      manifest: "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t}, spec: {defaultAction: Pass}}",
      value: { kind: "tier", id: "t", value: { name: "t", order: Infinity, defaultAction: "pass" } },
    },
  ];
  for (const { name, manifest, value } of table) {
    test(name, () => assert.deepEqual(updatesOf(manifest), [value]));
  }

  test("kinds that mean nothing to policy are told apart", () => {
    assert.equal(isPolicyKind("Pod"), true);
    assert.equal(isPolicyKind("IPPool"), false);
  });
});
