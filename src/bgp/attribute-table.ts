import { formatAddress, type Address } from "../ip/address.ts";
import { ByteWriter } from "../lib/bytes.ts";
import { neighborAsn, pathLength } from "./as-path.ts";
import { encodeAttributes } from "./attribute-list.ts";
import type { PathAttributes } from "./attributes.ts";
import type { ResolvedNextHop } from "./config.ts";

/** A next hop, and how packets reach it: looked up once, however many routes use it. */
export interface NextHop {
  readonly address: Address;
  /** Undefined while it cannot be reached. */
  resolved: ResolvedNextHop | undefined;
}

/** One set of attributes, shared by all routes that came with it, with what the decision process compares. */
export interface AttributeSet {
  /** From 1 on. */
  readonly id: number;
  readonly key: string;
  readonly attributes: PathAttributes;
  readonly nextHop: CountedNextHop | undefined;
  readonly localPref: number;
  readonly pathLength: number;
  /** 0 IGP, 1 EGP, 2 incomplete. */
  readonly origin: number;
  readonly med: number;
  readonly neighborAsn: number;
  readonly clusterLength: number;
  /** Paths that use it. */
  references: number;
}

interface CountedNextHop extends NextHop {
  references: number;
}

/** RFC 4271 section 9.1.1 leaves it to us; 100 is what everybody takes. */
export const DEFAULT_LOCAL_PREF = 100;

const ORIGIN_ORDER = { igp: 0, egp: 1, incomplete: 2 } as const;
const CANONICAL = { asOctets: 4, internal: true } as const;

/**
 * Interns attributes: routes hold the number of a set, and what was seen before is recognised by its bytes without being
 * decoded again. A set lives as long as something retains it.
 */
export class AttributeTable {
  readonly #byKey = new Map<string, AttributeSet>();
  readonly #byId: (AttributeSet | undefined)[] = [undefined];
  readonly #freeIds: number[] = [];
  readonly #nextHops = new Map<bigint, CountedNextHop>();
  readonly #resolve: (address: Address) => ResolvedNextHop | undefined;

  constructor(resolve: (address: Address) => ResolvedNextHop | undefined) {
    this.#resolve = resolve;
  }

  get size(): number {
    return this.#byKey.size;
  }

  /** `key` stands for the attributes as they came: any text that is equal for equal attributes alone. */
  find(key: string): AttributeSet | undefined {
    return this.#byKey.get(key);
  }

  get(id: number): AttributeSet {
    const set = this.#byId[id];
    if (set === undefined) throw new RangeError(`there is no attribute set ${id}`);
    return set;
  }

  /** Adds attributes that `find` did not know. Nothing keeps them until the first `retain`. */
  add(key: string, attributes: PathAttributes): AttributeSet {
    const id = this.#freeIds.pop() ?? this.#byId.length;
    const set: AttributeSet = {
      id,
      key,
      attributes,
      nextHop: attributes.nextHop === undefined ? undefined : this.#nextHop(attributes.nextHop),
      localPref: attributes.localPref ?? DEFAULT_LOCAL_PREF,
      pathLength: pathLength(attributes.asPath),
      origin: ORIGIN_ORDER[attributes.origin],
      med: attributes.med ?? 0,
      neighborAsn: neighborAsn(attributes.asPath),
      clusterLength: attributes.clusterList?.length ?? 0,
      references: 0,
    };
    this.#byId[id] = set;
    this.#byKey.set(key, set);
    return set;
  }

  /** The set of attributes that did not come in a message: our own, or changed by a filter. */
  intern(attributes: PathAttributes): AttributeSet {
    const writer = new ByteWriter(64);
    encodeAttributes(writer, attributes, CANONICAL, false);
    const hops = [attributes.nextHop, attributes.linkLocalNextHop].map((hop) => (hop ? formatAddress(hop) : ""));
    const key = `own ${hops.join(" ")} ${Buffer.from(writer.finish()).toString("latin1")}`;
    return this.find(key) ?? this.add(key, attributes);
  }

  retain(set: AttributeSet): number {
    set.references += 1;
    return set.id;
  }

  release(id: number): void {
    const set = this.get(id);
    set.references -= 1;
    if (set.references > 0) return;
    this.#byKey.delete(set.key);
    this.#byId[id] = undefined;
    this.#freeIds.push(id);
    const hop = set.nextHop;
    if (hop === undefined) return;
    hop.references -= 1;
    if (hop.references === 0) this.#nextHops.delete(numberOf(hop.address));
  }

  /** Resolves every next hop again, and returns those that changed. */
  recheckNextHops(): ReadonlySet<NextHop> {
    const changed = new Set<NextHop>();
    for (const hop of this.#nextHops.values()) {
      const resolved = this.#resolve(hop.address);
      if (sameResolution(hop.resolved, resolved)) continue;
      hop.resolved = resolved;
      changed.add(hop);
    }
    return changed;
  }

  #nextHop(address: Address): CountedNextHop {
    const key = numberOf(address);
    const known = this.#nextHops.get(key);
    if (known !== undefined) {
      known.references += 1;
      return known;
    }
    const added = { address, resolved: this.#resolve(address), references: 1 };
    this.#nextHops.set(key, added);
    return added;
  }
}

/** One number for addresses of both families. */
function numberOf({ family, value }: Address): bigint {
  return family === 4 ? value : value | (1n << 128n);
}

function sameResolution(a: ResolvedNextHop | undefined, b: ResolvedNextHop | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    a.interface === b.interface &&
    a.metric === b.metric &&
    a.gateway?.value === b.gateway?.value &&
    a.gateway?.family === b.gateway?.family
  );
}
