import { ARP_TABLE, type ArpTable, arpTable } from "./arpTable.ts";
import { openKeptTable, type KeptTableOptions } from "./keptTable.io.ts";

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
