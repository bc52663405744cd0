import { decodeAttributes, encodeAttributes, row, text } from "./attributes.ts";
import type { Message, Request } from "./framing.ts";
import {
  be32,
  encodeNetfilterHeader,
  decodeNetfilterHeader,
  netfilterRequest,
  netfilterTable,
  operationOf,
} from "./nfnetlink.ts";
import {
  addElements,
  addWrittenElements,
  decodeElements,
  DELETE_ELEMENT,
  deleteElements,
  type Element,
  type ElementMessage,
  flushSet,
  NEW_ELEMENT,
  type SetOfElements,
  type WrittenElements,
} from "./nftElement.ts";
import type { KeyRange } from "./nftKey.ts";
import { addObject, decodeObject, DELETE_OBJECT, deleteObject, NEW_OBJECT, type NftObject } from "./nftObject.ts";
import {
  addRule,
  decodeRule,
  DELETE_RULE,
  deleteRule,
  flushChain,
  NEW_RULE,
  type NftRule,
  type RulePlace,
} from "./nftRule.ts";
import { addSet, decodeSet, DELETE_SET, deleteSet, NEW_SET, type NftSet } from "./nftSet.ts";
import {
  addChain,
  addTable,
  type Chain,
  decodeChain,
  decodeTable,
  DELETE_CHAIN,
  DELETE_TABLE,
  deleteChain,
  deleteTable,
  type Listed,
  NEW_CHAIN,
  NEW_TABLE,
  type Table,
  type TableName,
} from "./nftTable.ts";

/** Changes to nf_tables as data, the transaction that they are sent in, and what the kernel tells of others' changes. */

/** Of sets, chains and objects, only what names them counts in the kinds that delete and flush. */
export type NftChange =
  | { readonly kind: "addTable"; readonly table: Table }
  | { readonly kind: "deleteTable"; readonly table: TableName }
  | { readonly kind: "addChain"; readonly chain: Chain }
  | { readonly kind: "deleteChain" | "flushChain"; readonly chain: Pick<Chain, "table" | "name"> }
  | { readonly kind: "addRule"; readonly rule: NftRule; readonly place?: RulePlace }
  | { readonly kind: "deleteRule"; readonly rule: Pick<NftRule, "table" | "chain" | "comment"> & Listed }
  | { readonly kind: "addSet"; readonly set: NftSet }
  | { readonly kind: "deleteSet" | "flushSet"; readonly set: Pick<NftSet, "table" | "name"> }
  | { readonly kind: "addElements"; readonly set: SetOfElements; readonly elements: readonly Element[] }
  | { readonly kind: "addWrittenElements"; readonly set: SetOfElements; readonly elements: WrittenElements }
  | { readonly kind: "deleteElements"; readonly set: SetOfElements; readonly elements: readonly KeyRange[] }
  | { readonly kind: "addObject"; readonly object: NftObject }
  | { readonly kind: "deleteObject"; readonly object: Pick<NftObject, "table" | "name" | "type"> };

/** Of elements there may be several, since a message has its limits, and none where there are no elements. */
export function requestsOf(change: NftChange): readonly Request[] {
  switch (change.kind) {
    case "addTable":
      return [addTable(change.table)];
    case "deleteTable":
      return [deleteTable(change.table)];
    case "addChain":
      return [addChain(change.chain)];
    case "deleteChain":
      return [deleteChain(change.chain)];
    case "flushChain":
      return [flushChain(change.chain)];
    case "addRule":
      return [addRule(change.rule, change.place)];
    case "deleteRule":
      return [deleteRule(change.rule.table, change.rule.chain, change.rule.handle)];
    case "addSet":
      return [addSet(change.set)];
    case "deleteSet":
      return [deleteSet(change.set)];
    case "flushSet":
      return [flushSet(change.set)];
    case "addElements":
      return addElements(change.set, change.elements);
    case "addWrittenElements":
      return addWrittenElements(change.set, change.elements);
    case "deleteElements":
      return deleteElements(change.set, change.elements);
    case "addObject":
      return [addObject(change.object)];
    case "deleteObject":
      return [deleteObject(change.object)];
  }
}

/** The table with all that is in it is gone after these, whether it was there or not. */
export function removeTable({ family, name }: TableName): NftChange[] {
  const table = { family, name };
  return [
    { kind: "addTable", table },
    { kind: "deleteTable", table },
  ];
}

/** NFNL_MSG_BATCH_BEGIN and _END, which are of no subsystem: the resource says of which the batch is. */
const BATCH_BEGIN = 16;
const BATCH_END = 17;
const NFTABLES_RESOURCE = 10;

