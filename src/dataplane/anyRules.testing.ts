/** Rules and packets that meet often enough to tell one meaning of a rule from another. */
import fc from "fast-check";
import { parseAddress, type Family } from "../ip/address.ts";
import { hasPorts, icmpOf, type PortRange } from "../policy/model.ts";
import type { SetKind } from "../policy/sets.ts";
import type { Surroundings, Travelling } from "./packetPath.testing.ts";
import {
  chainKeyOf,
  type ChainRule,
  type DispatchMap,
  type Layer,
  type Match,
  type RuleAction,
  type RuleChain,
} from "./ruleset.ts";
import type { Ruleset } from "./ruleset.testing.ts";

const INTERFACES = ["cali1", "cali12", "cali13", "cali2", "calx", "eth0"];
const WORLD: Readonly<Record<Family, { readonly addresses: readonly string[]; readonly nets: readonly string[] }>> = {
  4: {
    addresses: ["10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1"],
    nets: ["10.0.0.0/8", "10.0.0.1", "10.0.1.0/24", "192.0.2.1", "0.0.0.0/1", "10.0.0.2"],
  },
  6: {
    addresses: ["fd00::1", "fd00::2", "fd00:1::1", "2001:db8::1"],
    nets: ["fd00::/16", "fd00::1", "fd00:1::/64", "2001:db8::1", "::/1", "fd00::2"],
  },
};
const PORTS = [53, 80, 81, 443, 8080];
const BITS = [0x10000, 0x20000, 0x40000];
const SETS = ["s:one", "s:two"];
const PORT_SETS = ["n:one", "n:two"];
const CHAINS = ["cali-A", "cali-B", "cali-C", "cali-D"];
/** Chains that a map leads to lead nowhere themselves. */
const ENDS = ["cali-fw-1", "cali-fw-2"];
const MAP = "cali-map";
/** Set where the packet came back from all chains: none of them ended its way. */
const CAME_BACK = 0x1;

export interface Journey {
  readonly one: Travelling;
  readonly surroundings: Surroundings;
}

export function anyJourney(family: Family): fc.Arbitrary<Journey> {
  const { addresses } = WORLD[family];
  const anyIcmp = fc.record({ type: fc.constantFrom(0, 3, 8, 128), code: fc.constantFrom(0, 1) });
  return fc
    .record({
      in: fc.constantFrom(...INTERFACES),
      out: fc.constantFrom(...INTERFACES),
      source: fc.constantFrom(...addresses),
      destination: fc.constantFrom(...addresses),
      protocol: fc.constantFrom(6, 17, 132, icmpOf(family), 47),
      sourcePort: fc.constantFrom(...PORTS),
      destinationPort: fc.constantFrom(...PORTS),
      icmp: anyIcmp,
      state: fc.constantFrom("new", "established", "related", "invalid"),
      isDnat: fc.boolean(),
      local: fc.subarray([...addresses]),
      isReversePath: fc.boolean(),
      bits: fc.subarray(BITS),
    })
    .map(
      ({ source, destination, protocol, sourcePort, destinationPort, icmp, bits, local, isReversePath, ...rest }) => ({
        one: {
          ...rest,
          packet: {
            family,
            protocol,
            source: parseAddress(source),
            destination: parseAddress(destination),
            ...(hasPorts(protocol) ? { sourcePort, destinationPort } : {}),
            ...(protocol === icmpOf(family) ? { icmp } : {}),
          },
          mark: bits.reduce((mark, bit) => mark | bit, 0),
          noted: [],
        },
        surroundings: { local, isReversePath },
      }),
    );
}

const anySide = fc.constantFrom("source", "destination");
const anyRange = fc
  .tuple(fc.constantFrom(...PORTS), fc.constantFrom(0, 1, 100))
  .map(([first, more]): PortRange => ({ first, last: first + more }));
/** Now and then more than one match of multiport takes. */
const anyRanges = fc
  .tuple(fc.array(anyRange, { maxLength: 3 }), fc.constantFrom(0, 0, 0, 14, 31))
  .map(([ranges, more]) => [
    ...Array.from({ length: more }, (_, at) => ({ first: 1000 + 2 * at, last: 1000 + 2 * at })),
    ...ranges,
  ]);

