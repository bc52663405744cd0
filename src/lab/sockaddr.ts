import { addressToBytes, type Address } from "../ip/address.ts";
import { ByteWriter } from "../lib/bytes.ts";

/** `struct sockaddr_in` or `sockaddr_in6` (linux/in.h, linux/in6.h): the family in host order, the port in network order. */
export function sockaddr(address: Address, port: number): Uint8Array {
  const writer = new ByteWriter(28);
  writer.u16le(address.family === 4 ? 2 : 10);
  writer.u16(port);
  if (address.family === 6) writer.u32(0); // sin6_flowinfo
  writer.raw(addressToBytes(address));
  if (address.family === 6) writer.u32le(0); // sin6_scope_id
  else writer.reserve(8); // sin_zero
  return writer.finish();
}
