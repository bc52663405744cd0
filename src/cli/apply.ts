/** Applying a manifest: what is in it changes, what others have set stays. */
import { isFields, sameJson } from "../datastore/patch.ts";
import type { MergePatch } from "../datastore/datastore.ts";
import type { KindId } from "../resources/registry.ts";

type Fields = Record<string, unknown>;

/** Where `kubectl apply` and we keep the manifest that was applied last, so as to know what has been taken out of it. */
export const LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration";

/** What others need comes before them: kinds that are not here come between the two lists. */
const FIRST: readonly KindId[] = [
  "Namespace",
  "ServiceAccount",
  "ClusterInformation",
  "KubeControllersConfiguration",
  "FelixConfiguration",
  "IPAMConfiguration",
  "BGPConfiguration",
  "BGPFilter",
  "IPReservation",
  "IPPool",
  "BGPPeer",
  "Tier",
  "Node",
  "Profile",
  "NetworkSet",
  "GlobalNetworkSet",
  "HostEndpoint",
];
const LAST: readonly KindId[] = ["Service", "EndpointSlice", "WorkloadEndpoint", "Pod"];

/** Sorts by the place of the kind in this order, leaving objects of one kind in the order of the manifest. */
export function inApplyOrder<Item extends { readonly kind: KindId }>(items: readonly Item[]): Item[] {
  const rank = (kind: KindId): number => {
    const first = FIRST.indexOf(kind);
    if (first >= 0) return first;
    return FIRST.length + 1 + LAST.indexOf(kind);
  };
  return items.toSorted((left, right) => rank(left.kind) - rank(right.kind));
}

/** The manifest with its own text as the annotation; as kubectl writes it, so that either can go on from the other. */
export function withLastApplied(manifest: Fields): Fields {
  const metadata = isFields(manifest["metadata"]) ? manifest["metadata"] : {};
  const { [LAST_APPLIED]: _, ...annotations } = isFields(metadata["annotations"]) ? metadata["annotations"] : {};
  const text = `${sortedJson({ ...manifest, metadata: { ...metadata, annotations } })}\n`;
  return { ...manifest, metadata: { ...metadata, annotations: { ...annotations, [LAST_APPLIED]: text } } };
}

function sortedJson(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    isFields(part) ? Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => (a < b ? -1 : 1))) : part,
  );
}

/** The manifest that was applied last; nothing where the object was made in another way. */
export function lastAppliedOf(live: Fields): Fields {
  const metadata = isFields(live["metadata"]) ? live["metadata"] : {};
  const text = isFields(metadata["annotations"]) ? metadata["annotations"][LAST_APPLIED] : undefined;
  try {
    const parsed: unknown = typeof text === "string" ? JSON.parse(text) : undefined;
    return isFields(parsed) ? parsed : {};
  } catch {
    return {};
  }
}

/**
 * The merge patch that brings `live` to what `manifest` says: fields that it names get its values, fields that
 * `lastApplied` named and it no longer does are removed, all others are left alone. Lists are one value.
 */
export function threeWayPatch(lastApplied: Fields, manifest: Fields, live: Fields): MergePatch {
  return joined(removals(lastApplied, manifest, live), changes(manifest, live));
}

/** Both patches as one. A `null` in either is kept: it is what removes. */
function joined(first: Fields, second: Fields): Fields {
  const patch: Fields = { ...first };
  for (const [field, value] of Object.entries(second)) {
    const present = patch[field];
    patch[field] = isFields(present) && isFields(value) ? joined(present, value) : value;
  }
  return patch;
}

function changes(manifest: Fields, live: Fields): Fields {
  const patch: Fields = {};
  for (const [field, value] of Object.entries(manifest)) {
    const present = live[field];
    if (isFields(value) && isFields(present)) {
      const below = changes(value, present);
      if (Object.keys(below).length > 0) patch[field] = below;
    } else if (value === null || value === undefined) {
      if (present !== undefined) patch[field] = null;
    } else if (!sameJson(value, present)) patch[field] = value;
  }
  return patch;
}

function removals(lastApplied: Fields, manifest: Fields, live: Fields): Fields {
  const patch: Fields = {};
  for (const [field, value] of Object.entries(lastApplied)) {
    const present = live[field];
    if (present === undefined) continue;
    const wanted = manifest[field];
    if (wanted === undefined) patch[field] = null;
    else if (isFields(value) && isFields(wanted) && isFields(present)) {
      const below = removals(value, wanted, present);
      if (Object.keys(below).length > 0) patch[field] = below;
    }
  }
  return patch;
}
