import assert from "node:assert/strict";
import { waitApplied, waitDeleted, type Written } from "../cli/wait.io.ts";
import type { ApiDatastore } from "../datastore/client.io.ts";
import { openConntrack } from "../netlink/conntrack.io.ts";
import type { World } from "../policy/world.ts";
import { felixSettings } from "../resources/config.ts";
import { KIND, kindOf, type KindId, type Kinds } from "../resources/registry.ts";
import { memberNamespace } from "./files.ts";
import { startLab } from "./lab.testing.ts";
import { keyOf, type Manifest } from "./policyObjects.testing.ts";
import { policyWorld } from "./policyTruth.testing.ts";
import { labTarget } from "./target.io.ts";
import { labDown } from "./up.io.ts";

/** A lab in which policy is tested: what it holds is replaced as a whole, and read back as the evaluator's world. */
export interface PolicyLab {
  readonly name: string;
  readonly nodes: readonly string[];
  readonly datastore: ApiDatastore;
  /** Makes the objects those that are there, of all that it was ever given. Resolves when every node has that in force. */
  hold(objects: readonly Manifest[]): Promise<void>;
  /** Creates or changes the objects, and leaves all others. */
  put(objects: readonly Manifest[]): Promise<void>;
  /** @param waits until it is not in force anywhere */
  remove(objects: readonly Manifest[], waits?: boolean): Promise<void>;
  /** As `put`, without waiting. */
  write(object: Manifest): Promise<Written>;
  /** Resolves when what was written is in force, and whatever came before it. */
  inForce(written: readonly Written[]): Promise<void>;
  /** All that the datastore says about policy. */
  world(): Promise<World>;
  /** What the nodes know of connections: nothing of it is left. */
  forgetConnections(): void;
  close(): Promise<void>;
}

const WAIT_MS = 30_000;

interface Held {
  readonly manifest: Manifest;
  readonly text: string;
  readonly written: Written;
}

export async function policyLab(name: string, definition: object): Promise<PolicyLab> {
  await startLab(name, definition);
  const target = labTarget(name);
  const datastore = target.openDatastore() as ApiDatastore;
  const agents = target.agents();
  const held = new Map<string, Held>();

  async function write(manifest: Manifest): Promise<Written> {
    const kind = kindIdOf(manifest);
    const parsed = KIND[kind].parse(structuredClone(manifest)) as Kinds[KindId];
    const { name: objectName, namespace } = manifest.metadata;
    const present = await datastore.get(kind, objectName, namespace);
    const after =
      present === undefined
        ? await datastore.create(kind, parsed as never)
        : await datastore.update(kind, withVersion(parsed, present) as never);
    const { uid, resourceVersion } = (after as Kinds[KindId]).metadata;
    const written = { kindId: kind, name: objectName, namespace, uid, resourceVersion };
    held.set(keyOf(manifest), { manifest, text: JSON.stringify(manifest), written });
    return written;
  }

  async function put(objects: readonly Manifest[]): Promise<void> {
    const isNamespace = ({ kind }: Manifest): boolean => kind === "Namespace";
    const written = await Promise.all(objects.filter(isNamespace).map(write));
    // What is in a namespace comes after it; all else comes in any order.
    written.push(...(await Promise.all(objects.filter((object) => !isNamespace(object)).map(write))));
    await waitApplied(datastore, agents, written, WAIT_MS);
  }

  async function removeHeld(gone: readonly Held[], waits = true): Promise<void> {
    const isNamespace = ({ manifest }: Held): boolean => manifest.kind === "Namespace";
    const deleted = await Promise.all(gone.filter((each) => !isNamespace(each)).map(deleteOne));
    deleted.push(...(await Promise.all(gone.filter(isNamespace).map(deleteOne))));
    if (waits) await waitDeleted(datastore, agents, deleted, WAIT_MS);
  }
  async function deleteOne({ manifest, written }: Held): Promise<Written> {
    const { kindId, name: objectName, namespace } = written;
    const last = (await datastore.delete(kindId, objectName, namespace)) as Kinds[KindId] | undefined;
    held.delete(keyOf(manifest));
    return { ...written, resourceVersion: last?.metadata.resourceVersion };
  }

  return {
    name,
    nodes: agents.map(({ node }) => node),
    datastore,
    write,
    put,
    inForce: (written) => waitApplied(datastore, agents, written, WAIT_MS),
    remove: (objects, waits) =>
      removeHeld(
        objects.flatMap((object) => held.get(keyOf(object)) ?? []),
        waits,
      ),
    async hold(objects) {
      const wanted = new Map(objects.map((object) => [keyOf(object), object]));
      const gone = [...held.values()].filter(({ manifest }) => {
        const next = wanted.get(keyOf(manifest));
        return next === undefined ? !isPermanent(manifest) : isAnotherPod(manifest, next);
      });
      const pods = gone.filter(({ manifest }) => manifest.kind === "Pod");
      if (pods.length > 0) await removeHeld(pods);
      const changed = [...wanted].flatMap(([key, object]) =>
        held.get(key)?.text === JSON.stringify(object) ? [] : [object],
      );
      await Promise.all([put(changed), removeHeld(gone.filter(({ manifest }) => manifest.kind !== "Pod"))]);
    },
    async world() {
      const settings = felixSettings({ global: await datastore.get("FelixConfiguration", "default") });
      return { ...(await policyWorld(datastore)), settings };
    },
    forgetConnections() {
      for (const { node } of agents) {
        const conntrack = openConntrack(memberNamespace(name, node));
        try {
          conntrack.deleteWhere(() => true);
        } finally {
          conntrack.close();
        }
      }
    },
    async close() {
      datastore.close();
      await labDown(name, () => undefined);
    },
  };
}

function kindIdOf({ apiVersion, kind }: Manifest): KindId {
  const id = kindOf(apiVersion, kind);
  assert.ok(id !== undefined, `${apiVersion} ${kind} is known`);
  return id;
}

/** The manifest at the object's version. What the system has set on a pod stays. */
function withVersion(parsed: Kinds[KindId], present: Kinds[KindId]): object {
  const annotations = { ...present.metadata.annotations, ...parsed.metadata.annotations };
  const { resourceVersion, uid } = present.metadata;
  return {
    ...present,
    ...parsed,
    metadata: { ...present.metadata, labels: {}, ...parsed.metadata, annotations, resourceVersion, uid },
  };
}

/** The namespace that every cluster has cannot be deleted. */
const isPermanent = ({ kind, metadata }: Manifest): boolean => kind === "Namespace" && metadata.name === "default";

/** What a pod is cannot be changed: only its labels can. */
function isAnotherPod(before: Manifest, after: Manifest): boolean {
  return before.kind === "Pod" && JSON.stringify(before["spec"]) !== JSON.stringify(after["spec"]);
}
