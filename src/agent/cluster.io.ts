import type { Datastore } from "../datastore/datastore.ts";
import { mirror, type Mirror, type Timers } from "../datastore/mirror.ts";
import type { KindId, Kinds } from "../resources/registry.ts";
import { messageOf } from "../lib/errors.ts";

/** The kinds that every agent follows whole. */
const FOLLOWED = [
  "Node",
  "Namespace",
  "IPPool",
  "IPReservation",
  "IPAMConfiguration",
  "IPAMBlock",
  "BGPConfiguration",
  "BGPPeer",
  "FelixConfiguration",
  "ClusterInformation",
] as const satisfies readonly KindId[];
type Followed = (typeof FOLLOWED)[number];

/** This node's copy of what the datastore says: complete before it is used, and kept while the API server is away. */
export interface Cluster {
  readonly synced: Promise<void>;
  isSynced(): boolean;
  items<K extends Followed | "Pod">(kind: K): Kinds[K][];
  get<K extends Followed | "Pod">(kind: K, name: string, namespace?: string): Kinds[K] | undefined;
  /** Whether objects of the kind are followed here at all. */
  follows(kind: string): kind is Followed | "Pod";
  /** Resolves with whether the copy of the kind has reached the version in time. */
  waitFor(kind: Followed | "Pod", resourceVersion: string, timeoutMs: number): Promise<boolean>;
  /** When the datastore last failed, and how, while it does. */
  trouble(): string | undefined;
  stop(): void;
}

export interface ClusterHandlers {
  /** After the first full state: something of this kind (other than blocks) has changed. */
  readonly onChange: (kind: Followed | "Pod") => void;
  /** Every block, one by one, from the first list on: the allocator follows them all. */
  readonly onBlocks: (change: BlockChange) => void;
}

export type BlockChange =
  | { readonly type: "sync"; readonly blocks: readonly Kinds["IPAMBlock"][] }
  | { readonly type: "put" | "gone"; readonly block: Kinds["IPAMBlock"] };

const timers: Timers = {
  now: () => performance.now(),
  setTimeout,
  clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout),
};

/** Of pods only this node's own are followed. */
export function followCluster(datastore: Datastore, nodeName: string, handlers: ClusterHandlers): Cluster {
  let synced = false;
  let trouble: string | undefined;
  const options = { timers, random: Math.random };

  function follow<K extends Followed | "Pod">(kind: K, selection: { fieldSelector?: string } = {}): Mirror<Kinds[K]> {
    return mirror(
      datastore,
      kind,
      { ...options, ...selection },
      {
        onSync: (items) => {
          if (kind === "IPAMBlock")
            handlers.onBlocks({ type: "sync", blocks: [...items.values()] as Kinds["IPAMBlock"][] });
        },
        onChange: (change) => {
          trouble = undefined;
          if (kind === "IPAMBlock") {
            handlers.onBlocks({
              type: change.type === "deleted" ? "gone" : "put",
              block: change.object as Kinds["IPAMBlock"],
            });
          } else if (synced) handlers.onChange(kind);
        },
        onError: (error) => {
          trouble = `${kind}: ${messageOf(error)}`;
        },
      },
    );
  }

  const mirrors: { readonly [K in Followed | "Pod"]: Mirror<Kinds[K]> } = {
    Node: follow("Node"),
    Namespace: follow("Namespace"),
    IPPool: follow("IPPool"),
    IPReservation: follow("IPReservation"),
    IPAMConfiguration: follow("IPAMConfiguration"),
    IPAMBlock: follow("IPAMBlock"),
    BGPConfiguration: follow("BGPConfiguration"),
    BGPPeer: follow("BGPPeer"),
    FelixConfiguration: follow("FelixConfiguration"),
    ClusterInformation: follow("ClusterInformation"),
    Pod: follow("Pod", { fieldSelector: `spec.nodeName=${nodeName}` }),
  };
  const mirrorOf = <K extends Followed | "Pod">(kind: K): Mirror<Kinds[K]> => mirrors[kind];
  return {
    synced: Promise.all(Object.values(mirrors).map((one) => one.synced)).then(() => {
      synced = true;
      trouble = undefined;
    }),
    isSynced: () => synced,
    items: (kind) => [...mirrorOf(kind).items.values()],
    get: (kind, name, namespace) => mirrorOf(kind).get(name, namespace),
    follows: (kind): kind is Followed | "Pod" => kind === "Pod" || FOLLOWED.some((known) => known === kind),
    waitFor: (kind, resourceVersion, timeoutMs) => mirrorOf(kind).waitFor(resourceVersion, timeoutMs),
    trouble: () => trouble,
    stop() {
      for (const one of Object.values(mirrors)) one.stop();
    },
  };
}
