import type { Family } from "../ip/address.ts";
import { members } from "../policy/members.ts";
import type { SetChange } from "../policy/sets.ts";
import type { Ruleset } from "./ruleset.testing.ts";
import {
  type ChainKey,
  chainKeyOf,
  type ChainRule,
  type Counted,
  type DispatchMap,
  type HookRule,
  type Layer,
  type Match,
  type RuleAction,
  type RuleChain,
  type RulesetChange,
} from "./ruleset.ts";

/** A small node's packet filter by hand, with everything that the rulesets of nodes are made of. */

export const ACCEPT_MARK = 0x10000;
export const PASS_MARK = 0x20000;

export const rule = (matches: readonly Match[], ...actions: RuleAction[]): ChainRule => ({ matches, actions });
export const commented = (comment: string, of: ChainRule): ChainRule => ({ ...of, comment });
export const counted = (as: Counted, of: ChainRule): ChainRule => ({ ...of, counted: as });
export const chain = (name: string, rules: readonly ChainRule[], layer: Layer = "filter"): RuleChain => ({
  layer,
  name,
  rules,
  origin: `of ${name}`,
});
export const hook = (
  layer: Layer,
  at: HookRule["hook"],
  one: ChainRule,
  place: HookRule["place"] = "first",
): HookRule => ({
  layer,
  hook: at,
  place,
  rule: one,
});
export const addressSet = (id: string, ...added: string[]): SetChange => ({
  id,
  kind: added.some((member) => member.includes(",")) ? "ip,port" : "net",
  state: "new",
  added,
  removed: [],
});
export const dispatch = (name: string, by: "in" | "out", entries: Readonly<Record<string, string>>): DispatchMap => ({
  layer: "filter",
  name,
  by,
  entries: new Map(Object.entries(entries)),
});

export const accept: RuleAction = { do: "accept" };
export const drop: RuleAction = { do: "drop" };
export const jump = (to: string): RuleAction => ({ do: "jump", chain: to });
export const setMark = (bits: number): RuleAction => ({ do: "mark", value: bits, mask: bits });
export const clearMark = (bits: number): RuleAction => ({ do: "mark", value: 0, mask: bits });
export const marked = (bits: number): Match => ({ on: "mark", value: bits, mask: bits });
export const unmarked = (bits: number): Match => ({ on: "mark", value: 0, mask: bits });
export const protocol = (...protocols: number[]): Match => ({ on: "protocol", protocols });
export const port = (first: number, last = first): Match => ({
  on: "ports",
  side: "destination",
  ranges: [{ first, last }],
  sets: [],
});
export const inSet = (set: string, side: "source" | "destination" = "source"): Match => ({ on: "set", side, set });
export const not = (match: Match): Match => ({ ...match, negated: true });

export interface WorldParts {
  readonly chains?: readonly RuleChain[];
  readonly maps?: readonly DispatchMap[];
  readonly hooks?: readonly HookRule[];
  readonly sets?: readonly SetChange[];
  /** Keys of what is gone. */
  readonly goneChains?: readonly ChainKey[];
  readonly goneMaps?: readonly ChainKey[];
}

export function changeOf(family: Family, parts: WorldParts): RulesetChange {
  const gone = (keys: readonly ChainKey[] = []): [ChainKey, undefined][] => keys.map((key) => [key, undefined]);
  const keyed = <Item extends Pick<RuleChain, "layer" | "name">>(items: readonly Item[] = []): [ChainKey, Item][] =>
    items.map((item) => [chainKeyOf(item), item]);
  return {
    family,
    chains: new Map<ChainKey, RuleChain | undefined>([...keyed(parts.chains), ...gone(parts.goneChains)]),
    maps: new Map<ChainKey, DispatchMap | undefined>([...keyed(parts.maps), ...gone(parts.goneMaps)]),
    ...(parts.hooks === undefined ? {} : { hooks: parts.hooks }),
    sets: parts.sets ?? [],
  };
}

