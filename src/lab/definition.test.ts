import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress, type Address } from "../ip/address.ts";
import { formatPrefix, type InterfaceAddress } from "../ip/prefix.ts";
import { membersOf, nodesOnOneSegment, parseDefinition, type LabDefinition } from "./definition.ts";
import { checkLabName } from "./files.ts";
import { LabError } from "./labError.ts";

const nodes = (count: number): LabDefinition => parseDefinition(nodesOnOneSegment(count));
const names = (count: number): string[] => Array.from({ length: count }, (_, index) => `n${index}`);

/** The lab, a line for each segment and member. */
function print({ segments, mtu, router, podSubnet, podSubnet6 }: LabDefinition): string[] {
  const words = (...texts: (string | undefined)[]): string => texts.filter((text) => text !== undefined).join(" ");
  const prefix = (value: InterfaceAddress | undefined): string | undefined => value && formatPrefix(value);
  const address = (value: Address | undefined): string | undefined => value && formatAddress(value);
  return [
    `mtu ${mtu} router ${router} pods ${words(prefix(podSubnet), prefix(podSubnet6))}`,
    ...segments.flatMap((segment) => [
      `segment ${words(prefix(segment.subnet), prefix(segment.subnet6))} router ${words(address(segment.router), address(segment.router6))}`,
      ...segment.members.map(
        (member) => `  ${member.role} ${member.name} ${words(prefix(member.address), prefix(member.address6))}`,
      ),
    ]),
  ];
}

