import { testRefusals } from "./malformed.testing.ts";

testRefusals([
  [
    "IPPool",
    { spec: { cidr: "10.0.0.0", blockSzie: 26 } },
    'spec.cidr: "10.0.0.0" is not a CIDR: expected an address, "/" and a length',
    'spec.blockSzie: unknown field, did you mean "blockSize"?',
  ],
  ["IPPool", { spec: { cidr: "10.0.0.0/33" } }, 'spec.cidr: "10.0.0.0/33" is not a CIDR: the length must be 0 to 32'],
  ["IPPool", { spec: { cidr: "169.254.0.0/20" } }, "spec.cidr: overlaps the link-local range 169.254.0.0/16"],
  ["IPPool", { spec: { cidr: "fe00::/8" } }, "spec.cidr: overlaps the link-local range fe80::/10"],
  [
    "IPPool",
    { spec: { cidr: "10.0.0.0/16", blockSize: 19 } },
    "spec.blockSize: 19 is not 20 to 32, as it must be for IPv4",
  ],
  [
    "IPPool",
    { spec: { cidr: "fd00::/64", blockSize: 26 } },
    "spec.blockSize: 26 is not 116 to 128, as it must be for IPv6",
  ],
  ["IPPool", { spec: { cidr: "10.0.0.0/27" } }, "spec.cidr: a pool of /27 is smaller than one block of /26"],
  [
    "IPPool",
    { spec: { cidr: "10.0.0.0/16", ipipMode: "Always", vxlanMode: "CrossSubnet" } },
    "spec.vxlanMode: must be Never, because ipipMode is on: a pool has one encapsulation",
  ],
  ["IPPool", { spec: { cidr: "fd00::/64", ipipMode: "Always" } }, "spec.ipipMode: IPIP carries IPv4 only"],
  [
    "IPPool",
    { spec: { cidr: "10.0.0.0/16", ipipMode: "always" } },
    'spec.ipipMode: "always" is not Never, Always or CrossSubnet, did you mean "Always"?',
  ],
  [
    "IPPool",
    { spec: { cidr: "10.0.0.0/16", nodeSelector: "rack == 0" } },
    "spec.nodeSelector: expected a value in quotes after ==, at character 9",
  ],
  [
    "IPPool",
    { spec: { cidr: "10.0.0.0/16", nodeSelector: "global()" } },
    "spec.nodeSelector: global() may stand only in the namespaceSelector of a rule's source or destination",
  ],
  [
    "IPPool",
    {
      spec: {
        cidr: "10.0.0.0/16",
        allowedUses: ["LoadBalancer", "Tunnel"],
        nodeSelector: "has(a)",
        ipipMode: "Always",
      },
    },
    "spec.allowedUses: LoadBalancer cannot be combined",
    "spec.ipipMode: must be Never for a pool of load balancer addresses",
    "spec.nodeSelector: must be all() for a pool of load balancer addresses",
  ],
  [
    "IPPool",
    { spec: { cidr: "10.0.0.0/16", natOutgoing: "yes" } },
    'spec.natOutgoing: expected true or false, not the text "yes"',
  ],
]);
