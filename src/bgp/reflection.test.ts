import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { parseAddress } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import { compileFilter } from "./filters.ts";
import { nextFrame } from "./message.ts";
import { negotiated } from "./bgp.testing.ts";
import { readingOf, Tables } from "./tables.ts";
import { listenerOf, path, policyOf, settle, tablesWith, tell, type Listener } from "./tables.testing.ts";
import { routeViews } from "./views.ts";

type Kind = "client" | "other" | "eBGP";
const KINDS: readonly Kind[] = ["client", "other", "eBGP"];

function peerOf(tables: Tables, number: number, kind: Kind): Listener {
  const peer = listenerOf(tables, number, kind !== "eBGP", { client: kind === "client" });
  peer.group = tables.join(peer.policy, peer);
  return peer;
}

/** RFC 4456 section 6: from whom (rows) to whom (columns), and whether as a reflected route. */
const PASSED: Record<Kind, Record<Kind, "reflected" | "told" | "kept">> = {
  client: { client: "reflected", other: "reflected", eBGP: "told" },
  other: { client: "reflected", other: "kept", eBGP: "told" },
  eBGP: { client: "told", other: "told", eBGP: "told" },
};

describe("a route reflector", () => {
  for (const from of KINDS) {
    for (const to of KINDS) {
      test(`a route from ${from} to ${to} is ${PASSED[from][to]}`, () => {
        const tables = tablesWith();
        const source = peerOf(tables, 1, from);
        const target = peerOf(tables, 2, to);
        const attributes = path("192.0.2.11", from === "eBGP" ? [65001] : [], { med: 7 });
        tell(tables, source, ["10.1.0.0/16"], attributes);
        settle(tables);
        const told = target.told.get("10.1.0.0/16");
        assert.equal(source.told.size, 0, "nobody is told its own route");
        if (PASSED[from][to] === "kept") {
          assert.equal(told, undefined);
          const [view] = routeViews(tables, [{ index: target.peer, name: "peer2", groups: { 4: target.group! } }], {
            view: "out",
          });
          assert.match(view?.reason ?? "", /RFC 4456/);
          return;
        }
        assert.ok(told);
        const reflected = { originatorId: told.originatorId, clusterList: told.clusterList };
        if (PASSED[from][to] === "told") {
          assert.deepEqual(reflected, { originatorId: undefined, clusterList: undefined });
          return;
        }
        // Section 10: next hop, AS path, preference and MED stay as they were.
        assert.deepEqual(told, { ...attributes, localPref: 100, originatorId: 1, clusterList: [99] });
      });
    }
  }

  test("puts its cluster before the others, and leaves the originator", () => {
    const tables = tablesWith();
    const source = peerOf(tables, 1, "other");
    const target = peerOf(tables, 2, "client");
    tell(tables, source, ["10.1.0.0/16"], path("192.0.2.11", [], { originatorId: 7, clusterList: [5, 6] }));
    settle(tables);
    const told = target.told.get("10.1.0.0/16");
    assert.deepEqual([told?.originatorId, told?.clusterList], [7, [99, 5, 6]]);
  });

  test("encodes once for all clients, whoever the routes came from", () => {
    const tables = tablesWith();
    const clients = [1, 2, 3, 4].map((number) => peerOf(tables, number, "client"));
    settle(tables);
    for (const [index, client] of clients.entries()) {
      tell(tables, client, [`10.${index}.0.0/16`, `10.${index}.1.0/24`], path(`192.0.2.${11 + index}`));
    }
    settle(tables);
    assert.equal(tables.groups.size, 1);
    for (const { told, messages } of clients) {
      assert.equal(told.size, 6);
      assert.equal(messages.length, 3);
    }
    const buffers = new Set(clients.flatMap(({ messages }) => messages.map(({ buffer }) => buffer)));
    assert.equal(buffers.size, 1);
    const originators = clients[3]!.told.values().map(({ originatorId }) => originatorId);
    assert.deepEqual(new Set(originators), new Set([1, 2, 3]));
  });
});

/** Routers of one AS, joined by sessions whose messages wait in queues until they are delivered. */
interface Router {
  readonly name: string;
  readonly tables: Tables;
  readonly routes: Map<string, string>;
}

function router(number: number, clusterId: number): Router & { clusterId: number; number: number } {
  const tables = new Tables({ routerId: number, resolve: () => ({}), maxPaths: 1 });
  return { name: `router${number}`, number, clusterId, tables, routes: new Map() };
}
type Node = ReturnType<typeof router>;

class Network {
  readonly nodes: Node[] = [];
  readonly #queues: { to: Node; peer: number; messages: Uint8Array[] }[] = [];
  delivered = 0;

  add(number: number, clusterId = number): Node {
    const node = router(number, clusterId);
    this.nodes.push(node);
    return node;
  }

