import { readFileSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import type { PeerConfig } from "../src/bgp/config.ts";
import { ALL, address4, ASN, HOSTS, type Router } from "../src/bgp/daemons.testing.ts";
import type { ProcessConfig } from "../src/bgp/speaker-process.testing.ts";
import { SMALL_HEAP } from "../src/lab/process.io.ts";
import { NEXT_HOPS, sender } from "../src/bgp/traffic.testing.ts";

export type Candidate = Router | "caracal";
export const CANDIDATES: readonly Candidate[] = ["caracal", "bird", "frr", "openbgpd", "gobgp"];

/** The daemon that is measured waits for these neighbours, and passes on what each of them says. */
export interface Role {
  /** `reflector`: its clients; `transit`: eBGP neighbours, each an AS of its own; `mesh`: iBGP, nothing is passed on. */
  readonly kind: "reflector" | "transit" | "mesh";
  /** Numbers of hosts, and their AS where it is not ours. */
  readonly neighbours: readonly { readonly number: number; readonly asn?: number }[];
}

/** Options of Node, as the agent is started with them. */
export const CARACAL_OPTIONS: readonly string[] = SMALL_HEAP;

export function configOf(host: Candidate, { kind, neighbours }: Role): string {
  const own = address4(HOSTS[host]);
  const each = (write: (address: string, asn: number, number: number) => string): string =>
    neighbours.map(({ number, asn = ASN }) => write(address4(number), asn, number)).join("\n");
  const reflects = kind === "reflector";
  switch (host) {
    case "caracal": {
      const peers = neighbours.map(({ number, asn = ASN }): PeerConfig => ({
        name: `client${number}`,
        address: address4(number),
        asn,
        passive: true,
        ...(reflects && { routeReflectorClient: true }),
        ...(kind === "transit" && { importFilter: ALL, exportFilter: ALL }),
      }));
      const config: ProcessConfig = { speaker: { asn: ASN, routerId: own }, peers, originate: [], silent: true };
      return JSON.stringify(config);
    }
    case "bird":
      // A next hop that is not on the link is looked up in this table, as Calico has it.
      return `router id ${own}; protocol device {} protocol direct { ipv4; }
        protocol static { ipv4; route ${NEXT_HOPS.network} via ${address4(sender.number)}; }
        template bgp told { local ${own} as ${ASN}; ${reflects ? "rr client;" : ""} passive;
          ipv4 { import all; export where source = RTS_BGP; }; }
        ${each((address, asn, number) => `protocol bgp c${number} from told { neighbor ${address} as ${asn}; }`)}`;
    case "frr":
      return `router bgp ${ASN}
        bgp router-id ${own}
        no bgp default ipv4-unicast
        no bgp ebgp-requires-policy
        neighbor clients peer-group
        neighbor clients passive
        ${each((address, asn) => `neighbor ${address} remote-as ${asn}\nneighbor ${address} peer-group clients`)}
        address-family ipv4 unicast
          neighbor clients activate
          ${reflects ? "neighbor clients route-reflector-client" : ""}
        exit-address-family`;
    case "gobgp":
      return `[global.config]\n as = ${ASN}\n router-id = "${own}"
        ${each(
          (address, asn) => `[[neighbors]]\n[neighbors.config]\n neighbor-address = "${address}"\n peer-as = ${asn}
            [neighbors.transport.config]\n passive-mode = true
            ${
              reflects
                ? `[neighbors.route-reflector.config]\n route-reflector-client = true
                  route-reflector-cluster-id = "${own}"`
                : ""
            }`,
        )}`;
    case "openbgpd":
      return `AS ${ASN}\nrouter-id ${own}\nsocket "@directory@/openbgpd.ctl"\nfib-update no
        group clients {
          passive
          ${reflects ? "route-reflector" : ""}
          ${each((address, asn) => `neighbor ${address} {\n descr "${address}"\n remote-as ${asn}\n }`)}
        }
        allow from any\nallow to any\n`;
  }
}

/**
 * Options on its command line: nobody writes routes into the kernel here. FRR does without zebra, which it would ask about
 * each next hop.
 */
export const OPTIONS: Readonly<Record<Candidate, readonly string[]>> = {
  caracal: [],
  bird: [],
  frr: ["--no_kernel", "--no_zebra"],
  gobgp: [],
  openbgpd: [],
};

const VERSION_OF: Readonly<Record<Router, readonly [program: string, option: string]>> = {
  bird: ["bird", "--version"],
  frr: ["/usr/lib/frr/bgpd", "--version"],
  gobgp: ["gobgpd", "--version"],
  openbgpd: ["bgpd", "-V"],
};

/** `BIRD version 2.0.12`: as the program says it. */
export function versionOf(host: Candidate): string {
  if (host === "caracal") {
    const file = join(import.meta.dirname, "../package.json");
    const { version } = JSON.parse(readFileSync(file, "utf8")) as { version: string };
    return `Caracal ${version} (Node ${process.versions.node})`;
  }
  const [program, option] = VERSION_OF[host];
  const words = execFileSync("sh", ["-c", '"$0" "$1" 2>&1', program, option], { encoding: "utf8" }).split("\n");
  const [line = "?"] = words;
  return host === "frr" ? line.replace("bgpd", "FRR") : host === "gobgp" ? line.replace("gobgpd", "GoBGP") : line;
}
