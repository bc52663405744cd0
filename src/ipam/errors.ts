import { Failure } from "../lib/errors.ts";

export type IpamCode =
  /** The request itself cannot be met by any state of the pools: a bad CIDR, a pool that is not there. */
  | "bad-request"
  /** No enabled pool may serve this request; the message says of each why not. */
  | "no-pool"
  /** Every pool that may serve the request is out of addresses. */
  | "pool-full"
  /** The node holds as many blocks as it may, and all are full. */
  | "block-limit"
  /** The address that was asked for is held by somebody else. */
  | "address-taken"
  /** The address that was asked for lies in another node's block, and strictAffinity forbids to take it. */
  | "strict-affinity"
  /** The allocation is no longer the one that the caller meant (handle or sequence number differ). */
  | "stale-release"
  /** Others kept changing the same block for as long as was tried. */
  | "contention";

/** Why an address could not be given or taken back: what was asked, where it was looked for, why it failed. */
export class IpamError extends Failure<IpamCode> {
  constructor(code: IpamCode, message: string, cause?: unknown) {
    super(code, message, cause);
    this.name = "IpamError";
  }
}
