import { MalformedBytes } from "../lib/bytes.ts";
import {
  decodeAttributes,
  encodeAttributes,
  present,
  raw,
  row,
  text,
  type Attributes,
  type AttributeRow,
  type AttributeTable,
} from "./attributes.ts";
import { CREATE, DUMP, type Message, type Request } from "./framing.ts";
import { COMMENT, commentPiece, encodeUserData, findComment } from "./nftData.ts";
import {
  be32,
  be64,
  decodeNetfilterHeader,
  inside,
  named32,
  nestedRow,
  netfilterRequest,
  netfilterTable,
  signed32,
} from "./nfnetlink.ts";

/** Tables and chains of nf_tables: <linux/netfilter/nf_tables.h>. */

export const NEW_TABLE = 0;
const GET_TABLE = 1;
export const DELETE_TABLE = 2;
export const NEW_CHAIN = 3;
const GET_CHAIN = 4;
export const DELETE_CHAIN = 5;

export type TableFamily = "ip" | "ip6" | "inet" | "arp" | "bridge" | "netdev";

/** What tells one table from another. */
export interface TableName {
  readonly family: TableFamily;
  readonly name: string;
}

export interface Table extends TableName {
  /** Its chains are there, but no packet goes through them. */
  readonly dormant?: true;
  /** Of a netlink socket: nobody but whoever has the socket can change it, and `nft flush ruleset` passes it over. */
  readonly owned?: true;
  /** It stays when its owner's socket is closed, and is nobody's until it is added again with an owner. Since Linux 6.9. */
  readonly persistent?: true;
  readonly comment?: string;
}

/** How tables, chains, rules, sets and objects are known to the kernel, in a list. */
export interface Listed {
  readonly handle: number;
}

/** A chain that packets come to by themselves, or, without `base`, by jump and goto only. */
export interface Chain {
  readonly table: TableName;
  readonly name: string;
  readonly base?: BaseChain;
  readonly comment?: string;
}

export interface BaseChain {
  readonly type: "filter" | "nat" | "route";
  readonly hook: Hook;
  /** The lower comes first: raw -300, mangle -150, dstnat -100, filter 0, srcnat 100. */
  readonly priority: number;
  /** What becomes of packets at the end of the chain: they are accepted where absent. */
  readonly policy?: "accept" | "drop";
}

/** NF_INET_… of <linux/netfilter.h>; the ARP family counts its own (NF_ARP_…). */
const HOOKS = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4, ingress: 5 } as const;
const ARP_HOOKS: Partial<Record<Hook, number>> = { input: 0, output: 1, forward: 2 };
export type Hook = keyof typeof HOOKS;

/** NFT_TABLE_F_… */
const [DORMANT, OWNER, PERSIST] = [1, 2, 4];

const TABLE = netfilterTable({ name: row(1, text), flags: row(2, be32), handle: row(4, be64), userData: row(6, raw) });

const CHAIN = netfilterTable({
  table: row(1, text),
  name: row(3, text),
  type: row(7, text),
  policy: row(5, named32({ drop: 0, accept: 1 })),
  hook: nestedRow(4, inside(netfilterTable({ number: row(1, be32), priority: row(2, signed32) }))),
  handle: row(2, be64),
  userData: row(12, raw),
});

export function listTables(): Request {
  return netfilterRequest("nftables", GET_TABLE, DUMP, "unspecified", () => undefined);
}

/** It may be there already; but one that was made without an owner never gets one (ENOTSUP). */
export function addTable({ family, name, dormant, owned, persistent, comment }: Table): Request {
  const flags = (dormant === true ? DORMANT : 0) | (owned === true ? OWNER : 0) | (persistent === true ? PERSIST : 0);
  return nftRequest(NEW_TABLE, 0, family, TABLE, { name, flags, userData: commentData(comment) });
}

/** With all that is in it. */
export function deleteTable({ family, name }: TableName): Request {
  return nftRequest(DELETE_TABLE, 0, family, TABLE, { name });
}

