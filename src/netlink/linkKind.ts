import type { Address } from "../ip/address.ts";
import { ByteReader, ByteWriter } from "../lib/bytes.ts";
import {
  address,
  attributeTable,
  be16,
  bool,
  decodeAttributes,
  encodeAttributes,
  present,
  row,
  u32,
  u8,
} from "./attributes.ts";

/** What links of each kind have of their own (IFLA_INFO_DATA), <linux/if_link.h>. */

export interface VxlanOptions {
  /** VXLAN network identifier. */
  readonly id: number;
  readonly local?: Address;
  /** The tunnel's other end, or a multicast group, for what the forwarding database does not know. */
  readonly remote?: Address;
  /** Index of the device that carries the tunnel. */
  readonly device?: number;
  /** UDP port. The kernel's default is 8472, not the 4789 of RFC 7348. */
  readonly port?: number;
  /** Whether to learn remote addresses from received frames. The kernel's default is yes. */
  readonly learning?: boolean;
  readonly ttl?: number;
  /** UDP checksums over IPv4. The kernel's default is yes. */
  readonly checksum?: boolean;
}

export interface BridgeOptions {
  readonly stp?: boolean;
  readonly multicastSnooping?: boolean;
}

export interface IpipOptions {
  /** Only packets for this address are the device's; all that are no other's, where it is absent. */
  readonly local?: Address;
}

const VXLAN = attributeTable({
  device: row(3, u32),
  checksum: row(18, bool),
  id: row(1, u32),
  local: row(4, address),
  local6: row(17, address),
  remote: row(2, address),
  remote6: row(16, address),
  ttl: row(5, u8),
  learning: row(7, bool),
  port: row(15, be16),
});

const BRIDGE = attributeTable({
  stp: row(5, u32),
  multicastSnooping: row(23, bool),
});

/** <linux/if_tunnel.h>: IFLA_IPTUN_… */
const IPIP = attributeTable({ local: row(2, address) });

export function encodeVxlan({ local, remote, ...rest }: VxlanOptions): Uint8Array {
  const writer = new ByteWriter();
  encodeAttributes(writer, VXLAN, {
    ...rest,
    [local?.family === 6 ? "local6" : "local"]: local,
    [remote?.family === 6 ? "remote6" : "remote"]: remote,
  });
  return writer.finish();
}

export function encodeBridge({ stp, ...rest }: BridgeOptions): Uint8Array {
  const writer = new ByteWriter();
  encodeAttributes(writer, BRIDGE, { ...rest, stp: stp === undefined ? undefined : Number(stp) });
  return writer.finish();
}

export function encodeIpip(options: IpipOptions): Uint8Array {
  const writer = new ByteWriter();
  encodeAttributes(writer, IPIP, options);
  return writer.finish();
}

/** Nothing for the kinds that we make no use of. */
export function decodeKind(
  kind: string,
  data: Uint8Array,
): { vxlan?: VxlanOptions; bridge?: BridgeOptions; ipip?: IpipOptions } {
  switch (kind) {
    case "vxlan": {
      const { id = 0, local, local6, remote, remote6, ...rest } = decodeAttributes(new ByteReader(data), VXLAN);
      return { vxlan: { id, ...present({ local: local6 ?? local, remote: remote6 ?? remote, ...rest }) } };
    }
    case "bridge": {
      const { stp, ...rest } = decodeAttributes(new ByteReader(data), BRIDGE);
      return { bridge: present({ stp: stp === undefined ? undefined : stp !== 0, ...rest }) };
    }
    case "ipip":
      return { ipip: present(decodeAttributes(new ByteReader(data), IPIP)) };
    default:
      return {};
  }
}
