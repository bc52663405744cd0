import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { parseInterfaceAddress, parsePrefix } from "../ip/prefix.ts";
import { transmitChecksumOffload } from "../netlink/ethtool.io.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { temporaryNamespace } from "../netlink/namespace.testing.ts";
import { openRtnetlink } from "../netlink/rtnetlink.io.ts";
import { clusterRoute } from "./routes.ts";
import { processIn } from "./tunnel.testing.ts";
import { vtepMac } from "./vxlan.ts";
import { applyVxlan } from "./vxlan.io.ts";

/** Two nodes on a wire that is a program: it may leave inner checksums as they are, which is what broken hardware does. */

const WIRE = new URL("./wire.testing.ts", import.meta.url).pathname;
const ASK = `
  const { testChecksumOffload } = await import(process.argv[1]);
  const { parseAddress } = await import(process.argv[2]);
  console.log(await testChecksumOffload("vxlan.calico", parseAddress("10.65.0.1"), [parseAddress("10.65.1.1")]));
`;
const module = (name: string): string => new URL(name, import.meta.url).href;

async function verdict(wire: "sound" | "broken" | "cut"): Promise<{ said: string; offload: boolean }> {
  using middle = temporaryNamespace();
  using a = temporaryNamespace();
  using b = temporaryNamespace();
  const fabric = openRtnetlink(middle.path);
  try {
    for (const [number, { path, name }] of [a, b].entries()) {
      const link = fabric.addLink({ kind: "veth", name: `x${number}`, peer: { name: "eth0", namespace: path } });
      fabric.setLink(link.index, { up: true });
      const node = openRtnetlink(path);
      const underlay = node.link("eth0")!.index;
      node.setLink(underlay, { up: true });
      node.addAddress({ device: underlay, address: parseInterfaceAddress(`192.0.2.${11 + number}/24`) });
      const other = [b, a][number]!;
      const gateway = parseAddress(`10.65.${1 - number}.1`);
      const { device } = applyVxlan(node, {
        family: 4,
        id: 4096,
        port: 4789,
        local: parseAddress(`192.0.2.${11 + number}`),
        underlay,
        mac: vtepMac(name, 4),
        address: parseAddress(`10.65.${number}.1`),
        mtu: 1450,
        peers: [{ address: gateway, mac: vtepMac(other.name, 4), node: parseAddress(`192.0.2.${12 - number}`) }],
      });
      const block = parsePrefix(`10.65.${1 - number}.0/26`);
      node.addRoute(clusterRoute(block, { device, gateway, onlink: true }));
      node.close();
    }
  } finally {
    fabric.close();
  }
  using carrier = processIn(middle.path, process.execPath, WIRE, wire);
  await once(carrier.stdout!, "data");
  using asking = processIn(
    a.path,
    process.execPath,
    "--input-type=module",
    "-e",
    ASK,
    "--",
    module("./checksumTest.io.ts"),
    module("../ip/address.ts"),
  );
  const [said] = (await once(asking.stdout!, "data")) as [Buffer];
  await once(asking, "exit");
  return { said: String(said).trim(), offload: inNamespace(a.path, () => transmitChecksumOffload("vxlan.calico")) };
}

describe("the test of the checksum offload", () => {
  test("a wire that finishes checksums: the offload stays", async () => {
    assert.deepEqual(await verdict("sound"), { said: "fine", offload: true });
  });
  test("a wire that leaves inner checksums unfinished: the offload is turned off", async () => {
    assert.deepEqual(await verdict("broken"), { said: "broken", offload: false });
  });
  test("a wire that carries nothing: nobody knows, and the offload stays", async () => {
    assert.deepEqual(await verdict("cut"), { said: "unknown", offload: true });
  });
});
