import type { Address, Family } from "../ip/address.ts";
import { prefixContains, type Prefix } from "../ip/prefix.ts";
import type { Allocator } from "./allocator.ts";
import { tunnelHandle, tunnelType, type TunnelKind } from "./handles.ts";

/**
 * The address of a node's tunnel device, from a pool whose packets take that tunnel: `pools` by name, with their CIDRs.
 * The one that the node has is kept as long as it lies in one of these pools. With no pools it is given back, and
 * undefined returned. Not to be called twice at once for one tunnel.
 */
export async function ensureTunnelAddress(
  allocator: Allocator,
  node: string,
  tunnel: { readonly kind: TunnelKind; readonly family: Family },
  pools: readonly { readonly name: string; readonly prefix: Prefix }[],
): Promise<Address | undefined> {
  const { kind, family } = tunnel;
  const handle = tunnelHandle(kind, family, node);
  await allocator.load();
  const present = allocator.addressesOf(handle);
  const [kept] = present;
  const fits = kept !== undefined && pools.some(({ prefix }) => prefixContains(prefix, kept));
  if (fits && present.length === 1) return kept;
  if (present.length > 0) await allocator.release([handle]);
  if (pools.length === 0) return undefined;
  const [assigned] = await allocator.assign({
    handle,
    attributes: { type: tunnelType(kind, family) },
    use: "Tunnel",
    families: [family],
    pools: { [family]: pools.map(({ name }) => name) },
    // It had several, of which one was right: that one it keeps.
    ...(fits ? { addresses: [kept] } : {}),
  });
  return assigned?.address;
}
