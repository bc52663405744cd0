import { MalformedBytes } from "../lib/bytes.ts";
import { type Attributes, type AttributeRow, type AttributeTable, row } from "./attributes.ts";
import { type Register, register } from "./nftData.ts";
import { be32, named32, netfilterTable } from "./nfnetlink.ts";

/** Address translation as expressions: `nat` to given addresses, `masq` to the interface's own, `redir` to this host. */

/** NF_NAT_RANGE_… of <linux/netfilter/nf_nat.h>. The first two only say which registers are there. */
const MAP_ADDRESSES = 0x01;
const PORT_SPECIFIED = 0x02;
const OPTIONS = { random: 0x04, persistent: 0x08, fullyRandom: 0x10 } as const;

/** How ports are chosen; `persistent` gives a client the same address for each of its connections. */
export type NatOptions = { readonly [Name in keyof typeof OPTIONS]?: true };

interface Ports {
  /** Registers of the port, or of the first and last of a range. */
  readonly port?: Register;
  readonly lastPort?: Register;
}

export interface Nat extends Ports, NatOptions {
  readonly kind: "nat";
  readonly type: "snat" | "dnat";
  readonly family: "ip" | "ip6";
  /** Registers of the address, or of the first and last of a range. */
  readonly address?: Register;
  readonly lastAddress?: Register;
}
export interface Masquerade extends Ports, NatOptions {
  readonly kind: "masquerade";
}
export interface Redirect extends Ports, NatOptions {
  readonly kind: "redirect";
}

const PORTS = { port: row(2, register), lastPort: row(3, register) };
const MASQUERADE = netfilterTable({ flags: row(1, be32), ...PORTS });
const REDIRECT = netfilterTable({ port: row(1, register), lastPort: row(2, register), flags: row(3, be32) });
const NAT = netfilterTable({
  type: row(1, named32({ snat: 0, dnat: 1 })),
  family: row(2, named32({ ip: 2, ip6: 10 })),
  address: row(3, register),
  lastAddress: row(4, register),
  port: row(5, register),
  lastPort: row(6, register),
  flags: row(7, be32),
});

/** Between an expression and its attributes, where they are not one to one. */
export interface Form<Expression, R extends Record<string, AttributeRow<unknown>>> {
  readonly table: AttributeTable<R>;
  toWire(expression: Expression): Attributes<R>;
  /** Undefined where something is missing. */
  fromWire(values: Attributes<R>): Expression | undefined;
}

type RowsOf<Table> = Table extends AttributeTable<infer R> ? R : never;

export const NAT_FORM: Form<Nat, RowsOf<typeof NAT>> = {
  table: NAT,
  toWire: (nat) => ({ ...nat, flags: flagsOf(nat) }),
  fromWire(values) {
    const { type, family, address } = values;
    if (type === undefined || family === undefined) return undefined;
    // The kernel says the end of a range also where there is none.
    const lastAddress = values.lastAddress === address ? undefined : values.lastAddress;
    const addresses = { ...(address !== undefined && { address }), ...(lastAddress !== undefined && { lastAddress }) };
    return { kind: "nat", type, family, ...addresses, ...portsOf(values), ...optionsOf(values.flags) };
  },
};

export const MASQUERADE_FORM: Form<Masquerade, RowsOf<typeof MASQUERADE>> = {
  table: MASQUERADE,
  toWire: (masquerade) => ({ ...masquerade, flags: flagsOf(masquerade) }),
  fromWire: (values) => ({ kind: "masquerade", ...portsOf(values), ...optionsOf(values.flags) }),
};

export const REDIRECT_FORM: Form<Redirect, RowsOf<typeof REDIRECT>> = {
  table: REDIRECT,
  toWire: (redirect) => ({ ...redirect, flags: flagsOf(redirect) }),
  fromWire: (values) => ({ kind: "redirect", ...portsOf(values), ...optionsOf(values.flags) }),
};

function flagsOf(options: NatOptions & Ports): number | undefined {
  let flags = options.port === undefined ? 0 : PORT_SPECIFIED;
  for (const name of Object.keys(OPTIONS) as (keyof typeof OPTIONS)[])
    if (options[name] === true) flags |= OPTIONS[name];
  return flags === 0 ? undefined : flags;
}

function optionsOf(flags = 0): NatOptions {
  const names = Object.keys(OPTIONS) as (keyof typeof OPTIONS)[];
  const known = names.reduce((bits, name) => bits | OPTIONS[name], MAP_ADDRESSES | PORT_SPECIFIED);
  if ((flags & ~known) !== 0)
    throw new MalformedBytes(`flags of NAT: 0x${flags.toString(16)} has bits without a name here`);
  return Object.fromEntries(names.filter((name) => (flags & OPTIONS[name]) !== 0).map((name) => [name, true]));
}

function portsOf({ port, lastPort }: Attributes<typeof PORTS>): Ports {
  return { ...(port !== undefined && { port }), ...(lastPort !== undefined && lastPort !== port && { lastPort }) };
}