export function decodeTable({ body }: Message): (Table & Listed) | undefined {
  const family = decodeTableFamily(body);
  if (family === undefined) return undefined;
  const { name, flags = 0, handle = 0, userData } = decodeAttributes(body, TABLE);
  if (name === undefined) throw new MalformedBytes("a table has no name");
  const flag = (bit: number): true | undefined => ((flags & bit) === 0 ? undefined : true);
  const [dormant, owned, persistent] = [flag(DORMANT), flag(OWNER), flag(PERSIST)];
  return { family, name, handle, ...present({ dormant, owned, persistent, comment: findComment(userData, COMMENT) }) };
}

/** Of all tables: the kernel does not filter chains. */
export function listChains(family: TableFamily): Request {
  return netfilterRequest("nftables", GET_CHAIN, DUMP, family, () => undefined);
}

/** It may be there already; then a base chain's policy is changed, and a policy that is absent stays. */
export function addChain({ table, name, base, comment }: Chain): Request {
  const hooks: Partial<Record<Hook, number>> = table.family === "arp" ? ARP_HOOKS : HOOKS;
  const number = base && hooks[base.hook];
  if (base !== undefined && number === undefined) {
    throw new MalformedBytes(`chain ${name}: family ${table.family} has no hook ${base.hook}`);
  }
  return nftRequest(NEW_CHAIN, CREATE, table.family, CHAIN, {
    table: table.name,
    name,
    type: base?.type,
    policy: base?.policy,
    hook: base && { number, priority: base.priority },
    userData: commentData(comment),
  });
}

/** Fails with EBUSY while a rule or map leads to it, and where a base chain has rules. */
export function deleteChain({ table, name }: Pick<Chain, "table" | "name">): Request {
  return nftRequest(DELETE_CHAIN, 0, table.family, CHAIN, { table: table.name, name });
}

export function decodeChain({ body }: Message): (Chain & Listed) | undefined {
  const family = decodeTableFamily(body);
  if (family === undefined) return undefined;
  const { table, name, type, policy, hook, handle = 0, userData } = decodeAttributes(body, CHAIN);
  if (table === undefined || name === undefined) throw new MalformedBytes("a chain has no name");
  const base = hook && decodeBase(family, type, hook.number, hook.priority, policy);
  return {
    table: { family, name: table },
    name,
    handle,
    ...present({ base, comment: findComment(userData, COMMENT) }),
  };
}

const TYPES = ["filter", "nat", "route"] as const;

/** Undefined for a hook or a type that has no name here: none of ours. */
function decodeBase(
  family: TableFamily,
  typeName: string | undefined,
  number: number | undefined,
  priority: number | undefined,
  policy: "accept" | "drop" | undefined,
): BaseChain | undefined {
  const hooks: Partial<Record<Hook, number>> = family === "arp" ? ARP_HOOKS : HOOKS;
  const hook = (Object.keys(hooks) as Hook[]).find((name) => hooks[name] === number);
  const type = TYPES.find((name) => name === typeName);
  if (hook === undefined || type === undefined || priority === undefined) return undefined;
  return { type, hook, priority, ...present({ policy }) };
}

/** Undefined for families that tables are not of. */
export function decodeTableFamily(body: Message["body"]): TableFamily | undefined {
  const { family } = decodeNetfilterHeader(body);
  return family === "unspecified" ? undefined : family;
}

/** A request with the attributes of one table of them. */
export function nftRequest<R extends Record<string, AttributeRow<unknown>>>(
  operation: number,
  flags: number,
  family: TableFamily,
  table: AttributeTable<R>,
  values: Attributes<R>,
): Request {
  return netfilterRequest("nftables", operation, flags, family, (writer) => encodeAttributes(writer, table, values));
}

/** Tens of thousands of rules have the same few comments: where in its policy a rule stands. */
const comments = new Map<string, Uint8Array>();
const COMMENTS_MAX = 1024;

export function commentData(comment: string | undefined): Uint8Array | undefined {
  if (comment === undefined) return undefined;
  const known = comments.get(comment);
  if (known !== undefined) return known;
  const data = encodeUserData([commentPiece(COMMENT, comment)]);
  if (comments.size >= COMMENTS_MAX) comments.clear();
  comments.set(comment, data);
  return data;
}
