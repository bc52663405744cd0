import { attributeTable, encodeAttributes, nested, row, u32, type ValuesOf } from "./attributes.ts";
import type { Request } from "./framing.ts";
import { NEW_LINK } from "./link.ts";

/** Settings of IPv4 on one link, in a message: a file below /proc takes ten times as long to write as one of them. */

/** By the names of the files in /proc/sys/net/ipv4/conf/LINK. Numbers: <linux/ip.h>, IPV4_DEVCONF_… */
const SETTINGS = attributeTable({
  forwarding: row(1, u32),
  proxy_arp: row(3, u32),
  rp_filter: row(8, u32),
  route_localnet: row(26, u32),
});
export type Ipv4Settings = ValuesOf<typeof SETTINGS>;

/** <linux/if_link.h>: IFLA_AF_SPEC holds an attribute for each family (AF_INET is 2), and that one IFLA_INET_CONF. */
const LINK = attributeTable({
  families: row(
    26,
    nested(attributeTable({ ipv4: row(2, nested(attributeTable({ settings: row(1, nested(SETTINGS)) }))) })),
  ),
});

/** Whether a message can carry the file of this name. */
export const isIpv4Setting = (name: string): name is keyof Ipv4Settings =>
  SETTINGS.rows.some((each) => each.name === name);

export function setIpv4(index: number, settings: Ipv4Settings): Request {
  return {
    type: NEW_LINK,
    flags: 0,
    encode(writer) {
      // `struct ifinfomsg` with nothing but the index, as link.ts draws it.
      writer.u32le(0);
      writer.i32le(index);
      writer.u32le(0);
      writer.u32le(0);
      encodeAttributes(writer, LINK, { families: { ipv4: { settings } } });
    },
  };
}
