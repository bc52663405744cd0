import type { Writable } from "node:stream";
import type { Datastore } from "../datastore/datastore.ts";

/** The cluster that a command speaks to: a lab, or the one of a kubeconfig. */
export interface Target {
  /** For messages: `lab "default"`. */
  readonly description: string;
  openDatastore(): Datastore & { close(): void };
  /** Nodes whose agents can be asked from here. */
  agents(): AgentAccess[];
}

export interface AgentAccess {
  readonly node: string;
  /** `/status`, `/bgp/routes?view=best`…: the answer as JSON. Rejects when there is none in time. */
  ask(path: string, timeoutMs?: number): Promise<unknown>;
  /** Writes an answer that is a stream of bytes to `output`, until it is whole or the signal ends it. Resolves with its length. */
  stream(path: string, output: Writable, signal?: AbortSignal): Promise<number>;
}
