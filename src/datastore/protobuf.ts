/**
 * The little of Kubernetes' protobuf encoding that `kubectl create namespace` and `kubectl create serviceaccount` send:
 * objects whose content is their metadata. Everything else arrives as JSON.
 *
 * The envelope is `k8s\0` and `runtime.Unknown` (apimachinery/pkg/runtime/generated.proto); field numbers of ObjectMeta are
 * those of apimachinery/pkg/apis/meta/v1/generated.proto.
 */
import { ByteReader, MalformedBytes } from "../lib/bytes.ts";

export const PROTOBUF = "application/vnd.kubernetes.protobuf";

const MAGIC = "k8s\0";
const utf8 = new TextDecoder("utf-8", { fatal: true });

interface Field {
  readonly number: number;
  /** A varint. */
  readonly value: bigint;
  /** What is length-delimited: text, bytes, messages. */
  readonly bytes: Uint8Array;
}

const NOTHING = new Uint8Array();

function varint(reader: ByteReader): bigint {
  let value = 0n;
  for (let shift = 0n; shift < 70n; shift += 7n) {
    const byte = reader.u8("varint");
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  throw new MalformedBytes("varint: longer than 10 bytes");
}

function fieldsOf(bytes: Uint8Array): Field[] {
  const reader = new ByteReader(bytes);
  const fields: Field[] = [];
  while (reader.remaining > 0) {
    const tag = Number(varint(reader));
    const number = tag >>> 3;
    switch (tag & 7) {
      case 0:
        fields.push({ number, value: varint(reader), bytes: NOTHING });
        break;
      case 1:
        reader.skip(8, `field ${number}`);
        break;
      case 2:
        fields.push({ number, value: 0n, bytes: reader.take(Number(varint(reader)), `field ${number}`) });
        break;
      case 5:
        reader.skip(4, `field ${number}`);
        break;
      default:
        throw new MalformedBytes(`field ${number}: wire type ${tag & 7} is not known`);
    }
  }
  return fields;
}

const text = (fields: readonly Field[], number: number): string | undefined => {
  const found = fields.findLast((field) => field.number === number);
  return found === undefined || found.bytes.length === 0 ? undefined : utf8.decode(found.bytes);
};
const message = (fields: readonly Field[], number: number): Field[] =>
  fieldsOf(fields.findLast((field) => field.number === number)?.bytes ?? NOTHING);

/** `map<string, string>`: a list of messages of a key (1) and a value (2). */
function map(fields: readonly Field[], number: number): Record<string, string> | undefined {
  const entries = fields
    .filter((field) => field.number === number)
    .map(({ bytes }): [string, string] => {
      const entry = fieldsOf(bytes);
      return [text(entry, 1) ?? "", text(entry, 2) ?? ""];
    });
  return entries.length === 0 ? undefined : Object.fromEntries(entries);
}

/** Fields that are not optional in the Go types are sent even when they hold nothing. */
const isEmpty = (bytes: Uint8Array): boolean =>
  fieldsOf(bytes).every((field) => field.bytes.length === 0 && field.value === 0n);

/**
 * The object as JSON has it; undefined where it holds more than metadata, or is of a kind that does. Throws
 * `MalformedBytes`.
 */
export function objectFromProtobuf(body: Uint8Array): Record<string, unknown> | undefined {
  const reader = new ByteReader(body);
  if (utf8.decode(reader.take(MAGIC.length, "magic")) !== MAGIC) throw new MalformedBytes("magic: it is not k8s\\0");
  const envelope = fieldsOf(reader.rest());
  const type = message(envelope, 1);
  const kind = text(type, 2);
  if (kind !== "Namespace" && kind !== "ServiceAccount") return undefined;
  const object = fieldsOf(envelope.findLast(({ number }) => number === 2)?.bytes ?? NOTHING);
  if (object.some(({ number, value, bytes }) => number !== 1 && (value !== 0n || !isEmpty(bytes)))) return undefined;
  const metadata = message(object, 1);
  return {
    apiVersion: text(type, 1),
    kind,
    metadata: {
      name: text(metadata, 1),
      generateName: text(metadata, 2),
      namespace: text(metadata, 3),
      labels: map(metadata, 11),
      annotations: map(metadata, 12),
    },
  };
}
