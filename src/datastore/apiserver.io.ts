/** `caracal apiserver`: the embedded API server as a process of its own. */
import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { stringify } from "yaml";
import { Failure, messageOf } from "../lib/errors.ts";
import { serverCertificate, SERVER_NAME } from "./certificate.io.ts";
import { writePrivateFile } from "./privateFile.io.ts";
import { serve, type ServeOptions } from "./server.io.ts";
import { tokenFromFile } from "./token.io.ts";

const USAGE =
  "usage: caracal apiserver --data DIR [--socket PATH] [--listen ADDRESS:PORT [--token-file FILE]] [--durability process|machine]";

/** `usage`: the arguments make no sense. */
export class ApiServerUsage extends Failure<"usage"> {}

/**
 * Runs until SIGTERM or SIGINT. Without `--socket` and `--listen` it listens on `DIR/api.sock`. With `--listen` it keeps
 * in DIR the token (unless `--token-file` names another), the certificate, and a kubeconfig for `kubectl`. Prints one line
 * when it is ready.
 * @param argv what follows `apiserver`
 */
export async function runApiServer(
  argv: readonly string[],
  output: { write(text: string): unknown } = process.stdout,
): Promise<void> {
  const { options, kubeconfig } = readArguments(argv);
  const server = await serve({
    ...options,
    onError: (message) => process.stderr.write(`caracal apiserver: ${message}\n`),
  });
  const places = [server.socketPath && `unix:${server.socketPath}`, server.url].filter((place) => place !== undefined);
  if (server.url !== undefined && options.tcp !== undefined) {
    writePrivateFile(kubeconfig, kubeconfigText(server.url, options.tcp.certificate.certificate, options.tcp.token));
    places.push(`kubeconfig ${kubeconfig}`);
  }
  output.write(`caracal apiserver: ready on ${places.join(", ")}\n`);
  await new Promise((done) => {
    process.once("SIGTERM", done);
    process.once("SIGINT", done);
  });
  await server.close();
}

function readArguments(argv: readonly string[]): { options: ServeOptions; kubeconfig: string } {
  const values = parse(argv);
  const usage = (problem: string): ApiServerUsage => new ApiServerUsage("usage", `${problem}\n${USAGE}`);
  if (values.data === undefined) throw usage("--data is missing");
  const data = resolve(values.data);
  const { durability = "process", listen } = values;
  if (durability !== "process" && durability !== "machine")
    throw usage(`--durability ${durability}: it is process or machine`);
  if (listen === undefined && values["token-file"] !== undefined) throw usage("--token-file needs --listen");
  const socketPath = values.socket ?? (listen === undefined ? join(data, "api.sock") : undefined);
  const options: ServeOptions = {
    data,
    durability,
    ...(socketPath === undefined ? {} : { socketPath: resolve(socketPath) }),
  };
  const kubeconfig = join(data, "kubeconfig");
  if (listen === undefined) return { options, kubeconfig };
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(listen) ?? [];
  const host = bracketed ?? plain ?? "";
  if (host === "" || Number(port) > 65535)
    throw usage(`--listen ${listen}: it is ADDRESS:PORT, as 127.0.0.1:6443 or [::1]:6443`);
  mkdirSync(data, { recursive: true, mode: 0o700 });
  const token = tokenFromFile(values["token-file"] ?? join(data, "token"));
  const certificate = serverCertificate(data, Date.now());
  return { options: { ...options, tcp: { host, port: Number(port), token, certificate } }, kubeconfig };
}

function parse(argv: readonly string[]) {
  const text = { type: "string" } as const;
  const options = { data: text, socket: text, listen: text, "token-file": text, durability: text };
  try {
    return parseArgs({ args: [...argv], options }).values;
  } catch (thrown) {
    throw new ApiServerUsage("usage", `${messageOf(thrown)}\n${USAGE}`, thrown);
  }
}

function kubeconfigText(server: string, certificate: string, token: string): string {
  const authority = Buffer.from(certificate).toString("base64");
  return stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "caracal",
    contexts: [{ name: "caracal", context: { cluster: "caracal", user: "caracal" } }],
    clusters: [
      { name: "caracal", cluster: { server, "tls-server-name": SERVER_NAME, "certificate-authority-data": authority } },
    ],
    users: [{ name: "caracal", user: { token } }],
  });
}
