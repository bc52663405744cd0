/**
 * What a write does to an object, after the API conventions of Kubernetes: names and uids, compare-and-swap, generations,
 * finalizers, status apart from the rest, namespaces. It works on a `VersionedLog` and is synchronous; whoever calls it
 * publishes the changes, or takes them back.
 */
import type { KindInfo, ObjectMeta, Resource } from "../resources/kind.ts";
import { KIND, type KindId } from "../resources/registry.ts";
import type { Preconditions } from "./datastore.ts";
import { isFields, sameJson } from "./patch.ts";
import { alreadyExists, badRequest, conflict, forbidden, invalidField, notFound } from "./refusal.ts";
import { objectKey, type Entry, type VersionedLog } from "./versionedLog.ts";

/** The clock and the dice. */
export interface Chance {
  /** Milliseconds since 1970. */
  now(): number;
  /** A new UUID. */
  uid(): string;
}

type Stored = Resource & { status?: unknown };

const KIND_IDS = Object.keys(KIND) as KindId[];
const NAMESPACED = KIND_IDS.filter((kind) => KIND[kind].namespaced);

/** Namespaces that are there from the start and cannot be deleted. */
const LASTING_NAMESPACES = ["default", "kube-system"];

/** The status that an object is born with. */
const FIRST_STATUS: { readonly [Kind in KindId]?: unknown } = {
  Pod: { phase: "Pending" },
  Namespace: { phase: "Active" },
};

/** Letters that cannot spell a word, as Kubernetes uses them for made-up names (apimachinery util/rand). */
const NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789";

export interface WriteOptions extends Preconditions {
  readonly status?: boolean | undefined;
}

export class Store {
  readonly log: VersionedLog;
  readonly #chance: Chance;

  constructor(log: VersionedLog, chance: Chance) {
    this.log = log;
    this.#chance = chance;
  }

  /** Creates the namespaces that every cluster has, where they are missing. */
  createLastingNamespaces(): void {
    for (const name of LASTING_NAMESPACES) {
      if (this.log.get("Namespace", name) === undefined) {
        this.create("Namespace", { apiVersion: "v1", kind: "Namespace", metadata: { name } });
      }
    }
  }

  /** The object as it is now; throws `not-found`. */
  read(kind: KindId, name: string, namespace?: string): Entry {
    const entry = this.log.get(kind, objectKey(name, namespace));
    if (entry === undefined) throw notFound(kind, name);
    return entry;
  }

  create(kind: KindId, input: unknown): Entry {
    const info: KindInfo = KIND[kind];
    const uid = this.#chance.uid();
    const object: Stored = info.parse(named(info.status && isFields(input) ? withoutStatus(input) : input, uid));
    const given = object.metadata;
    const { name } = given;
    if ((given.resourceVersion ?? "") !== "") {
      throw invalidField(kind, name, "metadata.resourceVersion", "must be absent on an object that is to be created");
    }
    this.#checkNamespace(kind, name, given.namespace);
    if (this.log.get(kind, objectKey(name, given.namespace)) !== undefined) throw alreadyExists(kind, name);
    const now = this.#chance.now();
    const born: Stored = {
      ...object,
      metadata: { ...writable(given), uid, generation: 1, creationTimestamp: timestamp(now) },
    };
    if (info.status && FIRST_STATUS[kind] !== undefined) born.status = FIRST_STATUS[kind];
    return this.#append("added", kind, born, now);
  }

  update(kind: KindId, input: unknown, options: WriteOptions = {}): Entry {
    const given = identity(input);
    const { name } = given;
    const current = this.read(kind, name, KIND[kind].namespaced ? (given.namespace ?? "default") : undefined);
    if (given.resourceVersion === undefined) {
      throw invalidField(kind, name, "metadata.resourceVersion", "must be specified for an update");
    }
    checkPreconditions(current, given);
    return this.#replace(kind, current, input, options.status ?? false);
  }

