import { parseAddress } from "../ip/address.ts";
import { parseInterfaceAddress, parsePrefix } from "../ip/prefix.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { inside, temporaryNamespace } from "../netlink/namespace.testing.ts";
import { openRtnetlink, type Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { NODE_SYSCTLS } from "./endpoint.ts";
import { writeSysctls } from "./podInterfaces.io.ts";

/** A node in a namespace of its own, on a network of which it is the only member. */
export interface TestNode {
  readonly name: string;
  readonly path: string;
  readonly rtnetlink: Rtnetlink;
  /** Index of `br0`, which has 192.0.2.7/26 and 2001:db8::7/64. */
  readonly br0: number;
  /** What `ip ARGUMENTS` prints there. */
  ip(...args: string[]): string;
  [Symbol.dispose](): void;
}

/** It forwards, and has a default route, without which no kernel answers ARP for others. */
export function testNode(): TestNode {
  const { name, path, [Symbol.dispose]: end } = temporaryNamespace();
  const rtnetlink = openRtnetlink(path);
  inNamespace(path, () => writeSysctls(NODE_SYSCTLS));
  const br0 = rtnetlink.addLink({ kind: "bridge", name: "br0", up: true }).index;
  for (const text of ["192.0.2.7/26", "2001:db8::7/64"]) {
    const address = parseInterfaceAddress(text);
    rtnetlink.addAddress({ device: br0, address, noDuplicateDetection: address.address.family === 6 });
  }
  for (const [destination, gateway] of [
    ["0.0.0.0/0", "192.0.2.1"],
    ["::/0", "2001:db8::1"],
  ] as const) {
    const nextHops = [{ device: br0, gateway: parseAddress(gateway) }];
    rtnetlink.addRoute({ destination: parsePrefix(destination), protocol: 4, nextHops });
  }
  return {
    name,
    path,
    rtnetlink,
    br0,
    ip: (...args) => inside(name, "ip", ...args),
    [Symbol.dispose]() {
      rtnetlink.close();
      end();
    },
  };
}
