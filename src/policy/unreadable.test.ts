import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { kindOf, KIND, type KindId } from "../resources/registry.ts";
import { InvalidResource } from "../resources/schema.ts";
import { readAsFarAsPossible } from "../resources/unreadable.ts";
import { parseManifest } from "../resources/yaml.ts";
import { isPolicyKind, updateOf, type PolicyObject } from "./convert.ts";
import { CLUSTER_POLICIES } from "./clusterPolicy.testing.ts";
import { EVALUATION, PLACES } from "./evaluation.testing.ts";
import { HOST_EVALUATION } from "./hostEvaluation.testing.ts";
import { KUBERNETES_PLACES, SENTENCES } from "./kubernetesPolicy.testing.ts";
import type { Update } from "./model.ts";
import { ask, line, SETTINGS } from "./world.testing.ts";
import { applyUpdate, emptyWorld, type World } from "./world.ts";

type Fields = Record<string, unknown>;

interface Case {
  readonly objects: readonly Fields[];
  /** `from to what`, of what is not allowed. */
  readonly denied: readonly string[];
}

/** What the tables say is denied; host endpoints are none of this, as a host is never shut for an object's sake. */
const CASES: readonly Case[] = [
  ...[...EVALUATION, ...HOST_EVALUATION]
    .filter(({ title }) => !/host|encapsulated/.test(title))
    .flatMap(({ table }) => table.map(({ objects, flows }) => ({ parts: [...PLACES, ...objects], flows }))),
  ...[...SENTENCES, ...CLUSTER_POLICIES].map(({ objects = [], flows }) => ({
    parts: [...KUBERNETES_PLACES, ...objects],
    flows,
  })),
]
  .map(({ parts, flows }) => ({
    objects: parts.flatMap((part) => {
      const manifest = part.includes("apiVersion") ? part : line(part);
      return parseManifest(manifest, "test").map(({ object }) => object as Fields);
    }),
    denied: flows
      .split("\n")
      .map((text) => text.trim())
      .filter((text) => text.endsWith(" no"))
      .map((text) => text.replace(/ -> /, " ").replace(/ no$/, "")),
  }))
  .filter(({ denied, objects }) => denied.length > 0 && objects.some(isPolicy));

function isPolicy(object: Fields): boolean {
  return String(object["kind"]).endsWith("Policy") && !String(object["kind"]).startsWith("Staged");
}

function idOf(object: Fields): KindId {
  const id = kindOf(String(object["apiVersion"]), String(object["kind"]));
  assert.ok(id !== undefined);
  return id;
}

function updateFrom(object: Fields, onFaults: () => void = () => undefined): Update {
  const id = idOf(object);
  assert.ok(isPolicyKind(id));
  const item = readAsFarAsPossible(id, structuredClone(object), onFaults);
  return updateOf({ id, item } as unknown as PolicyObject, { interfacePrefix: "cali" });
}

function worldOf(objects: readonly Fields[]): World {
  const world = emptyWorld(SETTINGS);
  for (const object of objects) applyUpdate(world, updateFrom(object));
  return world;
}

/** The paths of everything below, leaves and branches. */
function pathsOf(value: unknown): (readonly (string | number)[])[] {
  if (typeof value !== "object" || value === null) return [];
  const entries: [string | number, unknown][] = Array.isArray(value) ? [...value.entries()] : Object.entries(value);
  return entries.flatMap(([key, below]) => [[key], ...pathsOf(below).map((path) => [key, ...path])]);
}

function withGarbage(object: Fields, path: readonly (string | number)[], garbage: unknown): Fields {
  const copy = structuredClone(object);
  let at = copy["spec"] as Record<string | number, unknown>;
  for (const key of path.slice(0, -1)) at = at[key] as Record<string | number, unknown>;
  at[path.at(-1) ?? ""] = garbage;
  return copy;
}

const PROBLEM = /left out$|everything is denied in its place$/;

