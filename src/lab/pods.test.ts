import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { node as nodeKind, type Node } from "../resources/node.ts";
import { pod as podKind, type Pod } from "../resources/workload.ts";
import { chooseNode, portsOf } from "./pods.ts";

const pod = (spec: object): Pod =>
  podKind.parse({ apiVersion: "v1", kind: "Pod", metadata: { name: "p", namespace: "default" }, spec });
const containers = (...ports: object[][]): object[] =>
  ports.map((each, index) => ({ name: `c${index}`, image: "x", ports: each }));
const node = (name: string, labels: Record<string, string> = {}, spec: object = {}): Node =>
  nodeKind.parse({ apiVersion: "v1", kind: "Node", metadata: { name, labels }, spec });

describe("a pod answers", () => {
  const written = (each: Pod): string =>
    portsOf(each)
      .map(({ port, protocol }) => `${protocol} ${port}`)
      .join(", ");

  test("on 80 and 81 where it declares no port", () => {
    const usual = "TCP 80, UDP 80, TCP 81, UDP 81";
    assert.equal(written(pod({ containers: containers([]) })), usual);
    assert.equal(written(pod({ containers: containers([{ containerPort: 7, protocol: "SCTP" }]) })), usual);
    assert.deepEqual(portsOf(pod({ containers: containers([]) }), []), []);
  });

  test("on the TCP and UDP ports of its containers, each once", () => {
    const declared = pod({
      containers: containers(
        [{ containerPort: 8080 }, { containerPort: 53, protocol: "UDP" }],
        [
          { containerPort: 8080, protocol: "TCP" },
          { containerPort: 53, protocol: "TCP" },
          { containerPort: 9, protocol: "SCTP" },
        ],
      ),
    });
    assert.equal(written(declared), "TCP 8080, UDP 53, TCP 53");
  });
});

describe("the node for a pod", () => {
  const bare = pod({ containers: containers([]) });
  const choose = (
    each: Pod,
    nodes: readonly Node[],
    counts: Readonly<Record<string, number>> = {},
  ): string | undefined => chooseNode(each, nodes, new Map(Object.entries(counts)));

  test("has the fewest pods; of equals it is the first by name", () => {
    const nodes = [node("c"), node("a"), node("b")];
    assert.equal(choose(bare, nodes), "a");
    assert.equal(choose(bare, nodes, { a: 1 }), "b");
    assert.equal(choose(bare, nodes, { a: 2, b: 2, c: 1 }), "c");
  });

  test("has the labels that the pod asks for, and takes pods", () => {
    const nodes = [
      node("a"),
      node("b", { disk: "ssd" }),
      node("c", { disk: "ssd", zone: "1" }),
      node("d", {}, { unschedulable: true }),
    ];
    const wants = (nodeSelector: Record<string, string>): Pod => pod({ containers: containers([]), nodeSelector });
    assert.equal(choose(wants({ disk: "ssd" }), nodes), "b");
    assert.equal(choose(wants({ disk: "ssd", zone: "1" }), nodes), "c");
    assert.equal(choose(wants({ disk: "hdd" }), nodes), undefined);
    assert.equal(choose(bare, [node("d", {}, { unschedulable: true })]), undefined);
    assert.equal(choose(bare, []), undefined);
  });

  test("spreads pods evenly", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), fc.nat(30), (size, count) => {
        const nodes = Array.from({ length: size }, (_, index) => node(`n${index}`));
        const podsOn = new Map<string, number>();
        for (let placed = 0; placed < count; placed += 1) {
          const chosen = chooseNode(bare, nodes, podsOn)!;
          podsOn.set(chosen, (podsOn.get(chosen) ?? 0) + 1);
        }
        const counts = nodes.map(({ metadata }) => podsOn.get(metadata.name) ?? 0);
        assert.ok(Math.max(...counts) - Math.min(...counts) <= 1);
      }),
    );
  });
});
