import { read, writeSync } from "node:fs";
import { addressToBytes, parseAddress } from "../ip/address.ts";
import { AF_INET, connect, MSG_DONTWAIT, receive, SOCK_RAW, socket, whenReadable } from "../netlink/ffi.io.ts";
import { openPersistentTun } from "../netlink/tun.io.ts";

/**
 * A peer of flannel's ipip backend as plain as can be, of RFC 2003 alone: each packet from the TUN device is the payload of
 * one of protocol 4, whose header the kernel makes; of each that comes the outer header is taken off.
 * `plainIpip.testing.ts DEVICE SUBNET=PEER…`, subnets of /24 only.
 */
const [device = "", ...routes] = process.argv.slice(2);
const IPPROTO_IPIP = 4;
const tun = openPersistentTun(device);
const receiver = socket(AF_INET, SOCK_RAW, IPPROTO_IPIP);
const senders = new Map(
  routes.map((route): [string, number] => {
    const [subnet = "", peer = ""] = route.split("=");
    const sender = socket(AF_INET, SOCK_RAW, IPPROTO_IPIP);
    connect(sender, Uint8Array.of(AF_INET, 0, 0, 0, ...addressToBytes(parseAddress(peer)), ...new Uint8Array(8)));
    return [subnet, sender];
  }),
);

const came = new Uint8Array(65_536);
whenReadable(receiver, () => {
  for (;;) {
    const length = receive(receiver, came, MSG_DONTWAIT);
    if (length === undefined) return;
    writeSync(tun, came, (came[0]! & 15) * 4, length - (came[0]! & 15) * 4);
  }
});

function next(): void {
  const buffer = Buffer.alloc(2048);
  read(tun, buffer, 0, buffer.length, null, (error, length) => {
    if (error !== null) throw error;
    const subnet = `${[...buffer.subarray(16, 19)].join(".")}.0/24`;
    const sender = buffer[0]! >> 4 === 4 ? senders.get(subnet) : undefined;
    if (sender !== undefined) writeSync(sender, buffer, 0, length);
    next();
  });
}
next();
process.stdout.write("ready\n");
