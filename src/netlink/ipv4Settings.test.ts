import assert from "node:assert/strict";
import { test } from "node:test";
import { ByteWriter } from "../lib/bytes.ts";
import { setIpv4 } from "./ipv4Settings.ts";

test("IPv4's settings of a link lie three attributes deep, each by its number", () => {
  const writer = new ByteWriter();
  setIpv4(7, { rp_filter: 2, forwarding: 1 }).encode(writer);
  assert.equal(
    Buffer.from(writer.finish()).toString("hex"),
    ["00000000", "07000000", "00000000", "00000000"].join("") + // struct ifinfomsg
      ["1c001a00", "18000200", "14000100"].join("") + // IFLA_AF_SPEC, AF_INET, IFLA_INET_CONF
      ["08000100", "01000000", "08000800", "02000000"].join(""), // forwarding, rp_filter
  );
});
