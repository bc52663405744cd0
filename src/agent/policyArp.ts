/** Which workloads' addresses the host is not to answer for: see `dataplane/arpTable.ts`. With nf_tables only, as in Felix. */
import type { ArpTable } from "../dataplane/arpTable.ts";
import type { Endpoint } from "../dataplane/endpoint.ts";
import { formatAddress } from "../ip/address.ts";
import { messageOf } from "../lib/errors.ts";
import type { Renderer } from "./nodeFacts.ts";

export interface PolicyArp {
  attach(endpoint: Endpoint): void;
  /** A newer container may have taken its place by now, whose interface has the same name. */
  detach(endpoint: Endpoint): void;
  /** All that is attached was told once: from now on the kernel follows, where the renderer is the one for it. */
  follow(renderer: Renderer): void;
  check(): Promise<readonly string[]>;
  close(): void;
}

/** @param open may throw, as `apply` may: pods are not held back for want of this */
export function policyArp(open: () => ArpTable, onFailure: (reason: string) => void): PolicyArp {
  const attached = new Map<string, Endpoint>();
  let table: ArpTable | undefined;

  function attempt(work: () => void): void {
    try {
      work();
    } catch (error) {
      onFailure(messageOf(error));
    }
  }
  function tell(names: Iterable<string>): void {
    const addressesOf = (name: string): string[] | undefined => attached.get(name)?.addresses.map(formatAddress);
    attempt(() => table?.apply(new Map([...names].map((name) => [name, addressesOf(name)]))));
  }

  return {
    attach(endpoint) {
      attached.set(endpoint.hostInterface, endpoint);
      tell([endpoint.hostInterface]);
    },
    detach({ hostInterface, containerId }) {
      if (attached.get(hostInterface)?.containerId !== containerId) return;
      attached.delete(hostInterface);
      tell([hostInterface]);
    },
    follow(renderer) {
      if ((renderer === "nft") === (table !== undefined)) return;
      table?.close();
      table = undefined;
      if (renderer !== "nft") return;
      attempt(() => (table = open()));
      tell(attached.keys());
    },
    check: () => table?.check() ?? Promise.resolve([]),
    close: () => table?.close(),
  };
}
