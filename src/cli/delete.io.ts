/** `caracal delete`: removes objects, by name or as manifests name them. */
import { isDatastoreError, type Datastore } from "../datastore/datastore.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import { KIND, type KindId } from "../resources/registry.ts";
import { inApplyOrder } from "./apply.ts";
import type { Console } from "./apply.io.ts";
import { kindIn, singularName } from "./kindWords.ts";
import { identify } from "./manifests.ts";
import { readManifests } from "./manifests.io.ts";

export interface DeleteArguments {
  /** Files, directories, or `-` for the input; then there is no kind and no name. */
  readonly files: readonly string[];
  readonly kind?: string | undefined;
  readonly names: readonly string[];
  readonly namespace?: string | undefined;
  /** What is not there counts as deleted. */
  readonly ignoreNotFound?: boolean | undefined;
}

export interface DeletedObject {
  readonly kindId: KindId;
  readonly name: string;
  readonly namespace: string | undefined;
  readonly uid: string | undefined;
  /** Of the deletion, where the API server says it. */
  readonly resourceVersion: string | undefined;
}

export interface DeleteOutcome {
  readonly deleted: DeletedObject[];
  /** How many could not be deleted; why has been written to `errors`. */
  readonly failures: number;
}

interface Target {
  readonly kind: KindId;
  readonly name: string;
  readonly namespace: string | undefined;
}

/** Deletes what was applied last first. Throws for arguments and manifests that name nothing; reports the rest. */
export async function deleteObjects(
  datastore: Pick<Datastore, "delete">,
  args: DeleteArguments,
  console: Console,
): Promise<DeleteOutcome> {
  const deleted: DeletedObject[] = [];
  let failures = 0;
  for (const { kind, name, namespace } of await targetsOf(args, console)) {
    try {
      const last = await datastore.delete(kind, name, namespace);
      deleted.push({
        kindId: kind,
        name,
        namespace,
        uid: last?.metadata.uid,
        resourceVersion: last?.metadata.resourceVersion,
      });
      console.output.write(`${singularName(kind)} "${name}" deleted\n`);
    } catch (thrown) {
      if (args.ignoreNotFound === true && isDatastoreError(thrown, "not-found")) continue;
      failures += 1;
      console.errors.write(`cannot delete ${singularName(kind)} "${name}": ${messageOf(thrown)}\n`);
    }
  }
  return { deleted, failures };
}

async function targetsOf(
  { files, kind: word, names, namespace }: DeleteArguments,
  console: Console,
): Promise<readonly Target[]> {
  if (files.length > 0) {
    if (word !== undefined) throw new Failure("usage", "give either files or a kind with names, not both");
    return inApplyOrder(identify(await readManifests(files, console.input), namespace)).toReversed();
  }
  if (word === undefined || names.length === 0)
    throw new Failure("usage", "give files, or a kind and the names of what to delete");
  const kind = kindIn(word);
  const home = KIND[kind].namespaced ? (namespace ?? "default") : undefined;
  return names.map((name) => ({ kind, name, namespace: home }));
}
