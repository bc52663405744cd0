import type { Address, Family } from "../ip/address.ts";
import { lastAddress, type Prefix } from "../ip/prefix.ts";

/** Addresses that are never given out by themselves (IPReservation), as disjoint ranges in ascending order. */
export interface Reservations {
  has(address: Address): boolean;
  /** Whether any address of the network is reserved. */
  touches(prefix: Prefix): boolean;
  /** How many addresses of the network are reserved. */
  countIn(prefix: Prefix): bigint;
  /** Where all of the network is reserved: the last address of the reserved range around it. */
  endOfCover(prefix: Prefix): bigint | undefined;
}

interface Range {
  readonly first: bigint;
  last: bigint;
}

/** Several reservations side by side may cover a block together, so they are joined first. */
export function reservationsOf(prefixes: readonly Prefix[]): Reservations {
  const ranges: Record<Family, Range[]> = { 4: joined(prefixes, 4), 6: joined(prefixes, 6) };
  const around = (address: Address): Range | undefined => {
    const sorted = ranges[address.family];
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((sorted[middle]?.last ?? 0n) < address.value) low = middle + 1;
      else high = middle;
    }
    return sorted[low];
  };
  return {
    has: (address) => (around(address)?.first ?? address.value + 1n) <= address.value,
    touches: (prefix) => {
      const next = around(prefix.address);
      return next !== undefined && next.first <= lastAddress(prefix).value;
    },
    countIn: (prefix) => {
      const [first, last] = [prefix.address.value, lastAddress(prefix).value];
      return ranges[prefix.address.family].reduce((sum, range) => {
        const from = range.first > first ? range.first : first;
        const to = range.last < last ? range.last : last;
        return to < from ? sum : sum + to - from + 1n;
      }, 0n);
    },
    endOfCover: (prefix) => {
      const range = around(prefix.address);
      const covers =
        range !== undefined && range.first <= prefix.address.value && range.last >= lastAddress(prefix).value;
      return covers ? range.last : undefined;
    },
  };
}

function joined(prefixes: readonly Prefix[], family: Family): Range[] {
  const sorted = prefixes
    .filter((prefix) => prefix.address.family === family)
    .map((prefix) => ({ first: prefix.address.value, last: lastAddress(prefix).value }))
    .sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0));
  const ranges: Range[] = [];
  for (const range of sorted) {
    const previous = ranges.at(-1);
    if (previous === undefined || range.first > previous.last + 1n) ranges.push(range);
    else if (range.last > previous.last) previous.last = range.last;
  }
  return ranges;
}
