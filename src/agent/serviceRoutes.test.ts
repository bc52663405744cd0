import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatPrefix } from "../ip/prefix.ts";
import { configuration, serviceOf, sliceOf } from "./bgp.testing.ts";
import { announcesServices, serviceRoutes, type ServiceInput } from "./serviceRoutes.ts";

const RANGES = {
  serviceClusterIPs: [{ cidr: "10.96.0.0/12" }, { cidr: "fd00:96::/112" }],
  serviceExternalIPs: [{ cidr: "203.0.113.0/25" }, { cidr: "203.0.113.200/32" }],
  serviceLoadBalancerIPs: [{ cidr: "198.51.100.0/24" }, { cidr: "198.18.0.7/32" }],
};
const AGGREGATES = ["10.96.0.0/12", "fd00:96::/112", "203.0.113.0/25", "198.51.100.0/24"];
const here = { addresses: ["10.244.1.1"], nodeName: "node1" };
const elsewhere = { addresses: ["10.244.2.1"], nodeName: "node2" };
const web = { type: "LoadBalancer", clusterIP: "10.96.0.7", clusterIPs: ["10.96.0.7"] };

interface Case extends Partial<ServiceInput> {
  readonly name: string;
  readonly spec?: object;
  /** Beyond the ranges. */
  readonly announced: readonly string[];
  readonly withoutRanges?: boolean;
}

function announced({ spec = RANGES, ...input }: Partial<ServiceInput> & { spec?: object }): string[] {
  return serviceRoutes({
    nodeName: "node1",
    labels: {},
    configuration: configuration("default", spec).spec,
    services: [],
    slices: [],
    ...input,
  }).announced.map(formatPrefix);
}

describe("services are announced", () => {
  const local = { ...web, externalTrafficPolicy: "Local", externalIPs: ["203.0.113.9", "8.8.8.8"] };
  const cases: Case[] = [
    { name: "as ranges, by every node", announced: [] },
    {
      name: "as ranges alone, where any node takes their traffic",
      services: [
        serviceOf("web", { ...web, externalTrafficPolicy: "Cluster", externalIPs: ["203.0.113.9"] }, ["198.51.100.7"]),
      ],
      slices: [sliceOf("web", [here])],
      announced: [],
    },
    {
      name: "one by one, within the ranges, by nodes with an endpoint where traffic is to stay on the node",
      services: [serviceOf("web", local, ["198.51.100.7", "192.0.2.250"])],
      slices: [sliceOf("web", [elsewhere, here])],
      announced: ["10.96.0.7/32", "203.0.113.9/32", "198.51.100.7/32"],
    },
    {
      name: "not by a node without an endpoint",
      services: [serviceOf("web", local, ["198.51.100.7"])],
      slices: [sliceOf("web", [elsewhere])],
      announced: [],
    },
    {
      name: "not by a node whose endpoints are not ready",
      services: [serviceOf("web", local, ["198.51.100.7"])],
      slices: [sliceOf("web", [{ ...here, conditions: { ready: false } }])],
      announced: [],
    },
    {
      name: "where an endpoint is ready, or does not say",
      services: [serviceOf("web", local)],
      slices: [sliceOf("web", [{ ...here, conditions: { ready: true } }]), sliceOf("other", [here])],
      announced: ["10.96.0.7/32", "203.0.113.9/32"],
    },
    {
      name: "in the families that the endpoints have",
      services: [serviceOf("web", { ...local, clusterIPs: ["10.96.0.7", "fd00:96::7"], externalIPs: [] })],
      slices: [sliceOf("web", [{ addresses: ["fd10::1"], nodeName: "node1" }], "IPv6")],
      announced: ["fd00:96::7/128"],
    },
    {
      name: "not without an address of their own",
      services: [serviceOf("web", { ...local, clusterIP: "None", clusterIPs: ["None"] })],
      slices: [sliceOf("web", [here])],
      announced: [],
    },
    {
      name: "one by one where a range is a single address, also by nodes without an endpoint",
      services: [
        serviceOf("web", { ...web, externalTrafficPolicy: "Cluster", externalIPs: ["203.0.113.200"] }, ["198.18.0.7"]),
      ],
      announced: ["203.0.113.200/32", "198.18.0.7/32"],
    },
    {
      name: "one by one without aggregation",
      spec: { ...RANGES, serviceLoadBalancerAggregation: "Disabled" },
      services: [serviceOf("web", { ...web, externalTrafficPolicy: "Cluster" }, ["198.51.100.7", "192.0.2.250"])],
      announced: ["198.51.100.7/32"],
    },
    {
      name: "not by a node that is excluded",
      labels: { "node.kubernetes.io/exclude-from-external-load-balancers": "true" },
      services: [serviceOf("web", local, ["198.51.100.7"])],
      slices: [sliceOf("web", [here])],
      announced: [],
      withoutRanges: true,
    },
  ];
  for (const { name, announced: expected, withoutRanges = false, ...input } of cases) {
    test(name, () => {
      const isAggregated = input.spec === undefined;
      const ranges = AGGREGATES.filter((text) => isAggregated || !text.startsWith("198.51.100"));
      assert.deepEqual(announced(input), [...(withoutRanges ? [] : ranges), ...expected]);
    });
  }

  test("only where a range is configured", () => {
    assert.equal(announcesServices(undefined), false);
    assert.equal(announcesServices(configuration("default", {}).spec), false);
    assert.equal(announcesServices(configuration("default", RANGES).spec), true);
    assert.deepEqual(
      announced({ spec: {}, services: [serviceOf("web", local)], slices: [sliceOf("web", [here])] }),
      [],
    );
  });

  test("an excluded node knows the ranges all the same: they stay out of its kernel, and a reflector passes them on", () => {
    const { ranges, external } = serviceRoutes({
      nodeName: "node1",
      labels: { "node.kubernetes.io/exclude-from-external-load-balancers": "true" },
      configuration: configuration("default", RANGES).spec,
      services: [],
      slices: [],
    });
    assert.equal(ranges.length, 6);
    assert.deepEqual(external.map(formatPrefix), [
      "203.0.113.0/25",
      "203.0.113.200/32",
      "198.51.100.0/24",
      "198.18.0.7/32",
    ]);
  });
});