const BATCH = netfilterTable({ generation: row(1, be32) });

/**
 * What goes before the requests of a transaction. With a generation, the kernel refuses the transaction (ERESTART)
 * where that is not the ruleset's generation any more.
 */
export function beginBatch(generation?: number): Request {
  return {
    type: BATCH_BEGIN,
    flags: 0,
    encode(writer) {
      encodeNetfilterHeader(writer, "unspecified", NFTABLES_RESOURCE);
      encodeAttributes(writer, BATCH, { generation });
    },
  };
}

export function endBatch(): Request {
  return {
    type: BATCH_END,
    flags: 0,
    encode: (writer) => encodeNetfilterHeader(writer, "unspecified", NFTABLES_RESOURCE),
  };
}

const NEW_GENERATION = 15;
const GET_GENERATION = 16;

const GENERATION = netfilterTable({ number: row(1, be32), process: row(2, be32), program: row(3, text) });

/** Each transaction makes a new one. */
export interface Generation {
  readonly number: number;
  /** Who asked for it: in a notification the author, in an answer ourselves. */
  readonly process: number;
  readonly program: string;
}

export function getGeneration(): Request {
  return netfilterRequest("nftables", GET_GENERATION, 0, "unspecified", () => undefined);
}

export function decodeGeneration({ body }: Message): Generation {
  decodeNetfilterHeader(body);
  const { number = 0, process = 0, program = "" } = decodeAttributes(body, GENERATION);
  return { number, process, program };
}

/** What the kernel tells the group NFTABLES: each change of a transaction, then its generation. */
export type NftNotification =
  | { readonly kind: "generation"; readonly generation: Generation }
  | { readonly kind: "table"; readonly change: "new" | "deleted"; readonly table: Table & Listed }
  | { readonly kind: "chain"; readonly change: "new" | "deleted"; readonly chain: Chain & Listed }
  | { readonly kind: "rule"; readonly change: "new" | "deleted"; readonly rule: NftRule & Listed }
  | { readonly kind: "set"; readonly change: "new" | "deleted"; readonly set: NftSet & Listed }
  | { readonly kind: "elements"; readonly change: "new" | "deleted"; readonly elements: ElementMessage }
  | { readonly kind: "object"; readonly change: "new" | "deleted"; readonly object: NftObject & Listed };

type Decode = (message: Message, change: "new" | "deleted") => NftNotification | undefined;

const table: Decode = (message, change) => {
  const decoded = decodeTable(message);
  return decoded && { kind: "table", change, table: decoded };
};
const chain: Decode = (message, change) => {
  const decoded = decodeChain(message);
  return decoded && { kind: "chain", change, chain: decoded };
};
const rule: Decode = (message, change) => {
  const decoded = decodeRule(message);
  return decoded && { kind: "rule", change, rule: decoded };
};
const set: Decode = (message, change) => {
  const decoded = decodeSet(message);
  return decoded && { kind: "set", change, set: decoded };
};
const elements: Decode = (message, change) => {
  const decoded = decodeElements(message);
  return decoded && { kind: "elements", change, elements: decoded };
};
const object: Decode = (message, change) => {
  const decoded = decodeObject(message);
  return decoded && { kind: "object", change, object: decoded };
};

const NOTIFICATIONS: Readonly<Record<number, readonly ["new" | "deleted", Decode]>> = {
  [NEW_TABLE]: ["new", table],
  [DELETE_TABLE]: ["deleted", table],
  [NEW_CHAIN]: ["new", chain],
  [DELETE_CHAIN]: ["deleted", chain],
  [NEW_RULE]: ["new", rule],
  [DELETE_RULE]: ["deleted", rule],
  [NEW_SET]: ["new", set],
  [DELETE_SET]: ["deleted", set],
  [NEW_ELEMENT]: ["new", elements],
  [DELETE_ELEMENT]: ["deleted", elements],
  [NEW_OBJECT]: ["new", object],
  [DELETE_OBJECT]: ["deleted", object],
};

/** Undefined for messages of other types, and for what is of no family of tables. */
export function decodeNftNotification(message: Message): NftNotification | undefined {
  const operation = operationOf(message, "nftables");
  if (operation === undefined) return undefined;
  if (operation === NEW_GENERATION) return { kind: "generation", generation: decodeGeneration(message) };
  const found = NOTIFICATIONS[operation];
  return found?.[1](message, found[0]);
}
