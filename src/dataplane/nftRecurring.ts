/**
 * Expressions that stand in very many rules, such as the look into an address set or the mark of what a policy lets
 * through: made once, and written to the kernel from bytes that are kept.
 */
import type { Expression } from "../netlink/nftExpression.ts";
import { keepBytes } from "../netlink/nftExpressionCodec.ts";

const known = new Map<string, readonly Expression[]>();
/** A few hundred are in use, unless there are thousands of sets, of which each then stands in few rules. */
const KNOWN_MAX = 4096;

/** @param key says all that the expressions depend on */
export function recurring(key: string, make: () => readonly Expression[]): readonly Expression[] {
  const found = known.get(key);
  if (found !== undefined) return found;
  if (known.size >= KNOWN_MAX) known.clear();
  const made = keepBytes(make());
  known.set(key, made);
  return made;
}
