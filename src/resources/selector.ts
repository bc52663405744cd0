/**
 * Calico's selectors over labels: `role == 'db' && has(zone)`. Grammar, loosest first:
 *
 *     or      = and { "||" and }
 *     and     = not { "&&" not }
 *     not     = { "!" } primary
 *     primary = "(" or ")" | "all()" | "global()" | "has(" key ")"
 *             | key ( "==" | "!=" | "contains" | "starts with" | "ends with" ) string
 *             | key [ "not" ] "in" "{" [ string { "," string } ] "}"
 *
 * Keys are 1 to 512 of A-Z a-z 0-9 _ . / -, strings stand in single or double quotes without escapes, spaces do not
 * matter, and the empty text selects everything.
 */
import { createHash } from "node:crypto";
import { Failure } from "../lib/errors.ts";

export type Selector =
  | { readonly op: "all" | "global" }
  | { readonly op: "has"; readonly key: string }
  | { readonly op: TextOperator; readonly key: string; readonly value: string }
  /** The values are sorted, each once. */
  | { readonly op: "in" | "not in"; readonly key: string; readonly values: readonly string[] }
  | { readonly op: "!"; readonly operand: Selector }
  | { readonly op: "&&" | "||"; readonly operands: readonly Selector[] };

type TextOperator = "==" | "!=" | "contains" | "starts with" | "ends with";

/** Text that is not a selector; `position` counts characters from 1. */
export class SelectorError extends Failure<"bad-selector"> {
  readonly position: number;
  constructor(reason: string, position: number) {
    super("bad-selector", `${reason}, at character ${position}`);
    this.position = position;
  }
}

/** The label of a workload's namespace, which host endpoints and global network sets do not have. */
const NAMESPACE_LABEL = "projectcalico.org/namespace";
const KEY = /[A-Za-z0-9_./-]+/y;
const KEY_MAX = 512;
const DEPTH_MAX = 250;
/** Words stand before their prefixes, so that the longest is found. */
const OPERATORS: readonly [RegExp, TextOperator | "in" | "not in"][] = [
  [/==/y, "=="],
  [/!=/y, "!="],
  [/contains(?![A-Za-z0-9_./-])/y, "contains"],
  [/starts\s*with(?![A-Za-z0-9_./-])/y, "starts with"],
  [/ends\s*with(?![A-Za-z0-9_./-])/y, "ends with"],
  [/not\s*in(?![A-Za-z0-9_./-])/y, "not in"],
  [/in(?![A-Za-z0-9_./-])/y, "in"],
];

