/** What a selector demands at least: by that, selectors and the labels they may match are looked up. */
import type { Selector } from "../resources/selector.ts";
import { ORCHESTRATOR_LABEL } from "./selectors.ts";

/** The label must be there; where `values` are given, with one of them. */
export interface Restriction {
  readonly key: string;
  readonly values?: readonly string[];
}

/**
 * Each of the restrictions is implied by the selector; none: it may match anything. Those on values come first, and last
 * the one that nearly every endpoint meets.
 */
export function restrictionsOf(selector: Selector): readonly Restriction[] {
  return implied(selector).sort((a, b) => rank(a) - rank(b));
}

function rank({ key, values }: Restriction): number {
  if (key === ORCHESTRATOR_LABEL) return 2;
  return values === undefined ? 1 : 0;
}

/** Whether hardly anything is ruled out by it. */
export function isCoarse(restriction: Restriction): boolean {
  return rank(restriction) > 0;
}

function implied(selector: Selector): Restriction[] {
  switch (selector.op) {
    case "==":
      return [{ key: selector.key, values: [selector.value] }];
    case "in":
      return [{ key: selector.key, values: selector.values }];
    case "has":
    case "contains":
    case "starts with":
    case "ends with":
      return [{ key: selector.key }];
    case "&&":
      return selector.operands.flatMap(implied);
    case "||":
      return selector.operands.map(implied).reduce(either);
    default:
      return [];
  }
}

/** What both demand: a label of the same key, with a value that one of them takes. */
function either(left: Restriction[], right: Restriction[]): Restriction[] {
  return left.flatMap(({ key, values }) => {
    const other = right.find((candidate) => candidate.key === key);
    if (other === undefined) return [];
    if (values === undefined || other.values === undefined) return [{ key }];
    return [{ key, values: [...new Set([...values, ...other.values])] }];
  });
}
