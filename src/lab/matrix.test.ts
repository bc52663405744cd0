import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress } from "../ip/address.ts";
import { pod as podKind, type Pod } from "../resources/workload.ts";
import { formatMatrix, planProbe, podName, type ProbeRequest, type ProbeResult } from "./matrix.ts";

interface Sketch {
  readonly ips?: readonly string[];
  readonly labels?: Record<string, string>;
  readonly ports?: readonly object[];
  readonly phase?: string;
}

function pod(name: string, { ips = [], labels = {}, ports = [], phase = "Running" }: Sketch): Pod {
  const [namespace, own] = name.split("/");
  return podKind.parse({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: own, namespace, labels },
    spec: { containers: [{ name: "c", image: "x", ports }] },
    status: { phase, podIPs: ips.map((ip) => ({ ip })) },
  });
}

const TCP_80 = [{ containerPort: 80 }];
const PODS = [
  pod("default/web", { ips: ["10.65.0.2"], labels: { app: "web", tier: "front" }, ports: TCP_80 }),
  pod("default/db", {
    ips: ["10.65.0.1"],
    labels: { app: "db" },
    ports: [{ containerPort: 5432 }, { containerPort: 53, protocol: "UDP" }],
  }),
  pod("kube/dns", { ips: ["10.65.0.3"], labels: { app: "dns" }, ports: [{ containerPort: 53, protocol: "UDP" }] }),
];

function cells(pods: readonly Pod[], request: Partial<ProbeRequest> = {}): string[] {
  return planProbe(pods, { protocol: undefined, port: undefined, from: undefined, to: undefined, ...request }).map(
    ({ from, to, address, protocol, port }) =>
      `${podName(from)} > ${podName(to)} ${formatAddress(address)} ${protocol} ${port}`,
  );
}

describe("a probe tries", () => {
  test("every pair of pods, by name, at the ports that the target declares: TCP, or where there is none, UDP", () => {
    assert.deepEqual(cells(PODS), [
      "default/db > default/web 10.65.0.2 TCP 80",
      "default/db > kube/dns 10.65.0.3 UDP 53",
      "default/web > default/db 10.65.0.1 TCP 5432",
      "default/web > kube/dns 10.65.0.3 UDP 53",
      "kube/dns > default/db 10.65.0.1 TCP 5432",
      "kube/dns > default/web 10.65.0.2 TCP 80",
    ]);
  });

  const rows: { request: Partial<ProbeRequest>; tries: string[] }[] = [
    {
      request: { from: "default/web", protocol: "UDP" },
      tries: ["default/web > default/db 10.65.0.1 UDP 53", "default/web > kube/dns 10.65.0.3 UDP 53"],
    },
    { request: { from: "default/web", protocol: "TCP" }, tries: ["default/web > default/db 10.65.0.1 TCP 5432"] },
    {
      request: { from: "default/web", protocol: "ICMP" },
      tries: ["default/web > default/db 10.65.0.1 ICMP 0", "default/web > kube/dns 10.65.0.3 ICMP 0"],
    },
    { request: { from: "default/web", to: "kube/dns", port: 9 }, tries: ["default/web > kube/dns 10.65.0.3 TCP 9"] },
    { request: { from: "app=web", to: "app=db" }, tries: ["default/web > default/db 10.65.0.1 TCP 5432"] },
    {
      request: { from: "app=web,tier=front", to: "app in (db)" },
      tries: ["default/web > default/db 10.65.0.1 TCP 5432"],
    },
    {
      request: { from: "app == 'web'", to: "has(app) && app != 'db'" },
      tries: ["default/web > kube/dns 10.65.0.3 UDP 53"],
    },
    {
      request: { from: "projectcalico.org/namespace == 'kube'", to: "app=db" },
      tries: ["kube/dns > default/db 10.65.0.1 TCP 5432"],
    },
    { request: { from: "default/none" }, tries: [] },
    { request: { from: "default/web", to: "default/web" }, tries: [] },
  ];
  for (const { request, tries } of rows) {
    test(JSON.stringify(request), () => assert.deepEqual(cells(PODS, request), tries));
  }

  test("only pods that run and have addresses, in families that both have", () => {
    const pods = [
      pod("default/a", { ips: ["10.65.0.1", "fd00::1"], ports: TCP_80 }),
      pod("default/b", { ips: ["fd00::2"], ports: TCP_80 }),
      pod("default/c", { ips: ["10.65.0.3"], ports: TCP_80 }),
      pod("default/pending", { ips: ["10.65.0.4"], phase: "Pending" }),
      pod("default/bare", {}),
    ];
    assert.deepEqual(cells(pods), [
      "default/a > default/b fd00::2 TCP 80",
      "default/a > default/c 10.65.0.3 TCP 80",
      "default/b > default/a fd00::1 TCP 80",
      "default/c > default/a 10.65.0.1 TCP 80",
    ]);
  });

  test("nothing that it cannot read", () => {
    assert.throws(() => cells(PODS, { from: "((" }));
  });
});

describe("the matrix", () => {
  const result = (from: string, to: string, connected: boolean): ProbeResult => ({
    from,
    to,
    address: "10.65.0.1",
    protocol: "TCP",
    port: 80,
    connected,
  });

  test("has a row for each source and a column for each target", () => {
    const results = [
      result("default/a", "default/b", true),
      result("default/a", "default/long-name", true),
      result("default/a", "default/long-name", false),
      result("default/long-name", "default/b", false),
    ];
    assert.equal(
      formatMatrix(results),
      `FROM \\ TO          1 2
default/a          . ~
default/long-name  X

  1 default/b
  2 default/long-name

2 of 4 connections work  (. all, ~ some, X none)
`,
    );
  });

  test("keeps its columns with short names, and with more than nine targets", () => {
    const targets = Array.from({ length: 11 }, (_, index) => `d/${String.fromCharCode(97 + index)}`);
    const [heading, row] = formatMatrix(targets.map((to, index) => result("d/s", to, index % 2 === 0))).split("\n");
    assert.equal(heading, "FROM \\ TO  1 2 3 4 5 6 7 8 9 10 11");
    assert.equal(row, "d/s        . X . X . X . X . X  .");
  });

  test("of nothing says so", () => assert.equal(formatMatrix([]), "no pods to connect\n"));
});
