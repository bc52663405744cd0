import { closeSync, openSync } from "node:fs";
import { codeOf, Failure, messageOf } from "../lib/errors.ts";
import { ioctl } from "./ffi.io.ts";

/** TUN devices: links whose other end is a descriptor of this process, one whole IP packet a read or write. */

const CLONE_DEVICE = "/dev/net/tun";
/** <linux/if_tun.h> */
const TUNSETIFF = 0x400454ca;
const TUNSETPERSIST = 0x400454cb;
const IFF_TUN = 0x0001;
/** Packets come without a header of the device's own. */
const IFF_NO_PI = 0x1000;
const NAME_SIZE = 16;

/**
 * Opens the TUN device of this name in the calling thread's namespace, and makes it where there is none. It has a carrier
 * for as long as the descriptor is open, and stays when that is closed. Fails with EBUSY while another process has it
 * open, and with EINVAL where a link of another kind has the name.
 */
export function openPersistentTun(name: string): number {
  let fd: number;
  try {
    fd = openSync(CLONE_DEVICE, "r+");
  } catch (error) {
    throw new Failure(codeOf(error) ?? "EIO", `Cannot open ${CLONE_DEVICE}: ${messageOf(error)}`, error);
  }
  try {
    ioctl(fd, TUNSETIFF, interfaceRequest(name, IFF_TUN | IFF_NO_PI));
    // The argument is a number, of which the kernel asks only whether it is 0: the address of any bytes is none.
    ioctl(fd, TUNSETPERSIST, new Uint8Array(1));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw new Failure(codeOf(error) ?? "EIO", `Cannot open TUN device ${name}: ${messageOf(error)}`, error);
  }
}

/** `struct ifreq` of 40 bytes: the name, then the flags. */
function interfaceRequest(name: string, flags: number): Uint8Array {
  const request = new Uint8Array(40);
  new TextEncoder().encodeInto(name.slice(0, NAME_SIZE - 1), request);
  new DataView(request.buffer).setUint16(NAME_SIZE, flags, true);
  return request;
}
