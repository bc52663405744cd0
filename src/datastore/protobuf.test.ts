import assert from "node:assert/strict";
import { test } from "node:test";
import { fromHex } from "../lib/bytes.ts";
import { objectFromProtobuf } from "./protobuf.ts";

// As kubectl 1.32 sends it for `kubectl create namespace shop`.
const NAMESPACE =
  "6b387300 0a0f0a0276311209 4e616d657370616365 121c 0a14 0a0473686f70 12001a0022002a003200 3800 4200 1200 1a020a00 1a002200";
// With `labels: { app: shop }` beside the name.
const LABELLED = "6b387300 0a0f0a0276311209 4e616d657370616365 1215 0a13 0a0473686f70 5a0b 0a03617070 120473686f70";

test("what kubectl sends for a namespace is read", () => {
  const read = (wire: string): unknown => JSON.parse(JSON.stringify(objectFromProtobuf(fromHex(wire))));
  const shop = { apiVersion: "v1", kind: "Namespace", metadata: { name: "shop" } };
  assert.deepEqual(read(NAMESPACE), shop);
  assert.deepEqual(read(LABELLED), { ...shop, metadata: { name: "shop", labels: { app: "shop" } } });
});

test("kinds that hold more than metadata are not", () => {
  const pod = fromHex("6b387300 0a09 0a027631 1203506f64 1200");
  assert.equal(objectFromProtobuf(pod), undefined);
  const withFinalizer = fromHex("6b387300 0a0f 0a027631 12094e616d657370616365 1207 1205 0a036b3873");
  assert.equal(objectFromProtobuf(withFinalizer), undefined);
});

const malformed = {
  "another magic": "6b387301 0a00",
  "a length beyond the end": "6b387300 0aff01",
  "a group": "6b387300 0b",
  nothing: "",
};
for (const [name, wire] of Object.entries(malformed)) {
  test(`${name} is refused`, () => assert.throws(() => objectFromProtobuf(fromHex(wire)), /magic|need|wire type/));
}
