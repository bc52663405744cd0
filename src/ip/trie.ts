import type { Address, Family } from "./address.ts";
import { hostPrefix, type Prefix } from "./prefix.ts";

export interface PrefixEntry<Value> {
  readonly prefix: Prefix;
  readonly value: Value;
}

/**
 * Values by prefix, of both families, found by address: a route table's lookup. The naive twin beside it says what each
 * method means; here all of them take time in proportion to the length of the prefix, whatever the size of the table.
 */
export interface PrefixTable<Value> {
  readonly size: number;
  get(prefix: Prefix): Value | undefined;
  /** Adds the prefix, or gives it another value. */
  set(prefix: Prefix, value: Value): void;
  /** Says whether it was there. */
  delete(prefix: Prefix): boolean;
  /** The longest prefix that contains the address. */
  longestMatch(address: Address): PrefixEntry<Value> | undefined;
  /** Every prefix that covers this one, itself included, the shortest first. */
  covering(prefix: Prefix): PrefixEntry<Value>[];
  /** Every prefix that this one covers, itself included, in the order of `comparePrefixes`. */
  covered(prefix: Prefix): PrefixEntry<Value>[];
  /** All of them, in the order of `comparePrefixes`. */
  entries(): PrefixEntry<Value>[];
}

/**
 * A binary trie without the nodes that decide nothing (Morrison's PATRICIA): a node stands for the first `length` bits of
 * `words`; its children differ in the bit after those. A node without an entry is where two paths part. The roots stay.
 */
interface Node<Value> {
  readonly words: readonly number[];
  readonly length: number;
  entry: PrefixEntry<Value> | undefined;
  readonly children: [zero: Node<Value> | undefined, one: Node<Value> | undefined];
}

export function prefixTrie<Value>(): PrefixTable<Value> {
  const roots: Record<Family, Node<Value>> = { 4: leaf([0], 0, undefined), 6: leaf([0, 0, 0, 0], 0, undefined) };
  let size = 0;

  /** The nodes on the way to the key, from the root down: each stands for bits that the key begins with. */
  function path(family: Family, words: readonly number[], length: number): Node<Value>[] {
    const nodes: Node<Value>[] = [];
    let node: Node<Value> | undefined = roots[family];
    while (
      node !== undefined &&
      node.length <= length &&
      commonLength(node.words, words, node.length) === node.length
    ) {
      nodes.push(node);
      node = node.length === length ? undefined : node.children[bitAt(words, node.length)];
    }
    return nodes;
  }

  function find({ address, length }: Prefix): Node<Value> | undefined {
    const last = path(address.family, wordsOf(address), length).at(-1);
    return last?.length === length ? last : undefined;
  }

  function set(prefix: Prefix, value: Value): void {
    const { length } = prefix;
    const words = wordsOf(prefix.address);
    const entry = { prefix, value };
    const above = path(prefix.address.family, words, length).at(-1) ?? roots[prefix.address.family];
    if (above.entry === undefined || above.length !== length) size += 1;
    if (above.length === length) {
      above.entry = entry;
      return;
    }
    const added: Node<Value> = leaf(words, length, entry);
    const side = bitAt(words, above.length);
    const below = above.children[side];
    if (below === undefined) {
      above.children[side] = added;
      return;
    }
    // The two agree further than `above`, but not as far as `below`: something goes in between.
    const common = commonLength(below.words, words, Math.min(below.length, length));
    const fork: Node<Value> = common === length ? added : leaf(words, common, undefined);
    fork.children[bitAt(below.words, common)] = below;
    if (fork !== added) fork.children[bitAt(words, common)] = added;
    above.children[side] = fork;
  }

  function remove(prefix: Prefix): boolean {
    const nodes = path(prefix.address.family, wordsOf(prefix.address), prefix.length);
    const node = nodes.at(-1);
    if (node?.length !== prefix.length || node.entry === undefined) return false;
    node.entry = undefined;
    size -= 1;
    // A node that decides nothing any more gives its place to its only child; its parent may then be such a node.
    for (let at = nodes.length - 1; at >= Math.max(1, nodes.length - 2); at -= 1) {
      const { entry, children, words } = nodes[at]!;
      const above = nodes[at - 1]!;
      if (entry !== undefined || (children[0] !== undefined && children[1] !== undefined)) break;
      above.children[bitAt(words, above.length)] = children[0] ?? children[1];
    }
    return true;
  }

  function covered({ address, length }: Prefix): PrefixEntry<Value>[] {
    const words = wordsOf(address);
    const above = path(address.family, words, length).at(-1);
    if (above === undefined) return [];
    if (above.length === length) return collect(above, []);
    const below = above.children[bitAt(words, above.length)];
    const inside = below !== undefined && commonLength(below.words, words, length) === length;
    return inside ? collect(below, []) : [];
  }

  const covering = ({ address, length }: Prefix): PrefixEntry<Value>[] =>
    path(address.family, wordsOf(address), length).flatMap(({ entry }) => (entry === undefined ? [] : [entry]));

  return {
    get size() {
      return size;
    },
    get: (prefix) => find(prefix)?.entry?.value,
    set,
    delete: remove,
    longestMatch: (address) => covering(hostPrefix(address)).at(-1),
    covering,
    covered,
    entries: () => collect(roots[6], collect(roots[4], [])),
  };
}

function leaf<Value>(words: readonly number[], length: number, entry: PrefixEntry<Value> | undefined): Node<Value> {
  return { words, length, entry, children: [undefined, undefined] };
}

/** In order: a node comes before what it covers, zeros before ones. */
function collect<Value>({ entry, children }: Node<Value>, into: PrefixEntry<Value>[]): PrefixEntry<Value>[] {
  if (entry !== undefined) into.push(entry);
  for (const child of children) if (child !== undefined) collect(child, into);
  return into;
}

/** The address in words of 32 bits, which JavaScript computes with faster than with a bigint. */
function wordsOf({ family, value }: Address): number[] {
  if (family === 4) return [Number(value)];
  return [96n, 64n, 32n, 0n].map((shift) => Number((value >> shift) & 0xffffffffn));
}

function bitAt(words: readonly number[], at: number): 0 | 1 {
  return ((words[at >>> 5]! >>> (31 - (at & 31))) & 1) as 0 | 1;
}

/** How many bits the two begin with alike, at most `limit`. */
function commonLength(a: readonly number[], b: readonly number[], limit: number): number {
  for (let word = 0; word * 32 < limit; word += 1) {
    const same = Math.clz32(a[word]! ^ b[word]!);
    if (same < 32) return Math.min(word * 32 + same, limit);
  }
  return limit;
}
