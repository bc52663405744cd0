import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { openRtnetlink } from "../netlink/rtnetlink.io.ts";
import { createIpipTunnel } from "./ipip.io.ts";
import type { BenchNode } from "./tunnel.testing.ts";

/**
 * One end of the tunnel in a process of its own, so that a test can kill it: `node ipipAgent.testing.ts NAMESPACE LOCAL
 * TUNNEL BLOCK NODE UNDERLAY`. Says "ready" and stays.
 */

/** What the process is told. */
export function ipipArguments(me: BenchNode, other: BenchNode, text: (node: BenchNode) => string[]): string[] {
  const [local = "", tunnel = ""] = text(me);
  const [node = "", , block = ""] = text(other);
  return [import.meta.filename, me.path, local, tunnel, block, node, String(me.underlay)];
}

if (import.meta.main) {
  const [namespace = "", local = "", tunnel = "", block = "", node = "", underlay = ""] = process.argv.slice(2);
  createIpipTunnel(openRtnetlink(namespace), namespace).apply({
    local: parseAddress(local),
    address: parseAddress(tunnel),
    mtu: 1480,
    destinations: [{ destination: parsePrefix(block), node: parseAddress(node) }],
    peers: [parseAddress(node)],
    networks: [],
    underlays: [Number(underlay)],
  });
  process.stdout.write("ready\n");
}
