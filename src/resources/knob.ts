/** The kinds of settings of FelixConfiguration: how each is written in the object, in an environment variable, and used. */
import { duration, net, parseDuration, portNumber } from "./fields.ts";
import {
  arrayOf,
  boolean,
  int,
  object,
  oneOf,
  optional,
  string,
  text,
  withDefault,
  type Infer,
  type Schema,
} from "./schema.ts";

/** A setting: `Written` in the object, `Setting` as the program uses it. */
export interface Knob<Written, Setting> {
  readonly schema: Schema<Written>;
  /** What an environment variable's text stands for in the object; the schema checks it. */
  fromText(text: string): unknown;
  toSetting(written: Written): Setting;
  /** Where nobody sets it. */
  readonly initial: Setting;
  /** What `none` sets; without one, `none` brings back `initial`. */
  readonly zero?: Setting;
  /** Name of the variable after `FELIX_`, where it is not the field's own name. */
  readonly variable?: string;
}

const same = <Value>(value: Value): Value => value;
const MANY = 2 ** 32 - 1;

/** true or false; in a variable also yes, no, 1, 0. */
export function flag<Initial extends boolean | undefined>(
  initial: Initial,
  variable?: string,
): Knob<boolean, boolean | Initial> {
  const fromText = (value: string): unknown =>
    /^(true|1|yes|y|t)$/i.test(value) ? true : /^(false|0|no|n|f)$/i.test(value) ? false : value;
  return { schema: boolean, fromText, toSetting: same, initial, zero: false, ...named(variable) };
}

/** A whole number; in a variable also hexadecimal. */
export function count<Initial extends number | undefined>(
  initial: Initial,
  bounds: { min?: number; max?: number; variable?: string } = {},
): Knob<number, number | Initial> {
  const { min = 0, max = MANY, variable } = bounds;
  const fromText = (value: string): unknown => (/^(0x[0-9a-fA-F]+|-?[0-9]+)$/.test(value) ? Number(value) : value);
  return {
    schema: int(min, max),
    fromText,
    toSetting: same,
    initial,
    ...(min > 0 ? {} : { zero: 0 }),
    ...named(variable),
  };
}

export const port = (initial: number): Knob<number, number> => count(initial, { max: 65535 });

export function words<Initial extends string | undefined>(
  initial: Initial,
  schema: Schema<string> = string,
): Knob<string, string | Initial> {
  return { schema, fromText: same, toSetting: same, initial, zero: "" };
}

/** One of a list of words, whatever their case. */
export function choice<const Value extends string, Initial extends Value | undefined>(
  values: readonly Value[],
  initial: Initial,
): Knob<Value, Value | Initial> {
  const exact = oneOf(...values);
  const schema: Schema<Value> = {
    ...exact,
    read(input, report) {
      const known =
        typeof input === "string" ? values.find((value) => value.toLowerCase() === input.toLowerCase()) : undefined;
      return known ?? exact.read(input, report);
    },
  };
  const none = values.find((value) => value === "None");
  return { schema, fromText: same, toSetting: same, initial, ...(none === undefined ? {} : { zero: none }) };
}

/** A span of time: Go's text in the object, milliseconds in use; a bare number in a variable is in `unit`. */
export function span<Initial extends number | undefined>(
  initial: Initial,
  options: { unit?: "s" | "ms"; variable?: string } = {},
): Knob<string, number | Initial> {
  const fromText = (value: string): unknown => (/^[0-9.]+$/.test(value) ? `${value}${options.unit ?? "s"}` : value);
  return { schema: duration, fromText, toSetting: parseDuration, initial, zero: 0, ...named(options.variable) };
}

/** A list; in a variable with commas between its items. */
export function list<Item, Initial extends Item[] | undefined>(
  item: Schema<Item>,
  initial: Initial,
): Knob<Item[], Item[] | Initial> {
  return { schema: arrayOf(item), fromText: splitList, toSetting: same, initial, zero: [] };
}

/** A list that the object too writes as one text with commas. */
export function commaList(initial: string[]): Knob<string, string[]> {
  const noGaps = text("names with commas between them", same);
  return { schema: noGaps, fromText: same, toSetting: splitList, initial };
}

function splitList(value: string): string[] {
  return value
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

const protoPort = object({
  protocol: withDefault(oneOf("TCP", "UDP", "SCTP"), "TCP"),
  port: portNumber,
  net: optional(net),
});
export type ProtoPort = Infer<typeof protoPort>;

/** The case of the protocol is the user's own. */
const anyCaseProtoPort: Schema<ProtoPort> = {
  ...protoPort,
  read(input, report) {
    const raise =
      typeof input === "object" && input !== null && "protocol" in input && typeof input.protocol === "string";
    return protoPort.read(raise ? { ...input, protocol: String(input.protocol).toUpperCase() } : input, report);
  },
};

/** Ports; in a variable as `tcp:22, udp:10.0.0.0/8:68, 179`. An empty list is an empty list, not the initial one. */
export function ports(initial: ProtoPort[]): Knob<ProtoPort[], ProtoPort[]> {
  const one = (entry: string): unknown => {
    const parts = /^(?:(\w+):)?(?:(.+):)?([0-9]+)$/.exec(entry);
    if (parts === null) return entry;
    const [, protocol, inNet, number] = parts;
    return {
      port: Number(number),
      ...(protocol === undefined ? {} : { protocol }),
      ...(inNet === undefined ? {} : { net: inNet }),
    };
  };
  const fromText = (value: string): unknown => splitList(value).map(one);
  return { schema: arrayOf(anyCaseProtoPort), fromText, toSetting: same, initial, zero: [] };
}

/** Anything that Calico writes there: settings that we carry and do not use. */
export function carried<Value>(schema: Schema<Value>): Knob<Value, Value | undefined> {
  return { schema, fromText: same, toSetting: same, initial: undefined };
}

function named(variable: string | undefined): { variable?: string } {
  return variable === undefined ? {} : { variable };
}
