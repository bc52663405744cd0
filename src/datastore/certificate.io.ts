/** The API server's own certificate and key, kept with its data and made where they are missing. */
import { createPrivateKey, generateKeyPairSync, randomBytes, sign, X509Certificate } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pem, selfSignedCertificate } from "./certificate.ts";
import { writePrivateFile } from "./privateFile.io.ts";

export interface ServerCertificate {
  /** PEM. */
  readonly certificate: string;
  readonly key: string;
}

/**
 * The name in the certificate. Clients check this one (`tls-server-name` in a kubeconfig) instead of the address that
 * they connect to, so that the certificate outlives changes of address.
 */
export const SERVER_NAME = "caracal-apiserver";

const DAY = 24 * 3600 * 1000;
const LIFE = 3650 * DAY;

/** Reads `tls.crt` and `tls.key` in the directory. Makes new ones when they are missing, do not fit, or end within a month. */
export function serverCertificate(directory: string, now: number): ServerCertificate {
  const paths = { certificate: join(directory, "tls.crt"), key: join(directory, "tls.key") };
  if (existsSync(paths.certificate) && existsSync(paths.key)) {
    const found = { certificate: readFileSync(paths.certificate, "utf8"), key: readFileSync(paths.key, "utf8") };
    if (isGood(found, now)) return found;
  }
  const made = makeCertificate(now);
  writePrivateFile(paths.key, made.key);
  writePrivateFile(paths.certificate, made.certificate);
  return made;
}

function isGood({ certificate, key }: ServerCertificate, now: number): boolean {
  try {
    const parsed = new X509Certificate(certificate);
    return parsed.checkPrivateKey(createPrivateKey(key)) && Date.parse(parsed.validTo) > now + 30 * DAY;
  } catch {
    return false;
  }
}

function makeCertificate(now: number): ServerCertificate {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const certificate = selfSignedCertificate({
    publicKey: publicKey.export({ type: "spki", format: "der" }),
    commonName: SERVER_NAME,
    dnsNames: [SERVER_NAME, "localhost"],
    serial: randomBytes(16),
    // A clock that is a little behind ours must not refuse it.
    notBefore: now - DAY,
    notAfter: now + LIFE,
    sign: (bytes) => sign("sha256", bytes, privateKey),
  });
  return {
    certificate: pem("CERTIFICATE", certificate),
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}
