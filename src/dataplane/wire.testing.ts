import { writeSync } from "node:fs";
import { bind, MSG_DONTWAIT, receive, SOCK_RAW, socket, whenReadable } from "../netlink/ffi.io.ts";
import { openRtnetlink } from "../netlink/rtnetlink.io.ts";
import { checksum } from "./tunnelPackets.testing.ts";

/**
 * A wire between x0 and x1 of its namespace: `node wire.testing.ts sound|broken|cut`. A veth hands over packets whose
 * checksums are left to the hardware; a sound wire finishes them all, a broken one only the outer ones, as a network card
 * does that knows nothing of VXLAN and says it does.
 */

const AF_PACKET = 17;
const EVERYTHING = 0x0300; // ETH_P_ALL in network order
const ETHERNET = 14;
const [UDP, TCP] = [17, 6];
/** Outer UDP and VXLAN headers, and the inner Ethernet header. */
const VXLAN = 8 + 8 + ETHERNET;

function open(device: number): number {
  const fd = socket(AF_PACKET, SOCK_RAW, EVERYTHING);
  const address = new DataView(new ArrayBuffer(20));
  address.setUint16(0, AF_PACKET, true);
  address.setUint16(2, EVERYTHING, true);
  address.setInt32(4, device, true);
  bind(fd, new Uint8Array(address.buffer));
  return fd;
}

/** Says whether the frame is a VXLAN's, and finishes it. */
function finish(frame: Uint8Array, isSound: boolean): void {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const isVxlan =
    view.getUint16(12) === 0x0800 && frame[ETHERNET + 9] === UDP && view.getUint16(ETHERNET + 22) === 4789;
  if (!isVxlan) return;
  view.setUint16(ETHERNET + 20 + 6, 0); // RFC 768: no checksum
  const inner = frame.subarray(ETHERNET + 20 + VXLAN);
  if (!isSound || inner[9] !== TCP) return;
  const packet = new DataView(inner.buffer, inner.byteOffset, inner.length);
  const length = packet.getUint16(2) - 20;
  // RFC 9293 section 3.1: a pseudo-header of addresses, protocol and length is summed before the segment.
  const summed = new Uint8Array(12 + length);
  summed.set(inner.subarray(12, 20));
  summed[9] = TCP;
  new DataView(summed.buffer).setUint16(10, length);
  packet.setUint16(20 + 16, 0);
  summed.set(inner.subarray(20, 20 + length), 12);
  packet.setUint16(20 + 16, checksum(summed));
}

if (import.meta.main) {
  const how = process.argv[2];
  const rtnetlink = openRtnetlink();
  const ends = ["x0", "x1"].map((name) => open(rtnetlink.link(name)!.index));
  for (const [index, fd] of ends.entries()) {
    const buffer = new Uint8Array(65_550);
    whenReadable(fd, () => {
      for (;;) {
        const length = receive(fd, buffer, MSG_DONTWAIT);
        if (length === undefined) return;
        const frame = buffer.subarray(0, length);
        if (how === "cut") continue;
        finish(frame, how === "sound");
        try {
          writeSync(ends[1 - index]!, frame);
        } catch {
          // The other end is gone, as wires' ends are when a test is over.
        }
      }
    });
  }
  process.stdout.write("ready\n");
}
