import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { parseAddress, type Address } from "../ip/address.ts";
import { networkOf, parseInterfaceAddress, parsePrefix, type Prefix } from "../ip/prefix.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { inside, temporaryNamespace } from "../netlink/namespace.testing.ts";
import { openRtnetlink, type Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { writeSysctl } from "../netlink/sysctl.io.ts";
import { NODE_SYSCTLS } from "./endpoint.ts";
import { writeSysctls } from "./podInterfaces.io.ts";

/**
 * Two nodes with a pod each, on two networks with a router between them that knows nothing of pods:
 *
 *     pod a ─ cali0 [a] eth0 ── router ── eth0 [b] cali0 ─ pod b
 */
export interface TunnelBench {
  readonly a: BenchNode;
  readonly b: BenchNode;
  readonly router: { readonly path: string; readonly name: string };
  [Symbol.dispose](): void;
}

export interface BenchNode {
  readonly name: string;
  readonly path: string;
  readonly rtnetlink: Rtnetlink;
  /** Index of eth0. */
  readonly underlay: number;
  readonly address: Address;
  readonly address6: Address;
  /** Addresses of this node's pods. */
  readonly block: Prefix;
  readonly block6: Prefix;
  /** First address of the block, for the tunnel; the pod has the second. */
  readonly tunnel: Address;
  readonly tunnel6: Address;
  readonly pod: { readonly name: string; readonly path: string; readonly address: string; readonly address6: string };
}

const MTU = 1500;

export function tunnelBench(): TunnelBench {
  const ends: Disposable[] = [];
  const namespace = (): ReturnType<typeof temporaryNamespace> => {
    const made = temporaryNamespace();
    ends.push(made);
    // There are no duplicates here, and nobody waits for the kernel to look for them.
    inNamespace(made.path, () => {
      for (const which of ["all", "default"]) writeSysctl(`ipv6/conf/${which}/accept_dad`, 0);
    });
    return made;
  };
  const router = namespace();
  inNamespace(router.path, () => writeSysctls(NODE_SYSCTLS));
  const fabric = openRtnetlink(router.path);

  function node(letter: string, number: number): BenchNode {
    const own = namespace();
    const pod = namespace();
    inNamespace(own.path, () => writeSysctls(NODE_SYSCTLS));
    const rtnetlink = openRtnetlink(own.path);
    ends.push({ [Symbol.dispose]: () => rtnetlink.close() });
    const underlay = wire(fabric, own.path, `to-${letter}`, [
      [`192.0.2.${number * 64 + 1}/26`, `192.0.2.${number * 64 + 11}/26`],
      [`2001:db8:${number}::1/64`, `2001:db8:${number}::11/64`],
    ]);
    const nodeSide = rtnetlink.link(underlay)!.index;
    const addresses = { v4: `10.65.${number}.2`, v6: `fd00:65:${number}::2` };
    const inner = wire(
      rtnetlink,
      pod.path,
      "eth0",
      [
        ["169.254.1.1/32", `${addresses.v4}/32`],
        ["fe80::1/64", `${addresses.v6}/128`],
      ],
      "cali0",
    );
    const device = rtnetlink.link("cali0")!.index;
    rtnetlink.addRoute({ destination: parsePrefix(`${addresses.v4}/32`), nextHops: [{ device }] });
    rtnetlink.addRoute({ destination: parsePrefix(`${addresses.v6}/128`), nextHops: [{ device }] });
    const podLinks = openRtnetlink(pod.path);
    const out = podLinks.link(inner)!.index;
    podLinks.addRoute({ destination: parsePrefix("169.254.1.1/32"), nextHops: [{ device: out }] });
    podLinks.addRoute({
      destination: parsePrefix("0.0.0.0/0"),
      nextHops: [{ device: out, gateway: parseAddress("169.254.1.1") }],
    });
    podLinks.addRoute({
      destination: parsePrefix("::/0"),
      nextHops: [{ device: out, gateway: parseAddress("fe80::1") }],
    });
    podLinks.close();
    for (const [everything, gateway] of [
      ["0.0.0.0/0", `192.0.2.${number * 64 + 1}`],
      ["::/0", `2001:db8:${number}::1`],
    ] as const) {
      rtnetlink.addRoute({
        destination: parsePrefix(everything),
        nextHops: [{ device: nodeSide, gateway: parseAddress(gateway) }],
      });
    }
    const block = networkOf(parseAddress(addresses.v4), 26);
    const block6 = networkOf(parseAddress(addresses.v6), 122);
    return {
      name: own.name,
      path: own.path,
      rtnetlink,
      underlay: nodeSide,
      address: parseAddress(`192.0.2.${number * 64 + 11}`),
      address6: parseAddress(`2001:db8:${number}::11`),
      block,
      block6,
      tunnel: parseAddress(`10.65.${number}.1`),
      tunnel6: parseAddress(`fd00:65:${number}::1`),
      pod: { name: pod.name, path: pod.path, address: addresses.v4, address6: addresses.v6 },
    };
  }

  const end = (): void => {
    fabric.close();
    for (const each of ends.toReversed()) each[Symbol.dispose]();
  };
  try {
    return { a: node("a", 0), b: node("b", 1), router, [Symbol.dispose]: end };
  } catch (error) {
    end();
    throw error;
  }
}

/** A veth from here into the namespace, up at both ends, with an address of each pair; returns the name over there. */
function wire(
  rtnetlink: Rtnetlink,
  namespace: string,
  name: string,
  addresses: readonly (readonly [string, string])[],
  here = name,
): string {
  const there = here === name ? "eth0" : name;
  const link = rtnetlink.addLink({ kind: "veth", name: here, mtu: MTU, peer: { name: there, mtu: MTU, namespace } });
  rtnetlink.setLink(link.index, { up: true });
  const other = openRtnetlink(namespace);
  try {
    const device = other.link(there)!.index;
    other.setLink(device, { up: true });
    for (const [ours, theirs] of addresses) {
      const add = (to: Rtnetlink, index: number, text: string): void => {
        const address = parseInterfaceAddress(text);
        to.addAddress({ device: index, address, noDuplicateDetection: address.address.family === 6 });
      };
      add(rtnetlink, link.index, ours);
      add(other, device, theirs);
    }
  } finally {
    other.close();
  }
  return there;
}

/** Whether the pod gets an answer from the address; `args` go to ping. */
export function pings(pod: { readonly name: string }, address: string, ...args: string[]): boolean {
  try {
    inside(pod.name, "ping", "-q", "-c", "1", "-W", "1", ...args, address);
    return true;
  } catch {
    return false;
  }
}

/** A process in the namespace, killed at the end whatever it does. */
export function processIn(path: string, file: string, ...args: string[]): ChildProcess & Disposable {
  const child = inNamespace(path, () => spawn(file, args, { stdio: ["pipe", "pipe", "pipe"] }));
  return Object.assign(child, { [Symbol.dispose]: () => void child.kill("SIGKILL") });
}

/** A server that takes bytes and says how many they were and their SHA-256, and a client that sends as many. */
const SERVER = `
  const hash = require("node:crypto").createHash("sha256");
  let bytes = 0;
  const server = require("node:net").createServer((socket) => {
    socket.on("data", (chunk) => { hash.update(chunk); bytes += chunk.length; });
    socket.on("end", () => { socket.end(); console.log(bytes + " " + hash.digest("hex")); process.exit(); });
  });
  server.listen(5001, "0.0.0.0", () => console.log("listening"));
`;
const CLIENT = `
  const [host, total] = process.argv.slice(1);
  const hash = require("node:crypto").createHash("sha256");
  const chunk = require("node:crypto").randomBytes(1000000);
  const socket = require("node:net").connect(5001, host, async () => {
    for (let sent = 0; sent < Number(total); sent += chunk.length) {
      chunk.writeUInt32LE(sent, 0);
      hash.update(chunk);
      if (!socket.write(Buffer.from(chunk))) await new Promise((resolve) => socket.once("drain", resolve));
    }
    socket.end();
    console.log(total + " " + hash.digest("hex"));
  });
`;

/** Sends so many million bytes by TCP from one pod to the other, and compares what came with what was sent. */
export async function transfer(from: BenchNode["pod"], to: BenchNode["pod"], bytes: number): Promise<void> {
  using server = processIn(to.path, process.execPath, "-e", SERVER);
  const received = lines(server);
  await received.next();
  using client = processIn(from.path, process.execPath, "-e", CLIENT, "--", to.address, String(bytes));
  const [sent, came] = await Promise.all([lines(client).next(), received.next()]);
  assert.equal(came.value, sent.value);
  assert.match(String(came.value), new RegExp(`^${bytes} `));
}

async function* lines(child: ChildProcess): AsyncGenerator<string> {
  for await (const line of createInterface({ input: child.stdout! })) yield line;
}
