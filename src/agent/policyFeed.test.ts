import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Endpoint } from "../dataplane/endpoint.ts";
import { parseAddress } from "../ip/address.ts";
import type { Update } from "../policy/model.ts";
import { objectsOf } from "../policy/world.testing.ts";
import type { Kinds } from "../resources/registry.ts";
import { policyFeed } from "./policyFeed.ts";

const ID = "wep/a/node1-k8s-web-eth0";

function start() {
  const told: Update[] = [];
  const feed = policyFeed({ node: "node1", interfacePrefix: "cali" }, (update) => void told.push(update));
  /** In a few words: what the last update says of the pod. */
  const last = (): string => {
    const update = told.at(-1);
    assert.ok(update !== undefined && update.kind === "endpoint");
    const { id, value } = update;
    return value === undefined
      ? `no ${id}`
      : `${id} ${value.interfaceName ?? "-"} ${value.labels["app"]} ${value.nets.join()}`;
  };
  return { feed, told, last };
}

function pod(
  fields: { name?: string; app?: string; uid?: string; node?: string; ip?: string; more?: string } = {},
): Kinds["Pod"] {
  const { name = "web", app = "web", uid = "u1", node = "node1", ip = "10.9.9.9", more = "" } = fields;
  const [object] = objectsOf(
    `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: a, uid: ${uid}, labels: {app: ${app}}},
      spec: {${node === "" ? "" : `nodeName: ${node}, `}${more} containers: [{name: c}]}, status: {podIPs: [{ip: ${ip}}]}}`,
  );
  assert.ok(object?.id === "Pod");
  return object.item;
}

const attached = (fields: Partial<Endpoint> = {}): Endpoint => ({
  containerId: "c1",
  namespace: "a",
  pod: "web",
  podUid: "u1",
  podInterface: "eth0",
  hostInterface: "cali12345",
  mac: "02:00:00:00:00:01",
  mtu: 1500,
  addresses: [parseAddress("10.1.0.1"), parseAddress("fd00::1")],
  netns: "/run/netns/web",
  network: "k8s-pod-network",
  ...fields,
});

describe("a pod of this node", () => {
  test("has an endpoint while it is attached and in the datastore, with the addresses that it has here", () => {
    const { feed, last } = start();
    assert.equal(feed.put("Pod", pod()), ID);
    assert.equal(last(), `no ${ID}`);
    feed.attach(attached());
    assert.equal(last(), `${ID} cali12345 web 10.1.0.1,fd00::1`);
    feed.put("Pod", pod({ app: "db" }));
    assert.equal(last(), `${ID} cali12345 db 10.1.0.1,fd00::1`);
    feed.detach(attached());
    assert.equal(last(), `no ${ID}`);
    feed.attach(attached());
    feed.gone("Pod", ID);
    assert.equal(last(), `no ${ID}`);
  });

  test("has it before the datastore's word arrives here, where it has been asked for", () => {
    const { feed, last } = start();
    feed.attach(attached(), pod({ app: "asked" }));
    assert.equal(last(), `${ID} cali12345 asked 10.1.0.1,fd00::1`);
    feed.put("Pod", pod({ app: "followed" }));
    assert.equal(last(), `${ID} cali12345 followed 10.1.0.1,fd00::1`);
    feed.gone("Pod", ID);
    assert.equal(last(), `no ${ID}`, "what was asked for does not outlive what is followed");
  });

  test("is not taken for an earlier one of its name, nor for a later one", () => {
    const { feed, last } = start();
    feed.put("Pod", pod({ uid: "u0", app: "old" }));
    feed.attach(attached(), pod({ app: "new" }));
    assert.equal(last(), `${ID} cali12345 new 10.1.0.1,fd00::1`);
    feed.put("Pod", pod({ uid: "u0", app: "older" }));
    assert.equal(last(), `${ID} cali12345 new 10.1.0.1,fd00::1`);
    feed.gone("Pod", ID);
    assert.equal(last(), `${ID} cali12345 new 10.1.0.1,fd00::1`);
    feed.put("Pod", pod({ app: "new" }));
    feed.put("Pod", pod({ uid: "u2", app: "next" }));
    assert.equal(last(), `no ${ID}`);
  });

  test("is not let go by the end of an earlier container", () => {
    const { feed, last, told } = start();
    feed.put("Pod", pod());
    feed.attach(attached({ containerId: "c0" }));
    feed.attach(attached({ containerId: "c1" }));
    const before = told.length;
    feed.detach(attached({ containerId: "c0" }));
    assert.equal(told.length, before);
    assert.match(last(), /10\.1\.0\.1/);
  });

  test("on the host's network has none", () => {
    const { feed } = start();
    assert.equal(feed.put("Pod", pod({ more: "hostNetwork: true," })), undefined);
  });
});

test("a pod of another node has what the datastore says", () => {
  const { feed, last } = start();
  const id = "wep/a/node2-k8s-web-eth0";
  assert.equal(feed.put("Pod", pod({ node: "node2" })), id);
  assert.equal(last(), `${id} - web 10.9.9.9`);
  assert.equal(feed.idOf("Pod", pod({ node: "node2" })), id);
  feed.gone("Pod", id);
  assert.equal(last(), `no ${id}`);
  assert.equal(feed.put("Pod", pod({ node: "" })), undefined, "it is on no node yet");
});

test("a container that is no pod may do what it likes, unless a policy selects it", () => {
  const { feed, told } = start();
  const { namespace: _, pod: __, podUid: ___, ...bare } = attached({ containerId: "abc" });
  feed.attach(bare);
  feed.detach(bare);
  assert.deepEqual(told, [
    {
      kind: "endpoint",
      id: "wep/node1-cni-abc",
      value: {
        id: "wep/node1-cni-abc",
        kind: "workload",
        name: "abc",
        node: "node1",
        interfaceName: "cali12345",
        labels: { "projectcalico.org/orchestrator": "cni" },
        profiles: ["projectcalico-default-allow"],
        nets: ["10.1.0.1", "fd00::1"],
        ports: [],
      },
    },
    { kind: "endpoint", id: "wep/node1-cni-abc" },
  ]);
});

test("what goes takes away what it was: each kind by its id", () => {
  const { feed, told } = start();
  const manifest = `
{apiVersion: v1, kind: Namespace, metadata: {name: a}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: bob, namespace: a}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: a}, spec: {podSelector: {}}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: all}, spec: {selector: all()}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 5}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: dns, namespace: a}, spec: {nets: [10.0.0.0/8]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: node1, interfaceName: eth0}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s, namespace: a, labels: {kubernetes.io/service-name: web}},
  addressType: IPv4, endpoints: [{addresses: [10.1.0.1]}], ports: [{port: 80}]}`;
  const ids = objectsOf(manifest).map(({ id, item }) => {
    const known = feed.put(id, item);
    assert.equal(known, feed.idOf(id, item));
    assert.ok(known !== undefined);
    feed.gone(id, known);
    return known;
  });
  assert.deepEqual(ids, ["kns.a", "ksa.a.bob", "knp/a/web", "gnp/all", "security", "netset/a/dns", "hep/h", "a/s"]);
  for (let at = 0; at < told.length; at += 2) {
    const [put, gone] = [told[at], told[at + 1]];
    assert.deepEqual(gone, { kind: put?.kind, id: put?.id });
  }
});
