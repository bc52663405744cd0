import type { Datastore } from "../datastore/datastore.ts";
import { mirror, type Following, type Mirror, type Timers } from "../datastore/mirror.ts";
import { relay, type Relay } from "../datastore/relay.ts";
import type { PolicyKindId } from "../policy/convert.ts";
import { podEndpointId } from "../policy/convertEndpoint.ts";
import type { KindId, Kinds } from "../resources/registry.ts";
import { messageOf } from "../lib/errors.ts";
import type { PolicyListener } from "./policyFeed.ts";

/** The kinds that every agent keeps whole. */
const KEPT = [
  "Node",
  "Namespace",
  "IPPool",
  "IPReservation",
  "IPAMConfiguration",
  "IPAMBlock",
  "BGPConfiguration",
  "BGPPeer",
  "BGPFilter",
  "Service",
  "EndpointSlice",
  "FelixConfiguration",
  "ClusterInformation",
] as const satisfies readonly KindId[];
type Kept = (typeof KEPT)[number];

/** The kinds that only policy looks at: handed on, and not kept, but for this node's own pods. */
const RELAYED = [
  ...(["Pod", "ServiceAccount", "NetworkPolicy", "CalicoNetworkPolicy", "GlobalNetworkPolicy", "Tier"] as const),
  ...(["Profile", "NetworkSet", "GlobalNetworkSet", "HostEndpoint", "ClusterNetworkPolicy"] as const),
  ...(["StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"] as const),
] as const satisfies readonly PolicyKindId[];
type Relayed = (typeof RELAYED)[number];

/** What Kubernetes and older releases of Calico may not have. */
const OPTIONAL: ReadonlySet<KindId> = new Set([
  "ClusterNetworkPolicy",
  "StagedNetworkPolicy",
  "StagedGlobalNetworkPolicy",
  "StagedKubernetesNetworkPolicy",
]);

export type Followed = Kept | Relayed;

/** This node's copy of what the datastore says: complete before it is used, and kept while the API server is away. */
export interface Cluster {
  readonly synced: Promise<void>;
  isSynced(): boolean;
  /** Of pods only this node's own. */
  items<K extends Kept | "Pod">(kind: K): Kinds[K][];
  get<K extends Kept | "Pod">(kind: K, name: string, namespace?: string): Kinds[K] | undefined;
  /** Whether objects of the kind are followed here at all. */
  follows(kind: string): kind is Followed;
  /** How many objects of the kind there are; of pods those that have addresses. */
  count(kind: Followed): number;
  /** How far the kind is followed; undefined before the first list. */
  versionOf(kind: Followed): string | undefined;
  /** Resolves with whether the kind has been followed up to the version in time. */
  waitFor(kind: Followed, resourceVersion: string, timeoutMs: number): Promise<boolean>;
  /** When the datastore last failed, and how, while it does. */
  trouble(): string | undefined;
  stop(): void;
}

export interface ClusterHandlers {
  /** After the first full state: something of this kind (other than blocks) has changed. */
  readonly onChange: (kind: Kept | "Pod") => void;
  /** Every block, one by one, from the first list on: the allocator follows them all. */
  readonly onBlocks: (change: BlockChange) => void;
  /** Every object that decides about policy, from the first list on. */
  readonly policy: PolicyListener;
}

export type BlockChange =
  | { readonly type: "sync"; readonly blocks: readonly Kinds["IPAMBlock"][] }
  | { readonly type: "put" | "gone"; readonly block: Kinds["IPAMBlock"] };

const timers: Timers = {
  now: () => performance.now(),
  setTimeout,
  clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout),
};

