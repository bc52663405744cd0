import { Failure } from "../lib/errors.ts";

export class LabError extends Failure<"bad-definition" | "exists" | "not-found" | "failed" | "timeout"> {}
