import type { SharedPeers } from "./peerTable.ts";

/** What the relay's two threads are started with. Descriptors are the process's, addresses numbers of 32 bits. */
export interface RelayInput {
  readonly tun: number;
  readonly socket: number;
  readonly port: number;
  /** Of the TUN device: who answers that there is no way. */
  readonly address: number;
  readonly udpSegmentation: boolean;
  readonly peers: SharedPeers;
  /** Not 0: the threads are to end. */
  readonly stop: Int32Array<SharedArrayBuffer>;
  /** One thread writes each of them. */
  readonly counters: Float64Array<SharedArrayBuffer>;
}

/** Places in `counters`. */
export const COUNTER = {
  /** Calls to the kernel that sent, datagrams that it refused, and packets from the device that nobody could be sent. */
  sends: 0,
  sendErrors: 1,
  unreachable: 2,
  sendDrops: 3,
  /** Calls that received, packets written to the device, those that it refused, and malformed ones. */
  receives: 4,
  writes: 5,
  writeErrors: 6,
  receiveDrops: 7,
} as const;
export const COUNTERS = 8;
