import { spawn } from "node:child_process";
import { Failure, messageOf } from "../lib/errors.ts";
import { inNamespace } from "../netlink/namespace.io.ts";

/** A container runtime's half of CNI: it calls the plugins of a configuration list, as containerd's libcni does. */
export interface CniRuntime {
  /** The namespace of the node, in which plugins run. */
  readonly nodeNetns: string;
  /** Folders with the plugins' executables: `CNI_PATH`. */
  readonly pluginDirectories: readonly string[];
  readonly conflist: ConfigList;
  /** Variables that plugins find besides the specification's. */
  readonly environment: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
}

export interface ConfigList {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly Readonly<Record<string, unknown>>[];
}

export interface Sandbox {
  readonly containerId: string;
  /** Path of the pod's namespace; empty when it is gone. */
  readonly netns: string;
  readonly interfaceName: string;
  /** Of a Kubernetes pod. */
  readonly pod?: { readonly namespace: string; readonly name: string; readonly uid: string };
}

export interface CniResult {
  readonly ips?: readonly { readonly address: string }[];
  readonly [field: string]: unknown;
}

/** A plugin's refusal: `code` is the specification's number as text. */
export class PluginError extends Failure {}

/** ADD through every plugin of the list, each with the result of the one before. Returns the last result. */
export async function addNetwork(runtime: CniRuntime, sandbox: Sandbox): Promise<CniResult> {
  let result: CniResult | undefined;
  for (const plugin of runtime.conflist.plugins) {
    const text = await callPlugin(runtime, sandbox, "ADD", plugin, result);
    result = JSON.parse(text) as CniResult;
  }
  if (result === undefined) throw new PluginError("7", `the network ${runtime.conflist.name} has no plugins`);
  return result;
}

/** DEL through every plugin, last first. */
export async function deleteNetwork(runtime: CniRuntime, sandbox: Sandbox, previous?: CniResult): Promise<void> {
  for (const plugin of runtime.conflist.plugins.toReversed())
    await callPlugin(runtime, sandbox, "DEL", plugin, previous);
}

/** Calls one plugin: environment, configuration on standard input, answer on standard output. */
export function callPlugin(
  runtime: CniRuntime,
  sandbox: Sandbox,
  command: string,
  plugin: Readonly<Record<string, unknown>>,
  previous: CniResult | undefined,
): Promise<string> {
  const { conflist, pluginDirectories } = runtime;
  const type = String(plugin["type"]);
  const file = `${pluginDirectories[0]}/${type}`;
  const { pod } = sandbox;
  const args =
    pod === undefined
      ? ""
      : `IgnoreUnknown=1;K8S_POD_NAMESPACE=${pod.namespace};K8S_POD_NAME=${pod.name};K8S_POD_INFRA_CONTAINER_ID=${sandbox.containerId};K8S_POD_UID=${pod.uid}`;
  const environment = {
    ...process.env,
    ...runtime.environment,
    CNI_COMMAND: command,
    CNI_CONTAINERID: sandbox.containerId,
    CNI_NETNS: sandbox.netns,
    CNI_IFNAME: sandbox.interfaceName,
    CNI_PATH: pluginDirectories.join(":"),
    CNI_ARGS: args,
  };
  const config = {
    cniVersion: conflist.cniVersion,
    name: conflist.name,
    ...plugin,
    ...(previous === undefined ? {} : { prevResult: previous }),
  };
  return new Promise((resolve, reject) => {
    const child = inNamespace(runtime.nodeNetns, () =>
      spawn(file, [], {
        env: environment,
        stdio: ["pipe", "pipe", "pipe"],
        timeout: runtime.timeoutMs,
        killSignal: "SIGKILL",
      }),
    );
    let output = "";
    let errors = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (output += chunk));
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (errors += chunk));
    child.on("error", (error) =>
      reject(new PluginError("5", `cannot run the CNI plugin ${file}: ${messageOf(error)}`, error)),
    );
    child.on("close", (code, signal) => {
      if (code === 0) resolve(output);
      else reject(refusal(command, type, output, signal === null ? errors : `it was ended by ${signal}. ${errors}`));
    });
    child.stdin.on("error", () => undefined); // the plugin ended without reading: its exit says why
    child.stdin.end(JSON.stringify(config));
  });
}

function refusal(command: string, type: string, output: string, errors: string): PluginError {
  try {
    const { code, msg, details } = JSON.parse(output) as { code: number; msg: string; details?: string };
    return new PluginError(String(code), `CNI ${command} by ${type} failed: ${msg}${details ? ` (${details})` : ""}`);
  } catch {
    return new PluginError("5", `CNI ${command} by ${type} failed without an answer: ${errors.trim()}`);
  }
}
