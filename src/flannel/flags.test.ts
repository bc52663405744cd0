import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress } from "../ip/address.ts";
import { FlagError, type FlannelOptions, readFlannelCommand } from "./flags.ts";

function options(args: readonly string[], environment: Record<string, string> = {}): FlannelOptions {
  const command = readFlannelCommand(args, environment);
  assert.equal(command.run, "daemon");
  return (command as { options: FlannelOptions }).options;
}

describe("flanneld's flags", () => {
  test("have flanneld's defaults", () => {
    assert.deepEqual(options([]), {
      etcd: { endpoints: ["http://127.0.0.1:4001", "http://127.0.0.1:2379"], prefix: "/coreos.com/network" },
      external: { interfaces: [], patterns: [] },
      subnetFile: "/run/flannel/subnet.env",
      renewMarginMinutes: 60,
      ipMasq: false,
      forwardRules: true,
      resyncSeconds: 5,
      healthz: { address: "0.0.0.0", port: 0 },
    });
  });
  test("are Go's: one dash or two, the value behind or in the next word, switches without", () => {
    const read = options([
      "--etcd-endpoints=https://a:2379,https://b:2379",
      "-etcd-prefix",
      "/x",
      "-ip-masq",
      "-iptables-forward-rules=false",
      "-iface=eth1",
      "--iface",
      "10.0.0.7",
      "-iface-regex=^en[a,b]",
      "-public-ip=198.51.100.7",
      "-etcd-cafile=/ca.pem",
    ]);
    assert.deepEqual(read.etcd, { endpoints: ["https://a:2379", "https://b:2379"], prefix: "/x", caFile: "/ca.pem" });
    assert.deepEqual([read.ipMasq, read.forwardRules], [true, false]);
    assert.deepEqual(read.external.interfaces, ["eth1", "10.0.0.7"]);
    assert.deepEqual(read.external.patterns, ["^en[a,b]"]);
    assert.equal(read.external.publicIp && formatAddress(read.external.publicIp), "198.51.100.7");
  });
  test("may stand in the environment, which a flag overrides", () => {
    const environment = { FLANNELD_IFACE: "eth1", FLANNELD_IP_MASQ: "1", FLANNELD_SUBNET_FILE: "/tmp/x" };
    const read = options(["-iface=eth2"], environment);
    assert.deepEqual([read.external.interfaces, read.ipMasq, read.subnetFile], [["eth2"], true, "/tmp/x"]);
  });
  test("of Kubernetes count with -kube-subnet-mgr only", () => {
    assert.equal(options(["-kubeconfig-file=/k"]).kubernetes, undefined);
    assert.deepEqual(options(["-kube-subnet-mgr", "-kubeconfig-file=/k", "-kube-annotation-prefix=x.y/"]).kubernetes, {
      kubeconfig: "/k",
      annotationPrefix: "x.y/",
      configFile: "/etc/kube-flannel/net-conf.json",
      setNetworkAvailable: true,
    });
  });
  for (const [given, names] of [
    ["x.y", "x.y/"],
    ["x.y/", "x.y/"],
    ["x.y/z", "x.y/z-"],
    ["x.y/z-", "x.y/z-"],
  ]) {
    test(`annotations with the prefix ${given} begin with ${names}`, () => {
      const { kubernetes } = options(["-kube-subnet-mgr", `-kube-annotation-prefix=${given}`]);
      assert.equal(kubernetes?.annotationPrefix, names);
    });
  }
  test("of its logging library are taken, for units and manifests that have them", () => {
    const usual = options([]);
    assert.deepEqual(options(["-v=4", "--vmodule=etcd=9", "-log_backtrace_at", "main.go:7"]), usual);
  });
  test("print what they are, and the version", () => {
    const help = readFlannelCommand(["--help"], {});
    assert.match((help as { text: string }).text, /-etcd-endpoints VALUE .*\(default: http:/);
    assert.deepEqual(readFlannelCommand(["-version"], {}), { run: "version" });
  });
  const wrong: { args: string[]; reason: RegExp }[] = [
    { args: ["-ifaces=eth0"], reason: /unknown flag -ifaces/ },
    { args: ["eth0"], reason: /unexpected argument "eth0"/ },
    { args: ["-iface"], reason: /-iface needs a value/ },
    { args: ["-ip-masq=perhaps"], reason: /-ip-masq: "perhaps"/ },
    { args: ["-subnet-lease-renew-margin=1440"], reason: /from 1 to 1439/ },
    { args: ["-public-ip=::1"], reason: /not an IPv4 address/ },
    { args: ["-kube-subnet-mgr", "-kube-annotation-prefix=a.b/c/d"], reason: /-kube-annotation-prefix: "a\.b\/c\/d"/ },
    { args: ["-kube-subnet-mgr", "-kube-annotation-prefix=flannel"], reason: /is not a domain/ },
    { args: ["-public-ip=x"], reason: /-public-ip: "x"/ },
  ];
  for (const { args, reason } of wrong) {
    test(`refused: ${args.join(" ")}`, () => {
      assert.throws(
        () => readFlannelCommand(args, {}),
        (error) => error instanceof FlagError && reason.test(error.message),
      );
    });
  }
});
