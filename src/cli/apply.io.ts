/** `caracal apply`: brings objects to what manifests say. */
import { isDatastoreError, type Datastore } from "../datastore/datastore.ts";
import { messageOf } from "../lib/errors.ts";
import { KIND, type KindId } from "../resources/registry.ts";
import { inApplyOrder, lastAppliedOf, threeWayPatch, withLastApplied } from "./apply.ts";
import { singularName } from "./kindWords.ts";
import { check, type CheckedObject } from "./manifests.ts";
import { readManifests } from "./manifests.io.ts";

export interface ApplyArguments {
  /** Files, directories, or `-` for the input. */
  readonly files: readonly string[];
  readonly namespace?: string | undefined;
}

/** Where a command writes, and reads what `-` stands for. */
export interface Console {
  readonly input: NodeJS.ReadableStream;
  readonly output: { write(text: string): unknown };
  readonly errors: { write(text: string): unknown };
}

export interface AppliedObject {
  readonly kindId: KindId;
  readonly name: string;
  readonly namespace: string | undefined;
  readonly uid: string | undefined;
  readonly resourceVersion: string | undefined;
  readonly action: "created" | "configured" | "unchanged";
}

export interface ApplyOutcome {
  readonly applied: AppliedObject[];
  /** How many objects could not be applied; what was wrong with them has been written to `errors`. */
  readonly failures: number;
}

type Access = Pick<Datastore, "get" | "create" | "patch">;

/**
 * Applies the objects, in an order in which each finds what it needs. Nothing is applied unless all of them are valid
 * (throws `ManifestsRefused`). What the datastore refuses is reported, and the others go on.
 */
export async function apply(
  datastore: Access,
  { files, namespace }: ApplyArguments,
  console: Console,
): Promise<ApplyOutcome> {
  const objects = inApplyOrder(check(await readManifests(files, console.input), namespace));
  const applied: AppliedObject[] = [];
  let failures = 0;
  for (const item of objects) {
    const label = `${singularName(item.kind)}/${item.name}`;
    try {
      const outcome = await applyOne(datastore, item);
      applied.push(outcome);
      console.output.write(`${label} ${outcome.action}\n`);
    } catch (thrown) {
      failures += 1;
      console.errors.write(`${item.where}: cannot apply ${label}: ${messageOf(thrown)}\n`);
    }
  }
  return { applied, failures };
}

async function applyOne(datastore: Access, item: CheckedObject): Promise<AppliedObject> {
  const { kind, name, namespace, raw } = item;
  const manifest = withLastApplied(KIND[kind].status ? withoutStatus(raw) : raw);
  const before = await datastore.get(kind, name, namespace);
  const created = before === undefined ? await create(datastore, item, manifest) : undefined;
  const live = before ?? created ?? (await datastore.get(kind, name, namespace));
  let after = created;
  if (after === undefined) {
    const present = { ...live };
    after = await datastore.patch(kind, name, namespace, threeWayPatch(lastAppliedOf(present), manifest, present));
  }
  const { uid, resourceVersion } = after.metadata;
  const unchanged = live?.metadata.resourceVersion === resourceVersion;
  const action = created !== undefined ? "created" : unchanged ? "unchanged" : "configured";
  return { kindId: kind, name, namespace, uid, resourceVersion, action };
}

/** Undefined where someone else has just created it. */
async function create(datastore: Access, { kind }: CheckedObject, manifest: Record<string, unknown>) {
  try {
    return await datastore.create(kind, KIND[kind].parse(manifest));
  } catch (thrown) {
    if (isDatastoreError(thrown, "already-exists")) return undefined;
    throw thrown;
  }
}

function withoutStatus(fields: Record<string, unknown>): Record<string, unknown> {
  const { status: _, ...rest } = fields;
  return rest;
}
