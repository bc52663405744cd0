import type { Family } from "../ip/address.ts";
import type { ByteReader, ByteWriter } from "../lib/bytes.ts";
import { AFI, familyOf, SAFI_UNICAST } from "./constants.ts";

/** RFC 4724 section 3. */
export interface GracefulRestart {
  /** R: the sender has just restarted, so nobody should wait for its End-of-RIB. */
  readonly restarting: boolean;
  /** N (RFC 8538): a NOTIFICATION does not end graceful restart. */
  readonly notification: boolean;
  /** Seconds, at most 4095. */
  readonly restartTime: number;
  /** With F set: the sender kept forwarding for this family across its restart. */
  readonly families: readonly { readonly family: Family; readonly forwardingPreserved: boolean }[];
}

/** RFC 7911 section 4. */
export interface AddPath {
  readonly family: Family;
  readonly receive: boolean;
  readonly send: boolean;
}

/** What an OPEN offers (RFC 5492). Families that we do not speak leave no trace. */
export interface Capabilities {
  /** RFC 4760. Undefined where the peer named none at all, which means IPv4 unicast. */
  readonly families?: readonly Family[];
  /** RFC 2918. */
  readonly routeRefresh?: boolean;
  /** RFC 8950: IPv4 routes may have IPv6 next hops. */
  readonly extendedNextHop?: boolean;
  /** RFC 8654. */
  readonly extendedMessage?: boolean;
  readonly gracefulRestart?: GracefulRestart;
  /** RFC 6793: the sender's AS in four octets. */
  readonly asn?: number;
  readonly addPath?: readonly AddPath[];
  /** RFC 7313. */
  readonly enhancedRouteRefresh?: boolean;
}

type Draft = { -readonly [Name in keyof Capabilities]: Capabilities[Name] };

interface CapabilityCodec {
  readonly code: number;
  readonly name: string;
  /** Reads one capability's value into the draft. Capabilities may stand several times (RFC 5492 section 4). */
  decode(reader: ByteReader, draft: Draft): void;
  /** The values to send, one capability each. */
  encode(capabilities: Capabilities): ((writer: ByteWriter) => void)[];
}

const empty = (): void => undefined;

function flag(
  code: number,
  name: string,
  field: "routeRefresh" | "extendedMessage" | "enhancedRouteRefresh",
): CapabilityCodec {
  return {
    code,
    name,
    decode(_, draft) {
      draft[field] = true;
    },
    encode: (capabilities) => (capabilities[field] === true ? [empty] : []),
  };
}

const multiprotocol: CapabilityCodec = {
  code: 1,
  name: "multiprotocol",
  decode(reader, draft) {
    const afi = reader.u16("multiprotocol AFI");
    reader.skip(1, "multiprotocol reserved");
    const family = familyOf(afi, reader.u8("multiprotocol SAFI"));
    draft.families ??= [];
    if (family !== undefined && !draft.families.includes(family)) draft.families = [...draft.families, family];
  },
  encode: ({ families = [] }) =>
    families.map((family) => (writer) => {
      writer.u16(AFI[family]);
      writer.u8(0);
      writer.u8(SAFI_UNICAST);
    }),
};

/** RFC 8950 section 4: AFI and SAFI of routes, and the AFI of their next hops. Of all of them, one matters to us. */
const extendedNextHop: CapabilityCodec = {
  code: 5,
  name: "extended next hop encoding",
  decode(reader, draft) {
    while (reader.remaining > 0) {
      const routes = reader.u16("extended next hop AFI");
      const safi = reader.u16("extended next hop SAFI");
      const nextHops = reader.u16("extended next hop AFI of next hops");
      if (familyOf(routes, safi) === 4 && nextHops === AFI[6]) draft.extendedNextHop = true;
    }
  },
  encode(capabilities) {
    if (capabilities.extendedNextHop !== true) return [];
    return [
      (writer) => {
        writer.u16(AFI[4]);
        writer.u16(SAFI_UNICAST);
        writer.u16(AFI[6]);
      },
    ];
  },
};

const RESTARTING = 0x8;
const NOTIFICATION = 0x4;
const FORWARDING_PRESERVED = 0x80;

