import assert from "node:assert/strict";
import { test } from "node:test";
import { iptablesBackend, packetFilter, type FilterHost } from "./iptablesMode.ts";

const BOTH: FilterHost = { nfTables: true, iptables: true };

test("nf_tables or iptables: as it is set, else as kube-proxy has it, else what the host can do", () => {
  assert.equal(packetFilter("Enabled", { nfTables: false, iptables: true }), "nft");
  assert.equal(packetFilter("Disabled", { nfTables: true, iptables: false }), "iptables");
  assert.equal(packetFilter("Auto", BOTH), "nft");
  assert.equal(packetFilter("Auto", { ...BOTH, kubeProxy: "nftables" }), "nft");
  assert.equal(packetFilter("Auto", { ...BOTH, kubeProxy: "iptables" }), "iptables");
  assert.equal(packetFilter("Auto", { ...BOTH, kubeProxy: "ipvs" }), "iptables");
  assert.equal(packetFilter("Auto", { ...BOTH, iptables: false, kubeProxy: "iptables" }), "nft");
  assert.equal(packetFilter("Auto", { ...BOTH, nfTables: false }), "iptables");
});

test("the backend of iptables: as it is set, else kubelet's, else the one with more rules", () => {
  const never = (): never => assert.fail("it was asked for what is set");
  assert.equal(iptablesBackend("Legacy", never), "legacy");
  assert.equal(iptablesBackend("NFT", never), "nft");
  const rules = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\n[0:0] -A INPUT -j DROP\nCOMMIT\n";
  const hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
  assert.equal(
    iptablesBackend("Auto", () => ({ legacy: "", nft: "" })),
    "nft",
  );
  assert.equal(
    iptablesBackend("Auto", () => ({ legacy: rules, nft: "" })),
    "legacy",
  );
  assert.equal(
    iptablesBackend("Auto", () => ({ legacy: rules, nft: hint })),
    "nft",
  );
  assert.equal(
    iptablesBackend("Auto", () => ({ legacy: hint, nft: rules })),
    "legacy",
  );
});
