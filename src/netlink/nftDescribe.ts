import { ByteReader, MalformedBytes } from "../lib/bytes.ts";
import { element, type SetOfElements } from "./nftElement.ts";
import type { Expression } from "./nftExpression.ts";
import { expression } from "./nftExpressionCodec.ts";
import { formatKey, type KeyRange } from "./nftKey.ts";
import type { TableName } from "./nftTable.ts";
import type { NftChange } from "./nftables.ts";

/** For sentences: `add rule "cali:x" to chain cali-fw of table ip calico`. */
export function describeChange(change: NftChange): string {
  switch (change.kind) {
    case "addTable":
      return `add ${nameTable(change.table)}`;
    case "deleteTable":
      return `delete ${nameTable(change.table)}`;
    case "addChain":
      return `add chain ${change.chain.name} to ${nameTable(change.chain.table)}`;
    case "deleteChain":
      return `delete chain ${change.chain.name} of ${nameTable(change.chain.table)}`;
    case "flushChain":
      return `empty chain ${change.chain.name} of ${nameTable(change.chain.table)}`;
    case "addRule": {
      const { comment, chain: to, table: of } = change.rule;
      return `add rule ${comment === undefined ? "" : `"${comment}" `}to chain ${to} of ${nameTable(of)}`;
    }
    case "deleteRule": {
      const { comment, chain: from, table: of, handle } = change.rule;
      return `delete rule ${comment === undefined ? handle : `"${comment}"`} of chain ${from} of ${nameTable(of)}`;
    }
    case "addSet":
      return `add set ${change.set.name} to ${nameTable(change.set.table)}`;
    case "deleteSet":
      return `delete set ${change.set.name} of ${nameTable(change.set.table)}`;
    case "flushSet":
      return `empty set ${change.set.name} of ${nameTable(change.set.table)}`;
    case "addElements":
      return `add ${nameElements(change.set, change.elements)} to set ${change.set.name} of ${nameTable(change.set.table)}`;
    case "addWrittenElements":
      return `add ${change.elements.count} element${change.elements.count === 1 ? "" : "s"} to set ${change.set.name} of ${nameTable(change.set.table)}`;
    case "deleteElements":
      return `delete ${nameElements(change.set, change.elements)} of set ${change.set.name} of ${nameTable(change.set.table)}`;
    case "addObject":
      return `add ${change.object.type} ${change.object.name} to ${nameTable(change.object.table)}`;
    case "deleteObject":
      return `delete ${change.object.type} ${change.object.name} of ${nameTable(change.object.table)}`;
  }
}

/**
 * What the kernel points at in a message that it refused: an element by its key, or one of a rule's expressions.
 * `offset` counts from the message's beginning.
 */
export function describeFault(change: NftChange, message: Uint8Array, offset: number): string | undefined {
  try {
    const reader = new ByteReader(message, offset);
    const length = reader.u16le("attribute length");
    reader.skip(2, "attribute type");
    const fault = reader.sub(length - 4, "attribute at fault");
    if (change.kind === "addElements" || change.kind === "addWrittenElements" || change.kind === "deleteElements") {
      const { key } = element.decode(fault, "element");
      return key && formatKey(change.set.key, { key });
    }
    if (change.kind !== "addRule") return undefined;
    const decoded = expression.decode(fault, "expression");
    return nameExpression(decoded);
  } catch (error) {
    if (error instanceof MalformedBytes) return undefined; // it points at something else
    throw error;
  }
}

function nameExpression(item: Expression): string {
  if (item.kind === "immediate" && "verdict" in item.data) {
    const { verdict } = item.data;
    return "chain" in verdict ? `${verdict.kind} to ${verdict.chain}` : verdict.kind;
  }
  if ("set" in item) return `${item.kind} of set ${item.set}`;
  return "name" in item ? `${item.kind} of ${item.name}` : item.kind;
}

function nameTable({ family, name }: TableName): string {
  return `table ${family} ${name}`;
}

/** The first few. */
function nameElements({ key }: SetOfElements, list: readonly KeyRange[]): string {
  const named = list.slice(0, 3).map((element) => formatKey(key, element));
  const rest = list.length - named.length;
  return `${named.join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
}
