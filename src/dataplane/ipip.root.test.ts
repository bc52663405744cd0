import assert from "node:assert/strict";
import { once } from "node:events";
import { rmSync, statSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { formatAddress, parseAddress, type Address } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { setTransmitChecksumOffload } from "../netlink/ethtool.io.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { inside } from "../netlink/namespace.testing.ts";
import { createIpipTunnel, type IpipStatus, type IpipTunnel } from "./ipip.io.ts";
import type { IpipWish } from "./ipip.ts";
import { ipipArguments } from "./ipipAgent.testing.ts";
import type { IpipCounter } from "./ipipMaps.ts";
import { clusterRoute } from "./routes.ts";
import { type BenchNode, pings, processIn, transfer, tunnelBench, type TunnelBench } from "./tunnel.testing.ts";
import { capture, echo, ipv4, parseIpv4, rawReceiver, sendPacket, type Ipv4 } from "./tunnelPackets.testing.ts";

/** IPIP by the programs, between two nodes, and against raw sockets that know nothing of them. */

const IPIP = 4;
const ICMP = 1;

function wishOf(me: BenchNode, other: BenchNode): IpipWish {
  return {
    local: me.address,
    address: me.tunnel,
    mtu: 1480,
    destinations: [{ destination: other.block, node: other.address }],
    peers: [other.address],
    networks: [],
    underlays: [me.underlay],
  };
}

function join(me: BenchNode, other: BenchNode): IpipTunnel {
  const tunnel = createIpipTunnel(me.rtnetlink, me.path);
  const device = tunnel.apply(wishOf(me, other));
  me.rtnetlink.replaceRoute(clusterRoute(other.block, { device, gateway: other.address, onlink: true }));
  return tunnel;
}

const count = (tunnel: IpipTunnel, counter: IpipCounter): number => statusOf(tunnel).counters?.[counter] ?? 0;

function statusOf(tunnel: IpipTunnel): IpipStatus {
  const status = tunnel.status();
  assert.ok(status !== undefined);
  return status;
}

describe("two nodes with IPIP between them", () => {
  let bench: TunnelBench;
  let tunnels: { a: IpipTunnel; b: IpipTunnel };
  before(() => {
    bench = tunnelBench();
    tunnels = { a: join(bench.a, bench.b), b: join(bench.b, bench.a) };
  });
  after(() => {
    for (const tunnel of Object.values(tunnels)) tunnel.remove();
    bench[Symbol.dispose]();
  });

  test("this kernel has no such device, so the programs do it, and outlive the agent", () => {
    assert.equal(statusOf(tunnels.a).kind, "bpf");
    assert.equal(statusOf(tunnels.a).notKept, undefined);
    assert.match(inside(bench.a.name, "ip", "-d", "link", "show", "tunl0"), /mtu 1480 [^]* tun type tun/);
    assert.equal(
      inside(bench.a.name, "ip", "route", "show", "10.65.1.0/26").trim(),
      "10.65.1.0/26 via 192.0.2.75 dev tunl0 proto 80 onlink",
    );
  });

  test("pods and nodes reach each other", () => {
    assert.ok(pings(bench.a.pod, bench.b.pod.address));
    assert.ok(pings(bench.b.pod, bench.a.pod.address));
    assert.ok(pings({ name: bench.a.name }, bench.b.pod.address), "from a node to a pod");
    assert.ok(pings({ name: bench.a.name }, formatAddress(bench.b.tunnel)), "from tunnel to tunnel");
  });

  test("the largest packet passes, a larger one with DF is answered with the tunnel's MTU", () => {
    assert.ok(pings(bench.a.pod, bench.b.pod.address, "-M", "do", "-s", "1452"));
    assert.throws(
      () => inside(bench.a.pod.name, "ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1453", bench.b.pod.address),
      (error: { stdout?: string }) => /Frag needed and DF set \(mtu = 1480\)|mtu=1480/.test(error.stdout ?? ""),
    );
  });

  test("a packet without DF that is too large is cut before the tunnel", () => {
    assert.ok(pings(bench.a.pod, bench.b.pod.address, "-M", "dont", "-s", "4000"));
  });

  test("20 MB come whole, as large segments; and as packets of 1,500 bytes where nothing is offloaded", async () => {
    const bytes = 20_000_000;
    const before = count(tunnels.a, "sent");
    await transfer(bench.a.pod, bench.b.pod, bytes);
    const large = count(tunnels.a, "sent") - before;
    assert.ok(large < bytes / 1440 / 4, `${large} packets: none was a large segment`);
    for (const { path } of [bench.a, bench.b]) {
      inNamespace(path, () => {
        setTransmitChecksumOffload("eth0", false);
        setTransmitChecksumOffload("cali0", false);
      });
    }
    await transfer(bench.a.pod, bench.b.pod, bytes);
    await transfer(bench.b.pod, bench.a.pod, bytes);
  });
});

describe("a node and a raw socket at the other end", () => {
  let bench: TunnelBench;
  let tunnel: IpipTunnel;
  before(() => {
    bench = tunnelBench();
    tunnel = join(bench.a, bench.b);
  });
  after(() => {
    tunnel.remove();
    bench[Symbol.dispose]();
  });
  const podA = (): Address => parseAddress(bench.a.pod.address);
  const podB = (): Address => parseAddress(bench.b.pod.address);

  const outgoing: {
    name: string;
    ping: string[];
    tos: number;
    ttl: number;
    dontFragment: boolean;
    innerTos?: number;
  }[] = [
    { name: "an ordinary packet", ping: [], tos: 0, ttl: 63, dontFragment: true },
    { name: "TTL", ping: ["-t", "9"], tos: 0, ttl: 8, dontFragment: true },
    { name: "no DF", ping: ["-M", "dont"], tos: 0, ttl: 63, dontFragment: false },
    { name: "DSCP stays inside", ping: ["-Q", "0xb8"], tos: 0, ttl: 63, dontFragment: true, innerTos: 0xb8 },
    { name: "ECT(0) is told outside", ping: ["-Q", "0x02"], tos: 2, ttl: 63, dontFragment: true, innerTos: 2 },
    { name: "ECT(1) is told outside", ping: ["-Q", "0x01"], tos: 1, ttl: 63, dontFragment: true, innerTos: 1 },
    {
      name: "congestion inside is ECT outside",
      ping: ["-Q", "0x03"],
      tos: 2,
      ttl: 63,
      dontFragment: true,
      innerTos: 3,
    },
  ];
  for (const { name, ping, tos, ttl, dontFragment, innerTos = 0 } of outgoing) {
    test(`what goes out: ${name}`, async () => {
      using receiver = rawReceiver(bench.b.path, IPIP);
      const how = ping.includes("-M") ? ping : ["-M", "do", ...ping];
      pings(bench.a.pod, bench.b.pod.address, "-s", "100", "-W", "0.2", ...how);
      const packet = await receiver.next(({ protocol }) => protocol === IPIP);
      const { payload, id, ...outer } = packet;
      assert.deepEqual(outer, {
        tos,
        length: 20 + 128,
        dontFragment,
        moreFragments: false,
        fragmentOffset: 0,
        // The pod's TTL, less one at its node: the tunnel takes it over, and the router between takes one more.
        ttl: ttl - 1,
        protocol: IPIP,
        source: "192.0.2.11",
        destination: "192.0.2.75",
        sound: true,
      });
      if (!dontFragment) assert.notEqual(id, 0, "pieces need a number");
      const inner = parseIpv4(payload);
      assert.deepEqual(
        [inner.tos, inner.length, inner.ttl, inner.protocol, inner.source, inner.destination, inner.sound],
        [innerTos, 128, ttl, ICMP, bench.a.pod.address, bench.b.pod.address, true],
      );
      assert.equal(inner.dontFragment, dontFragment);
    });
  }

  /** What a pod at the other end would send. */
  const request = (sequence: number, size = 8): Uint8Array =>
    ipv4({ source: podB(), destination: podA(), protocol: ICMP, payload: echo(sequence, size) });
  const isReply =
    (sequence: number) =>
    ({ payload }: { readonly payload: Uint8Array }): boolean => {
      const inner = parseIpv4(payload);
      return inner.payload[0] === 0 && new DataView(inner.payload.buffer).getUint16(6) === sequence;
    };

  test("what a raw socket sends is taken, and the pod answers", async () => {
    using receiver = rawReceiver(bench.b.path, IPIP);
    const packet = ipv4({ source: bench.b.address, destination: bench.a.address, protocol: IPIP, payload: request(7) });
    sendPacket(bench.b.path, bench.a.address, packet);
    const { source } = await receiver.next(isReply(7));
    assert.equal(source, "192.0.2.11");
  });

  test("a packet in pieces is put together and taken", async () => {
    using receiver = rawReceiver(bench.b.path, IPIP);
    const payload = request(8, 1000);
    const common = { source: bench.b.address, destination: bench.a.address, protocol: IPIP, id: 77 };
    sendPacket(bench.b.path, bench.a.address, ipv4({ ...common, payload: payload.subarray(0, 512), fragment: 0x2000 }));
    sendPacket(bench.b.path, bench.a.address, ipv4({ ...common, payload: payload.subarray(512), fragment: 512 / 8 }));
    await receiver.next(isReply(8));
    assert.equal(count(tunnel, "fragments"), 2);
    assert.equal(statusOf(tunnel).slowPath?.taken, 1);
  });

  test("nothing is taken from a machine that is no peer", async () => {
    using receiver = rawReceiver(bench.b.path, IPIP);
    const before = count(tunnel, "droppedUnknownPeer");
    const source = parseAddress("192.0.2.66"); // on the peer's network, but another machine
    const packet = ipv4({ source, destination: bench.a.address, protocol: IPIP, payload: request(9) });
    sendPacket(bench.b.path, bench.a.address, packet);
    await assert.rejects(receiver.next(isReply(9), 200));
    assert.equal(count(tunnel, "droppedUnknownPeer"), before + 1);
  });

  test("a packet whose lengths disagree is dropped", async () => {
    using receiver = rawReceiver(bench.b.path, IPIP);
    const inner = ipv4({ source: podB(), destination: podA(), protocol: ICMP, payload: echo(10), length: 30 });
    const packet = ipv4({ source: bench.b.address, destination: bench.a.address, protocol: IPIP, payload: inner });
    sendPacket(bench.b.path, bench.a.address, packet);
    await assert.rejects(receiver.next(isReply(10), 200));
    assert.equal(count(tunnel, "droppedMalformed"), 1);
  });

  test("a destination that the tunnel does not know is not sent anywhere", () => {
    const device = bench.a.rtnetlink.link("tunl0")!.index;
    const destination = { address: parseAddress("10.66.0.0"), length: 16 };
    bench.a.rtnetlink.addRoute(clusterRoute(destination, { device, gateway: bench.b.address, onlink: true }));
    const before = count(tunnel, "droppedNoRemote");
    assert.ok(!pings(bench.a.pod, "10.66.0.9", "-W", "0.2"));
    assert.equal(count(tunnel, "droppedNoRemote"), before + 1);
    assert.equal(bench.a.rtnetlink.deleteRoute({ destination }), true);
  });
});

describe("what happens to the tunnel", () => {
  let bench: TunnelBench;
  let b: IpipTunnel;
  before(() => {
    bench = tunnelBench();
    b = join(bench.b, bench.a);
  });
  after(() => {
    createIpipTunnel(bench.a.rtnetlink, bench.a.path).remove();
    b.remove();
    bench[Symbol.dispose]();
  });

  test("the agent is killed: traffic goes on; the next one takes over without a loss", async () => {
    const texts = (node: BenchNode): string[] => [
      formatAddress(node.address),
      formatAddress(node.tunnel),
      formatPrefix(node.block),
    ];
    using agent = processIn(bench.a.path, process.execPath, ...ipipArguments(bench.a, bench.b, texts));
    await once(agent.stdout!, "data");
    const { index } = bench.a.rtnetlink.link("tunl0")!;
    bench.a.rtnetlink.addRoute(clusterRoute(bench.b.block, { device: index, gateway: bench.b.address, onlink: true }));
    assert.ok(pings(bench.a.pod, bench.b.pod.address));
    using ping = processIn(bench.a.pod.path, "ping", "-q", "-i", "0.01", "-c", "100", bench.b.pod.address);
    let output = "";
    ping.stdout?.on("data", (chunk) => (output += String(chunk)));
    await new Promise((resolve) => setTimeout(resolve, 300));
    agent.kill("SIGKILL");
    await once(agent, "exit");
    await new Promise((resolve) => setTimeout(resolve, 300));
    const next = createIpipTunnel(bench.a.rtnetlink, bench.a.path);
    assert.equal(next.apply(wishOf(bench.a, bench.b)), index, "the device is the same");
    await once(ping, "close");
    next.close();
    assert.match(output, /100 packets transmitted, 100 received/);
  });

  /** Packets with addresses of pods that the router between the nodes saw as they are. */
  const unwrapped = (seen: readonly Ipv4[]): Ipv4[] =>
    seen.filter(({ destination }) => destination.startsWith("10.65."));

  test("without the agent all goes on in envelopes", () => {
    using wire = capture(bench.router.path);
    assert.ok(pings(bench.a.pod, bench.b.pod.address));
    const seen = wire.packets();
    assert.ok(seen.some(({ protocol }) => protocol === IPIP));
    assert.deepEqual(unwrapped(seen), []);
  });

  test("without the programs nothing goes out at all", async () => {
    rmSync(`/sys/fs/bpf/caracal/${statSync(bench.a.path).ino}`, { recursive: true });
    await new Promise((resolve) => setTimeout(resolve, 200)); // the kernel takes them down in its own time
    using wire = capture(bench.router.path);
    assert.ok(!pings(bench.a.pod, bench.b.pod.address, "-W", "0.2"));
    const seen = wire.packets();
    assert.deepEqual([unwrapped(seen), seen.filter(({ protocol }) => protocol === IPIP)], [[], []]);
    const tunnel = join(bench.a, bench.b);
    assert.ok(pings(bench.a.pod, bench.b.pod.address), "the next agent puts them there again");
    tunnel.close();
  });

  test("somebody deletes tunl0: it is made anew with all that belongs to it", () => {
    const tunnel = join(bench.a, bench.b);
    const old = bench.a.rtnetlink.link("tunl0")!.index;
    bench.a.rtnetlink.deleteLink(old);
    assert.ok(!pings(bench.a.pod, bench.b.pod.address, "-W", "0.2"));
    const device = tunnel.apply(wishOf(bench.a, bench.b));
    assert.notEqual(device, old);
    bench.a.rtnetlink.replaceRoute(clusterRoute(bench.b.block, { device, gateway: bench.b.address, onlink: true }));
    assert.ok(pings(bench.a.pod, bench.b.pod.address));
    tunnel.close();
  });

  test("the node gets another address, and the peer is told", () => {
    const tunnel = join(bench.a, bench.b);
    const renewed = parseAddress("192.0.2.12");
    bench.a.rtnetlink.addAddress({ device: bench.a.underlay, address: { address: renewed, length: 26 } });
    tunnel.apply({ ...wishOf(bench.a, bench.b), local: renewed });
    const old = wishOf(bench.b, bench.a);
    b.apply({ ...old, destinations: [{ destination: bench.a.block, node: renewed }], peers: [renewed] });
    assert.ok(pings(bench.a.pod, bench.b.pod.address));
    assert.ok(pings(bench.b.pod, bench.a.pod.address));
    tunnel.close();
  });

  test("it is taken down, and nothing of it is left", () => {
    const tunnel = createIpipTunnel(bench.a.rtnetlink, bench.a.path);
    tunnel.remove();
    assert.equal(bench.a.rtnetlink.link("tunl0"), undefined);
    assert.equal(tunnel.status(), undefined);
    // A packet of protocol 4 is the stack's again.
    assert.ok(!pings(bench.b.pod, bench.a.pod.address, "-W", "0.2"));
  });
});
