import { createHash } from "node:crypto";
import { messageOf } from "../lib/errors.ts";
import { hostInterfaceName } from "../resources/names.ts";
import { add } from "./add.ts";
import { check } from "./check.ts";
import { CniError, codeFor } from "./error.ts";
import type { CniNode } from "./node.ts";
import { collectGarbage, del } from "./remove.ts";
import { parseRequest, splitRequest, type CniRequest, type CniVersion } from "./request.ts";
import { formatAddResult, formatError, formatVersionResult } from "./result.ts";
import { createTurns, type InTurn } from "./turns.ts";

/** What the shim prints and exits with. `text` is for standard output; empty where the specification prints nothing. */
export type Answer =
  | { readonly ok: true; readonly text: string }
  | { readonly ok: false; readonly text: string; readonly error: CniError };

export interface CniPlugin {
  /** Carries out one request of the shim, whatever comes: every failure becomes an error in the specification's form. */
  answer(bytes: Uint8Array): Promise<Answer>;
}

/** `interfacePrefix`: what the node's ends of pods' interfaces begin with, `cali`. */
export function createCniPlugin(node: CniNode, interfacePrefix: string): CniPlugin {
  const inTurn = createTurns();
  return {
    async answer(bytes) {
      let version: CniVersion = "1.0.0";
      try {
        const { environment, stdin } = splitRequest(bytes);
        const request = parseRequest(environment, stdin);
        version = request.config.cniVersion;
        const result = await carryOut(request, node, interfacePrefix, inTurn);
        return { ok: true, text: result === undefined ? "" : `${JSON.stringify(result)}\n` };
      } catch (thrown) {
        const error =
          thrown instanceof CniError ? thrown : new CniError(codeFor(thrown), messageOf(thrown), "", thrown);
        return { ok: false, text: `${JSON.stringify(formatError(error, version))}\n`, error };
      }
    },
  };
}

/**
 * Work on one interface goes in turn: a runtime that gave up on an ADD sends its DEL while the ADD still goes on, and the
 * last DEL of a pod's old container comes while its new one is added.
 */
async function carryOut(
  request: CniRequest,
  node: CniNode,
  interfacePrefix: string,
  inTurn: InTurn,
): Promise<object | undefined> {
  const { command, config } = request;
  switch (command) {
    case "ADD": {
      const hostInterface = hostInterfaceOf(request, interfacePrefix);
      return formatAddResult(await inTurn(hostInterface, () => add(request, node, hostInterface)), config.cniVersion);
    }
    case "DEL": {
      const hostInterface = hostInterfaceOf(request, interfacePrefix);
      await inTurn(hostInterface, () => del(request, node, hostInterface));
      return undefined;
    }
    case "CHECK":
      check(request, node);
      return undefined;
    case "GC":
      await collectGarbage(request, node, inTurn);
      return undefined;
    case "STATUS": {
      const reason = node.notReady();
      if (reason !== undefined) throw new CniError("plugin-not-available", "this node cannot set up pods now", reason);
      return undefined;
    }
    case "VERSION":
      return formatVersionResult(config.cniVersion);
  }
}

/**
 * The node's end of a pod's veth pair. A Kubernetes pod's comes from its name, so that a pod that is made again under its
 * name has the same; a bare container's from its id.
 */
function hostInterfaceOf(request: CniRequest, interfacePrefix: string): string {
  const { workload, containerId, interfaceName } = request;
  if (workload.orchestrator === "k8s") return hostInterfaceName(workload.namespace, workload.pod, interfacePrefix);
  // Two interfaces of one container must not meet in one; neither name has a colon, which no pod's name has either.
  const digest = createHash("sha1").update(`${containerId}:${interfaceName}`).digest("hex");
  return `${interfacePrefix}${digest.slice(0, 11)}`;
}
