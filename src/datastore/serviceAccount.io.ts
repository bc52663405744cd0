/** The API server of the Kubernetes cluster that this process is a pod of. */
import { readFileSync } from "node:fs";
import { messageOf } from "../lib/errors.ts";
import { DatastoreError } from "./datastore.ts";
import type { ApiServerAddress } from "./http.io.ts";

/** Where a pod finds who it is. */
const DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount";
/** Tokens of service accounts are renewed long before they end: to read them once a minute is plenty. */
const TOKEN_LIFE = 60_000;

/** Undefined when this process is not in a pod. */
export function fromServiceAccount(environment: NodeJS.ProcessEnv): ApiServerAddress | undefined {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = environment;
  if (!host || !port) return undefined;
  const url = `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
  return { url, ca: readCredential(`${DIRECTORY}/ca.crt`), token: tokenReader(`${DIRECTORY}/token`) };
}

/** The token of a file that somebody else renews. What it gives throws `DatastoreError` where the file cannot be read. */
export function tokenReader(path: string): () => string {
  let token = "";
  let readAt = Number.NEGATIVE_INFINITY;
  return () => {
    const now = performance.now();
    if (now - readAt > TOKEN_LIFE) {
      token = readCredential(path).trim();
      readAt = now;
    }
    return token;
  };
}

export function readCredential(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (thrown) {
    throw new DatastoreError("unavailable", `Cannot read ${path}: ${messageOf(thrown)}`, { cause: thrown });
  }
}