describe("a lab", () => {
  test("of three nodes, as it is made where nothing is said", () => {
    assert.deepEqual(print(nodes(3)), [
      "mtu 1500 router bgp pods 10.244.0.0/16",
      "segment 192.0.2.0/24 router 192.0.2.1",
      "  node node1 192.0.2.11/24",
      "  node node2 192.0.2.12/24",
      "  node node3 192.0.2.13/24",
    ]);
  });

  test("of segments, hosts and both families", () => {
    const definition = parseDefinition({
      kind: "Lab",
      segments: [
        { subnet: "192.0.2.0/26", subnet6: "2001:db8:0:1::/64", nodes: ["node1", "node2"], hosts: ["tor1"] },
        { subnet: "192.0.2.64/26", nodes: ["node3"] },
        { subnet: "198.51.100.0/30", hosts: ["client"] },
      ],
      mtu: 9000,
      router: "none",
      podSubnet: "10.9.0.0/16",
      podSubnet6: "fd09::/64",
    });
    assert.deepEqual(print(definition), [
      "mtu 9000 router none pods 10.9.0.0/16 fd09::/64",
      "segment 192.0.2.0/26 2001:db8:0:1::/64 router 192.0.2.1 2001:db8:0:1::1",
      "  node node1 192.0.2.11/26 2001:db8:0:1::11/64",
      "  node node2 192.0.2.12/26 2001:db8:0:1::12/64",
      "  host tor1 192.0.2.13/26 2001:db8:0:1::13/64",
      "segment 192.0.2.64/26 router 192.0.2.65",
      "  node node3 192.0.2.75/26",
      "segment 198.51.100.0/30 router 198.51.100.1",
      "  host client 198.51.100.2/30",
    ]);
    assert.deepEqual(
      membersOf(definition, "node").map(({ name }) => name),
      ["node1", "node2", "node3"],
    );
    assert.deepEqual(
      membersOf(definition, "host").map(({ name }) => name),
      ["tor1", "client"],
    );
    assert.equal(membersOf(definition).length, 5);
  });

  test("of other backends: without BGP its router knows no pods", () => {
    const segments = [{ subnet: "192.0.2.0/26", nodes: ["node1"] }];
    const rows = [
      { input: {}, backend: "bird", router: "bgp", modes: ["Never", "Never", "Never"] },
      { input: { ipip: "CrossSubnet" }, backend: "bird", router: "bgp", modes: ["CrossSubnet", "Never", "Never"] },
      {
        input: { backend: "vxlan", vxlan: "Always", vxlan6: "Always" },
        backend: "vxlan",
        router: "none",
        modes: ["Never", "Always", "Always"],
      },
      {
        input: { backend: "canal", flannel: { Type: "host-gw" } },
        backend: "canal",
        router: "none",
        modes: ["Never", "Never", "Never"],
      },
    ];
    for (const { input, backend, router, modes } of rows) {
      const lab = parseDefinition({ kind: "Lab", segments, ...input });
      const { ipip, vxlan, vxlan6 } = lab.encapsulation;
      assert.deepEqual([lab.backend, lab.router, [ipip, vxlan, vxlan6]], [backend, router, modes]);
    }
    const { flannel, environment } = parseDefinition({
      kind: "Lab",
      segments,
      backend: "canal",
      environment: { A: "b" },
    });
    assert.deepEqual([flannel, environment], [{ Type: "vxlan" }, { A: "b" }]);
  });

  test("of racks: hosts that stand on several segments are their routers, and the way out of a rack", () => {
    const { segments, mesh } = parseDefinition({
      kind: "Lab",
      segments: [
        { subnet: "192.0.2.0/26", nodes: [{ name: "node1", asNumber: 65001 }], hosts: ["tor1"], gateway: "tor1" },
        { subnet: "192.0.2.64/26", nodes: ["node2"], hosts: ["tor2"], gateway: "tor2" },
        { subnet: "192.0.2.128/26", hosts: ["tor1", "tor2"] },
      ],
      router: "none",
      mesh: false,
    });
    assert.equal(mesh, false);
    assert.deepEqual(
      segments.map(({ gateway, members }) => [
        formatAddress(gateway!),
        ...members.map((member) => `${member.name} ${member.interface} ${formatPrefix(member.address!)}`),
      ]),
      [
        ["192.0.2.12", "node1 eth0 192.0.2.11/26", "tor1 eth0 192.0.2.12/26"],
        ["192.0.2.76", "node2 eth0 192.0.2.75/26", "tor2 eth0 192.0.2.76/26"],
        ["192.0.2.129", "tor1 eth1 192.0.2.139/26", "tor2 eth1 192.0.2.140/26"],
      ],
    );
  });

  test("without IPv4 between its nodes; and what stands on a node from the start", () => {
    const definition = parseDefinition({
      kind: "Lab",
      segments: [
        {
          subnet6: "2001:db8::/64",
          nodes: [
            {
              name: "node1",
              labels: { rack: "a" },
              annotations: { "projectcalico.org/RouteReflectorClusterID": "1.0.0.1" },
            },
            "node2",
          ],
        },
      ],
    });
    assert.deepEqual(print(definition), [
      "mtu 1500 router bgp pods 10.244.0.0/16 fd10:244::/64",
      "segment 2001:db8::/64 router 2001:db8::1",
      "  node node1 2001:db8::11/64",
      "  node node2 2001:db8::12/64",
    ]);
    const [{ labels, annotations } = {}, second] = membersOf(definition);
    assert.deepEqual(labels, { rack: "a" });
    assert.deepEqual(annotations, { "projectcalico.org/RouteReflectorClusterID": "1.0.0.1" });
    assert.equal(second?.labels, undefined);
  });

  test("fills a subnet to its last address", () => {
    const last = (subnet: string, count: number): string => {
      const { segments } = parseDefinition({ kind: "Lab", segments: [{ subnet, nodes: names(count) }] });
      return formatAddress(segments[0]!.members.at(-1)!.address!.address);
    };
    assert.equal(last("192.0.2.0/28", 4), "192.0.2.14"); // from .11
    assert.equal(last("192.0.2.0/28", 5), "192.0.2.6"); // from .2
    assert.equal(last("192.0.2.0/28", 13), "192.0.2.14");
    assert.equal(last("192.0.2.0/30", 1), "192.0.2.2");
    assert.throws(() => last("192.0.2.0/28", 14), /segments\[0\].subnet: 192.0.2.0\/28 is too small for 14 members/);
    assert.throws(() => last("192.0.2.0/30", 2), /too small/);
    assert.throws(() => last("192.0.2.0/31", 1), /too small/);
    assert.throws(() => last("192.0.2.0/32", 1), /too small/);
  });

  test("has 1 to 200 nodes", () => {
    assert.equal(membersOf(nodes(1)).length, 1);
    const large = membersOf(nodes(200));
    assert.equal(new Set(large.map(({ address }) => formatAddress(address!.address))).size, 200);
    assert.throws(() => nodes(0), /: segments: a lab has at least one node/);
    assert.throws(() => nodes(201), /: segments: a lab has at most 200 nodes and hosts/);
  });

  test("of one that was read is the same when it is read again", () => {
    const input = { kind: "Lab", segments: [{ subnet: "192.0.2.0/26", nodes: ["a"] }] };
    assert.deepEqual(parseDefinition(structuredClone(input)), parseDefinition(input));
  });
});

