import assert from "node:assert/strict";
import { parseAddress, type Address } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import type { PathAttributes } from "./attributes.ts";
import { negotiated } from "./bgp.testing.ts";
import type { ExportPolicy } from "./export-policy.ts";
import { compileFilter, type FilterRules } from "./filters.ts";
import { nextFrame } from "./message.ts";
import { decodeNlri, type Nlri } from "./nlri.ts";
import { readingOf, Tables, type Group, type Reading, type TablePeer } from "./tables.ts";
import type { Member } from "./update-batch.ts";
import { decodeUpdate, encodeUpdate } from "./update.ts";

const ALL: FilterRules = { rules: [], otherwise: "accept" };
export const OWN = parseAddress("192.0.2.1");
export const ASN = 64512;

/** A peer that remembers what it was told. */
export interface Listener extends Member {
  readonly table: TablePeer;
  readonly policy: ExportPolicy;
  readonly reading: Reading;
  /** By prefix, and path identifier where there are some: `10.1.0.0/16 #3`. */
  readonly told: Map<string, PathAttributes>;
  readonly messages: Uint8Array[];
  open: boolean;
  synced: () => void;
  complete: boolean;
  group?: Group;
}

interface ListenerOptions {
  /** Of our route reflector. */
  readonly client?: boolean;
  /** Paths have identifiers in both directions. */
  readonly addPath?: boolean;
  readonly importRules?: FilterRules;
}

export function policyOf(internal: boolean, rules = ALL, change: Partial<ExportPolicy> = {}): ExportPolicy {
  const filter = compileFilter(rules, 4, internal ? "iBGP" : "eBGP");
  return {
    family: 4,
    internal,
    client: false,
    clusterId: 99,
    localAsn: ASN,
    asOctets: 4,
    longestMessage: 4096,
    addPath: false,
    nextHopMode: "auto",
    extendedNextHop: false,
    gracefulShutdown: false,
    ownNextHop: OWN,
    filter,
    ...change,
  };
}

export function listenerOf(
  tables: Tables,
  number: number,
  internal: boolean,
  { client = false, addPath = false, importRules = ALL }: ListenerOptions = {},
): Listener {
  const table = tables.addPeer({
    name: `peer${number}`,
    address: parseAddress(`192.0.2.${10 + number}`),
    internal,
    client,
    routerId: number,
    imports: {
      4: {
        ownAsns: [ASN],
        allowOwnAs: 0,
        routerId: 99,
        clusterId: 99,
        internal,
        ownAddress: OWN,
        filter: compileFilter(importRules, 4, internal ? "iBGP" : "eBGP"),
      },
    },
  });
  const reading = readingOf(negotiated({ internal, addPathReceive: addPath ? [4] : [] }));
  const nameOf = ({ prefix, pathId }: Nlri): string => `${formatPrefix(prefix)}${addPath ? ` #${pathId}` : ""}`;
  const listener: Listener = {
    table,
    policy: policyOf(internal, ALL, { client, addPath }),
    peer: table.index,
    reading,
    told: new Map(),
    messages: [],
    open: true,
    complete: false,
    ready: () => listener.open,
    synced: () => {
      listener.complete = true;
    },
    write(bytes) {
      assert.ok(listener.open, "written to a peer that takes nothing");
      for (let at = 0; at < bytes.length;) {
        const frame = nextFrame(bytes, at, 4096);
        assert.ok(frame);
        listener.messages.push(bytes.subarray(at, frame.end));
        const { withdrawn, announced } = decodeUpdate(bytes, frame.start, frame.end, reading);
        for (const route of withdrawn.flatMap(decodeNlri)) listener.told.delete(nameOf(route));
        for (const { nlri, attributes } of announced) {
          for (const route of decodeNlri(nlri)) listener.told.set(nameOf(route), attributes);
        }
        at = frame.end;
      }
    },
  };
  return listener;
}

export function tell(
  tables: Tables,
  from: Listener,
  announced: readonly string[],
  attributes: PathAttributes,
  withdrawn: readonly string[] = [],
  pathId = 0,
): readonly string[] {
  const { internal } = from.table;
  const nlri = (list: readonly string[]) => list.map((text) => ({ prefix: parsePrefix(text), pathId }));
  const sent = { ...attributes, ...(internal && { localPref: attributes.localPref ?? 100 }) };
  const bytes = encodeUpdate(
    {
      family: 4,
      withdrawn: nlri(withdrawn),
      ...(announced.length > 0 && { announced: { nlri: nlri(announced), attributes: sent } }),
    },
    from.reading,
  );
  return tables.receive(from.table.index, from.reading, bytes, 19, bytes.length).problems;
}

export function settle(tables: Tables) {
  const changes = [];
  for (;;) {
    const result = tables.flush(true);
    changes.push(...result.changes);
    if (!result.more) return changes;
  }
}

export function tablesWith(resolve: (address: Address) => { metric?: number } | undefined = () => ({})): Tables {
  return new Tables({ routerId: 99, resolve, maxPaths: 16 });
}

export const path = (
  hop: string,
  asns: readonly number[] = [],
  more: Partial<PathAttributes> = {},
): PathAttributes => ({
  origin: "igp",
  asPath: asns.length > 0 ? [{ type: "sequence", asns }] : [],
  nextHop: parseAddress(hop),
  ...more,
});

/** `10.1.0.0/16 via 192.0.2.11,192.0.2.12 from peer1`. */
export function shown(changes: ReturnType<typeof settle>): string[] {
  return changes
    .map(({ prefix, nextHops, peer }) => {
      const hops = nextHops.map(({ nextHop }) => nextHop.value & 255n).join();
      return `${formatPrefix(prefix)} ${hops === "" ? "gone" : `via ${hops} from ${peer}`}`;
    })
    .toSorted();
}
