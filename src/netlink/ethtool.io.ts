import { closeSync } from "node:fs";
import { codeOf, Failure, messageOf } from "../lib/errors.ts";
import { addressOf, AF_INET, ioctl, SOCK_DGRAM, socket } from "./ffi.io.ts";

/** What `ethtool` does: SIOCETHTOOL of <linux/sockios.h> with commands of <linux/ethtool.h>. */

const SIOCETHTOOL = 0x8946;
const GET_TRANSMIT_CHECKSUM = 0x16; // ETHTOOL_GTXCSUM
const SET_TRANSMIT_CHECKSUM = 0x17; // ETHTOOL_STXCSUM

/** Whether checksums of packets that leave by the link are left to it (`tx-checksumming` of `ethtool -k`). */
export function transmitChecksumOffload(link: string): boolean {
  return command(link, GET_TRANSMIT_CHECKSUM, 0, "read") !== 0;
}

/** `ethtool -K LINK tx on|off`. */
export function setTransmitChecksumOffload(link: string, on: boolean): void {
  command(link, SET_TRANSMIT_CHECKSUM, on ? 1 : 0, `turn ${on ? "on" : "off"}`);
}

/** `struct ifreq` with the link's name and a pointer to a `struct ethtool_value`: the command and its value. */
function command(link: string, number: number, value: number, verb: string): number {
  const argument = new Uint8Array(Uint32Array.of(number, value).buffer);
  const request = new Uint8Array(40);
  new TextEncoder().encodeInto(link.slice(0, 15), request);
  new DataView(request.buffer).setBigUint64(16, addressOf(argument), true);
  const fd = socket(AF_INET, SOCK_DGRAM, 0);
  try {
    ioctl(fd, SIOCETHTOOL, request);
    return new DataView(argument.buffer).getUint32(4, true);
  } catch (error) {
    throw new Failure(
      codeOf(error) ?? "EIO",
      `Cannot ${verb} the transmit checksum offload of ${link}: ${messageOf(error)}`,
      error,
    );
  } finally {
    closeSync(fd);
  }
}