describe("a fault is refused with its path", () => {
  const segment = { subnet: "192.0.2.0/26", nodes: ["node1"] };
  const six = { ...segment, subnet6: "2001:db8::/64" };
  const rows: { input: unknown; message: RegExp }[] = [
    { input: null, message: /: lab: expected an object/ },
    { input: [], message: /: lab: expected an object/ },
    { input: {}, message: /: kind: expected "Lab", found undefined/ },
    { input: { kind: "Pod" }, message: /: kind: expected "Lab", found "Pod"/ },
    { input: { kind: "Lab" }, message: /: segments: expected at least one segment/ },
    { input: { kind: "Lab", segments: [] }, message: /: segments: expected at least one segment/ },
    { input: { kind: "Lab", segments: [1] }, message: /: segments\[0\]: expected an object/ },
    {
      input: { kind: "Lab", segments: [segment], nodes: 3 },
      message: /: lab.nodes: unknown field; known are kind, segments/,
    },
    {
      input: { kind: "Lab", segments: [{ ...segment, node: [] }] },
      message: /: segments\[0\].node: unknown field; known are subnet/,
    },
    { input: { kind: "Lab", segments: [{}] }, message: /: segments\[0\].subnet: expected a CIDR/ },
    {
      input: { kind: "Lab", segments: [{ subnet: "192.0.2.1/26" }] },
      message: /: segments\[0\].subnet: .* has host bits set/,
    },
    {
      input: { kind: "Lab", segments: [{ subnet: "fd00::/64" }] },
      message: /: segments\[0\].subnet: expected an IPv4 CIDR/,
    },
    {
      input: { kind: "Lab", segments: [{ ...segment, subnet6: "10.0.0.0/8" }] },
      message: /: segments\[0\].subnet6: expected an IPv6/,
    },
    {
      input: { kind: "Lab", segments: [{ ...segment, nodes: "node1" }] },
      message: /: segments\[0\].nodes: expected a list/,
    },
    {
      input: { kind: "Lab", segments: [{ ...segment, nodes: ["a", "B"] }] },
      message: /: segments\[0\].nodes\[1\]: "B" is not a name/,
    },
    {
      input: { kind: "Lab", segments: [{ ...segment, hosts: [7] }] },
      message: /: segments\[0\].hosts\[0\]: 7 is not a name/,
    },
    { input: { kind: "Lab", segments: [{ ...segment, hosts: ["a.b"] }] }, message: /hosts\[0\]: "a.b" is not a name/ },
    { input: { kind: "Lab", segments: [{ ...segment, hosts: ["a".repeat(41)] }] }, message: /is not a name/ },
    {
      input: { kind: "Lab", segments: [{ ...segment, hosts: ["node1"] }] },
      message: /: segments\[0\]: the name "node1" is taken/,
    },
    {
      input: { kind: "Lab", segments: [{ ...segment, hosts: ["router"] }] },
      message: /: segments\[0\]: the name "router" is taken/,
    },
    {
      input: { kind: "Lab", segments: [segment, { subnet: "192.0.2.64/26", nodes: ["node1"] }] },
      message: /: segments\[1\]: the name "node1" is taken/,
    },
    {
      input: { kind: "Lab", segments: [segment, { subnet: "192.0.2.32/27", nodes: ["b"] }] },
      message: /: segments\[1\].subnet: 192.0.2.32\/27 overlaps 192.0.2.0\/26/,
    },
    {
      input: { kind: "Lab", segments: [six, { ...six, subnet: "192.0.2.64/26", nodes: ["b"] }] },
      message: /: segments\[1\].subnet6: 2001:db8::\/64 overlaps 2001:db8::\/64/,
    },
    {
      input: { kind: "Lab", segments: [segment], podSubnet: "192.0.0.0/16" },
      message: /: podSubnet: 192.0.0.0\/16 overlaps/,
    },
    {
      input: { kind: "Lab", segments: [six], podSubnet6: "2001:db8::/32" },
      message: /: podSubnet6: 2001:db8::\/32 overlaps/,
    },
    {
      input: { kind: "Lab", segments: [segment], podSubnet6: "fd00::/64" },
      message: /: podSubnet6: no segment has a subnet6/,
    },
    { input: { kind: "Lab", segments: [segment], podSubnet: 7 }, message: /: podSubnet: expected a CIDR/ },
    {
      input: { kind: "Lab", segments: [{ ...segment, subnet6: "fd00::/124" }] },
      message: /subnet6: fd00::\/124 is too small for 1 members/,
    },
    { input: { kind: "Lab", segments: [segment], mtu: 1279 }, message: /: mtu: expected 1280 to 65535/ },
    { input: { kind: "Lab", segments: [segment], mtu: "1500" }, message: /: mtu: expected 1280 to 65535/ },
    { input: { kind: "Lab", segments: [segment], mesh: "full" }, message: /: mesh: expected true or false/ },
    {
      input: { kind: "Lab", segments: [{ ...segment, gateway: "node1" }] },
      message: /: segments\[0\].gateway: expected one of its hosts/,
    },
    {
      input: { kind: "Lab", segments: [{ ...segment, hosts: ["tor1", "tor1"] }] },
      message: /: segments\[0\]: the name "tor1" is taken/,
    },
    {
      input: { kind: "Lab", segments: [{ ...segment, nodes: [{ name: "node1", asn: 7 }] }] },
      message: /: segments\[0\].nodes\[0\].asn: unknown field; known are name, asNumber/,
    },
    {
      input: { kind: "Lab", segments: [{ ...segment, nodes: [{ name: "node1", asNumber: 0 }] }] },
      message: /: segments\[0\].nodes\[0\].asNumber: expected 1 to 4294967295/,
    },
    {
      input: { kind: "Lab", segments: [{ ...segment, nodes: [{ name: "node1", labels: { rack: 1 } }] }] },
      message: /: segments\[0\].nodes\[0\].labels.rack: expected text/,
    },
    { input: { kind: "Lab", segments: [segment], router: "ospf" }, message: /: router: expected "bgp" or "none"/ },
    {
      input: { kind: "Lab", segments: [segment], backend: "ospf" },
      message: /: backend: expected "bird" or "vxlan" or "none" or "canal"/,
    },
    {
      input: { kind: "Lab", segments: [segment], backend: "vxlan", router: "bgp" },
      message: /: router: nodes with the backend vxlan speak no BGP/,
    },
    { input: { kind: "Lab", segments: [segment], ipip: "always" }, message: /: ipip: expected "Never" or "Always" or/ },
    {
      input: { kind: "Lab", segments: [segment], ipip: "Always", vxlan: "CrossSubnet" },
      message: /: vxlan: a pool has either ipip or vxlan/,
    },
    {
      input: { kind: "Lab", segments: [segment], flannel: { Type: "udp" } },
      message: /: flannel: only the backend canal has flannel/,
    },
    { input: { kind: "Lab", segments: [segment], environment: { A: 1 } }, message: /: environment.A: expected text/ },
    {
      input: { kind: "Lab", segments: [{ subnet: "10.0.0.0/16", nodes: names(201) }] },
      message: /: segments: a lab has at most 200 nodes and hosts/,
    },
  ];
  for (const { input, message } of rows) {
    test(message.source, () => {
      assert.throws(
        () => parseDefinition(input),
        (error) => {
          assert.ok(error instanceof LabError && error.code === "bad-definition");
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }
});

test("a lab's name is a part of file names", () => {
  for (const name of ["a", "lab1", "my-lab", "a".repeat(24)]) assert.equal(checkLabName(name), name);
  for (const name of ["", "-a", "a-", "A", "a.b", "a/b", "..", "a b", "a".repeat(25)]) {
    assert.throws(() => checkLabName(name), LabError, name);
  }
});
