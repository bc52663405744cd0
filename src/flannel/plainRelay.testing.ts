import { createSocket } from "node:dgram";
import { read, write } from "node:fs";
import { openPersistentTun } from "../netlink/tun.io.ts";

/**
 * A peer of flannel's udp backend as plain as can be, of the facts alone: each packet from the TUN device is a datagram,
 * each datagram a packet. `plainRelay.testing.ts DEVICE LOCAL SUBNET=PEER…`, subnets of /24 only.
 */
const [device = "", local = "", ...routes] = process.argv.slice(2);
const PORT = 8285;
const peers = new Map(routes.map((route): [string, string] => route.split("=") as [string, string]));
const tun = openPersistentTun(device);
const socket = createSocket("udp4");

socket.on("message", (packet) => {
  if (age(packet)) write(tun, packet, () => undefined);
});
socket.bind(PORT, local, () => process.stdout.write("ready\n"));

function next(): void {
  const buffer = Buffer.alloc(2048);
  read(tun, buffer, 0, buffer.length, null, (error, length) => {
    if (error !== null) throw error;
    const packet = buffer.subarray(0, length);
    const peer = peers.get(`${[...packet.subarray(16, 19)].join(".")}.0/24`);
    if (packet[0]! >> 4 === 4 && peer !== undefined && age(packet)) socket.send(packet, PORT, peer);
    next();
  });
}
next();

/** Takes one off the time to live; the header's checksum is made anew. */
function age(packet: Buffer): boolean {
  packet[8] = packet[8]! - 1;
  packet.writeUInt16BE(0, 10);
  let sum = 0;
  for (let at = 0; at < (packet[0]! & 15) * 4; at += 2) sum += packet.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  packet.writeUInt16BE(sum ^ 0xffff, 10);
  return packet[8] !== 0;
}
