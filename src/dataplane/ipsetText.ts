/** Sets in the words of ipset: what its `restore` takes and its `save` prints. */
import type { Family } from "../ip/address.ts";
import { formatNet, parseNet } from "../policy/model.ts";
import { memberFamily, type SetKind } from "../policy/sets.ts";

/** A set of one family, as the kernel has it or is to have it. */
export interface KernelSet {
  readonly kind: SetKind;
  /** More members are refused. */
  readonly maxSize: number;
  /** As ipset prints them. */
  readonly members: ReadonlySet<string>;
}

const TYPE: Readonly<Record<SetKind, string>> = { net: "hash:net", "ip,port": "hash:ip,port" };

export function createLine(name: string, family: Family, { kind, maxSize }: Omit<KernelSet, "members">): string {
  return `create ${name} ${TYPE[kind]} family ${family === 4 ? "inet" : "inet6"} maxelem ${maxSize}`;
}

/** The members of the family, as ipset has them. A network of everything is two halves: it has no /0. */
export function ipsetMembers(family: Family, members: Iterable<string>): Set<string> {
  const all = new Set<string>();
  for (const member of members) {
    if (memberFamily(member) !== family) continue;
    if (member === "0.0.0.0/0") all.add("0.0.0.0/1").add("128.0.0.0/1");
    else if (member === "::/0") all.add("::/1").add("8000::/1");
    else all.add(member);
  }
  return all;
}

/** Whether a change by these members alone says what is to be added and removed: everything overlaps with its halves. */
export function isSimpleMember(member: string): boolean {
  return !member.endsWith("/0") && !member.endsWith("/1");
}

/**
 * Reads the output of `ipset save`, sets for which `isOurs` holds only. A set of another type has `kind` undefined: it
 * has to go before it can be made anew.
 */
export function parseIpsetSave(
  text: string,
  isOurs: (name: string) => boolean,
): Map<string, Omit<KernelSet, "kind"> & { readonly kind: SetKind | undefined; readonly family: Family }> {
  const sets: ReturnType<typeof parseIpsetSave> = new Map();
  const members = new Map<string, Set<string>>();
  for (const line of text.split("\n")) {
    const [verb, name = "", type = ""] = line.split(" ", 3);
    if (verb === "add") members.get(name)?.add(canonicalMember(type));
    if (verb !== "create" || !isOurs(name)) continue;
    const of = new Set<string>();
    members.set(name, of);
    const kind = type === TYPE.net ? "net" : type === TYPE["ip,port"] ? "ip,port" : undefined;
    const family = / family inet6( |$)/.test(line) ? 6 : 4;
    sets.set(name, { kind, family, maxSize: Number(/ maxelem (\d+)/.exec(line)?.[1] ?? 0), members: of });
  }
  return sets;
}

/** The C library writes some addresses of IPv6 otherwise than RFC 5952: those that end in one of IPv4. */
function canonicalMember(member: string): string {
  if (!/^[^,]*:[^,]*\./.test(member)) return member;
  const comma = member.indexOf(",");
  return comma < 0
    ? formatNet(parseNet(member))
    : `${formatNet(parseNet(member.slice(0, comma)))}${member.slice(comma)}`;
}
