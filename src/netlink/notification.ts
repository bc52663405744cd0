import { decodeAddress, DELETE_ADDRESS, type LinkAddress, NEW_ADDRESS } from "./addr.ts";
import type { Message } from "./framing.ts";
import { decodeLink, DELETE_LINK, type Link, NEW_LINK } from "./link.ts";
import { decodeNeighbour, DELETE_NEIGHBOUR, type ForwardingEntry, type Neighbour, NEW_NEIGHBOUR } from "./neigh.ts";
import { decodeRoute, DELETE_ROUTE, NEW_ROUTE, type Route } from "./route.ts";
import { decodeRule, DELETE_RULE, NEW_RULE, type Rule } from "./rule.ts";

/** What the kernel says of its own accord. `new` is also said of what was there and changed. */
export interface Notification {
  readonly change: "new" | "deleted";
  readonly item: NotifiedItem;
}

export type NotifiedItem =
  | { readonly kind: "link"; readonly link: Link }
  | { readonly kind: "address"; readonly address: LinkAddress }
  | { readonly kind: "route"; readonly route: Route }
  | { readonly kind: "neighbour"; readonly neighbour: Neighbour }
  | { readonly kind: "forwarding"; readonly entry: ForwardingEntry }
  | { readonly kind: "rule"; readonly rule: Rule };

interface Row {
  readonly change: "new" | "deleted";
  readonly decode: (message: Message) => NotifiedItem | undefined;
}

const link = (message: Message): NotifiedItem | undefined => {
  const decoded = decodeLink(message);
  return decoded && { kind: "link", link: decoded };
};
const address = (message: Message): NotifiedItem | undefined => {
  const decoded = decodeAddress(message);
  return decoded && { kind: "address", address: decoded };
};
const route = (message: Message): NotifiedItem | undefined => {
  const decoded = decodeRoute(message);
  return decoded && { kind: "route", route: decoded };
};
const neighbour = (message: Message): NotifiedItem | undefined => {
  const decoded = decodeNeighbour(message);
  if (decoded === undefined) return undefined;
  return "address" in decoded ? { kind: "neighbour", neighbour: decoded } : { kind: "forwarding", entry: decoded };
};
const rule = (message: Message): NotifiedItem | undefined => {
  const decoded = decodeRule(message);
  return decoded && { kind: "rule", rule: decoded };
};

const ROWS: Readonly<Record<number, Row>> = {
  [NEW_LINK]: { change: "new", decode: link },
  [DELETE_LINK]: { change: "deleted", decode: link },
  [NEW_ADDRESS]: { change: "new", decode: address },
  [DELETE_ADDRESS]: { change: "deleted", decode: address },
  [NEW_ROUTE]: { change: "new", decode: route },
  [DELETE_ROUTE]: { change: "deleted", decode: route },
  [NEW_NEIGHBOUR]: { change: "new", decode: neighbour },
  [DELETE_NEIGHBOUR]: { change: "deleted", decode: neighbour },
  [NEW_RULE]: { change: "new", decode: rule },
  [DELETE_RULE]: { change: "deleted", decode: rule },
};

/** Undefined for messages of other types and families. */
export function decodeNotification(message: Message): Notification | undefined {
  const row = ROWS[message.type];
  const item = row?.decode(message);
  return row && item && { change: row.change, item };
}
