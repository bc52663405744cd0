import { closeSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { addressToBytes, type Address } from "../ip/address.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import { AF_INET, bind, setSocketOption, SO_RCVBUFFORCE, SOCK_DGRAM, SOL_SOCKET } from "../netlink/ffi.io.ts";
import { currentNamespace, inNamespace, socketIn } from "../netlink/namespace.io.ts";
import { openOffloadTun, packetCalls, SOL_UDP, UDP_GRO } from "../netlink/packetIo.io.ts";
import { openRtnetlink } from "../netlink/rtnetlink.io.ts";
import type { Lease } from "./lease.ts";
import { publishPeers, sharedPeers } from "./peerTable.ts";
import { COUNTER, COUNTERS, type RelayInput } from "./relay.ts";

/** The relay of flannel's udp backend: a TUN device, a socket, and two threads between them. */
export interface UdpTunnel {
  /** Name of the TUN device. */
  readonly name: string;
  setPeers(peers: readonly Lease[]): void;
  counters(): Readonly<Record<keyof typeof COUNTER, number>>;
  /** Ends the threads, and with them the device. */
  close(): Promise<void>;
}

export interface UdpTunnelOptions {
  /** Path of a network namespace; the calling thread's own where absent. */
  readonly namespace?: string;
  /** `flannel%d`: the first number that is free. */
  readonly name: string;
  /** The external interface's, which the socket is bound to. */
  readonly local: Address;
  readonly port: number;
  /** The TUN device's own: the network address of this node's subnet. */
  readonly address: Address;
  /** The relay has ended by itself: its device was deleted, or a thread failed. It is to be closed and made anew. */
  readonly onEnd: (reason: string) => void;
}

const SO_SNDBUFFORCE = 32;
/** Of the socket, each way: what one round trip of a fast network holds. Bytes. */
const BUFFER = 16 << 20;

/** Throws `Failure` where the device or the socket cannot be had: EADDRINUSE means that another flannel runs here. */
export function openUdpTunnel(options: UdpTunnelOptions): UdpTunnel {
  const { namespace, local, port, address } = options;
  const socket = socketIn(namespace, AF_INET, SOCK_DGRAM, 0);
  try {
    for (const option of [SO_RCVBUFFORCE, SO_SNDBUFFORCE]) setSocketOption(socket, SOL_SOCKET, option, BUFFER);
    setSocketOption(socket, SOL_UDP, UDP_GRO, 1);
    bind(socket, socketAddress(local, port));
  } catch (error) {
    closeSync(socket);
    throw error;
  }
  let tun: ReturnType<typeof openOffloadTun>;
  try {
    tun = inNamespace(namespace ?? currentNamespace(), () => openOffloadTun(options.name));
  } catch (error) {
    closeSync(socket);
    throw error;
  }
  const input: RelayInput = {
    tun: tun.fd,
    socket,
    port,
    address: new DataView(addressToBytes(address).buffer).getInt32(0),
    udpSegmentation: tun.udpSegmentation,
    peers: sharedPeers(),
    stop: new Int32Array(new SharedArrayBuffer(4)),
    counters: new Float64Array(new SharedArrayBuffer(COUNTERS * 8)),
  };
  let closing = false;

  function deleteDevice(): void {
    const rtnetlink = openRtnetlink(namespace);
    try {
      const link = rtnetlink.link(tun.name);
      if (link?.kind === "tun") rtnetlink.deleteLink(link.index);
    } finally {
      rtnetlink.close();
    }
  }

  const threads = [
    new Worker(new URL("./udpSender.io.ts", import.meta.url), { workerData: input }),
    new Worker(new URL("./udpReceiver.io.ts", import.meta.url), { workerData: input }),
  ].map((worker) => {
    return new Promise<void>((resolve) => {
      const end = (reason: string): void => {
        resolve();
        if (!closing) options.onEnd(reason);
      };
      worker.once("error", (error) => end(messageOf(error)));
      worker.once("exit", (code) => end(`a thread of the relay has ended with code ${code}`));
    });
  });

  return {
    name: tun.name,
    setPeers(peers) {
      const left = publishPeers(input.peers, peers);
      if (left > 0)
        throw new Failure("too-many-peers", `Cannot send to ${left} of ${peers.length} nodes: the table is full`);
    },
    counters() {
      const entries = Object.entries(COUNTER).map(([name, place]) => [name, input.counters[place]]);
      return Object.fromEntries(entries) as Record<keyof typeof COUNTER, number>;
    },
    async close() {
      if (closing) return;
      closing = true;
      Atomics.store(input.stop, 0, 1);
      // The receiver waits for the socket, the sender for the device: each is woken by the end of that.
      packetCalls().shutdown(socket);
      deleteDevice();
      await Promise.all(threads);
      closeSync(tun.fd);
      closeSync(socket);
    },
  };
}

/** `struct sockaddr_in` */
function socketAddress(address: Address, port: number): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_INET, true);
  view.setUint16(2, port);
  bytes.set(addressToBytes(address), 4);
  return bytes;
}
