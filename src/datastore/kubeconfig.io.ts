/** Finds the API server of a Kubernetes cluster: from a kubeconfig file, or from inside a pod. */
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { messageOf } from "../lib/errors.ts";
import type { ApiServerAddress } from "./http.io.ts";
import { KubeconfigError, parseKubeconfig, type Content } from "./kubeconfig.ts";

/** Where a pod finds who it is. */
const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";
/** Tokens of service accounts are renewed long before they end: to read them once a minute is plenty. */
const TOKEN_LIFE = 60_000;

/** The API server of the file's current context (or the one named), and the namespace that goes with it. */
export function fromKubeconfig(
  path: string,
  contextName?: string,
): { address: ApiServerAddress; namespace: string | undefined } {
  const { server, ca, certificate, key, token, namespace, ...rest } = parseKubeconfig(read(path), path, contextName);
  const text = (content: Content | undefined): string | undefined =>
    content === undefined ? undefined : "text" in content ? content.text : read(resolve(dirname(path), content.file));
  const bearer = token !== undefined && "file" in token ? tokenReader(resolve(dirname(path), token.file)) : text(token);
  return {
    address: { url: server, ca: text(ca), certificate: text(certificate), key: text(key), token: bearer, ...rest },
    namespace,
  };
}

/** The API server of the cluster that this process is a pod of; undefined when it is not in a pod. */
export function fromServiceAccount(environment: NodeJS.ProcessEnv): ApiServerAddress | undefined {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = environment;
  if (!host || !port) return undefined;
  const url = `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
  return { url, ca: read(`${SERVICE_ACCOUNT}/ca.crt`), token: tokenReader(`${SERVICE_ACCOUNT}/token`) };
}

function tokenReader(path: string): () => string {
  let token = "";
  let readAt = Number.NEGATIVE_INFINITY;
  return () => {
    const now = performance.now();
    if (now - readAt > TOKEN_LIFE) {
      token = read(path).trim();
      readAt = now;
    }
    return token;
  };
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (thrown) {
    throw new KubeconfigError("missing", `Cannot read ${path}: ${messageOf(thrown)}`, thrown);
  }
}