export function followCluster(datastore: Datastore, nodeName: string, handlers: ClusterHandlers): Cluster {
  const { policy } = handlers;
  let synced = false;
  let trouble: string | undefined;
  const options = { timers, random: Math.random };
  /** This node's pods, by the ids of their endpoints. */
  const ownPods = new Map<string, Kinds["Pod"]>();

  function failed(kind: KindId, error: unknown): void {
    trouble = `${kind}: ${messageOf(error)}`;
  }
  function changed(kind: Kept | "Pod"): void {
    trouble = undefined;
    if (synced) handlers.onChange(kind);
  }

  function keep<K extends Kept>(kind: K): Mirror<Kinds[K]> {
    return mirror(datastore, kind, options, {
      onSync(items) {
        if (kind === "IPAMBlock") {
          handlers.onBlocks({ type: "sync", blocks: [...items.values()] as Kinds["IPAMBlock"][] });
        }
        for (const item of items.values()) tellPolicy(kind, item, "put");
      },
      onChange({ type, object }) {
        const change = type === "deleted" ? "gone" : "put";
        tellPolicy(kind, object, change);
        if (kind === "IPAMBlock") {
          trouble = undefined;
          handlers.onBlocks({ type: change, block: object as Kinds["IPAMBlock"] });
        } else changed(kind);
      },
      onError: (error) => failed(kind, error),
    });
  }
  /** Of the kinds that are kept, these decide about policy as well. */
  function tellPolicy(kind: Kept, object: Kinds[Kept], change: "put" | "gone"): void {
    if (kind !== "Namespace" && kind !== "EndpointSlice") return;
    const item = object as Kinds["Namespace"] & Kinds["EndpointSlice"];
    if (change === "put") policy.put(kind, item);
    else policy.gone(kind, policy.idOf(kind, item));
  }

  function handOn<K extends Relayed>(kind: K): Relay {
    return relay(
      datastore,
      kind,
      { ...options, mayBeMissing: OPTIONAL.has(kind) },
      {
        put(object) {
          const id = policy.put(kind, object);
          if (!isOwnPod(object)) {
            trouble = undefined;
            return id;
          }
          const own = policy.idOf(kind, object);
          ownPods.set(own, object);
          changed("Pod");
          return own;
        },
        idOf: (object) => policy.idOf(kind, object),
        gone(id) {
          policy.gone(kind, id);
          if (kind === "Pod" && ownPods.delete(id)) changed("Pod");
        },
        onError: (error) => failed(kind, error),
      },
    );
  }
  const isOwnPod = (object: Kinds[Relayed]): object is Kinds["Pod"] =>
    object.kind === "Pod" && object.spec.nodeName === nodeName;

  const kept = Object.fromEntries(KEPT.map((kind) => [kind, keep(kind)])) as unknown as {
    readonly [K in Kept]: Mirror<Kinds[K]>;
  };
  const relayed = Object.fromEntries(RELAYED.map((kind) => [kind, handOn(kind)])) as Record<Relayed, Relay>;
  const all: Readonly<Record<Followed, Following>> = { ...kept, ...relayed };
  const isKept = (kind: Followed): kind is Kept => Object.hasOwn(kept, kind);
  const mirrorOf = <K extends Kept>(kind: K): Mirror<Kinds[K]> => kept[kind];
  return {
    synced: Promise.all(Object.values(all).map((one) => one.synced)).then(() => {
      synced = true;
      trouble = undefined;
    }),
    isSynced: () => synced,
    items<K extends Kept | "Pod">(kind: K): Kinds[K][] {
      if (kind === "Pod") return [...ownPods.values()] as Kinds[K][];
      return [...mirrorOf(kind as Kept).items.values()] as Kinds[K][];
    },
    get<K extends Kept | "Pod">(kind: K, name: string, namespace?: string): Kinds[K] | undefined {
      if (kind !== "Pod") return mirrorOf(kind as Kept).get(name, namespace) as Kinds[K] | undefined;
      return ownPods.get(podEndpointId(namespace, name, nodeName)) as Kinds[K] | undefined;
    },
    follows: (kind): kind is Followed => Object.hasOwn(all, kind),
    count: (kind) => (isKept(kind) ? kept[kind].items.size : relayed[kind].size),
    versionOf: (kind) => all[kind].resourceVersion,
    waitFor: (kind, resourceVersion, timeoutMs) => all[kind].waitFor(resourceVersion, timeoutMs),
    trouble: () => trouble,
    stop() {
      for (const one of Object.values(all)) one.stop();
    },
  };
}
