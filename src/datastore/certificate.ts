/**
 * A self-signed X.509 certificate (RFC 5280) for the API server: clients of Kubernetes send their token over TLS only.
 * Just enough of DER (X.690) to write one.
 */

export interface CertificateRequest {
  /** DER SubjectPublicKeyInfo of an EC P-256 key. */
  readonly publicKey: Uint8Array;
  readonly commonName: string;
  readonly dnsNames: readonly string[];
  /** Random, up to 20 bytes. */
  readonly serial: Uint8Array;
  /** Milliseconds since 1970. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** ECDSA over SHA-256 with the private key; the signature in DER. */
  readonly sign: (bytes: Uint8Array) => Uint8Array;
}

const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const UTF8_STRING = 0x0c;
const GENERALIZED_TIME = 0x18;
const UTC_TIME = 0x17;
const SEQUENCE = 0x30;
const SET = 0x31;
const BOOLEAN_TRUE = Uint8Array.of(0x01, 0x01, 0xff);
/** `[n]` that wraps another value, and `[n]` in place of a plain type's own tag. */
const explicit = (n: number): number => 0xa0 | n;
const implicit = (n: number): number => 0x80 | n;

function der(tag: number, ...contents: readonly Uint8Array[]): Uint8Array {
  const length = contents.reduce((sum, content) => sum + content.length, 0);
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  const bytes = new Uint8Array(1 + size.length + length);
  bytes.set([tag, ...size]);
  let at = 1 + size.length;
  for (const content of contents) {
    bytes.set(content, at);
    at += content.length;
  }
  return bytes;
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A positive number: in as few bytes as it takes, with its first bit clear (X.690 section 8.3). */
function integer(bytes: Uint8Array): Uint8Array {
  const first = bytes.findIndex((byte) => byte !== 0);
  const digits = first < 0 ? Uint8Array.of(0) : bytes.subarray(first);
  return der(INTEGER, (digits[0] ?? 0) >= 0x80 ? Uint8Array.of(0) : Uint8Array.of(), digits);
}

const bitString = (bytes: Uint8Array, unusedBits = 0): Uint8Array => der(BIT_STRING, Uint8Array.of(unusedBits), bytes);

/** Object identifiers, already in DER. */
const OID = {
  ecdsaWithSha256: Uint8Array.of(0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02), // 1.2.840.10045.4.3.2
  commonName: Uint8Array.of(0x06, 0x03, 0x55, 0x04, 0x03), // 2.5.4.3
  keyUsage: Uint8Array.of(0x06, 0x03, 0x55, 0x1d, 0x0f), // 2.5.29.15
  subjectAltName: Uint8Array.of(0x06, 0x03, 0x55, 0x1d, 0x11), // 2.5.29.17
  basicConstraints: Uint8Array.of(0x06, 0x03, 0x55, 0x1d, 0x13), // 2.5.29.19
  extKeyUsage: Uint8Array.of(0x06, 0x03, 0x55, 0x1d, 0x25), // 2.5.29.37
  serverAuth: Uint8Array.of(0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01), // 1.3.6.1.5.5.7.3.1
};

/** UTCTime up to 2049, GeneralizedTime after that (RFC 5280 section 4.1.2.5). */
function time(milliseconds: number): Uint8Array {
  const digits = new Date(milliseconds).toISOString().slice(0, 19).replaceAll(/[-T:]/g, "");
  return Number(digits.slice(0, 4)) < 2050
    ? der(UTC_TIME, ascii(`${digits.slice(2)}Z`))
    : der(GENERALIZED_TIME, ascii(`${digits}Z`));
}

function extension(oid: Uint8Array, critical: boolean, value: Uint8Array): Uint8Array {
  return der(SEQUENCE, oid, critical ? BOOLEAN_TRUE : Uint8Array.of(), der(OCTET_STRING, value));
}

/** The certificate in DER. */
export function selfSignedCertificate(request: CertificateRequest): Uint8Array {
  const algorithm = der(SEQUENCE, OID.ecdsaWithSha256);
  const name = der(SEQUENCE, der(SET, der(SEQUENCE, OID.commonName, der(UTF8_STRING, ascii(request.commonName)))));
  const names = request.dnsNames.map((dnsName) => der(implicit(2), ascii(dnsName)));
  // It is its own authority, so it may sign certificates: itself. digitalSignature is bit 0, keyCertSign bit 5.
  const keyUsage = bitString(Uint8Array.of(0b1000_0100), 2);
  const extensions = [
    extension(OID.basicConstraints, true, der(SEQUENCE, BOOLEAN_TRUE)),
    extension(OID.keyUsage, true, keyUsage),
    extension(OID.extKeyUsage, false, der(SEQUENCE, OID.serverAuth)),
    extension(OID.subjectAltName, false, der(SEQUENCE, ...names)),
  ];
  const toBeSigned = der(
    SEQUENCE,
    der(explicit(0), integer(Uint8Array.of(2))), // version 3
    integer(request.serial),
    algorithm,
    name,
    der(SEQUENCE, time(request.notBefore), time(request.notAfter)),
    name,
    request.publicKey,
    der(explicit(3), der(SEQUENCE, ...extensions)),
  );
  return der(SEQUENCE, toBeSigned, algorithm, bitString(request.sign(toBeSigned)));
}

/** RFC 7468. */
export function pem(label: string, bytes: Uint8Array): string {
  const lines = bytes.toBase64().match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