describe("an object that cannot be read whole", () => {
  test("lets nothing through that it denies as it was written, and says what is wrong", () => {
    let mended = 0;
    const garbage = fc.constantFrom<unknown>("§§ (", 99_999_999.5, { what: 1 }, ["§"], true, -7);
    fc.assert(
      fc.property(fc.constantFrom(...CASES), fc.nat(), fc.nat(), garbage, ({ objects, denied }, which, where, what) => {
        const policies = objects.filter(isPolicy);
        const chosen = policies[which % policies.length]!;
        const paths = pathsOf(chosen["spec"]);
        // A policy's tier may stand anywhere, and nobody knows which it was.
        const path = paths[where % paths.length]!;
        if (path[0] === "tier") return;
        const broken = withGarbage(chosen, path, what);
        try {
          KIND[idOf(broken)].parse(structuredClone(broken), { keepUnknown: true });
          return;
        } catch (error) {
          assert.ok(error instanceof InvalidResource);
        }
        mended += 1;
        const update = updateFrom(broken);
        assert.ok(update.kind === "policy" && update.value !== undefined);
        assert.ok(
          update.value.problems.some((problem) => PROBLEM.test(problem)),
          JSON.stringify(update.value.problems),
        );
        const world = worldOf(objects.map((object) => (object === chosen ? broken : object)));
        for (const flow of denied) {
          const [from = "", to = "", packet = ""] = flow.split(" ");
          assert.equal(ask(world, from, to, packet).allowed, false, `${flow}, with ${JSON.stringify(broken)}`);
        }
      }),
      { numRuns: 400 },
    );
    assert.ok(mended > 100, `${mended} objects could not be read`);
  });

  const rule = (spec: string): Fields => parseManifest(spec, "test")[0]!.object as Fields;
  const GLOBAL = (spec: string): Fields =>
    rule(`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: ${spec}}`);
  const SET = (spec: string): Fields =>
    rule(`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: s}, spec: ${spec}}`);

  test("goes on with those of its rules that can be read", () => {
    const update = updateFrom(
      GLOBAL(
        "{selector: app == 'x', ingress: [{action: Allow, protocol: TCP}, {action: Allow, protocol: 999}, {action: Pass, icmp: 3}]}",
      ),
    );
    assert.ok(update.kind === "policy");
    assert.deepEqual(
      update.value?.ingress.map(({ action, protocol, origin }) => [action, protocol, origin]),
      [
        ["allow", 6, "ingress[0]"],
        ["deny", undefined, "ingress[2]"],
      ],
    );
    assert.equal(update.value?.problems.length, 2);
    assert.match(update.value?.problems[0] ?? "", /^ingress\[1\]: spec\.ingress\[1\]\.protocol: .*; it is left out$/);
  });

  test("a policy whose selector cannot be read denies all workloads, and no host", () => {
    const update = updateFrom(GLOBAL("{selector: 'app = x', ingress: [{action: Allow}]}"));
    assert.ok(update.kind === "policy");
    assert.deepEqual(update.value?.selector, { op: "has", key: "projectcalico.org/orchestrator" });
    assert.deepEqual(
      [...(update.value?.ingress ?? []), ...(update.value?.egress ?? [])].map(({ action }) => action),
      ["deny", "deny"],
    );
  });

  test("of a set of networks those count that can be read", () => {
    const update = updateFrom(SET("{nets: [10.0.0.0/8, 10.0.0.0/99, 192.0.2.1]}"));
    assert.ok(update.kind === "endpoint");
    assert.deepEqual(update.value?.nets, ["10.0.0.0/8", "192.0.2.1"]);
    assert.match(update.value?.problems?.[0] ?? "", /spec\.nets\[1\]: .*; it is left out$/);
  });

  test("of a host endpoint too: without its ports and profiles it lets less through", () => {
    const update = updateFrom(
      rule(
        "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: n1, interfaceName: eth0, profiles: [A B], ports: [{name: x}]}}",
      ),
    );
    assert.ok(update.kind === "endpoint");
    assert.deepEqual([update.value?.interfaceName, update.value?.profiles, update.value?.ports], ["eth0", [], []]);
    assert.match(update.value?.problems?.[0] ?? "", /spec\.profiles\[0\].*spec\.ports\[0\].*; it is left out$/);
  });

  test("of settings those count that can be read", () => {
    const felix = rule(
      "{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: {vxlanPort: 99999, logPrefix: mine}}",
    );
    const faults: string[] = [];
    const { spec } = readAsFarAsPossible("FelixConfiguration", felix, ({ message }) => faults.push(message));
    assert.deepEqual(spec, { logPrefix: "mine" });
    assert.match(faults.join(), /vxlanPort/);
  });

  test("is nothing at all where not even its name can be read, or its kind has no such way", () => {
    const nameless = { ...GLOBAL("{}"), metadata: { name: "A B" } };
    assert.throws(() => readAsFarAsPossible("GlobalNetworkPolicy", nameless, () => undefined), InvalidResource);
    const pool = rule("{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: {cidr: nowhere}}");
    assert.throws(() => readAsFarAsPossible("IPPool", pool, () => undefined), InvalidResource);
  });
});
