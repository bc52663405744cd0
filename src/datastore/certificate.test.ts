import assert from "node:assert/strict";
import { generateKeyPairSync, sign, X509Certificate } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { pem, selfSignedCertificate } from "./certificate.ts";

const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const request = {
  publicKey: publicKey.export({ type: "spki", format: "der" }),
  commonName: "caracal-apiserver",
  dnsNames: ["caracal-apiserver", "localhost"],
  sign: (bytes: Uint8Array) => sign("sha256", bytes, privateKey),
};

test("OpenSSL reads back what was asked for, whatever the serial number and the dates", () => {
  const serial = fc.uint8Array({ minLength: 1, maxLength: 20 });
  const bytes = fc.oneof(
    serial,
    serial.map((tail) => Uint8Array.of(0, ...tail.subarray(1))),
    serial.map((tail) => Uint8Array.of(0x80, ...tail.subarray(1))),
  );
  // Either side of 2050, where the form of dates changes.
  const time = fc.integer({
    min: Date.parse("2026-01-01T00:00:00Z") / 1000,
    max: Date.parse("2099-12-31T23:59:59Z") / 1000,
  });
  fc.assert(
    fc.property(bytes, time, time, (number, notBefore, notAfter) => {
      const der = selfSignedCertificate({
        ...request,
        serial: number,
        notBefore: notBefore * 1000,
        notAfter: notAfter * 1000,
      });
      const read = new X509Certificate(pem("CERTIFICATE", der));
      assert.equal(BigInt(`0x${read.serialNumber}`), BigInt(`0x${Buffer.from(number).toString("hex")}`));
      assert.equal(Date.parse(read.validFrom), notBefore * 1000);
      assert.equal(Date.parse(read.validTo), notAfter * 1000);
      assert.equal(read.subject, "CN=caracal-apiserver");
      assert.equal(read.subjectAltName, "DNS:caracal-apiserver, DNS:localhost");
      assert.ok(read.ca && read.verify(publicKey) && read.checkPrivateKey(privateKey));
    }),
    { numRuns: 100 },
  );
});