  /**
   * Replaces the object by what `change` makes of it, which must not change its argument. A `resourceVersion` in the
   * outcome is compared, as one in `options`.
   */
  patch(
    kind: KindId,
    name: string,
    namespace: string | undefined,
    change: (object: Resource) => unknown,
    options: WriteOptions = {},
  ): Entry {
    const current = this.read(kind, name, namespace);
    checkPreconditions(current, options);
    const patched = change(current.object);
    const given = identity(patched);
    if (given.name !== name || (given.namespace ?? "") !== (namespace ?? "")) {
      throw badRequest(`a patch cannot change the name or the namespace of ${KIND[kind].kind} "${name}"`);
    }
    checkPreconditions(current, given);
    return this.#replace(kind, current, patched, options.status ?? false);
  }

  delete(kind: KindId, name: string, namespace?: string, preconditions: Preconditions = {}): Entry {
    const current = this.read(kind, name, namespace);
    checkPreconditions(current, preconditions);
    if (kind === "Namespace") {
      if (LASTING_NAMESPACES.includes(name)) throw forbidden(kind, name, "this namespace may not be deleted");
      this.#empty(name);
    }
    return this.#release(current);
  }

  /** Removes the object, or, where finalizers or a namespace's contents hold it, marks it as leaving. */
  #release(current: Entry): Entry {
    const { kind, object } = current;
    const { metadata } = object;
    const held =
      (metadata.finalizers?.length ?? 0) > 0 || (kind === "Namespace" && this.#contents(metadata.name).length > 0);
    const now = this.#chance.now();
    if (!held) return this.#remove(current, object, now);
    if (metadata.deletionTimestamp !== undefined) return current;
    const leaving: Stored = {
      ...object,
      metadata: {
        ...metadata,
        deletionTimestamp: timestamp(now),
        deletionGracePeriodSeconds: 0,
        generation: (metadata.generation ?? 0) + 1,
      },
    };
    if (kind === "Namespace") leaving.status = { phase: "Terminating" };
    return this.#append("modified", kind, leaving, now);
  }

  #remove(current: Entry, last: Resource, now: number): Entry {
    const removed = this.#append("deleted", current.kind, last, now);
    const { namespace } = last.metadata;
    const home = namespace === undefined ? undefined : this.log.get("Namespace", namespace);
    if (home?.object.metadata.deletionTimestamp !== undefined) this.#release(home);
    return removed;
  }

  #empty(namespace: string): void {
    for (const entry of this.#contents(namespace)) this.#release(entry);
  }

  #contents(namespace: string): Entry[] {
    return NAMESPACED.flatMap((kind) =>
      [...this.log.entries(kind).values()].filter((entry) => entry.object.metadata.namespace === namespace),
    );
  }

  #checkNamespace(kind: KindId, name: string, namespace: string | undefined): void {
    if (namespace === undefined) return;
    const home = this.read("Namespace", namespace);
    if (home.object.metadata.deletionTimestamp !== undefined) {
      throw forbidden(kind, name, `namespace ${namespace} is being terminated: nothing new can be created in it`);
    }
  }

  #replace(kind: KindId, current: Entry, input: unknown, status: boolean): Entry {
    const info: KindInfo = KIND[kind];
    const before: Stored = current.object;
    const fields = isFields(input) ? input : {};
    const object: Stored = info.parse(
      status ? withStatus(before, fields["status"]) : info.status ? withStatus(fields, before.status) : fields,
    );
    const { uid, creationTimestamp, generation, deletionTimestamp, deletionGracePeriodSeconds } = before.metadata;
    const kept = { uid, creationTimestamp, generation, deletionTimestamp, deletionGracePeriodSeconds };
    const next: Stored = { ...object, metadata: { ...writable(object.metadata), ...defined(kept) } };
    info.checkUpdate?.(before, next);
    const { resourceVersion: _, ...metadataBefore } = before.metadata;
    if (sameJson({ ...before, metadata: metadataBefore }, next)) return current;
    if (!sameJson(essence(before, info.status), essence(next, info.status)))
      next.metadata.generation = (generation ?? 0) + 1;
    const now = this.#chance.now();
    if (deletionTimestamp !== undefined) {
      const held = before.metadata.finalizers ?? [];
      const left = next.metadata.finalizers ?? [];
      if (left.some((finalizer) => !held.includes(finalizer))) {
        throw invalidField(
          kind,
          next.metadata.name,
          "metadata.finalizers",
          "none can be added while the object is being deleted",
        );
      }
      const occupied = kind === "Namespace" && this.#contents(next.metadata.name).length > 0;
      if (left.length === 0 && !occupied) return this.#remove(current, next, now);
    }
    return this.#append("modified", kind, next, now);
  }

  #append(type: "added" | "modified" | "deleted", kind: KindId, object: Resource, now: number): Entry {
    const revision = this.log.revision + 1;
    const { name, namespace } = object.metadata;
    const versioned = { ...object, metadata: { ...object.metadata, resourceVersion: String(revision) } };
    const key = objectKey(name, namespace);
    const entry: Entry = { kind, key, revision, object: versioned, json: JSON.stringify(versioned) };
    this.log.append(type, entry, now);
    return entry;
  }
}