/** Two workloads, a policy of each kind of condition, translation, and the hooks. */
export function smallNode(family: Family): RulesetChange {
  const four = family === 4;
  const pod = four ? ["10.65.0.2", "10.65.0.3"] : ["fd00::2", "fd00::3"];
  const net = four ? "192.0.2.0/24" : "2001:db8::/64";
  const icmp = four ? 1 : 58;
  const web = "knp/default/web";
  const policy = [
    counted(
      { of: web, direction: "ingress", index: 0 },
      rule([inSet("s:clients"), protocol(6), port(80)], setMark(ACCEPT_MARK)),
    ),
    counted(
      { of: web, direction: "ingress", index: 1 },
      commented(
        "Policy web ingress",
        rule(
          [protocol(17), { ...port(53), ranges: [53, 5353, 9999].map((first) => ({ first, last: first })) } as Match],
          setMark(ACCEPT_MARK),
        ),
      ),
    ),
    rule(
      [
        protocol(6),
        {
          on: "ports",
          side: "destination",
          ranges: [
            { first: 8000, last: 8999 },
            { first: 443, last: 443 },
          ],
          sets: ["n:named", "svc:api"],
        },
      ],
      setMark(ACCEPT_MARK),
    ),
    rule([protocol(icmp), { on: "icmp", type: 8 }], setMark(ACCEPT_MARK)),
    rule([protocol(icmp), not({ on: "icmp", type: 3, code: 4 })], setMark(ACCEPT_MARK)),
    rule([{ on: "icmp", code: 1 }], drop),
    rule([not(protocol(132, 136)), not(inSet("masq-ipam-pools", "destination"))], {
      do: "log",
      prefix: "calico-packet: ",
      perSecond: 100 / 60,
      burst: 5,
    }),
    rule([not({ ...port(22), side: "source" } as Match)], drop),
    rule([{ on: "address", side: "source", nets: [net, ...pod, four ? "192.0.2.128/25" : "2001:db8::1"] }], {
      do: "return",
    }),
    rule([not({ on: "address", side: "destination", nets: [net] })], clearMark(ACCEPT_MARK), { do: "return" }),
  ];
  const endpoint = (name: string, direction: "tw" | "fw"): RuleChain =>
    chain(`cali-${direction}-${name}`, [
      rule([{ on: "connection", states: ["established", "related"] }], accept),
      rule([{ on: "connection", states: ["invalid"] }], drop),
      rule([], clearMark(ACCEPT_MARK | PASS_MARK)),
      rule([unmarked(PASS_MARK)], jump(`cali-${direction === "tw" ? "pi" : "po"}-${web}`)),
      rule([marked(ACCEPT_MARK)], { do: "return" }),
      counted(
        { of: "tier/default", direction: direction === "tw" ? "ingress" : "egress", interfaceName: name },
        rule([unmarked(PASS_MARK)], { do: "nflog", group: 1, prefix: "DPI|default" }, drop),
      ),
    ]);
  const wl = "cali*";
  return changeOf(family, {
    sets: [
      addressSet("s:clients", ...pod, net, ...(four ? ["fd00::9"] : ["10.1.2.3"])),
      addressSet("n:named", ...pod.map((address) => `${address},tcp:8080`)),
      addressSet("svc:api", `${pod[0]},udp:53`, `${pod[1]},sctp:7`),
      addressSet("masq-ipam-pools", four ? "10.65.0.0/16" : "fd00::/64"),
      addressSet("all-hosts-net"),
    ],
    chains: [
      chain(`cali-pi-${web}`, policy),
      chain(`cali-po-${web}`, [rule([inSet("all-hosts-net", "destination")], setMark(ACCEPT_MARK))]),
      ...["cali1", "cali2"].flatMap((name) => [endpoint(name, "tw"), endpoint(name, "fw")]),
      chain("cali-FORWARD", [
        rule([{ on: "interface", way: "in", name: wl }], jump("cali-from-wl-dispatch")),
        rule([{ on: "interface", way: "out", name: wl }], jump("cali-to-wl-dispatch")),
        rule([not({ on: "dnat" }), not({ on: "interface", way: "in", name: "eth0" })], { do: "return" }),
      ]),
      chain("cali-from-wl-dispatch", [
        rule([], { do: "dispatch", map: "cali-from-wl-dispatch" }),
        commented("Unknown interface", rule([], drop)),
      ]),
      chain("cali-to-wl-dispatch", [
        rule([], { do: "dispatch", map: "cali-to-wl-dispatch" }),
        commented("Unknown interface", rule([], drop)),
      ]),
      chain("cali-wl-to-host", [
        rule([{ on: "local", side: "destination" }, { on: "dnat" }], accept),
        rule([], { do: "reject" }),
      ]),
      chain(
        "cali-PREROUTING",
        [
          rule([{ on: "interface", way: "in", name: wl }], setMark(0x80000)),
          rule([marked(0x80000), not({ on: "reversePath" })], drop),
          rule([protocol(17), port(4789)], { do: "notrack" }),
        ],
        "raw",
      ),
      chain(
        "cali-fip-dnat",
        [
          rule([{ on: "address", side: "destination", nets: [four ? "198.51.100.1" : "2001:db8:1::1"] }], {
            do: "dnat",
            to: pod[0]!,
          }),
        ],
        "nat",
      ),
      chain(
        "cali-fip-snat",
        [
          rule([{ on: "address", side: "source", nets: [pod[0]!] }], {
            do: "snat",
            to: four ? "198.51.100.1" : "2001:db8:1::1",
          }),
        ],
        "nat",
      ),
      chain(
        "cali-nat-outgoing",
        [
          rule([inSet("masq-ipam-pools"), not(inSet("masq-ipam-pools", "destination")), protocol(6)], {
            do: "masquerade",
            ports: { first: 32768, last: 60999 },
          }),
          rule([inSet("masq-ipam-pools"), not(inSet("masq-ipam-pools", "destination"))], { do: "masquerade" }),
        ],
        "nat",
      ),
    ],
    maps: [
      dispatch("cali-from-wl-dispatch", "in", { cali1: "cali-fw-cali1", cali2: "cali-fw-cali2" }),
      dispatch("cali-to-wl-dispatch", "out", { cali1: "cali-tw-cali1", cali2: "cali-tw-cali2" }),
    ],
    hooks: [
      hook("filter", "FORWARD", rule([marked(ACCEPT_MARK)], accept), "last"),
      hook("filter", "FORWARD", rule([], jump("cali-FORWARD"))),
      hook(
        "filter",
        "INPUT",
        rule([{ on: "interface", way: "in", name: wl }], { do: "goto", chain: "cali-wl-to-host" }),
      ),
      hook("raw", "PREROUTING", rule([], jump("cali-PREROUTING"))),
      hook("nat", "PREROUTING", rule([], jump("cali-fip-dnat"))),
      hook("nat", "OUTPUT", rule([], jump("cali-fip-dnat"))),
      hook("nat", "POSTROUTING", rule([], jump("cali-fip-snat"))),
      hook("nat", "POSTROUTING", rule([], jump("cali-nat-outgoing")), "last"),
      hook("mangle", "OUTPUT", rule([marked(1)], clearMark(1))),
    ],
  });
}

/** Sets as the compiler gives them: without members that others hold. */
export function distinct(ruleset: Ruleset): Ruleset {
  const sets: Ruleset["sets"] = new Map();
  for (const [id, set] of ruleset.sets) {
    const all = members();
    for (const member of set.members) all.add(member);
    sets.set(id, { kind: set.kind, members: new Set(all.take().added) });
  }
  return { ...ruleset, sets };
}
