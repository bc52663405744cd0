/** Kinds of fields that several resources have. */
import { formatAddress, parseAddress, type Family } from "../ip/address.ts";
import { formatPrefix, hostPrefix, networkOf, parseInterfaceAddress } from "../ip/prefix.ts";
import { Failure } from "../lib/errors.ts";
import { subdomainName } from "./names.ts";
import { parseSelector, type Selector } from "./selector.ts";
import { int, object, optional, boolean, refine, string, text, withDefault, type Schema } from "./schema.ts";

/** Text that a field does not take. */
class FieldError extends Failure<"bad-field"> {
  constructor(message: string) {
    super("bad-field", message);
  }
}

function fail(message: string): never {
  throw new FieldError(message);
}

/** A network. Host bits are cleared. */
export const cidr = text("a CIDR", (value) => {
  const { address, length } = parseInterfaceAddress(value);
  return formatPrefix(networkOf(address, length));
});

/** A network, or an address, which counts as a network of one. */
export const net = text("a CIDR or an IP address", (value) => {
  if (!value.includes("/")) return formatPrefix(hostPrefix(parseAddress(value)));
  const { address, length } = parseInterfaceAddress(value);
  return formatPrefix(networkOf(address, length));
});

/** The family of a text that `cidr`, `net` or `ipAddress` took. */
export function familyOf(value: string): Family {
  return value.includes(":") ? 6 : 4;
}

/** A network, or an address, of one family. */
export function netOf(family: Family): Schema<string> {
  return refine(net, (value, fault) => {
    if (familyOf(value) !== family) fault(`"${value}" is not IPv${family}`);
  });
}

/** An address, in its normal form. */
export const ipAddress = text("an IP address", (value) => formatAddress(parseAddress(value)));

export function ipAddressOf(family: Family): Schema<string> {
  return refine(ipAddress, (value, fault) => {
    if (familyOf(value) !== family) fault(`"${value}" is not IPv${family}`);
  });
}

/** The name of another object. */
export const nameOf = text("a name", subdomainName);

/** The API server's own limit on a policy's selector, in characters. */
const SELECTOR_MAX = 1024;

/** A selector as the user wrote it. `global()` has a place in a rule's namespace selector only. */
export const selector = text("a selector", (value) => {
  if (usesGlobal(selectorOf(value)))
    fail("global() may stand only in the namespaceSelector of a rule's source or destination");
  return value;
});

/** The namespace selector of a rule: `global()` may stand there, alone. */
export const ruleNamespaceSelector = text("a selector", (value) => {
  const parsed = selectorOf(value);
  if (parsed.op !== "global" && usesGlobal(parsed)) fail("global() cannot be combined with other selectors");
  return value;
});

function selectorOf(value: string): Selector {
  if (value.length > SELECTOR_MAX) fail(`is ${value.length} characters long, more than ${SELECTOR_MAX}`);
  return parseSelector(value);
}

function usesGlobal(parsed: Selector): boolean {
  if (parsed.op === "!") return usesGlobal(parsed.operand);
  if (parsed.op === "&&" || parsed.op === "||") return parsed.operands.some(usesGlobal);
  return parsed.op === "global";
}

const UNITS: Readonly<Record<string, number>> = {
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  us: 1e-3,
  µs: 1e-3,
  ns: 1e-6,
};

/** Go's text of a time span, such as `1m30s` or `90s`, in milliseconds. Throws `Failure`. */
export function parseDuration(value: string): number {
  if (/^[+-]?0$/.test(value)) return 0;
  if (
    !/^([0-9]+(\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns))*$/.test(value)
  ) {
    fail(`"${value}" is not a time span such as 90s, 1m30s or 500ms`);
  }
  let total = 0;
  for (const [, count, unit] of value.matchAll(/([0-9.]+)(h|ms|m|s|us|µs|ns)/g)) total += Number(count) * UNITS[unit!]!;
  return total;
}

/** A time span in Go's text; `parseDuration` reads it. */
export const duration = text("a time span such as 90s", (value) => {
  parseDuration(value);
  return value;
});

/** An interface name of the kernel (15 characters). */
export const interfaceName = text("an interface name", (value) => {
  if (!/^[a-zA-Z0-9_.-]{1,15}$/.test(value))
    fail(`"${value}" is not an interface name: 1 to 15 letters, digits, "_", "." and "-"`);
  return value;
});