//  0 1 2 3 4                      15
// +-+-+-----+-----------------------+
// |R|N| res.| restart time, seconds |   then AFI (2), SAFI (1), flags (1) for each family
// +-+-+-----+-----------------------+
const gracefulRestart: CapabilityCodec = {
  code: 64,
  name: "graceful restart",
  decode(reader, draft) {
    const head = reader.u16("graceful restart flags and time");
    const families: { family: Family; forwardingPreserved: boolean }[] = [];
    while (reader.remaining > 0) {
      const family = familyOf(reader.u16("graceful restart AFI"), reader.u8("graceful restart SAFI"));
      const flags = reader.u8("graceful restart family flags");
      if (family === undefined) continue;
      families.push({ family, forwardingPreserved: (flags & FORWARDING_PRESERVED) !== 0 });
    }
    // RFC 4724 section 3: of several, the last one counts.
    draft.gracefulRestart = {
      restarting: ((head >> 12) & RESTARTING) !== 0,
      notification: ((head >> 12) & NOTIFICATION) !== 0,
      restartTime: head & 0xfff,
      families,
    };
  },
  encode({ gracefulRestart: restart }) {
    if (restart === undefined) return [];
    return [
      (writer) => {
        const flags = (restart.restarting ? RESTARTING : 0) | (restart.notification ? NOTIFICATION : 0);
        writer.u16((flags << 12) | Math.min(restart.restartTime, 0xfff));
        for (const { family, forwardingPreserved } of restart.families) {
          writer.u16(AFI[family]);
          writer.u8(SAFI_UNICAST);
          writer.u8(forwardingPreserved ? FORWARDING_PRESERVED : 0);
        }
      },
    ];
  },
};

const fourOctetAs: CapabilityCodec = {
  code: 65,
  name: "four-octet AS",
  decode(reader, draft) {
    draft.asn = reader.u32("four-octet AS number");
  },
  encode: ({ asn }) => (asn === undefined ? [] : [(writer) => writer.u32(asn)]),
};

const ADD_PATH_RECEIVE = 1;
const ADD_PATH_SEND = 2;

const addPath: CapabilityCodec = {
  code: 69,
  name: "add-path",
  decode(reader, draft) {
    const entries: AddPath[] = [];
    while (reader.remaining > 0) {
      const family = familyOf(reader.u16("add-path AFI"), reader.u8("add-path SAFI"));
      const mode = reader.u8("add-path send/receive");
      // RFC 7911 section 4: any other value makes the tuple ignored.
      if (family === undefined || mode < 1 || mode > 3) continue;
      entries.push({ family, receive: (mode & ADD_PATH_RECEIVE) !== 0, send: (mode & ADD_PATH_SEND) !== 0 });
    }
    draft.addPath = entries;
  },
  encode({ addPath: entries = [] }) {
    if (entries.length === 0) return [];
    return [
      (writer) => {
        for (const { family, receive, send } of entries) {
          writer.u16(AFI[family]);
          writer.u8(SAFI_UNICAST);
          writer.u8((receive ? ADD_PATH_RECEIVE : 0) | (send ? ADD_PATH_SEND : 0));
        }
      },
    ];
  },
};

/** One row per capability we understand, in the ascending order of code in which they are sent. */
const CAPABILITIES: readonly CapabilityCodec[] = [
  multiprotocol,
  flag(2, "route refresh", "routeRefresh"),
  extendedNextHop,
  flag(6, "extended message", "extendedMessage"),
  gracefulRestart,
  fourOctetAs,
  addPath,
  flag(70, "enhanced route refresh", "enhancedRouteRefresh"),
];

/** Reads the capabilities of one optional parameter into the draft; what we do not know is passed over (RFC 5492). */
export function decodeCapabilities(reader: ByteReader, draft: Draft): void {
  while (reader.remaining > 0) {
    const code = reader.u8("capability code");
    const row = CAPABILITIES.find((codec) => codec.code === code);
    const value = reader.sub(reader.u8("capability length"), row?.name ?? `capability ${code}`);
    row?.decode(value, draft);
  }
}

export function encodeCapabilities(writer: ByteWriter, capabilities: Capabilities): void {
  for (const row of CAPABILITIES) {
    for (const value of row.encode(capabilities)) {
      writer.u8(row.code);
      const length = writer.reserve(1);
      value(writer);
      writer.patchU8(length, writer.length - length - 1);
    }
  }
}
