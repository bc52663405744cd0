import assert from "node:assert/strict";
import { test } from "node:test";
import { prefixContains } from "../ip/prefix.ts";
import { tunnelHandle, tunnelType } from "./handles.ts";
import { memoryBlockStore } from "./store.testing.ts";
import { ensureTunnelAddress } from "./tunnels.ts";
import { nodeOf, pool, texts, world } from "./world.testing.ts";

test("handles and types are Calico's", () => {
  assert.equal(tunnelHandle("ipip", 4, "node1"), "ipip-tunnel-addr-node1");
  assert.equal(tunnelHandle("vxlan", 6, "node1"), "vxlan-v6-tunnel-addr-node1");
  assert.equal(tunnelType("vxlan", 4), "vxlanTunnelAddress");
  assert.equal(tunnelType("wireguard", 6), "wireguardV6TunnelAddress");
});

test("a tunnel keeps its address as long as it lies in one of its pools", async () => {
  const [a, b] = [pool("10.1.0.0/16", { name: "a", allowedUses: ["Tunnel"] }), pool("10.2.0.0/16", { name: "b" })];
  const store = memoryBlockStore();
  const settings = { world: world([a, b]) };
  const node = nodeOf("node1", store, settings);
  const tunnel = { kind: "vxlan", family: 4 } as const;
  const first = await ensureTunnelAddress(node, "node1", tunnel, [a]);
  assert.ok(first && prefixContains(a.prefix, first));
  assert.equal(node.allocations()[0]?.holder.attributes["type"], "vxlanTunnelAddress");
  const { writes } = store.counts;
  assert.deepEqual(await ensureTunnelAddress(node, "node1", tunnel, [b, a]), first);
  assert.equal(store.counts.writes, writes);

  const restarted = nodeOf("node1", store, settings);
  assert.deepEqual(await ensureTunnelAddress(restarted, "node1", tunnel, [a]), first);
  const second = await ensureTunnelAddress(restarted, "node1", tunnel, [b]);
  assert.ok(second && prefixContains(b.prefix, second));
  assert.equal(restarted.allocations().length, 1);
  assert.equal(await ensureTunnelAddress(restarted, "node1", tunnel, []), undefined);
  assert.deepEqual(restarted.allocations(), []);
});

test("of several addresses a tunnel keeps one that fits", async () => {
  const settings = { world: world([pool("10.1.0.0/16", { name: "a" })]) };
  const node = nodeOf("node1", memoryBlockStore(), settings);
  const handle = tunnelHandle("ipip", 4, "node1");
  const twice = [];
  for (let index = 0; index < 2; index += 1)
    twice.push(...(await node.assign({ handle, attributes: {}, use: "Tunnel" })));
  const kept = await ensureTunnelAddress(node, "node1", { kind: "ipip", family: 4 }, settings.world.pools);
  assert.ok(kept && texts(twice).includes(texts([kept])[0] ?? ""));
  assert.deepEqual(node.addressesOf(handle), [kept]);
});