/** An interface name in which `*` stands for any characters. */
export const interfacePattern = text("an interface name or pattern", (value) => {
  if (!/^[a-zA-Z0-9_.*-]{1,15}$/.test(value)) {
    fail(`"${value}" is not an interface name or pattern: 1 to 15 letters, digits, "_", ".", "-" and "*"`);
  }
  return value;
});

/** A hardware address, lower case with colons. */
export const mac = text("a MAC address", (value) => {
  if (!/^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$/.test(value))
    fail(`"${value}" is not a MAC address such as 02:00:00:00:00:01`);
  return value.toLowerCase();
});

/** A time as RFC 3339 writes it. */
export const timestamp = text("a time such as 2026-01-31T12:00:00Z", (value) => {
  if (!/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$/.test(value)) {
    fail(`"${value}" is not a time such as 2026-01-31T12:00:00Z`);
  }
  return value;
});

/** A regular expression. */
export const pattern = text("a regular expression", (value) => {
  try {
    new RegExp(value);
  } catch {
    fail(`"${value}" is not a regular expression`);
  }
  return value;
});

/** Turns the text of a number into the number before the schema reads it: Calico writes such fields both ways. */
function numeric<Value>(schema: Schema<Value>, toNumber: (text: string) => number | undefined): Schema<Value> {
  return {
    what: schema.what,
    read: (input, report) => schema.read((typeof input === "string" ? toNumber(input) : undefined) ?? input, report),
  };
}

const decimal = (value: string): number | undefined => (/^[0-9]{1,10}$/.test(value) ? Number(value) : undefined);

/** A 32-bit AS number, also as text, also as `1.10` (RFC 5396). */
export const asNumber = numeric(int(1, 2 ** 32 - 1), (value) => {
  const dotted = /^([0-9]{1,5})\.([0-9]{1,5})$/.exec(value);
  if (dotted === null) return decimal(value);
  const [high, low] = [Number(dotted[1]), Number(dotted[2])];
  return high < 65536 && low < 65536 ? high * 65536 + low : undefined;
});

export const portNumber = int(1, 65535);

const PROTOCOLS = ["TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite"] as const;
export type Protocol = (typeof PROTOCOLS)[number] | number;

const protocolNumber = int(1, 255);

/** A protocol by name, whatever its case, or number. */
export const protocol: Schema<Protocol> = {
  what: `${PROTOCOLS.join(", ")} or a number from 1 to 255`,
  emptyIsAbsent: true,
  read(input, report) {
    if (typeof input !== "string") return protocolNumber.read(input, report);
    const known = PROTOCOLS.find((name) => name.toLowerCase() === input.toLowerCase()) ?? decimal(input);
    if (known === undefined) report.fault(`"${input}" is not ${protocol.what}`);
    else if (typeof known === "number") return protocolNumber.read(known, report);
    return known ?? 0;
  },
};

/** Whether the protocol has ports that a rule can match. */
export function hasPorts(value: Protocol | undefined): boolean {
  return value === "TCP" || value === "UDP" || value === "SCTP" || value === 6 || value === 17 || value === 132;
}

/** A port of a rule: a number, a range as `first:last`, or a name. */
export const rulePort: Schema<number | string> = {
  what: "a port number, a range such as 8000:8080, or a port name",
  read(input, report) {
    if (typeof input !== "string") return portNumber.read(input, report);
    const range = /^([0-9]+)(?::([0-9]+))?$/.exec(input);
    if (range === null) {
      const named = /^[a-zA-Z0-9_.-]{1,128}$/.test(input);
      if (!named) report.fault(`"${input}" is not ${rulePort.what}`);
      return input;
    }
    const [first, last] = [Number(range[1]), Number(range[2] ?? range[1])];
    if (first < 1 || last > 65535) report.fault(`"${input}" is not 1 to 65535`);
    if (first > last) report.fault(`"${input}" is not a range: ${first} is greater than ${last}`);
    return first === last ? first : `${first}:${last}`;
  },
};

/** A reference to the key of a Secret. */
export const secretKey = object({
  secretKeyRef: object({ name: withDefault(string, ""), key: string, optional: optional(boolean) }),
});
