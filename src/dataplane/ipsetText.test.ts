import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { memberFamily } from "../policy/sets.ts";
import { createLine, ipsetMembers, parseIpsetSave } from "./ipsetText.ts";
import { isOurSet } from "./iptablesNames.ts";

describe("address sets in the words of ipset", () => {
  test("are made with room for their members", () => {
    assert.equal(
      createLine("cali40s:a", 4, { kind: "net", maxSize: 1024 }),
      "create cali40s:a hash:net family inet maxelem 1024",
    );
    assert.equal(
      createLine("cali60n:a", 6, { kind: "ip,port", maxSize: 2048 }),
      "create cali60n:a hash:ip,port family inet6 maxelem 2048",
    );
  });

  test("have members of one family, and everything as two halves", () => {
    const members = ["10.0.0.1", "0.0.0.0/0", "fd00::/8", "::/0", "10.0.0.1,tcp:80", "fd00::1,sctp:1"];
    assert.deepEqual([...ipsetMembers(4, members)], ["10.0.0.1", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.1,tcp:80"]);
    assert.deepEqual([...ipsetMembers(6, members)], ["fd00::/8", "::/1", "8000::/1", "fd00::1,sctp:1"]);
    assert.deepEqual(members.map(memberFamily), [4, 4, 6, 6, 4, 6]);
  });

  test("are read, those of others left out", () => {
    const save = `create cali60s:one hash:net family inet6 hashsize 1024 maxelem 1048576 bucketsize 12 initval 0x1
add cali60s:one fd00::1
add cali60s:one ::1.2.3.4
add cali60s:one ::ffff:10.0.0.0/104
create cali60n:one hash:ip,port family inet6 hashsize 1024 maxelem 65536
add cali60n:one ::1.2.3.4,tcp:80
create cali60x hash:ip family inet hashsize 1024 maxelem 65536
create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536
add KUBE-CLUSTER-IP 10.96.0.1,tcp:443
`;
    assert.deepEqual(
      [...parseIpsetSave(save, (name) => isOurSet(6, name))],
      [
        [
          "cali60s:one",
          {
            kind: "net",
            family: 6,
            maxSize: 1_048_576,
            members: new Set(["fd00::1", "::102:304", "::ffff:10.0.0.0/104"]),
          },
        ],
        ["cali60n:one", { kind: "ip,port", family: 6, maxSize: 65_536, members: new Set(["::102:304,tcp:80"]) }],
        ["cali60x", { kind: undefined, family: 4, maxSize: 65_536, members: new Set() }],
      ],
    );
  });
});
