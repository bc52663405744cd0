import { openRtnetlink } from "../netlink/rtnetlink.io.ts";
import { interfaceIs, portIs, protocolIs } from "../netlink/nftMatch.ts";
import type { Expression } from "../netlink/nftExpression.ts";
import { removeTable } from "../netlink/nftables.ts";
import { openTransactions } from "../netlink/transaction.io.ts";
import type { Blocked, LinkFault } from "./links.ts";
import { membersOf, type LabDefinition, type Member } from "./definition.ts";
import { LabError } from "./labError.ts";
import { memberNamespace } from "./files.ts";
import { portName, ROUTER } from "./network.io.ts";

/** By which the kernel lets frames be longer than they should (is_skb_forwardable). */
const VLAN_TAG = 4;
const TABLE_PREFIX = "caracal-lab-";

/** Sets the fault of the wire of the member, in the place of what was wrong with it before. Both directions have it. */
export function setLinkFault(lab: string, definition: LabDefinition, name: string, fault: LinkFault): void {
  const member = membersOf(definition).find((each) => each.name === name);
  if (member === undefined) throw new LabError("not-found", `the lab has no member "${name}"`);
  const router = memberNamespace(lab, ROUTER);
  const fabric = openRtnetlink(router);
  try {
    const port = fabric.link(portName(member));
    if (port === undefined) throw new LabError("not-found", `the wire of "${name}" is not there`);
    const mtu = fault.mtu === undefined ? definition.mtu : fault.mtu - VLAN_TAG;
    fabric.setLink(port.index, { up: fault.cut !== true, mtu });
  } finally {
    fabric.close();
  }
  setFilter(router, member, fault.blocked ?? []);
}

/** Frames are looked at where they come into the bridge from the member, and where they leave it to there. */
function setFilter(router: string, member: Member, blocked: readonly Blocked[]): void {
  const port = portName(member);
  const table = { family: "bridge", name: `${TABLE_PREFIX}${port}` } as const;
  const changes = removeTable(table);
  if (blocked.length > 0) changes.push({ kind: "addTable", table });
  for (const hook of blocked.length > 0 ? (["prerouting", "postrouting"] as const) : []) {
    changes.push({ kind: "addChain", chain: { table, name: hook, base: { type: "filter", hook, priority: 0 } } });
    for (const { protocol, port: number } of blocked) {
      const expressions: Expression[] = [
        ...interfaceIs(hook === "prerouting" ? "input" : "output", port),
        ...protocolIs(protocol),
        ...(number === undefined ? [] : portIs("destination", number)),
        { kind: "immediate", into: "verdict", data: { verdict: { kind: "drop" } } },
      ];
      changes.push({ kind: "addRule", rule: { table, chain: hook, expressions } });
    }
  }
  const transactions = openTransactions(router);
  try {
    transactions.apply(changes);
  } finally {
    transactions.close();
  }
}
