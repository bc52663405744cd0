import { describe, test } from "node:test";
import { CLUSTER_POLICIES } from "./clusterPolicy.testing.ts";
import { KUBERNETES_PLACES, SENTENCES } from "./kubernetesPolicy.testing.ts";
import { expectFlows, worldOf } from "./world.testing.ts";

describe("a Kubernetes NetworkPolicy", () => {
  for (const { name, objects = [], flows } of SENTENCES) {
    test(name, () => expectFlows(worldOf([...KUBERNETES_PLACES, ...objects]), flows));
  }
});

describe("a ClusterNetworkPolicy", () => {
  for (const { name, objects = [], flows } of CLUSTER_POLICIES) {
    test(name, () => expectFlows(worldOf([...KUBERNETES_PLACES, ...objects]), flows));
  }
});
