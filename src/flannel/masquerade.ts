import { formatPrefix, parsePrefix, type Prefix } from "../ip/prefix.ts";
import type { Expression } from "../netlink/nftExpression.ts";
import { addressIs, markIs } from "../netlink/nftMatch.ts";
import { accept, masquerade, returnToCaller } from "../netlink/nftStatement.ts";
import { removeTable, type NftChange } from "../netlink/nftables.ts";
import type { TableName } from "../netlink/nftTable.ts";

/** Flannel's firewall rules (pkg/trafficmngr): forwarding for pods, and masquerading of what leaves their network. */

/** One family's: the network of all pods, and this node's part of it. */
export interface FilterNetwork {
  readonly network: Prefix;
  readonly subnet: Prefix;
}

export interface FilterWish {
  /** IPv4 and IPv6, each at most once. */
  readonly networks: readonly FilterNetwork[];
  readonly masquerade: boolean;
  readonly forward: boolean;
}

/** All of its conditions hold. */
interface FilterRule {
  readonly source?: Match;
  readonly destination?: Match;
  /** What kube-proxy has marked to be masqueraded by itself. */
  readonly marked?: true;
  readonly action: "accept" | "return" | "masquerade";
}
interface Match {
  readonly prefix: Prefix;
  readonly not?: true;
}

const KUBE_MASQUERADE_MARK = 0x4000;
const MULTICAST = { 4: parsePrefix("224.0.0.0/4"), 6: parsePrefix("ff00::/8") } as const;

const is = (prefix: Prefix): Match => ({ prefix });
const isNot = (prefix: Prefix): Match => ({ prefix, not: true });

function forwardRules({ network }: FilterNetwork): FilterRule[] {
  return [
    { source: is(network), action: "accept" },
    { destination: is(network), action: "accept" },
  ];
}

/** In flannel's order. Its nf_tables form has `network` in the fourth, by which the last can never match: not here. */
function masqueradeRules({ network, subnet }: FilterNetwork): FilterRule[] {
  return [
    { marked: true, action: "return" },
    { source: is(subnet), destination: is(network), action: "return" },
    { source: is(network), destination: is(subnet), action: "return" },
    { source: isNot(network), destination: is(subnet), action: "return" },
    { source: is(network), destination: isNot(MULTICAST[network.address.family]), action: "masquerade" },
    { source: isNot(network), destination: is(network), action: "masquerade" },
  ];
}

export const FORWARD_CHAIN = "FLANNEL-FWD";
export const MASQUERADE_CHAIN = "FLANNEL-POSTRTG";

/** How a jump to each of the chains is written, in the table and the chain of the kernel's own. */
export const IPTABLES_JUMPS = [
  { table: "filter", from: "FORWARD", chain: FORWARD_CHAIN, comment: "flanneld forward" },
  { table: "nat", from: "POSTROUTING", chain: MASQUERADE_CHAIN, comment: "flanneld masq" },
] as const;

/**
 * Input for `iptables-restore --noflush`: each of our chains is emptied and filled anew, others are left alone. A chain
 * that is not wanted is empty. `randomFully` says whether MASQUERADE knows that.
 */
export function iptablesText(own: FilterNetwork, wish: FilterWish, randomFully: boolean): string {
  const rules = { filter: wish.forward ? forwardRules(own) : [], nat: wish.masquerade ? masqueradeRules(own) : [] };
  return IPTABLES_JUMPS.map(({ table, chain, comment }) =>
    [
      `*${table}`,
      `:${chain} - [0:0]`,
      ...rules[table].map((rule) => iptablesRule(rule, chain, comment, randomFully)),
      "COMMIT",
      "",
    ].join("\n"),
  ).join("");
}

function iptablesRule(rule: FilterRule, chain: string, comment: string, randomFully: boolean): string {
  const match = (option: string, one: Match | undefined): string[] =>
    one === undefined ? [] : [...(one.not === true ? ["!"] : []), option, formatPrefix(one.prefix)];
  const target = {
    accept: "ACCEPT",
    return: "RETURN",
    masquerade: randomFully ? "MASQUERADE --random-fully" : "MASQUERADE",
  }[rule.action];
  return [
    `-A ${chain}`,
    ...(rule.marked === true ? ["-m mark --mark 0x4000/0x4000"] : []),
    ...match("-s", rule.source),
    ...match("-d", rule.destination),
    `-m comment --comment "${comment}"`,
    `-j ${target}`,
  ].join(" ");
}

/** Flannel's own table of the family: `flannel-ipv4` or `flannel-ipv6`. */
export function nftTable({ address }: Prefix): TableName {
  return address.family === 4 ? { family: "ip", name: "flannel-ipv4" } : { family: "ip6", name: "flannel-ipv6" };
}

const FILTER_PRIORITY = 0;
const SOURCE_NAT_PRIORITY = 100;

/** Replaces the whole table, in one transaction. */
export function nftChanges(own: FilterNetwork, wish: FilterWish): NftChange[] {
  const table = nftTable(own.network);
  const changes: NftChange[] = [...removeTable(table), { kind: "addTable", table }];
  const chain = (
    name: string,
    base: { type: "filter" | "nat"; hook: "forward" | "postrouting"; priority: number },
  ): void => void changes.push({ kind: "addChain", chain: { table, name, base } });
  const fill = (name: string, rules: readonly FilterRule[]): void => {
    for (const rule of rules)
      changes.push({ kind: "addRule", rule: { table, chain: name, expressions: nftRule(rule) } });
  };
  chain("forward", { type: "filter", hook: "forward", priority: FILTER_PRIORITY });
  chain("postrtg", { type: "nat", hook: "postrouting", priority: SOURCE_NAT_PRIORITY });
  if (wish.forward) fill("forward", forwardRules(own));
  if (wish.masquerade) fill("postrtg", masqueradeRules(own));
  return changes;
}

function nftRule({ source, destination, marked, action }: FilterRule): Expression[] {
  const match = (side: "source" | "destination", one: Match | undefined): Expression[] =>
    one === undefined ? [] : addressIs(side, one.prefix, one.not === true ? { not: true } : {});
  const verdicts = {
    accept: accept(),
    return: returnToCaller(),
    masquerade: masquerade(undefined, { fullyRandom: true }),
  };
  return [
    ...(marked === true ? markIs(KUBE_MASQUERADE_MARK, KUBE_MASQUERADE_MARK) : []),
    ...match("source", source),
    ...match("destination", destination),
    ...verdicts[action],
  ];
}
