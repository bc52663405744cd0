/** The refusals of the API in the words of Kubernetes, which people search for and tools match. */
import { messageOf } from "../lib/errors.ts";
import { KIND, type KindId } from "../resources/registry.ts";
import { InvalidResource } from "../resources/schema.ts";
import { DatastoreError } from "./datastore.ts";

/** `pods`, `ippools.projectcalico.org`. */
export function resourceName(kind: KindId): string {
  const { group, plural } = KIND[kind];
  return group === "" ? plural : `${plural}.${group}`;
}

export const notFound = (kind: KindId, name: string): DatastoreError =>
  new DatastoreError("not-found", `${resourceName(kind)} "${name}" not found`);

export const alreadyExists = (kind: KindId, name: string): DatastoreError =>
  new DatastoreError("already-exists", `${resourceName(kind)} "${name}" already exists`);

export const conflict = (kind: KindId, name: string, reason: string): DatastoreError =>
  new DatastoreError("conflict", `Operation cannot be fulfilled on ${resourceName(kind)} "${name}": ${reason}`);

export const forbidden = (kind: KindId, name: string, reason: string): DatastoreError =>
  new DatastoreError("forbidden", `${resourceName(kind)} "${name}" is forbidden: ${reason}`);

/** One field of an object is wrong. */
export const invalidField = (kind: KindId, name: string, field: string, message: string): DatastoreError =>
  new DatastoreError("invalid", `${KIND[kind].kind} "${name}" is not valid: ${field}: ${message}`, {
    causes: [{ field, message }],
  });

/** The request, rather than the object in it, makes no sense. */
export const badRequest = (message: string): DatastoreError => new DatastoreError("invalid", message);

export const gone = (asked: string, oldest: number | string): DatastoreError =>
  new DatastoreError("gone", `too old resource version: ${asked} (${oldest})`);

/** Anything that was thrown while a request was carried out, as one of our errors. */
export function asDatastoreError(thrown: unknown): DatastoreError {
  if (thrown instanceof DatastoreError) return thrown;
  if (thrown instanceof InvalidResource) {
    const causes = thrown.faults.map(({ path, reason }) => ({ field: path, message: reason }));
    return new DatastoreError("invalid", thrown.message, { cause: thrown, causes });
  }
  return new DatastoreError("unavailable", `internal error: ${messageOf(thrown)}`, { cause: thrown });
}
