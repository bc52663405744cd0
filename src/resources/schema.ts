import { Failure, messageOf } from "../lib/errors.ts";
import { didYouMean } from "./suggestion.ts";

/** One thing wrong with an object: where, as `spec.rules[2].ports[0]`, and why. */
export interface Fault {
  readonly path: string;
  readonly reason: string;
}

/** An object that was refused: every fault in it, not only the first. */
export class InvalidResource extends Failure<"invalid"> {
  readonly faults: readonly Fault[];
  /** @param what the object in words, such as `IPPool "pool-a"` */
  constructor(what: string, faults: readonly Fault[]) {
    super("invalid", `${what} is not valid:${faults.map((fault) => `\n  ${faultText(fault)}`).join("")}`);
    this.faults = faults;
  }
}

function faultText({ path, reason }: Fault): string {
  return path === "" ? reason : `${path}: ${reason}`;
}

/**
 * Collects faults while an object is read. Paths are put together on the way back up, so that an object without
 * faults pays nothing for them.
 */
export class Report {
  readonly faults: Fault[] = [];
  /** Keep fields that we do not know (objects from a newer API server) instead of refusing them. */
  readonly keepUnknown: boolean;

  constructor(keepUnknown: boolean) {
    this.keepUnknown = keepUnknown;
  }

  fault(reason: string, path = ""): void {
    this.faults.push({ path, reason });
  }

  /** Runs `read` and puts `segment` before the path of each fault that it reported. */
  within<T>(segment: string, read: () => T): T {
    const before = this.faults.length;
    const value = read();
    for (let i = before; i < this.faults.length; i += 1) {
      const { path, reason } = this.faults[i]!;
      const joint = path === "" || path.startsWith("[") ? "" : ".";
      this.faults[i] = { path: `${segment}${joint}${path}`, reason };
    }
    return value;
  }
}

/** What a value must look like. Its type is inferred from it, so that the two can never differ. */
export interface Schema<out Value> {
  /** In words, for messages: "a string". */
  readonly what: string;
  /** The value, normalised. After a fault the value means nothing: whoever made the report must look at it. */
  readonly read: (input: unknown, report: Report) => Value;
  /** Where the field may be absent, an empty text counts as absent: Go programs write it so. */
  readonly emptyIsAbsent?: true;
}

/** A field that may be absent. `null` on input counts as absent, as it does for Kubernetes. */
export interface Optional<out Value> extends Schema<Value> {
  readonly absent: "leave";
}

/** A field that is filled in when it is absent. */
export interface Defaulted<out Value> extends Schema<Value> {
  readonly absent: "fill";
  readonly fill: () => Value;
}

export type Infer<S> = S extends Schema<infer Value> ? Value : never;

export type Fields = Readonly<Record<string, Schema<unknown>>>;
type Merged<F extends Fields> = {
  -readonly [K in keyof F as F[K] extends Optional<unknown> ? never : K]: Infer<F[K]>;
} & {
  -readonly [K in keyof F as F[K] extends Optional<unknown> ? K : never]?: Infer<F[K]>;
};
/** The conditional makes one object type of the two, so that editors and errors show its fields. */
export type ObjectOf<F extends Fields> = Merged<F> extends infer All ? { [K in keyof All]: All[K] } : never;

/** Reads a whole value; throws `InvalidResource` that names it as `what` and lists every fault. */
export function parseWith<Value>(schema: Schema<Value>, input: unknown, what: string, keepUnknown = false): Value {
  const report = new Report(keepUnknown);
  const value = schema.read(input, report);
  if (report.faults.length > 0) throw new InvalidResource(what, report.faults);
  return value;
}

/** What a value is, in words: for "expected a string, not the number 5". */
export function describe(input: unknown): string {
  if (input === undefined || input === null) return "nothing";
  if (Array.isArray(input)) return "a list";
  if (typeof input === "string") return `the text "${input.length > 40 ? `${input.slice(0, 40)}…` : input}"`;
  if (typeof input === "number" || typeof input === "bigint") return `the number ${input}`;
  if (typeof input === "boolean") return String(input);
  return "an object";
}

function wrongType<Value>(schema: { what: string }, input: unknown, report: Report): Value {
  const missing = input === undefined || input === null;
  report.fault(missing ? `is required (${schema.what})` : `expected ${schema.what}, not ${describe(input)}`);
  return input as Value; // never seen: a report with faults ends the parse
}

