// What a BGP speaker costs, ours beside BIRD, FRR, GoBGP and OpenBGPD with the same generator and sink, each daemon in a
// namespace of its own, one after the other. Needs root and the Debian packages of the daemons.
//   node bench/bgp.ts [--clients 200] [--routes 200] [--rounds 300] [caracal bird frr gobgp openbgpd]
import { readdirSync, readFileSync } from "node:fs";
import net from "node:net";
import { parseArgs } from "node:util";
import type { ProcessConfig } from "../src/bgp/speaker-process.testing.ts";
import { address4, ASN, HOSTS, openSegment, type Daemon, type Router } from "../src/bgp/daemons.testing.ts";
import { MESSAGE } from "../src/bgp/constants.ts";
import { encodeKeepalive, encodeOpen, nextFrame } from "../src/bgp/message.ts";
import { walkNlri } from "../src/bgp/nlri.ts";
import { encodeUpdate, splitUpdate } from "../src/bgp/update.ts";
import { until } from "../src/bgp/speaker.testing.ts";
import { parseAddress } from "../src/ip/address.ts";
import { parsePrefix } from "../src/ip/prefix.ts";

type Candidate = Router | "caracal";
const CANDIDATES: readonly Candidate[] = ["caracal", "bird", "frr", "gobgp", "openbgpd"];
const FIRST_CLIENT = 20;
const CONTEXT = { asOctets: 4, internal: true, addPath: new Set<4 | 6>() } as const;
const WAIT = 120_000;

/** A client of the reflector that says what it is told to, and counts what it hears. */
interface Client {
  readonly number: number;
  readonly established: boolean;
  readonly announced: number;
  readonly withdrawn: number;
  announce(prefixes: readonly string[]): void;
  withdraw(prefixes: readonly string[]): void;
  onUpdate: (() => void) | undefined;
  end(): void;
}

function connect(number: number, to: string): Client {
  const address = address4(number);
  let socket: net.Socket | undefined;
  let pending: Buffer = Buffer.alloc(0);
  let over = false;
  const own = { established: false, announced: 0, withdrawn: 0 };
  const client: Client = {
    number,
    get established() {
      return own.established;
    },
    get announced() {
      return own.announced;
    },
    get withdrawn() {
      return own.withdrawn;
    },
    announce(prefixes) {
      const attributes = { origin: "igp", asPath: [], nextHop: parseAddress(address), localPref: 100 } as const;
      for (let at = 0; at < prefixes.length; at += 500) {
        const nlri = prefixes.slice(at, at + 500).map((text) => ({ prefix: parsePrefix(text), pathId: 0 }));
        socket?.write(encodeUpdate({ family: 4, announced: { nlri, attributes } }, CONTEXT));
      }
    },
    withdraw(prefixes) {
      const withdrawn = prefixes.map((text) => ({ prefix: parsePrefix(text), pathId: 0 }));
      socket?.write(encodeUpdate({ family: 4, withdrawn }, CONTEXT));
    },
    onUpdate: undefined,
    end() {
      over = true;
      socket?.destroy();
    },
  };
  const countAnnounced = (): void => void (own.announced += 1);
  const countWithdrawn = (): void => void (own.withdrawn += 1);

  function read(chunk: Buffer): void {
    const bytes = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    let at = 0;
    for (let frame = nextFrame(bytes, at, 65535); frame !== undefined; frame = nextFrame(bytes, at, 65535)) {
      at = frame.end;
      if (frame.type === MESSAGE.open) socket?.write(encodeKeepalive());
      if (frame.type === MESSAGE.keepalive) own.established = true;
      if (frame.type !== MESSAGE.update) continue;
      const { announced, withdrawn } = splitUpdate(bytes, frame.start, frame.end, CONTEXT);
      walkNlri(announced, countAnnounced);
      walkNlri(withdrawn, countWithdrawn);
      client.onUpdate?.();
    }
    pending = bytes.subarray(at);
  }

  function dial(): void {
    if (over) return;
    pending = Buffer.alloc(0);
    own.established = false;
    const opened = net.connect({ host: to, port: 179, localAddress: address, noDelay: true });
    socket = opened;
    opened.on("connect", () => {
      const capabilities = { families: [4] as const, asn: ASN, routeRefresh: true };
      opened.write(encodeOpen({ asn: ASN, holdTime: 240, routerId: 0xc0000200 + number, capabilities }));
    });
    opened.on("data", read);
    opened.on("error", () => undefined);
    opened.on("close", () => setTimeout(dial, 200));
  }
  dial();
  return client;
}

