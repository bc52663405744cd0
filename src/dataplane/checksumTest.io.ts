import { connect } from "node:net";
import { formatAddress, type Address } from "../ip/address.ts";
import { setTransmitChecksumOffload } from "../netlink/ethtool.io.ts";

/**
 * Whether the checksums of packets in a VXLAN may be left to the hardware below. Some network cards (and kernels) leave
 * the inner ones unfinished: pings go through, since the kernel sums ICMP itself, and TCP stands still or crawls.
 */

/** `broken`: the offload is now off. `unknown`: nobody answered either way, and all is as before. */
export type ChecksumVerdict = "fine" | "broken" | "unknown";

/** Ports that even a host with a policy of its own answers at (Felix's failsafe ports); a refusal is an answer. */
const PORTS = [179, 22, 10_250];
const ANSWER_MS = 600;

/**
 * Asks other nodes through the tunnel, by TCP from our end's address: first with the checksum left to the device, then,
 * where none has answered, with the kernel's own. Works in the namespace of the process.
 */
export async function testChecksumOffload(
  device: string,
  own: Address,
  peers: readonly Address[],
): Promise<ChecksumVerdict> {
  if (peers.length === 0) return "unknown";
  const answers = async (): Promise<boolean> => {
    const tries = peers.flatMap((peer) => PORTS.map((port) => answersAt(own, peer, port)));
    return (await Promise.all(tries)).includes(true);
  };
  if (await answers()) return "fine";
  setTransmitChecksumOffload(device, false);
  const answersNow = await answers();
  setTransmitChecksumOffload(device, true);
  if (!answersNow) return "unknown";
  // The others' ends may only just have come up: it is not the checksums where they answer either way.
  if (await answers()) return "fine";
  setTransmitChecksumOffload(device, false);
  return "broken";
}

function answersAt(own: Address, peer: Address, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: formatAddress(peer), port, localAddress: formatAddress(own) });
    const end = (answered: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answered);
    };
    const timer = setTimeout(() => end(false), ANSWER_MS);
    socket.once("connect", () => end(true));
    socket.once("error", (error: NodeJS.ErrnoException) => end(error.code === "ECONNREFUSED"));
  });
}