/** RFC 3339 in whole seconds, as Kubernetes prints times. */
const timestamp = (milliseconds: number): string => `${new Date(milliseconds).toISOString().slice(0, 19)}Z`;

/** Gives an object without a name the one that its `generateName` begins. */
function named(input: unknown, uid: string): unknown {
  const metadata = isFields(input) ? input["metadata"] : undefined;
  if (!isFields(input) || !isFields(metadata)) return input;
  const { name, generateName } = metadata;
  if ((name !== undefined && name !== "") || typeof generateName !== "string" || generateName === "") return input;
  return { ...input, metadata: { ...metadata, name: `${generateName}${suffix(uid)}` } };
}

/** Five letters drawn from a UUID's first digits. */
function suffix(uid: string): string {
  const digits = uid.replaceAll("-", "");
  let letters = "";
  for (let i = 0; i < 5; i += 1) letters += NAME_LETTERS[Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16) % 27];
  return letters;
}

/** Metadata without what only the datastore sets. */
function writable(metadata: ObjectMeta): ObjectMeta {
  const {
    resourceVersion: _version,
    uid: _uid,
    generation: _generation,
    creationTimestamp: _created,
    deletionTimestamp: _deleted,
    deletionGracePeriodSeconds: _grace,
    managedFields: _managed,
    selfLink: _link,
    ...rest
  } = metadata;
  return rest;
}

function defined<Fields extends object>(fields: Fields): { [K in keyof Fields]: Exclude<Fields[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never;
}

function withoutStatus(fields: Record<string, unknown>): Record<string, unknown> {
  const { status: _, ...rest } = fields;
  return rest;
}

function withStatus(fields: object, status: unknown): Record<string, unknown> {
  const rest = withoutStatus({ ...fields });
  return status === undefined ? rest : { ...rest, status };
}

/** What a generation counts the changes of: everything but metadata, and status where it stands apart. */
function essence(object: Stored, statusApart: boolean): unknown {
  const { metadata: _, ...rest } = object;
  return statusApart ? withoutStatus(rest) : rest;
}

interface Identity extends Preconditions {
  readonly name: string;
  readonly namespace?: string;
}

/** Who an object from outside says that it is, before the rest of it is checked. */
function identity(input: unknown): Identity {
  const metadata = isFields(input) ? input["metadata"] : undefined;
  if (!isFields(metadata)) throw badRequest("the object has no metadata");
  const text = (field: string): string | undefined => {
    const value = metadata[field];
    if (value === undefined || value === null || value === "") return undefined;
    if (typeof value !== "string") throw badRequest(`metadata.${field} is not a string`);
    return value;
  };
  const name = text("name");
  if (name === undefined) throw badRequest("the object has no metadata.name");
  return {
    name,
    ...defined({ namespace: text("namespace"), resourceVersion: text("resourceVersion"), uid: text("uid") }),
  };
}

function checkPreconditions(current: Entry, { resourceVersion, uid }: Preconditions): void {
  const { metadata } = current.object;
  if (uid !== undefined && uid !== metadata.uid) {
    const reason = `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${metadata.uid}`;
    throw conflict(current.kind, metadata.name, reason);
  }
  if (resourceVersion !== undefined && resourceVersion !== metadata.resourceVersion) {
    const reason = "the object has been modified; please apply your changes to the latest version and try again";
    throw conflict(current.kind, metadata.name, reason);
  }
}