  /** A session; `clients`: who is a client of the other. */
  link(a: Node, b: Node, clients: readonly Node[] = []): void {
    const end = (us: Node, them: Node) =>
      us.tables.addPeer({
        name: them.name,
        address: parseAddress(`192.0.2.${them.number}`),
        internal: true,
        client: clients.includes(them),
        routerId: them.number,
        imports: {
          4: {
            ownAsns: [64512],
            allowOwnAs: 0,
            routerId: us.number,
            clusterId: us.clusterId,
            internal: true,
            ownAddress: parseAddress(`192.0.2.${us.number}`),
            filter: compileFilter({ rules: [], otherwise: "accept" }, 4, "iBGP"),
          },
        },
      });
    const [aSeesB, bSeesA] = [end(a, b), end(b, a)];
    for (const [us, them, peer, back] of [
      [a, b, aSeesB.index, bSeesA.index],
      [b, a, bSeesA.index, aSeesB.index],
    ] as const) {
      const queue = { to: them, peer: back, messages: [] as Uint8Array[] };
      this.#queues.push(queue);
      const policy = policyOf(true, undefined, {
        client: clients.includes(them),
        clusterId: us.clusterId,
        ownNextHop: parseAddress(`192.0.2.${us.number}`),
      });
      const write = (bytes: Uint8Array): void => {
        for (let at = 0; at < bytes.length;) {
          const frame = nextFrame(bytes, at, 4096);
          assert.ok(frame);
          queue.messages.push(bytes.subarray(at, frame.end));
          at = frame.end;
        }
      };
      us.tables.join(policy, { peer, ready: () => true, write, synced: () => undefined });
    }
  }

  originate(node: Node, ...prefixes: string[]): void {
    node.tables.setOrigination(prefixes.map((text) => ({ prefix: parsePrefix(text) })));
    this.#flush(node);
  }

  /** Delivers messages, the next one from a queue that `choose` names, until all is quiet. */
  run(choose: (count: number) => number): void {
    for (;;) {
      const waiting = this.#queues.filter(({ messages }) => messages.length > 0);
      const queue = waiting[choose(waiting.length)];
      if (queue === undefined) return;
      assert.ok((this.delivered += 1) < 5000, "updates go round in circles");
      const bytes = queue.messages.shift()!;
      queue.to.tables.receive(queue.peer, readingOf(negotiated()), bytes, 19, bytes.length);
      this.#flush(queue.to);
    }
  }

  #flush(node: Node): void {
    for (const { prefix, nextHops } of settle(node.tables)) {
      const hop = nextHops[0]?.nextHop;
      if (hop === undefined) node.routes.delete(formatPrefix(prefix));
      else node.routes.set(formatPrefix(prefix), `router${hop.value & 255n}`);
    }
  }
}

describe("networks of reflectors", () => {
  const choices = fc.infiniteStream(fc.nat(1000));
  const chooser = (stream: Iterator<number>) => (count: number) => (stream.next().value as number) % Math.max(count, 1);

  test("a hierarchy with two reflectors for each cluster: everybody knows everything, and forgets it", () => {
    // Two at the top, below each of two clusters two reflectors (clients of the top), below those two clients each.
    fc.assert(
      fc.property(choices, fc.boolean(), (stream, sharedCluster) => {
        const network = new Network();
        const cluster = (number: number, shared: number): number => (sharedCluster ? shared : number);
        const top = [1, 2].map((number) => network.add(number, cluster(number, 100)));
        const middle = [3, 4, 5, 6].map((number) => network.add(number, cluster(number, number < 5 ? 101 : 102)));
        const leaves = [7, 8, 9, 10].map((number) => network.add(number));
        network.link(top[0]!, top[1]!);
        for (const reflector of top) for (const client of middle) network.link(reflector, client, [client]);
        for (const [index, leaf] of leaves.entries()) {
          for (const reflector of middle.slice(index < 2 ? 0 : 2, index < 2 ? 2 : 4)) {
            network.link(reflector, leaf, [leaf]);
          }
        }
        const choose = chooser(stream[Symbol.iterator]());
        for (const node of network.nodes) network.originate(node, `10.${node.number}.0.0/16`);
        network.run(choose);
        for (const node of network.nodes) {
          const expected = network.nodes
            .filter((other) => other !== node)
            .map(({ number, name }) => [`10.${number}.0.0/16`, name]);
          assert.deepEqual(node.routes, new Map(expected as [string, string][]), node.name);
        }
        for (const node of network.nodes) network.originate(node);
        network.run(choose);
        for (const { routes, tables } of network.nodes) {
          assert.equal(routes.size, 0);
          assert.equal(tables.ribs[4].prefixes.size, 0);
        }
      }),
      { numRuns: 15 },
    );
  });

  test("whatever is whose client, however they are joined, updates come to an end and nothing is left of what is gone", () => {
    const link = fc.tuple(fc.nat(5), fc.nat(5), fc.nat(3));
    fc.assert(
      fc.property(fc.array(link, { maxLength: 12 }), choices, (links, stream) => {
        const network = new Network();
        const nodes = [1, 2, 3, 4, 5, 6].map((number) => network.add(number));
        const joined = new Set<string>();
        for (const [one, other, mode] of links) {
          const [a, b] = [nodes[Math.min(one, other)]!, nodes[Math.max(one, other)]!];
          if (a === b || joined.has(`${one}-${other}`) || joined.has(`${other}-${one}`)) continue;
          joined.add(`${one}-${other}`);
          network.link(a, b, [...((mode & 1) !== 0 ? [a] : []), ...((mode & 2) !== 0 ? [b] : [])]);
        }
        const choose = chooser(stream[Symbol.iterator]());
        for (const node of nodes) network.originate(node, `10.${node.number}.0.0/16`, "10.99.0.0/16");
        network.run(choose);
        for (const node of nodes) assert.ok(!node.routes.has(`10.${node.number}.0.0/16`), "a route came home");
        for (const node of nodes) network.originate(node);
        network.run(choose);
        for (const { routes } of nodes) assert.deepEqual([...routes], []);
      }),
      { numRuns: 100 },
    );
  });
});