function scalar<Value>(what: string, accepts: (input: unknown) => input is Value): Schema<Value> {
  const schema: Schema<Value> = {
    what,
    read: (input, report) => (accepts(input) ? input : wrongType(schema, input, report)),
  };
  return schema;
}

export const string: Schema<string> = scalar("a string", (input) => typeof input === "string");
export const boolean: Schema<boolean> = scalar("true or false", (input) => typeof input === "boolean");
export const number: Schema<number> = scalar(
  "a number",
  (input): input is number => typeof input === "number" && Number.isFinite(input),
);
/** Any value at all but nothing: fields of other people's kinds that we carry and never look into. */
export const anything: Schema<unknown> = scalar(
  "a value",
  (input): input is unknown => input !== undefined && input !== null,
);

/** A whole number within bounds, both included. */
export function int(min: number, max: number): Schema<number> {
  const bounds = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`;
  const schema: Schema<number> = {
    what: `a whole number, ${bounds}`,
    read(input, report) {
      if (typeof input !== "number" || !Number.isSafeInteger(input)) return wrongType(schema, input, report);
      if (input < min || input > max) report.fault(`${input} is not ${bounds}`);
      return input;
    },
  };
  return schema;
}

/** One of a closed list of numbers. */
export function oneOfNumber<const Value extends number>(...values: readonly Value[]): Schema<Value> {
  const schema: Schema<Value> = {
    what: listOf(values.map(String)),
    read(input, report) {
      if (typeof input !== "number") return wrongType(schema, input, report);
      if (!values.some((value) => value === input)) report.fault(`${input} is not ${schema.what}`);
      return input as Value;
    },
  };
  return schema;
}

/** One of a closed list of texts. */
export function oneOf<const Value extends string>(...values: readonly Value[]): Schema<Value> {
  const known: ReadonlySet<unknown> = new Set(values);
  const schema: Schema<Value> = {
    what: listOf(values),
    emptyIsAbsent: true,
    read(input, report) {
      if (known.has(input)) return input as Value;
      if (typeof input !== "string") return wrongType(schema, input, report);
      report.fault(`"${input}" is not ${listOf(values)}${didYouMean(input, values)}`);
      return input as Value;
    },
  };
  return schema;
}

function listOf(values: readonly string[]): string {
  if (values.length === 1) return values.join();
  return `${values.slice(0, -1).join(", ")} or ${values.at(-1)}`;
}

/**
 * Text that a function checks and puts in its normal form. What it throws becomes the fault: so the parsers of
 * addresses and selectors serve as they are.
 */
export function text(what: string, normalise: (value: string) => string): Schema<string> {
  const schema: Schema<string> = {
    what,
    emptyIsAbsent: true,
    read(input, report) {
      if (typeof input !== "string") return wrongType(schema, input, report);
      try {
        return normalise(input);
      } catch (thrown) {
        report.fault(messageOf(thrown));
        return input;
      }
    },
  };
  return schema;
}

export function arrayOf<Item>(item: Schema<Item>, max = Number.MAX_SAFE_INTEGER): Schema<Item[]> {
  const schema: Schema<Item[]> = {
    what: "a list",
    read(input, report) {
      if (!Array.isArray(input)) return wrongType(schema, input, report);
      if (input.length > max) report.fault(`has ${input.length} items, more than ${max}`);
      return input.map((entry, index) => report.within(`[${index}]`, () => item.read(entry, report)));
    },
  };
  return schema;
}

/** An object whose keys are the user's own, such as labels. `checkKey` throws where a key is not allowed. */
export function mapOf<Item>(item: Schema<Item>, checkKey?: (key: string) => unknown): Schema<Record<string, Item>> {
  const schema: Schema<Record<string, Item>> = {
    what: "an object",
    read(input, report) {
      if (!isObject(input)) return wrongType(schema, input, report);
      const result: Record<string, Item> = {};
      for (const [key, value] of Object.entries(input)) {
        report.within(`["${key}"]`, () => {
          try {
            checkKey?.(key);
          } catch (thrown) {
            report.fault(messageOf(thrown));
          }
          put(result, key, item.read(value, report));
        });
      }
      return result;
    },
  };
  return schema;
}

/** Assigns also the key `__proto__`, which plain assignment would take for the prototype. */
function put(target: object, key: string, value: unknown): void {
  if (key !== "__proto__") (target as Record<string, unknown>)[key] = value;
  else Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true });
}

/** An object with the fields given and no others; `unknown: "keep"` carries others along without a look. */
export function object<const F extends Fields>(fields: F, unknown: "refuse" | "keep" = "refuse"): Schema<ObjectOf<F>> {
  const names = Object.keys(fields);
  const schema: Schema<ObjectOf<F>> = {
    what: "an object",
    read(input, report) {
      if (!isObject(input)) return wrongType(schema, input, report);
      const result: Record<string, unknown> = {};
      for (const name of names) {
        const field = fields[name]!;
        const value = Object.hasOwn(input, name) ? input[name] : undefined;
        if (value === undefined || value === null || (value === "" && field.emptyIsAbsent === true)) {
          if (isOptional(field)) continue;
          if (isDefaulted(field)) {
            result[name] = field.fill();
            continue;
          }
        }
        result[name] = report.within(name, () => field.read(value, report));
      }
      for (const [name, value] of Object.entries(input)) {
        if (Object.hasOwn(fields, name)) continue;
        if (unknown === "keep" || report.keepUnknown) put(result, name, value);
        else report.fault(`unknown field${didYouMean(name, names)}`, name);
      }
      return result as ObjectOf<F>;
    },
  };
  return schema;
}

export function optional<Value>(schema: Schema<Value>): Optional<Value> {
  return { ...schema, absent: "leave" };
}

/** `null` stands for itself, as in lists with gaps. */
export function nullable<Value>(schema: Schema<Value>): Schema<Value | null> {
  return {
    what: `${schema.what} or null`,
    read: (input, report) => (input === null ? null : schema.read(input, report)),
  };
}

export function withDefault<Value>(schema: Schema<Value>, value: NoInfer<Value>): Defaulted<Value> {
  // A list or object is made anew each time, so that no two objects share it.
  return { ...schema, absent: "fill", fill: () => structuredClone(value) };
}

function isOptional(schema: Schema<unknown>): schema is Optional<unknown> {
  return "absent" in schema && schema.absent === "leave";
}
function isDefaulted(schema: Schema<unknown>): schema is Defaulted<unknown> {
  return "absent" in schema && schema.absent === "fill";
}

/**
 * Fields that we know by name only: other people's, which we carry and never look into.
 * `object({ name: string, ...opaque("affinity", "tolerations") })`
 */
export function opaque<const Name extends string>(...names: readonly Name[]): { [K in Name]: Optional<unknown> } {
  return Object.fromEntries(names.map((name) => [name, optional(anything)])) as { [K in Name]: Optional<unknown> };
}

/** The first of the schemas that takes the value. */
export function union<A, B>(first: Schema<A>, second: Schema<B>): Schema<A | B> {
  const schema: Schema<A | B> = {
    what: `${first.what} or ${second.what}`,
    read(input, report) {
      const attempt = new Report(report.keepUnknown);
      const value = first.read(input, attempt);
      if (attempt.faults.length === 0) return value;
      const other = new Report(report.keepUnknown);
      const otherValue = second.read(input, other);
      if (other.faults.length === 0) return otherValue;
      return wrongType(schema, input, report);
    },
  };
  return schema;
}

/** Says what is wrong with a value whose parts are right; the path is that of the part to blame. */
export type Check<Value> = (value: Value, fault: (reason: string, path?: string) => void) => void;

/** Rules between fields. They run only on a value whose own fields are right. */
export function refine<Value>(schema: Schema<Value>, check: Check<Value>): Schema<Value> {
  return {
    ...schema,
    read(input, report) {
      const before = report.faults.length;
      const value = schema.read(input, report);
      if (report.faults.length === before) check(value, (reason, path) => report.fault(reason, path));
      return value;
    },
  };
}

/** Fills in what follows from other fields. Runs only on a value without faults. */
export function derive<Value, Result>(schema: Schema<Value>, complete: (value: Value) => Result): Schema<Result> {
  return {
    what: schema.what,
    read(input, report) {
      const before = report.faults.length;
      const value = schema.read(input, report);
      return report.faults.length === before ? complete(value) : (value as unknown as Result);
    },
  };
}

export function isObject(input: unknown): input is Record<string, unknown> {
  return typeof input === "object" && input !== null && !Array.isArray(input);
}
