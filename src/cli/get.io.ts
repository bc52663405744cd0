/** `caracal get`: shows objects. */
import { ageOf } from "../datastore/apiTable.ts";
import type { Datastore } from "../datastore/datastore.ts";
import { notFound } from "../datastore/refusal.ts";
import type { KindInfo, Resource } from "../resources/kind.ts";
import { KIND, type KindId } from "../resources/registry.ts";
import { formatManifest } from "../resources/yaml.ts";
import type { Console } from "./apply.io.ts";
import { kindIn, singularName } from "./kindWords.ts";
import { DRAFT_CELL, DRAFT_KINDS, POLICY_KINDS } from "./policy.ts";
import { inForceCells } from "./policy.io.ts";
import { formatTable } from "./table.ts";
import type { AgentAccess } from "./target.ts";

export interface GetArguments {
  /** One, or several with commas between them. */
  readonly kind: string;
  readonly name?: string | undefined;
  readonly namespace?: string | undefined;
  readonly allNamespaces?: boolean | undefined;
  readonly output?: "wide" | "yaml" | "json" | "name" | undefined;
  /** Of labels, in query form. */
  readonly selector?: string | undefined;
}

interface Found {
  readonly kind: KindId;
  readonly items: Resource[];
}

/** Writes what it finds; throws `DatastoreError` (`not-found` for a name that is not there) and `UnknownKind`. */
export async function get(
  datastore: Pick<Datastore, "get" | "list">,
  args: GetArguments,
  console: Pick<Console, "output" | "errors">,
  agents: () => readonly AgentAccess[] = () => [],
): Promise<void> {
  const kinds = args.kind.split(",").map(kindIn);
  const found = await Promise.all(kinds.map((kind) => find(datastore, kind, args)));
  const objects = found.flatMap(({ items }) => items);
  switch (args.output) {
    case "name":
      for (const { kind, items } of found) {
        for (const { metadata } of items) console.output.write(`${singularName(kind)}/${metadata.name}\n`);
      }
      return;
    case "json":
      return void console.output.write(`${JSON.stringify(document(objects, args), undefined, 4)}\n`);
    case "yaml":
      return void console.output.write(formatManifest([document(objects, args)]));
    default:
      writeTables(found, args, console, await inForce(found, args, agents));
  }
}

async function find(datastore: Pick<Datastore, "get" | "list">, kind: KindId, args: GetArguments): Promise<Found> {
  const { name, namespace = "default", allNamespaces = false, selector } = args;
  const home = KIND[kind].namespaced ? namespace : undefined;
  if (name !== undefined) {
    const object = await datastore.get(kind, name, home);
    if (object === undefined) throw notFound(kind, name);
    return { kind, items: [object] };
  }
  const { items } = await datastore.list(kind, {
    namespace: allNamespaces ? undefined : home,
    labelSelector: selector,
  });
  const key = ({ metadata }: Resource): string => `${metadata.namespace ?? ""}/${metadata.name}`;
  return { kind, items: items.toSorted((left, right) => (key(left) < key(right) ? -1 : 1)) };
}

/** One object by itself where one was asked for, a list otherwise. */
function document(objects: readonly Resource[], { name }: GetArguments): object {
  const [only] = objects;
  if (name !== undefined && objects.length === 1 && only !== undefined) return only;
  return { apiVersion: "v1", items: objects, kind: "List", metadata: { resourceVersion: "" } };
}

/** By kind, on how many nodes each object is in force: of policies, in wide tables, where agents can be asked. */
async function inForce(
  found: readonly Found[],
  { output }: GetArguments,
  agents: () => readonly AgentAccess[],
): Promise<ReadonlyMap<KindId, readonly string[]>> {
  const asked = output === "wide" ? found.filter(({ kind, items }) => POLICY_KINDS.has(kind) && items.length > 0) : [];
  const nodes = asked.length === 0 ? [] : agents();
  if (nodes.length === 0) return new Map();
  const cells = asked.map(
    async ({ kind, items }) =>
      [kind, DRAFT_KINDS.has(kind) ? items.map(() => DRAFT_CELL) : await inForceCells(nodes, kind, items)] as const,
  );
  return new Map(await Promise.all(cells));
}

function writeTables(
  found: readonly Found[],
  args: GetArguments,
  { output, errors }: Pick<Console, "output" | "errors">,
  cells: ReadonlyMap<KindId, readonly string[]>,
): void {
  const filled = found.filter(({ items }) => items.length > 0);
  if (filled.length === 0) {
    const namespaced = found.some(({ kind }) => KIND[kind].namespaced) && args.allNamespaces !== true;
    errors.write(
      namespaced ? `No resources found in ${args.namespace ?? "default"} namespace.\n` : "No resources found\n",
    );
  }
  filled.forEach(({ kind, items }, position) => {
    const info: KindInfo = KIND[kind];
    const columns = info.columns.filter((column) => args.output === "wide" || column.wide !== true);
    const withNamespace = args.allNamespaces === true && info.namespaced;
    // Tables of several kinds say of which kind each name is.
    const prefix = found.length > 1 ? `${singularName(kind)}/` : "";
    const inForceOf = cells.get(kind);
    const rows = items.map((item, at) => [
      ...(withNamespace ? [item.metadata.namespace ?? ""] : []),
      ...columns.map((column, index) => (index === 0 ? prefix : "") + column.text(item)),
      ageOf(item.metadata.creationTimestamp, Date.now()),
      ...(inForceOf === undefined ? [] : [inForceOf[at] ?? ""]),
    ]);
    const headings = [
      ...(withNamespace ? ["NAMESPACE"] : []),
      ...columns.map((column) => column.heading),
      "AGE",
      ...(inForceOf === undefined ? [] : ["IN FORCE"]),
    ];
    output.write((position === 0 ? "" : "\n") + formatTable(headings, rows));
  });
}