/** The selector that the text stands for. Throws `SelectorError`. */
export function parseSelector(text: string): Selector {
  const parser = new Parser(text);
  if (parser.atEnd()) return { op: "all" };
  const selector = parser.or(0);
  if (!parser.atEnd()) parser.fail('expected "&&", "||" or the end');
  return selector;
}

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  fail(reason: string, at = this.#at): never {
    throw new SelectorError(reason, at + 1);
  }

  #skipSpace(): void {
    while (/\s/.test(this.#text[this.#at] ?? "")) this.#at += 1;
  }

  /** What the pattern (sticky) finds here, after spaces; moves past it. */
  #take(pattern: RegExp): string | undefined {
    this.#skipSpace();
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #takeSign(sign: string): boolean {
    this.#skipSpace();
    if (!this.#text.startsWith(sign, this.#at)) return false;
    this.#at += sign.length;
    return true;
  }

  atEnd(): boolean {
    this.#skipSpace();
    return this.#at >= this.#text.length;
  }

  or(depth: number): Selector {
    return this.#chain("||", () => this.#chain("&&", () => this.#not(depth)));
  }

  #chain(op: "&&" | "||", next: () => Selector): Selector {
    const first = next();
    const operands = [first];
    while (this.#takeSign(op)) operands.push(next());
    return operands.length === 1 ? first : { op, operands };
  }

  #not(depth: number): Selector {
    let negated = false;
    while (this.#takeSign("!")) negated = !negated;
    const operand = this.#primary(depth);
    return negated ? { op: "!", operand } : operand;
  }

  #primary(depth: number): Selector {
    if (this.#takeSign("(")) {
      if (depth >= DEPTH_MAX) this.fail(`more than ${DEPTH_MAX} parentheses inside each other`);
      const inner = this.or(depth + 1);
      if (!this.#takeSign(")")) this.fail('expected "&&", "||" or ")"');
      return inner;
    }
    const key = this.#key("a label, has(), all(), global() or (");
    if ((key === "has" || key === "all" || key === "global") && this.#takeSign("(")) {
      const selector: Selector = key === "has" ? { op: "has", key: this.#key("a label in has()") } : { op: key };
      if (!this.#takeSign(")")) this.fail(`expected ")" to end ${key}(`);
      return selector;
    }
    for (const [pattern, op] of OPERATORS) {
      if (this.#take(pattern) === undefined) continue;
      if (op === "in" || op === "not in") return { op, key, values: this.#set(op) };
      return { op, key, value: this.#string(`a value in quotes after ${op}`) };
    }
    return this.fail(`expected an operator such as == or in after the label ${key}`);
  }

  #key(expected: string): string {
    const key = this.#take(KEY);
    if (key === undefined) return this.fail(`expected ${expected}`);
    if (key.length > KEY_MAX)
      this.fail(`a label may be ${KEY_MAX} characters long, not ${key.length}`, this.#at - key.length);
    return key;
  }

  #string(expected: string): string {
    this.#skipSpace();
    const quote = this.#text[this.#at];
    if (quote !== '"' && quote !== "'") return this.fail(`expected ${expected}`);
    const end = this.#text.indexOf(quote, this.#at + 1);
    if (end < 0) return this.fail(`the text that begins with ${quote} does not end`);
    const value = this.#text.slice(this.#at + 1, end);
    this.#at = end + 1;
    return value;
  }

  #set(op: string): readonly string[] {
    if (!this.#takeSign("{")) this.fail(`expected "{" after ${op}`);
    const values = new Set<string>();
    // A comma before the closing brace is accepted, as Calico accepts it.
    while (!this.#takeSign("}")) {
      values.add(this.#string('a value in quotes or "}"'));
      if (this.#takeSign(",")) continue;
      if (!this.#takeSign("}")) this.fail('expected "," or "}"');
      break;
    }
    return sortedValues(values);
  }
}

/** By bytes of UTF-8, as Go sorts. */
function sortedValues(values: Iterable<string>): readonly string[] {
  return [...values].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

/** The canonical text: selectors that differ only in spaces, quotes or the order of set values have the same one. */
export function formatSelector(selector: Selector): string {
  switch (selector.op) {
    case "all":
    case "global":
      return `${selector.op}()`;
    case "has":
      return `has(${selector.key})`;
    case "in":
    case "not in":
      return `${selector.key} ${selector.op} {${selector.values.map(quote).join(", ")}}`;
    case "!":
      return `!${formatSelector(selector.operand)}`;
    case "&&":
    case "||":
      return `(${selector.operands.map(formatSelector).join(` ${selector.op} `)})`;
    default:
      return `${selector.key} ${selector.op} ${quote(selector.value)}`;
  }
}

/** A value never has both kinds of quotes: there is no way to write it. */
function quote(value: string): string {
  return value.includes('"') ? `'${value}'` : `"${value}"`;
}

/** `s:` and the SHA-224 of the canonical text: as Calico names the address set of a selector. */
export function selectorId(selector: Selector): string {
  const hash = createHash("sha224")
    .update(`s:${formatSelector(selector)}`)
    .digest("base64url");
  return `s:${hash}`;
}

export type Labels = Readonly<Record<string, string>>;

export function matches(selector: Selector, labels: Labels): boolean {
  return matchesBy(selector, (key) => (Object.hasOwn(labels, key) ? labels[key] : undefined));
}

/** As `matches`, for labels that are not in one object, such as those that an endpoint inherits. */
export function matchesBy(selector: Selector, label: (key: string) => string | undefined): boolean {
  switch (selector.op) {
    case "all":
      return true;
    case "global":
      return label(NAMESPACE_LABEL) === undefined;
    case "!":
      return !matchesBy(selector.operand, label);
    case "&&":
      return selector.operands.every((operand) => matchesBy(operand, label));
    case "||":
      return selector.operands.some((operand) => matchesBy(operand, label));
    case "has":
      return label(selector.key) !== undefined;
    case "==":
      return label(selector.key) === selector.value;
    // Negations hold also where the label is absent.
    case "!=":
      return label(selector.key) !== selector.value;
    case "in":
      return isIn(label(selector.key), selector.values);
    case "not in":
      return !isIn(label(selector.key), selector.values);
    case "contains":
      return label(selector.key)?.includes(selector.value) ?? false;
    case "starts with":
      return label(selector.key)?.startsWith(selector.value) ?? false;
    case "ends with":
      return label(selector.key)?.endsWith(selector.value) ?? false;
  }
}

function isIn(value: string | undefined, values: readonly string[]): boolean {
  return value !== undefined && values.includes(value);
}

const CACHE_MAX = 4096;
const cache = new Map<string, Selector>();

/** As `parseSelector`, remembering the selectors that were used last: for callers that match one text often. */
export function cachedSelector(text: string): Selector {
  const known = cache.get(text);
  if (known !== undefined) {
    cache.delete(text);
    cache.set(text, known);
    return known;
  }
  const selector = parseSelector(text);
  const oldest = cache.size >= CACHE_MAX ? cache.keys().next().value : undefined;
  if (oldest !== undefined) cache.delete(oldest);
  cache.set(text, selector);
  return selector;
}
