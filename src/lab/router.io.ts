import { createSpeaker } from "../bgp/speaker.io.ts";
import { createLearnedRoutes } from "../dataplane/learnedRoutes.io.ts";
import { createRouteTable } from "../dataplane/routeTable.io.ts";
import { formatAddress, type Address } from "../ip/address.ts";
import { prefixContains } from "../ip/prefix.ts";
import { openRtnetlink } from "../netlink/rtnetlink.io.ts";
import { membersOf, type LabDefinition } from "./definition.ts";

/** The segments' router, as a BGP speaker in the router's namespace. */

export const AS_NUMBER = 64512;

/** The router is a BGP peer of every node, as a data centre's is: it learns the pods' routes, and says nothing itself. */
export async function runRouter(
  definition: LabDefinition,
  note: (message: string) => void,
): Promise<() => Promise<void>> {
  const rtnetlink = openRtnetlink();
  const routeTable = createRouteTable({
    rtnetlink,
    ownership: () => ({ workloadDevices: new Set(), removeExternalRoutes: false, bgp: true }),
    onChange: () => undefined,
    onProblem: ({ destination, reason }) => note(`router: ${destination}: ${reason}`),
  });
  routeTable.allowPrune("bgp");
  const learned = createLearnedRoutes(rtnetlink, routeTable);
  const [first] = definition.segments.flatMap(({ router }) => router ?? []);
  const speaker = await createSpeaker({
    asn: AS_NUMBER,
    routerId: first === undefined ? "192.0.2.1" : formatAddress(first),
    resolve: (nextHop) => deviceTowards(nextHop),
  });
  function deviceTowards(address: Address): { interface: string } | undefined {
    const index = definition.segments.findIndex((segment) =>
      [segment.subnet, segment.subnet6].some((subnet) => subnet !== undefined && prefixContains(subnet, address)),
    );
    return index < 0 ? undefined : { interface: `seg${index + 1}` };
  }
  speaker.on("routes", (changes) => learned.apply(changes));
  speaker.setOrigination([]); // that is all it has to say, and peers that restart wait to hear so
  speaker.setPeers(
    membersOf(definition, "node").flatMap((node) =>
      [node.address, node.address6].flatMap((address) => {
        if (address === undefined) return [];
        const text = formatAddress(address.address);
        const nothing = { rules: [], otherwise: "reject" as const };
        return [
          {
            name: `Node_${text.replaceAll(/[.:]/g, "_")}`,
            address: text,
            asn: node.asNumber ?? AS_NUMBER,
            passive: true,
            ...(node.address === undefined && { families: [6, 4] as const }),
            exportFilter: nothing,
            importFilter: { rules: [], otherwise: "accept" as const },
          },
        ];
      }),
    ),
  );
  return async () => {
    await speaker.abandon();
    rtnetlink.close();
  };
}