function anyMatch(family: Family): fc.Arbitrary<Match> {
  const nets = fc.subarray([...WORLD[family].nets], { minLength: 1, maxLength: 3 });
  const positive: fc.Arbitrary<Match> = fc.oneof(
    fc
      .tuple(fc.constantFrom<("in" | "out")[]>("in", "out"), fc.constantFrom(...INTERFACES, "cali*", "cali1*", "*"))
      .map(([way, name]): Match => ({ on: "interface", way, name })),
    fc
      .subarray([6, 17, 132, icmpOf(family)], { minLength: 1, maxLength: 2 })
      .map((protocols): Match => ({ on: "protocol", protocols })),
    fc.tuple(anySide, nets).map(([side, of]): Match => ({ on: "address", side, nets: of })),
    fc.tuple(anySide, fc.constantFrom(...SETS)).map(([side, set]): Match => ({ on: "set", side, set })),
    fc
      .tuple(anySide, anyRanges, fc.subarray(PORT_SETS))
      .map(([side, ranges, sets]): Match => ({ on: "ports", side, ranges, sets })),
    fc
      .tuple(fc.constantFrom(undefined, 8, 128), fc.constantFrom(undefined, undefined, 0))
      .map(([type, code]): Match => ({
        on: "icmp",
        ...(type === undefined ? {} : { type }),
        ...(code === undefined ? {} : { code }),
      })),
    fc
      .subarray<"new" | "established" | "invalid">(["new", "established", "invalid"], { minLength: 1 })
      .map((states): Match => ({ on: "connection", states })),
    fc.tuple(fc.constantFrom(...BITS), fc.boolean()).map(([mask, isSet]): Match => ({
      on: "mark",
      value: isSet ? mask : 0,
      mask,
    })),
    fc.tuple(anySide).map(([side]): Match => ({ on: "local", side })),
    fc.constantFrom<Match[]>({ on: "dnat" }, { on: "reversePath" }),
  );
  return fc.tuple(positive, fc.boolean()).map(([match, negated]) => (negated ? { ...match, negated: true } : match));
}

const anyMark = fc
  .tuple(fc.constantFrom(...BITS), fc.boolean())
  .map(([mask, isSet]): RuleAction => ({ do: "mark", value: isSet ? mask : 0, mask }));

/** @param further chains that may be gone to */
function anyRule(family: Family, further: readonly string[]): fc.Arbitrary<ChainRule> {
  const onTheWay = fc.oneof(
    anyMark,
    fc.constantFrom<RuleAction[]>(
      { do: "nflog", group: 1, prefix: "APE0|np/a" },
      { do: "log", prefix: "packet: " },
      { do: "notrack" },
    ),
  );
  const last = fc.oneof(
    onTheWay,
    fc.constantFrom<RuleAction[]>(
      { do: "accept" },
      { do: "drop" },
      { do: "return" },
      { do: "log", prefix: "packet: ", perSecond: 10 },
      ...further.flatMap((chain): RuleAction[] => [
        { do: "jump", chain },
        { do: "goto", chain },
      ]),
      ...(further.length === 0 ? [] : [{ do: "dispatch", map: MAP } as const]),
    ),
  );
  return fc
    .tuple(fc.array(anyMatch(family), { maxLength: 4 }), fc.array(onTheWay, { maxLength: 2 }), last, fc.nat())
    .filter(([matches, before, end]) => {
      // A dispatch cannot follow what changes its own matches.
      const isChanged = before.some((action) => action.do === "mark" || action.do === "notrack");
      return end.do !== "dispatch" || matches.length === 0 || !isChanged;
    })
    .map(([matches, before, end, index]) => ({
      matches,
      actions: [...before, end],
      counted: { of: "np/a", direction: "ingress", index },
    }));
}

/** Chains of one layer, and where they are entered: the hook PREROUTING. */
export function anyRuleset(family: Family, layer: Layer): fc.Arbitrary<Ruleset> {
  const chain = (name: string, further: readonly string[]): fc.Arbitrary<RuleChain> =>
    fc.array(anyRule(family, further), { maxLength: 4 }).map((rules) => ({ layer, name, rules, origin: name }));
  const members = WORLD[family].addresses.flatMap((address) => [`${address},tcp:80`, `${address},udp:53`]);
  return fc
    .record({
      chains: fc.tuple(
        ...CHAINS.map((name, at) => chain(name, [...CHAINS.slice(at + 1), ...ENDS])),
        ...ENDS.map((name) => chain(name, [])),
      ),
      entries: fc.array(fc.tuple(fc.constantFrom(...INTERFACES), fc.constantFrom(...ENDS))),
      by: fc.constantFrom<("in" | "out")[]>("in", "out"),
      sets: fc.tuple(...SETS.map(() => fc.subarray([...WORLD[family].nets]))),
      portSets: fc.tuple(...PORT_SETS.map(() => fc.subarray(members))),
    })
    .map(({ chains, entries, by, sets, portSets }) => {
      const map: DispatchMap = { layer, name: MAP, by, entries: new Map(entries) };
      const hook = (action: RuleAction): Ruleset["hooks"][number] => ({
        layer,
        hook: "PREROUTING",
        place: "first",
        rule: { matches: [], actions: [action] },
      });
      return {
        family,
        chains: new Map(chains.map((each) => [chainKeyOf(each), each])),
        maps: new Map([[chainKeyOf(map), map]]),
        hooks: [hook({ do: "jump", chain: CHAINS[0]! }), hook({ do: "mark", value: CAME_BACK, mask: CAME_BACK })],
        sets: new Map<string, { kind: SetKind; members: Set<string> }>([
          ...SETS.map((name, at) => [name, { kind: "net" as const, members: new Set(sets[at]) }] as const),
          ...PORT_SETS.map((name, at) => [name, { kind: "ip,port" as const, members: new Set(portSets[at]) }] as const),
        ]),
      };
    });
}
