/** Reads a kubeconfig as far as reaching an API server needs it: the current context's server, certificates and token. */
import { parse as parseYaml } from "yaml";
import { Failure, messageOf } from "../lib/errors.ts";
import { isFields } from "./patch.ts";

/** `missing`: there is no such file or context. `malformed`. `unsupported`: a way to log in that we do not have. */
export class KubeconfigError extends Failure<"missing" | "malformed" | "unsupported"> {}

/** A PEM text or a token: given in the file itself, or in a file beside it (absolute, or relative to the kubeconfig). */
export type Content = { readonly text: string } | { readonly file: string };

export interface KubeconfigContext {
  readonly server: string;
  readonly ca: Content | undefined;
  readonly certificate: Content | undefined;
  readonly key: Content | undefined;
  readonly token: Content | undefined;
  readonly serverName: string | undefined;
  readonly insecureSkipTlsVerify: boolean;
  /** Of commands that name none. */
  readonly namespace: string | undefined;
}

/**
 * @param text the file's
 * @param where the file's name, for messages
 * @param contextName in place of the file's `current-context`
 */
export function parseKubeconfig(text: string, where: string, contextName?: string): KubeconfigContext {
  const config = readYaml(text, where);
  const name = contextName ?? config["current-context"];
  if (typeof name !== "string" || name === "") throw new KubeconfigError("missing", `${where} has no current-context`);
  const context = named(config, "contexts", "context", name, where);
  const cluster = named(config, "clusters", "cluster", textIn(context, "cluster") ?? "", where);
  const userName = textIn(context, "user");
  const user = userName === undefined ? {} : named(config, "users", "user", userName, where);
  for (const method of ["exec", "auth-provider", "username"]) {
    if (user[method] === undefined) continue;
    throw new KubeconfigError(
      "unsupported",
      `${where}: user "${userName}" logs in by ${method}; a token or a client certificate is needed`,
    );
  }
  const server = textIn(cluster, "server");
  if (server === undefined || !URL.canParse(server)) {
    throw new KubeconfigError("malformed", `${where}: the cluster of context "${name}" has no server URL`);
  }
  const inline = (value: string | undefined): Content | undefined =>
    value === undefined ? undefined : { text: value };
  const encoded = (value: string | undefined): Content | undefined =>
    inline(value === undefined ? undefined : new TextDecoder().decode(Uint8Array.fromBase64(value)));
  const file = (value: string | undefined): Content | undefined => (value === undefined ? undefined : { file: value });
  return {
    server,
    ca: encoded(textIn(cluster, "certificate-authority-data")) ?? file(textIn(cluster, "certificate-authority")),
    certificate: encoded(textIn(user, "client-certificate-data")) ?? file(textIn(user, "client-certificate")),
    key: encoded(textIn(user, "client-key-data")) ?? file(textIn(user, "client-key")),
    token: inline(textIn(user, "token")) ?? file(textIn(user, "tokenFile")),
    serverName: textIn(cluster, "tls-server-name"),
    insecureSkipTlsVerify: cluster["insecure-skip-tls-verify"] === true,
    namespace: textIn(context, "namespace"),
  };
}

function readYaml(text: string, where: string): Record<string, unknown> {
  try {
    const config: unknown = parseYaml(text);
    if (isFields(config)) return config;
  } catch (thrown) {
    throw new KubeconfigError("malformed", `${where} is not YAML: ${messageOf(thrown)}`, thrown);
  }
  throw new KubeconfigError("malformed", `${where} is not a kubeconfig`);
}

/** The entry called `name` of one of the file's lists. */
function named(
  config: Record<string, unknown>,
  list: string,
  entry: string,
  name: string,
  where: string,
): Record<string, unknown> {
  const entries = Array.isArray(config[list]) ? (config[list] as unknown[]) : [];
  const found = entries.filter(isFields).find((candidate) => candidate["name"] === name)?.[entry];
  if (isFields(found)) return found;
  throw new KubeconfigError("missing", `${where} has no ${entry} "${name}"`);
}

function textIn(fields: Record<string, unknown>, name: string): string | undefined {
  const value = fields[name];
  return typeof value === "string" && value !== "" ? value : undefined;
}
