import { spawn } from "node:child_process";
import { constants } from "node:os";
import { inNamespace, namespaceInode } from "../netlink/namespace.io.ts";
import { codeOf } from "../lib/errors.ts";
import { membersOf } from "./definition.ts";
import { LabError } from "./labError.ts";
import { memberNamespace, podNamespace } from "./files.ts";
import { ROUTER } from "./network.io.ts";
import { readLab } from "./state.io.ts";
import { labTarget } from "./target.io.ts";

/** Runs the command on a node, a host or the router. Resolves with its exit code. */
export function execInLab(lab: string, member: string, command: readonly string[]): Promise<number> {
  const names = [ROUTER, ...membersOf(readLab(lab).definition).map(({ name }) => name)];
  if (!names.includes(member))
    throw new LabError("not-found", `the lab "${lab}" has no "${member}"; it has ${names.join(", ")}`);
  return run(memberNamespace(lab, member), command);
}

/** Runs the command in a pod, named `namespace/pod`, or `pod` for the namespace default. */
export async function execInPod(lab: string, pod: string, command: readonly string[]): Promise<number> {
  readLab(lab);
  const [namespace, name] = pod.includes("/") ? (pod.split("/", 2) as [string, string]) : ["default", pod];
  const own = podNamespace(lab, namespace, name);
  if (exists(own)) return run(own, command);
  const datastore = labTarget(lab).openDatastore();
  try {
    const found = await datastore.get("Pod", name, namespace);
    if (found === undefined) throw new LabError("not-found", `there is no pod ${namespace}/${name}`);
    const { nodeName, hostNetwork } = found.spec;
    if (hostNetwork === true && nodeName !== undefined) return await run(memberNamespace(lab, nodeName), command);
    throw new LabError("failed", `pod ${namespace}/${name} does not run yet (${found.status?.phase ?? "Pending"})`);
  } finally {
    datastore.close();
  }
}

function exists(path: string): boolean {
  try {
    namespaceInode(path);
    return true;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}

function run(netns: string, [file = "", ...args]: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = inNamespace(netns, () => spawn(file, args, { stdio: "inherit" }));
    // The terminal sends the signal to both; we end when the command does.
    const ignore = (): void => undefined;
    process.on("SIGINT", ignore);
    child.on("error", (error) =>
      reject(
        new LabError(
          "failed",
          codeOf(error) === "ENOENT" ? `the command "${file}" is not there` : error.message,
          error,
        ),
      ),
    );
    child.on("exit", (code, signal) => {
      process.off("SIGINT", ignore);
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
    });
  });
}
