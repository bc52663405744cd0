/** Finds the API server of a Kubernetes cluster from a kubeconfig file. */
import { dirname, resolve } from "node:path";
import type { ApiServerAddress } from "./http.io.ts";
import { parseKubeconfig, type Content } from "./kubeconfig.ts";
import { readCredential, tokenReader } from "./serviceAccount.io.ts";

/** The API server of the file's current context (or the one named), and the namespace that goes with it. */
export function fromKubeconfig(
  path: string,
  contextName?: string,
): { address: ApiServerAddress; namespace: string | undefined } {
  const config = parseKubeconfig(readCredential(path), path, contextName);
  const { server, ca, certificate, key, token, namespace, ...rest } = config;
  const beside = (file: string): string => resolve(dirname(path), file);
  const text = (content: Content | undefined): string | undefined =>
    content === undefined ? undefined : "text" in content ? content.text : readCredential(beside(content.file));
  const bearer = token !== undefined && "file" in token ? tokenReader(beside(token.file)) : text(token);
  return {
    address: { url: server, ca: text(ca), certificate: text(certificate), key: text(key), token: bearer, ...rest },
    namespace,
  };
}
