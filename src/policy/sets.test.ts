import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseSelector } from "../resources/selector.ts";
import type { Endpoint } from "./model.ts";
import { addressSets, setId, type AddressSets, type SetSpec } from "./sets.ts";

const pod = (
  id: string,
  nets: string[],
  labels = {},
  ports: Endpoint["ports"] = [],
  profiles = ["kns.a"],
): Endpoint => ({
  id,
  kind: "workload",
  name: id,
  labels,
  profiles,
  nets,
  ports,
});
const web: SetSpec = { of: "selector", selector: parseSelector("app == 'web'") };
const http = (selector: string, protocol = 6): SetSpec => ({
  of: "named port",
  selector: parseSelector(selector),
  protocol,
  port: "http",
});
const HTTP = [{ name: "http", protocol: 6, port: 8080 }];

/** `+10.0.0.1` and `-10.0.0.1` of the one set that changed, or what became of sets. */
function changes(sets: AddressSets): string[] {
  return sets
    .take()
    .flatMap(({ state, added, removed }) => [
      ...(state === "changed" ? [] : [state]),
      ...removed.map((member) => `-${member}`).sort(),
      ...added.map((member) => `+${member}`).sort(),
    ]);
}

describe("address sets", () => {
  test("hold the addresses of all that the selector means, and follow them", () => {
    const sets = addressSets();
    sets.setEndpoint("1", pod("1", ["10.0.0.1", "2001:db8::1"], { app: "web" }));
    sets.retain(web);
    assert.deepEqual(changes(sets), ["new", "+10.0.0.1", "+2001:db8::1"]);
    sets.setEndpoint("2", pod("2", ["10.0.0.2"], { app: "web" }));
    assert.deepEqual(changes(sets), ["+10.0.0.2"]);
    sets.setEndpoint("2", pod("2", ["10.0.0.3"], { app: "web" }));
    assert.deepEqual(changes(sets), ["-10.0.0.2", "+10.0.0.3"]);
    sets.setEndpoint("2", pod("2", ["10.0.0.3"], { app: "db" }));
    assert.deepEqual(changes(sets), ["-10.0.0.3"]);
    sets.setEndpoint("2", pod("2", ["10.0.0.4"], { app: "web" }));
    sets.setEndpoint("1", undefined);
    assert.deepEqual(changes(sets), ["-10.0.0.1", "-2001:db8::1", "+10.0.0.4"]);
    assert.deepEqual(sets.size(), { sets: 1, endpoints: 1, classes: 1 });
  });

  test("an address that two endpoints have stays until both are gone", () => {
    const sets = addressSets();
    sets.retain(web);
    sets.setEndpoint("1", pod("1", ["10.0.0.1"], { app: "web" }));
    sets.setEndpoint("2", pod("2", ["10.0.0.1"], { app: "web" }));
    assert.deepEqual(changes(sets), ["new", "+10.0.0.1"]);
    sets.setEndpoint("1", undefined);
    assert.deepEqual(changes(sets), []);
    sets.setEndpoint("2", undefined);
    assert.deepEqual(changes(sets), ["-10.0.0.1"]);
  });

  test("labels from profiles count, and change all endpoints that have them", () => {
    const sets = addressSets();
    sets.retain({ of: "selector", selector: parseSelector("pcns.env == 'prod'") });
    sets.setEndpoint("1", pod("1", ["10.0.0.1"]));
    sets.setEndpoint("2", pod("2", ["10.0.0.2"], { "pcns.env": "dev" }));
    assert.deepEqual(changes(sets), ["new"]);
    sets.setProfile("kns.a", { "pcns.env": "prod" });
    assert.deepEqual(changes(sets), ["+10.0.0.1"]);
    sets.setProfile("kns.a", undefined);
    assert.deepEqual(changes(sets), ["-10.0.0.1"]);
  });

  test("a named port's set holds address, protocol and port where the name has that protocol", () => {
    const sets = addressSets();
    sets.setEndpoint("1", pod("1", ["10.0.0.1", "2001:db8::1"], { app: "web" }, HTTP));
    sets.setEndpoint("2", pod("2", ["10.0.0.2"], {}, HTTP));
    sets.setEndpoint("3", pod("3", ["10.0.0.3"], { app: "web" }, [{ name: "http", protocol: 17, port: 1 }]));
    sets.setEndpoint("4", pod("4", ["10.0.0.4"], { app: "web" }, [{ name: "other", protocol: 6, port: 1 }]));
    sets.retain(http("app == 'web'"));
    assert.deepEqual(changes(sets), ["new", "+10.0.0.1,tcp:8080", "+2001:db8::1,tcp:8080"]);
    sets.retain(http("all()"));
    assert.deepEqual(changes(sets), ["new", "+10.0.0.1,tcp:8080", "+10.0.0.2,tcp:8080", "+2001:db8::1,tcp:8080"]);
    sets.retain(http("app == 'web'", 17));
    assert.deepEqual(changes(sets), ["new", "+10.0.0.3,udp:1"]);
    sets.retain(web);
    assert.deepEqual(changes(sets), ["new", "+10.0.0.1", "+10.0.0.3", "+10.0.0.4", "+2001:db8::1"]);
    sets.setEndpoint("1", pod("1", ["10.0.0.1"], { app: "web" }, [{ name: "http", protocol: 6, port: 9090 }]));
    const moved = ["-10.0.0.1,tcp:8080", "-2001:db8::1,tcp:8080", "+10.0.0.1,tcp:9090"];
    assert.deepEqual(changes(sets).sort(), [...moved, ...moved, "-2001:db8::1"].sort());
  });

  test("a service's sets follow its slices", () => {
    const sets = addressSets();
    const slice = { id: "n/s-1", service: "n/s", addresses: ["10.0.0.1"], ports: [{ protocol: 6, port: 80 }] };
    sets.setSlice("n/s-1", slice);
    sets.retain({ of: "service", service: "n/s", kind: "ip,port" });
    sets.retain({ of: "service", service: "n/s", kind: "net" });
    assert.deepEqual(changes(sets), ["new", "+10.0.0.1,tcp:80", "new", "+10.0.0.1"]);
    sets.setSlice("n/s-2", { ...slice, id: "n/s-2", addresses: ["10.0.0.1", "10.0.0.2"] });
    assert.deepEqual(changes(sets), ["+10.0.0.2,tcp:80", "+10.0.0.2"]);
    sets.setSlice("n/s-1", undefined);
    assert.deepEqual(changes(sets), []);
    sets.setSlice("n/s-2", { ...slice, id: "n/s-2", service: "n/other" });
    assert.deepEqual(changes(sets), ["-10.0.0.1,tcp:80", "-10.0.0.2,tcp:80", "-10.0.0.1", "-10.0.0.2"]);
  });

  test("a set is there while anybody needs it, and comes back whole", () => {
    const sets = addressSets();
    sets.setEndpoint("1", pod("1", ["10.0.0.1"], { app: "web" }));
    const id = sets.retain(web);
    assert.equal(sets.retain(web), id);
    sets.take();
    sets.release(id);
    assert.deepEqual(changes(sets), []);
    sets.release(id);
    assert.equal(sets.retain(web), id);
    assert.deepEqual(changes(sets), [], "needed again before anybody looked");
    sets.release(id);
    assert.deepEqual(changes(sets), ["gone"]);
    assert.deepEqual([...sets.told()], []);
    sets.retain(web);
    assert.deepEqual(changes(sets), ["new", "+10.0.0.1"]);
    const short = sets.retain(http("all()"));
    sets.release(short);
    assert.deepEqual(changes(sets), [], "never told");
  });

  test("networks swallow what lies in them", () => {
    const sets = addressSets();
    sets.retain(web);
    sets.setEndpoint("1", pod("1", ["10.0.0.1"], { app: "web" }));
    sets.setEndpoint("set", { ...pod("set", ["10.0.0.0/24", "10.0.0.0/25"], { app: "web" }), kind: "set" });
    assert.deepEqual(changes(sets), ["new", "+10.0.0.0/24"]);
    sets.setEndpoint("set", undefined);
    assert.deepEqual(changes(sets), ["-10.0.0.0/24", "+10.0.0.1"]);
  });

  test("ids are Calico's: what the set is of, and SHA-224 in base64url", () => {
    const ids = [
      web,
      http("all()"),
      { of: "service", service: "n/s", kind: "net" } as const,
      { of: "service", service: "n/s", kind: "ip,port" } as const,
    ].map(setId);
    assert.deepEqual(
      ids.map((id) => id.slice(0, id.indexOf(":"))),
      ["s", "n", "svcnoport", "svc"],
    );
    for (const id of ids) assert.match(id, /^[a-z]+:[A-Za-z0-9_-]{38}$/);
    assert.equal(new Set(ids).size, ids.length);
  });
});