/** A reflector with these clients, which connect to it. */
function configOf(host: Candidate, clients: readonly number[]): string {
  const own = address4(HOSTS[host]);
  const each = (write: (address: string, number: number) => string): string =>
    clients.map((number) => write(address4(number), number)).join("\n");
  switch (host) {
    case "caracal": {
      const config: ProcessConfig = {
        speaker: { asn: ASN, routerId: own },
        peers: clients.map((number) => ({
          name: `client${number}`,
          address: address4(number),
          asn: ASN,
          passive: true,
          routeReflectorClient: true,
        })),
        originate: [],
        silent: true,
      };
      return JSON.stringify(config);
    }
    case "bird":
      return `router id ${own}; protocol device {}
        template bgp told { local ${own} as ${ASN}; rr client; passive; ipv4 { import all; export all; }; }
        ${each((address, number) => `protocol bgp c${number} from told { neighbor ${address} as ${ASN}; }`)}`;
    case "frr":
      return `router bgp ${ASN}
        bgp router-id ${own}
        no bgp default ipv4-unicast
        neighbor clients peer-group
        neighbor clients remote-as ${ASN}
        neighbor clients passive
        ${each((address) => `neighbor ${address} peer-group clients`)}
        address-family ipv4 unicast
          neighbor clients activate
          neighbor clients route-reflector-client
        exit-address-family`;
    case "gobgp":
      return `[global.config]\n as = ${ASN}\n router-id = "${own}"
        ${each(
          (address) => `[[neighbors]]\n[neighbors.config]\n neighbor-address = "${address}"\n peer-as = ${ASN}
            [neighbors.transport.config]\n passive-mode = true
            [neighbors.route-reflector.config]\n route-reflector-client = true
            route-reflector-cluster-id = "${own}"`,
        )}`;
    case "openbgpd":
      return `AS ${ASN}\nrouter-id ${own}\nsocket "@directory@/openbgpd.ctl"\nfib-update no
        group clients {
          remote-as ${ASN}
          passive
          route-reflector
          ${each((address) => `neighbor ${address} {\n descr "${address}"\n }`)}
        }
        allow from any\nallow to any\n`;
  }
}

/** CPU seconds and resident megabytes of a process and its children: some daemons are several. */
function cost(root: number): { cpu: number; rss: number } {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const fields = readFileSync(`/proc/${name}/stat`, "utf8")
        .replace(/^.*\) /s, "")
        .split(" ");
      parents.set(Number(name), Number(fields[1]));
    } catch {
      // it ended meanwhile
    }
  }
  const family = [...parents].flatMap(([pid, parent]) => (pid === root || parent === root ? [pid] : []));
  let [cpu, rss] = [0, 0];
  for (const pid of family) {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    cpu += (Number(fields[11]) + Number(fields[12])) / 100;
    rss += (Number(fields[21]) * 4096) / 1e6;
  }
  return { cpu, rss };
}

const seconds = (since: number): number => (performance.now() - since) / 1000;

async function measure(host: Candidate, clientCount: number, routes: number, rounds: number) {
  const segment = openSegment([host]);
  const clients: Client[] = [];
  try {
    const numbers = Array.from({ length: clientCount }, (_, index) => FIRST_CLIENT + index);
    segment.addAddresses(numbers);
    const daemon: Daemon = await segment.start(host, configOf(host, numbers));
    const pid = daemon.process.pid ?? 0;
    const cold = performance.now();
    clients.push(...numbers.map((number) => connect(number, address4(HOSTS[host]))));
    await until("all sessions", () => clients.every(({ established }) => established), WAIT);
    const connected = seconds(cold);
    // FRR holds its first announcements back.
    const [first, second] = clients as [Client, Client];
    first.announce(["10.255.0.0/24"]);
    await until("a first route", () => clients.every((client) => client === first || client.announced > 0), WAIT);
    await new Promise((resolve) => setTimeout(resolve, 1000));

    const latencies: number[] = [];
    for (let round = 0; round < rounds; round += 1) {
      const sent = performance.now();
      const heard = new Promise<number>((resolve) => {
        second.onUpdate = () => resolve(performance.now() - sent);
      });
      if (round % 2 === 0) first.announce(["10.254.0.0/24"]);
      else first.withdraw(["10.254.0.0/24"]);
      latencies.push(await heard);
    }
    second.onUpdate = undefined;
    await new Promise((resolve) => setTimeout(resolve, 500));

    const targets = clients.map(({ announced }) => announced + (clientCount - 1) * routes);
    const before = cost(pid);
    const start = performance.now();
    for (const [index, client] of clients.entries()) {
      client.announce(Array.from({ length: routes }, (_, r) => `10.${index}.${r >> 2}.${(r & 3) << 6}/26`));
    }
    await until("convergence", () => clients.every(({ announced }, index) => announced >= targets[index]!), WAIT);
    const wall = seconds(start);
    const after = cost(pid);
    latencies.sort((a, b) => a - b);
    return {
      daemon: host,
      "connect s": connected.toFixed(2),
      "converge s": wall.toFixed(2),
      "cpu s": (after.cpu - before.cpu).toFixed(2),
      "rss MB": after.rss.toFixed(0),
      "one route p50 ms": latencies[rounds >> 1]?.toFixed(2),
      "p99 ms": latencies[Math.floor(rounds * 0.99)]?.toFixed(2),
    };
  } finally {
    for (const client of clients) client.end();
    await segment.close();
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    clients: { type: "string", default: "200" },
    routes: { type: "string", default: "200" },
    rounds: { type: "string", default: "300" },
  },
});
const rows: Record<string, unknown>[] = [];
for (const host of CANDIDATES) {
  if (positionals.length > 0 && !positionals.includes(host)) continue;
  rows.push(await measure(host, Number(values.clients), Number(values.routes), Number(values.rounds)));
  console.error(rows.at(-1));
}
console.log(`reflector with ${values.clients} clients × ${values.routes} routes`);
console.table(rows);
