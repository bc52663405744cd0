import assert from "node:assert/strict";
import { test } from "node:test";
import { KIND, type KindId } from "../resources/registry.ts";
import { pathOf, routeOf } from "./route.ts";

const routes: { path: string; route: unknown }[] = [
  { path: "/healthz", route: { type: "health" } },
  { path: "/api", route: { type: "core" } },
  { path: "/apis/", route: { type: "groups" } },
  { path: "/apis/projectcalico.org", route: { type: "group", group: "projectcalico.org" } },
  { path: "/api/v1", route: { type: "kinds", group: "", version: "v1" } },
  { path: "/apis/projectcalico.org/v3", route: { type: "kinds", group: "projectcalico.org", version: "v3" } },
  { path: "/openapi/v3/api/v1", route: { type: "openapiOf", group: "", version: "v1" } },
  { path: "/api/v1/pods", route: { type: "collection", kind: "Pod" } },
  { path: "/api/v1/namespaces", route: { type: "collection", kind: "Namespace" } },
  { path: "/api/v1/namespaces/shop", route: { type: "object", kind: "Namespace", name: "shop", status: false } },
  { path: "/api/v1/namespaces/shop/status", route: { type: "object", kind: "Namespace", name: "shop", status: true } },
  { path: "/api/v1/namespaces/shop/pods", route: { type: "collection", kind: "Pod", namespace: "shop" } },
  {
    path: "/api/v1/namespaces/shop/pods/web",
    route: { type: "object", kind: "Pod", namespace: "shop", name: "web", status: false },
  },
  {
    path: "/api/v1/namespaces/shop/pods/web/status",
    route: { type: "object", kind: "Pod", namespace: "shop", name: "web", status: true },
  },
  {
    path: "/apis/projectcalico.org/v3/ippools/pool%2Da",
    route: { type: "object", kind: "IPPool", name: "pool-a", status: false },
  },
  {
    path: "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies",
    route: { type: "collection", kind: "NetworkPolicy", namespace: "shop" },
  },
  {
    path: "/apis/projectcalico.org/v3/namespaces/shop/networkpolicies",
    route: { type: "collection", kind: "CalicoNetworkPolicy", namespace: "shop" },
  },
];
for (const { path, route } of routes) {
  test(`${path} is understood`, () => assert.deepEqual(routeOf(path), route));
}

const nowhere = [
  "/",
  "/api/v2",
  "/apis//v1/pods",
  "/api/v1/nothing",
  "/api/v1/pods/web", // a pod is in a namespace
  "/api/v1/namespaces/shop/nodes", // a node is not
  "/api/v1/namespaces/shop/pods/web/exec",
  "/api/v1/namespaces/shop/pods/web/status/more",
  "/apis/projectcalico.org/v3/ippools/a/status",
  "/apis/projectcalico.org/v3/ippools//",
  "/api/v1/namespaces/%ZZ",
];
for (const path of nowhere) test(`${path} leads nowhere`, () => assert.equal(routeOf(path), undefined));

test("every kind is found at the path that clients make for it", () => {
  for (const kind of Object.keys(KIND) as KindId[]) {
    const namespace = KIND[kind].namespaced ? "ns" : undefined;
    const where = namespace === undefined ? {} : { namespace };
    assert.deepEqual(routeOf(pathOf(kind)), { type: "collection", kind });
    assert.deepEqual(routeOf(pathOf(kind, namespace, "a.b")), {
      type: "object",
      kind,
      ...where,
      name: "a.b",
      status: false,
    });
  }
});
