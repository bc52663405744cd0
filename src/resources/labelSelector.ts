/** Kubernetes' label selectors: the query form of list and watch, and the object form of policies and services. */
import { Failure } from "../lib/errors.ts";
import { labelKey, labelValue } from "./names.ts";
import { arrayOf, mapOf, object, oneOf, optional, refine, string, text, type Infer, type Schema } from "./schema.ts";
import type { Labels } from "./selector.ts";

/** A label query that cannot be read. */
export class LabelQueryError extends Failure<"bad-label-query"> {
  constructor(query: string, reason: string) {
    super("bad-label-query", `"${query}" is not a label selector: ${reason}`);
  }
}

export interface LabelRequirement {
  readonly key: string;
  readonly operator: "In" | "NotIn" | "Exists" | "DoesNotExist";
  /** Empty for Exists and DoesNotExist. */
  readonly values: readonly string[];
}

/** All must hold; none: every object is selected. */
export type LabelRequirements = readonly LabelRequirement[];

const TERM = /\s*(!)?\s*([A-Za-z0-9_./-]+)\s*(?:(==|=|!=)\s*([A-Za-z0-9_.-]*)|(in|notin)\s*\(([^()]*)\))?\s*(,|$)/y;

/** `a=b,c!=d,e in (x,y),f notin (z),g,!h`. Throws `LabelQueryError`. */
export function parseLabelQuery(query: string): LabelRequirements {
  const requirements: LabelRequirement[] = [];
  if (query.trim() === "") return requirements;
  TERM.lastIndex = 0;
  for (let end = false; !end;) {
    const at = TERM.lastIndex;
    const term = TERM.exec(query);
    if (term === null)
      throw new LabelQueryError(
        query,
        `"${query.slice(at).trim()}" is not key, !key, key=value, key!=value, key in (…) or key notin (…)`,
      );
    const [, not, key = "", sign, value = "", word, list, separator] = term;
    end = separator !== ",";
    try {
      requirements.push(
        requirementOf(not !== undefined, key, sign ?? word, word === undefined ? [value] : splitList(list ?? "")),
      );
    } catch (thrown) {
      throw new LabelQueryError(query, thrown instanceof Error ? thrown.message : String(thrown));
    }
  }
  return requirements;
}

function splitList(list: string): string[] {
  return list.split(",").map((value) => value.trim());
}

function requirementOf(
  not: boolean,
  key: string,
  sign: string | undefined,
  values: readonly string[],
): LabelRequirement {
  labelKey(key);
  if (sign === undefined) return { key, operator: not ? "DoesNotExist" : "Exists", values: [] };
  if (not) throw new Error(`"!" may stand only before a key alone, not before ${key} ${sign}`);
  values.forEach(labelValue);
  return { key, operator: sign === "!=" || sign === "notin" ? "NotIn" : "In", values };
}

const expression = refine(
  object({
    key: text("a label key", labelKey),
    operator: oneOf("In", "NotIn", "Exists", "DoesNotExist"),
    values: optional(arrayOf(string)),
  }),
  ({ operator, values = [] }, fault) => {
    const wanted = operator === "In" || operator === "NotIn";
    if (wanted && values.length === 0) fault(`is required with operator ${operator}`, "values");
    if (!wanted && values.length > 0) fault(`must be absent with operator ${operator}`, "values");
  },
);

const labelSelectorFields = object({
  matchLabels: optional(mapOf(text("a string", labelValue), labelKey)),
  matchExpressions: optional(arrayOf(expression)),
});
/** The object form: `{ matchLabels: { app: web }, matchExpressions: [...] }`. Empty: everything. */
export interface LabelSelector extends Infer<typeof labelSelectorFields> {}
export const labelSelector: Schema<LabelSelector> = labelSelectorFields;

/** The requirements of the object form. */
export function labelRequirements(selector: LabelSelector): LabelRequirements {
  const equals = Object.entries(selector.matchLabels ?? {});
  return [
    ...equals.map(([key, value]): LabelRequirement => ({ key, operator: "In", values: [value] })),
    ...(selector.matchExpressions ?? []).map(({ key, operator, values = [] }) => ({ key, operator, values })),
  ];
}

/** The query form of the object form, for people; `<none>` selects everything. */
export function labelSelectorText(selector: LabelSelector): string {
  const terms = labelRequirements(selector).map(({ key, operator, values }) => {
    if (operator === "Exists") return key;
    if (operator === "DoesNotExist") return `!${key}`;
    if (operator === "In" && values.length === 1) return `${key}=${values[0]}`;
    return `${key} ${operator === "In" ? "in" : "notin"} (${values.join(",")})`;
  });
  return terms.length === 0 ? "<none>" : terms.join(",");
}

/** An absent label is not in any list. */
export function matchesLabels(requirements: LabelRequirements, labels: Labels): boolean {
  return requirements.every(({ key, operator, values }) => {
    const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
    switch (operator) {
      case "Exists":
        return value !== undefined;
      case "DoesNotExist":
        return value === undefined;
      case "In":
        return value !== undefined && values.includes(value);
      case "NotIn":
        return value === undefined || !values.includes(value);
    }
  });
}
