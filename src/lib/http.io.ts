import type * as Http from "node:http";
import type * as Https from "node:https";

/**
 * Node's HTTP, without what nobody here uses. An `import` of it reads every one of its exports, and the one for web
 * sockets loads the whole of `fetch`: 10 MB of memory, and 25 ms at the start of every process.
 */
export const http: typeof Http = process.getBuiltinModule("node:http");

/** TLS is another 5 MB, which a process that only uses unix sockets does without. */
export const https = (): typeof Https => process.getBuiltinModule("node:https");
