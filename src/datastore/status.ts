/** The `Status` object in which the Kubernetes API says how a request went, and its HTTP codes. */
import { Failure } from "../lib/errors.ts";
import { KIND, type KindId } from "../resources/registry.ts";
import { DatastoreError, type DatastoreCode, type FieldCause } from "./datastore.ts";
import { isFields, textIn } from "./patch.ts";

/** A request that HTTP itself refuses, before it reaches an object. */
export class HttpRefusal extends Failure<"http"> {
  readonly status: number;
  constructor(status: 404 | 405 | 406 | 413 | 415, message: string) {
    super("http", message);
    this.status = status;
  }
}

/** apimachinery/pkg/apis/meta/v1 StatusReason. */
const REASONS: Readonly<Record<number, string>> = {
  400: "BadRequest",
  401: "Unauthorized",
  403: "Forbidden",
  404: "NotFound",
  405: "MethodNotAllowed",
  406: "NotAcceptable",
  409: "Conflict",
  410: "Expired",
  413: "RequestEntityTooLarge",
  415: "UnsupportedMediaType",
  422: "Invalid",
  500: "InternalError",
  503: "ServiceUnavailable",
  504: "Timeout",
};

const HTTP_CODES: Readonly<Record<DatastoreCode, number>> = {
  "not-found": 404,
  "already-exists": 409,
  conflict: 409,
  invalid: 422,
  gone: 410,
  forbidden: 403,
  unauthorized: 401,
  unavailable: 503,
  timeout: 504,
};

export interface Status {
  readonly kind: "Status";
  readonly apiVersion: "v1";
  readonly metadata: object;
  readonly status: "Failure";
  readonly message: string;
  readonly reason: string;
  readonly details?: object;
  readonly code: number;
}

/** @param target the object that the request was about */
export function statusOf(failure: DatastoreError | HttpRefusal, target?: { kind: KindId; name?: string }): Status {
  const code = httpCode(failure);
  const causes = failure instanceof DatastoreError ? failure.causes : [];
  const details = {
    ...(target?.name === undefined ? {} : { name: target.name }),
    // As Kubernetes has it: the kind where the object is invalid, what the path says otherwise.
    ...(target === undefined
      ? {}
      : { group: KIND[target.kind].group, kind: KIND[target.kind][code === 422 ? "kind" : "plural"] }),
    ...(causes.length === 0
      ? {}
      : { causes: causes.map(({ field, message }) => ({ reason: "FieldValueInvalid", message, field })) }),
  };
  return {
    kind: "Status",
    apiVersion: "v1",
    metadata: {},
    status: "Failure",
    message: failure.message,
    reason: failure.code === "already-exists" ? "AlreadyExists" : (REASONS[code] ?? "Unknown"),
    ...(Object.keys(details).length === 0 ? {} : { details }),
    code,
  };
}

function httpCode(failure: DatastoreError | HttpRefusal): number {
  if (failure instanceof HttpRefusal) return failure.status;
  // Without a field to blame, it is the request that is wrong.
  if (failure.code === "invalid" && failure.causes.length === 0) return 400;
  return HTTP_CODES[failure.code];
}

const CODES: Readonly<Record<number, DatastoreCode>> = {
  401: "unauthorized",
  403: "forbidden",
  404: "not-found",
  408: "timeout",
  409: "conflict",
  410: "gone",
  429: "unavailable",
  504: "timeout",
};

/** Reads what a server answered: `body` is a Status, or whatever a proxy on the way made of it. */
export function errorFromStatus(code: number, body: unknown, attempt: string): DatastoreError {
  const status = isFields(body) && body["kind"] === "Status" ? body : {};
  const said = typeof status["message"] === "string" ? status["message"] : `HTTP status ${code}`;
  const message = `Cannot ${attempt}: ${said}`;
  if (status["reason"] === "AlreadyExists") return new DatastoreError("already-exists", message);
  const known = CODES[code] ?? (code >= 500 || code < 400 ? "unavailable" : "invalid");
  return new DatastoreError(known, message, { causes: causesOf(status["details"]) });
}

function causesOf(details: unknown): FieldCause[] {
  const causes = isFields(details) ? details["causes"] : undefined;
  if (!Array.isArray(causes)) return [];
  return (causes as unknown[]).filter(isFields).map((cause) => ({
    field: textIn(cause, "field"),
    message: textIn(cause, "message"),
  }));
}
