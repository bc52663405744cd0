import { ARP_TABLE, arpTable, type WorkloadAddresses } from "./arpTable.ts";
import { openKeptTable, type KeptTableOptions } from "./keptTable.io.ts";

/** Keeps the host from answering workloads' ARP requests for their own addresses. */
export interface ArpTable {
  /** What changed; the first call says all there are. Throws `Failure`; it is tried again by itself. */
  apply(workloads: WorkloadAddresses): void;
  check(): Promise<readonly string[]>;
  /** Deletes the table. */
  remove(): void;
  close(): void;
}

export function openArpTable(options: Omit<KeptTableOptions, "table" | "maxMembers"> = {}): ArpTable {
  let change = arpTable();
  const kept = openKeptTable({ ...options, table: ARP_TABLE });
  return {
    apply: (workloads) => void kept.apply(change(workloads)),
    check: () => kept.check(),
    remove() {
      kept.remove();
      change = arpTable();
    },
    close: () => kept.close(),
  };
}
