import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { KIND, kindNamed, kindOf, KINDS, kindWords, type KindId } from "./registry.ts";
import { InvalidResource } from "./schema.ts";
import { parseManifest } from "./yaml.ts";

describe("a kind is found", () => {
  const named: [string, KindId | undefined][] = [
    ["pods", "Pod"],
    ["Pod", "Pod"],
    ["po", "Pod"],
    ["no", "Node"],
    ["ns", "Namespace"],
    ["svc", "Service"],
    ["sa", "ServiceAccount"],
    ["eps", "EndpointSlice"],
    ["endpointslices.discovery.k8s.io", "EndpointSlice"],
    ["networkpolicy", "NetworkPolicy"],
    ["networkpolicies", "NetworkPolicy"],
    ["netpol", "NetworkPolicy"],
    ["networkpolicies.networking.k8s.io", "NetworkPolicy"],
    ["networkpolicies.projectcalico.org", "CalicoNetworkPolicy"],
    ["networkpolicies.v3.projectcalico.org", "CalicoNetworkPolicy"],
    ["np", "CalicoNetworkPolicy"],
    ["pol", "CalicoNetworkPolicy"],
    ["cnp", "ClusterNetworkPolicy"],
    ["IPPools", "IPPool"],
    ["pool", "IPPool"],
    ["ipp", "IPPool"],
    ["ipamconfig", "IPAMConfiguration"],
    ["bgpconfig", "BGPConfiguration"],
    ["bgpp", "BGPPeer"],
    ["bp", "BGPPeer"],
    ["bf", "BGPFilter"],
    ["nodestatus", "CalicoNodeStatus"],
    ["gnp", "GlobalNetworkPolicy"],
    ["sgnp", "StagedGlobalNetworkPolicy"],
    ["snp", "StagedNetworkPolicy"],
    ["sknp", "StagedKubernetesNetworkPolicy"],
    ["gnetset", "GlobalNetworkSet"],
    ["netsets", "NetworkSet"],
    ["hep", "HostEndpoint"],
    ["pro", "Profile"],
    ["wep", "WorkloadEndpoint"],
    ["felixconfig", "FelixConfiguration"],
    ["kubecontrollersconfig", "KubeControllersConfiguration"],
    ["clusterinfo", "ClusterInformation"],
    ["blockaffinity", "BlockAffinity"],
    ["deployments", undefined],
    ["", undefined],
    ["constructor", undefined],
  ];
  for (const [word, id] of named) test(`${id ?? "not"} by "${word}"`, () => assert.equal(kindNamed(word), id));

  const objects: [string, string, KindId | undefined][] = [
    ["v1", "Pod", "Pod"],
    ["networking.k8s.io/v1", "NetworkPolicy", "NetworkPolicy"],
    ["projectcalico.org/v3", "NetworkPolicy", "CalicoNetworkPolicy"],
    ["crd.projectcalico.org/v1", "NetworkPolicy", "CalicoNetworkPolicy"],
    ["crd.projectcalico.org/v1", "IPAMConfig", "IPAMConfiguration"],
    ["crd.projectcalico.org/v1", "Pod", undefined],
    ["policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "ClusterNetworkPolicy"],
    ["apps/v1", "Deployment", undefined],
    ["v3", "IPPool", undefined],
  ];
  for (const [apiVersion, kind, id] of objects) {
    test(`${id ?? "not"} by ${apiVersion} ${kind}`, () => assert.equal(kindOf(apiVersion, kind), id));
  }
});

test("no two kinds share a REST path or a short name, and each is under its own id", () => {
  const paths = KINDS.map(({ group, plural }) => `${group}/${plural}`);
  assert.equal(new Set(paths).size, paths.length);
  const short = KINDS.flatMap(({ shortNames }) => shortNames);
  assert.equal(new Set(short).size, short.length);
  for (const [id, info] of Object.entries(KIND)) assert.equal(info.id, id);
  assert.ok(kindWords().every((word) => kindNamed(word) !== undefined));
});

/** The objects of the golden manifests, each as a list of its parts that can be changed. */
const golden = readdirSync(join(import.meta.dirname, "golden"))
  .filter((name) => name.endsWith(".yaml"))
  .flatMap((name) => parseManifest(readFileSync(join(import.meta.dirname, "golden", name), "utf8"), name))
  .map(({ object }) => object);

const junk = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    "",
    0,
    -1,
    1.5,
    2 ** 60,
    true,
    [],
    {},
    [null],
    "10.0.0.0/8",
    "fd00::/8",
    "all()",
    "a",
    "Always",
    "none",
  ),
  fc.jsonValue({ maxDepth: 2 }),
);

/** Puts `value` somewhere in the tree: `path` picks a way down it. */
function changed(tree: unknown, path: readonly number[], value: unknown): unknown {
  const [step = 0, ...rest] = path;
  if (typeof tree !== "object" || tree === null || path.length === 0) return value;
  const keys = Object.keys(tree);
  const key = keys[step % Math.max(1, keys.length)];
  if (key === undefined) return value;
  const part: unknown = Reflect.get(tree, key);
  const next = changed(part, rest, value);
  return Array.isArray(tree) ? tree.with(Number(key), next) : { ...tree, [key]: next };
}

test("any change to an object is refused with faults, or accepted and then stable", () => {
  let accepted = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(...golden),
      fc.array(fc.nat(20), { minLength: 1, maxLength: 6 }),
      junk,
      (object, path, value) => {
        const id = kindOf(String(object["apiVersion"]), String(object["kind"]))!;
        const input = changed(object, path, value);
        let once: unknown;
        try {
          once = KIND[id].parse(input);
        } catch (thrown) {
          assert.ok(thrown instanceof InvalidResource, String(thrown));
          assert.ok(thrown.faults.length > 0);
          return;
        }
        accepted += 1;
        assert.deepEqual(KIND[id].parse(structuredClone(once)), once);
      },
    ),
    { numRuns: 3000 },
  );
  assert.ok(accepted > 100, `only ${accepted} were accepted`);
});
