import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { CNI_CODES, CniError } from "./error.ts";
import { CONFIG, ENVIRONMENT, requestBytes } from "./node.testing.ts";
import { CNI_VERSIONS, parseConfigRoutes, parseRequest, splitRequest, type CniRequest } from "./request.ts";

type Variables = Readonly<Record<string, string | undefined>>;
type Config = Readonly<Record<string, unknown>> | string;

function read(environment: Variables = {}, config: Config = {}): CniRequest {
  const split = splitRequest(requestBytes(environment, config));
  return parseRequest(split.environment, split.stdin);
}

/** The number that the specification gives the error, and its sentence. */
const refusal = (code: number, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof CniError, String(error));
  assert.match(error.message, message);
  assert.equal(CNI_CODES[error.code], code);
  return true;
};

describe("the environment", () => {
  const malformed: { name: string; environment: Variables; code: number; message: RegExp }[] = [
    {
      name: "no command",
      environment: { CNI_COMMAND: undefined },
      code: 4,
      message: /CNI_COMMAND is "", not one of ADD/,
    },
    { name: "unknown command", environment: { CNI_COMMAND: "add" }, code: 4, message: /CNI_COMMAND is "add"/ },
    { name: "no container", environment: { CNI_CONTAINERID: undefined }, code: 4, message: /CNI_CONTAINERID ""/ },
    { name: "a path as container", environment: { CNI_CONTAINERID: "../etc" }, code: 4, message: /CNI_CONTAINERID/ },
    { name: "a dot before", environment: { CNI_CONTAINERID: ".abc" }, code: 4, message: /CNI_CONTAINERID ".abc"/ },
    { name: "a line end", environment: { CNI_CONTAINERID: "abc\n" }, code: 4, message: /CNI_CONTAINERID/ },
    { name: "no interface", environment: { CNI_IFNAME: "" }, code: 4, message: /CNI_IFNAME ""/ },
    { name: "sixteen characters", environment: { CNI_IFNAME: "e".repeat(16) }, code: 4, message: /1 to 15/ },
    { name: "the folder itself", environment: { CNI_IFNAME: "." }, code: 4, message: /CNI_IFNAME "\."/ },
    { name: "the folder above", environment: { CNI_IFNAME: ".." }, code: 4, message: /CNI_IFNAME "\.\."/ },
    { name: "a slash", environment: { CNI_IFNAME: "eth/0" }, code: 4, message: /CNI_IFNAME "eth\/0"/ },
    { name: "a colon", environment: { CNI_IFNAME: "eth0:1" }, code: 4, message: /CNI_IFNAME/ },
    { name: "a space", environment: { CNI_IFNAME: "eth 0" }, code: 4, message: /CNI_IFNAME/ },
    {
      name: "ADD without a namespace",
      environment: { CNI_NETNS: "" },
      code: 4,
      message: /CNI_NETNS is required at ADD/,
    },
    {
      name: "CHECK without a namespace",
      environment: { CNI_COMMAND: "CHECK", CNI_NETNS: undefined },
      code: 4,
      message: /CNI_NETNS is required at CHECK/,
    },
    {
      name: "a pod without its namespace",
      environment: { CNI_ARGS: "K8S_POD_NAME=web" },
      code: 4,
      message: /CNI_ARGS/,
    },
    {
      name: "a namespace without a pod",
      environment: { CNI_ARGS: "K8S_POD_NAMESPACE=default;K8S_POD_NAME=" },
      code: 4,
      message: /CNI_ARGS names only one/,
    },
  ];
  for (const { name, environment, code, message } of malformed) {
    test(`is refused: ${name}`, () => assert.throws(() => read(environment), refusal(code, message)));
  }

  test("names the pod, in whatever order containerd's CNI_ARGS come", () => {
    const parts = ENVIRONMENT["CNI_ARGS"]!.split(";");
    fc.assert(
      fc.property(fc.shuffledSubarray(parts, { minLength: parts.length }), (shuffled) => {
        assert.deepEqual(read({ CNI_ARGS: shuffled.join(";") }).workload, {
          orchestrator: "k8s",
          namespace: "default",
          pod: "web",
          uid: "uid-1",
        });
      }),
    );
  });

  test("of a bare container has no pod", () => {
    for (const args of [undefined, "", "IgnoreUnknown=1", "K8S_POD_NAMESPACE=;K8S_POD_NAME="]) {
      assert.deepEqual(read({ CNI_ARGS: args }).workload, { orchestrator: "cni" });
    }
  });

  test("may lack the uid, and hold values with an equals sign", () => {
    assert.deepEqual(read({ CNI_ARGS: "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;X=1=2" }).workload, {
      orchestrator: "k8s",
      namespace: "a",
      pod: "b",
    });
  });

  test("of a DEL may have an empty namespace; GC and STATUS need no container", () => {
    assert.equal(read({ CNI_COMMAND: "DEL", CNI_NETNS: "" }).netns, "");
    assert.equal(read({ CNI_COMMAND: "DEL", CNI_NETNS: undefined }).netns, "");
    for (const command of ["GC", "STATUS"]) {
      const bare = { CNI_COMMAND: command, CNI_CONTAINERID: undefined, CNI_IFNAME: undefined, CNI_NETNS: undefined };
      assert.equal(read(bare, { cniVersion: "1.1.0" }).command, command);
    }
  });

  test("is kept whole for a delegate, with the folders of CNI_PATH", () => {
    const request = read();
    assert.deepEqual(request.environment, ENVIRONMENT);
    assert.deepEqual(request.path, ["/opt/cni/bin", "/usr/lib/cni"]);
    assert.deepEqual(read({ CNI_PATH: undefined }).path, []);
  });
});

describe("the configuration", () => {
  const malformed: { name: string; config: Config; code: number; message: RegExp }[] = [
    { name: "no JSON", config: "{", code: 6, message: /not JSON/ },
    { name: "nothing", config: "", code: 6, message: /not JSON/ },
    { name: "a list", config: "[]", code: 6, message: /not a JSON object/ },
    { name: "null", config: "null", code: 6, message: /not a JSON object/ },
    {
      name: "no version",
      config: { cniVersion: undefined },
      code: 1,
      message: /cniVersion undefined is not supported/,
    },
    { name: "too old", config: { cniVersion: "0.2.0" }, code: 1, message: /cniVersion "0.2.0" is not supported/ },
    { name: "too new", config: { cniVersion: "2.0.0" }, code: 1, message: /cniVersion "2.0.0" is not supported/ },
    { name: "a number as version", config: { cniVersion: 1 }, code: 1, message: /cniVersion 1 is not supported/ },
    { name: "no name", config: { name: undefined }, code: 7, message: /: name: "" is not a network name/ },
    { name: "a path as name", config: { name: "a/b" }, code: 7, message: /: name: "a\/b" is not a network name/ },
    { name: "a number as name", config: { name: 7 }, code: 7, message: /: name: expected a string, found 7/ },
    { name: "ipam is text", config: { ipam: "x" }, code: 7, message: /: ipam: expected an object, found "x"/ },
    {
      name: "another ipam",
      config: { ipam: { type: "dhcp" } },
      code: 7,
      message: /: ipam.type: "dhcp" is not supported/,
    },
    { name: "mtu is text", config: { mtu: "1500" }, code: 7, message: /: mtu: expected a whole number, found "1500"/ },
    { name: "mtu too small", config: { mtu: 67 }, code: 7, message: /: mtu: 67 is not 0 or 68 to 65535/ },
    { name: "mtu too large", config: { mtu: 65536 }, code: 7, message: /: mtu: 65536/ },
    { name: "mtu broken", config: { mtu: 1500.5 }, code: 7, message: /: mtu: expected a whole number/ },
    {
      name: "pools are text",
      config: { ipam: { ipv4_pools: "a" } },
      code: 7,
      message: /: ipam.ipv4_pools: expected a list of strings, found "a"/,
    },
    {
      name: "a pool is a number",
      config: { ipam: { ipv6_pools: ["a", 1] } },
      code: 7,
      message: /: ipam.ipv6_pools: expected a list of strings/,
    },
    {
      name: "assign_ipv4 is yes",
      config: { ipam: { assign_ipv4: "yes" } },
      code: 7,
      message: /: ipam.assign_ipv4: expected true or false, found "yes"/,
    },
    {
      name: "forwarding is a number",
      config: { container_settings: { allow_ip_forwarding: 1 } },
      code: 7,
      message: /: container_settings.allow_ip_forwarding: expected true or false, found 1/,
    },
    {
      name: "default routes are text",
      config: { include_default_routes: "maybe" },
      code: 7,
      message: /: include_default_routes: expected true or false/,
    },
    { name: "prevResult is a list", config: { prevResult: [] }, code: 7, message: /: prevResult: expected an object/ },
    {
      name: "attachments are no list",
      config: { "cni.dev/valid-attachments": {} },
      code: 7,
      message: /: cni.dev\/valid-attachments: expected a list/,
    },
    {
      name: "an attachment without interface",
      config: { "cni.dev/valid-attachments": [{ containerID: "a", ifname: "eth0" }, { containerID: "b" }] },
      code: 7,
      message: /: cni.dev\/valid-attachments\[1\]: expected containerID and ifname/,
    },
  ];
  for (const { name, config, code, message } of malformed) {
    test(`is refused: ${name}`, () => assert.throws(() => read({}, config), refusal(code, message)));
  }

  for (const cniVersion of CNI_VERSIONS) {
    test(`speaks ${cniVersion}, with the commands that it has`, () => {
      const since = { ADD: 0, DEL: 0, VERSION: 0, CHECK: 1, GC: 3, STATUS: 3 };
      for (const [command, first] of Object.entries(since)) {
        const attempt = () => read({ CNI_COMMAND: command }, { cniVersion });
        if (CNI_VERSIONS.indexOf(cniVersion) >= first) assert.equal(attempt().config.cniVersion, cniVersion);
        else assert.throws(attempt, refusal(1, new RegExp(`${command} needs cniVersion .*says ${cniVersion}`)));
      }
    });
  }

  test("of VERSION may say anything, or nothing", () => {
    for (const config of ["", " \n", "{}", '{"cniVersion":"9.9.9"}']) {
      assert.equal(read({ CNI_COMMAND: "VERSION" }, config).config.cniVersion, "1.0.0");
    }
    assert.equal(read({ CNI_COMMAND: "VERSION" }, '{"cniVersion":"0.4.0"}').config.cniVersion, "0.4.0");
    assert.throws(() => read({ CNI_COMMAND: "VERSION" }, "{"), refusal(6, /not JSON/));
  });

  test("is read with Calico's keys; flags may be text", () => {
    const raw = {
      ...CONFIG,
      mtu: 1400,
      ipam: { type: "calico-ipam", assign_ipv4: "true", assign_ipv6: "false", ipv4_pools: ["a", "10.0.0.0/8"] },
      container_settings: { allow_ip_forwarding: true },
      include_default_routes: "true",
      prevResult: { ips: [] },
      "cni.dev/valid-attachments": [{ containerID: "a", ifname: "eth0" }],
    };
    assert.deepEqual(read({}, raw).config, {
      cniVersion: "1.0.0",
      name: "k8s-pod-network",
      ipamType: "calico-ipam",
      ipam: raw.ipam,
      ipv4Pools: ["a", "10.0.0.0/8"],
      assignIpv4: true,
      assignIpv6: false,
      mtu: 1400,
      allowIpForwarding: true,
      includeDefaultRoutes: true,
      prevResult: { ips: [] },
      validAttachments: [{ containerId: "a", interfaceName: "eth0" }],
      raw,
    });
  });

  test("needs little: null and 0 count as absent", () => {
    const raw = { ...CONFIG, ipam: null, mtu: 0, prevResult: null, container_settings: null };
    assert.deepEqual(read({}, raw).config, {
      cniVersion: "1.0.0",
      name: "k8s-pod-network",
      ipamType: "calico-ipam",
      ipam: {},
      allowIpForwarding: false,
      includeDefaultRoutes: false,
      raw,
    });
  });
});

describe("routes of an IPAM result", () => {
  test("are destination and gateway", () => {
    assert.deepEqual(parseConfigRoutes([{ dst: "0.0.0.0/0", gw: "10.0.0.1" }, { dst: "fd00::/8" }], "routes"), [
      { destination: { address: { family: 4, value: 0n }, length: 0 }, gateway: { family: 4, value: 0x0a000001n } },
      { destination: { address: { family: 6, value: 0xfdn << 120n }, length: 8 } },
    ]);
    assert.deepEqual(parseConfigRoutes(undefined, "routes"), []);
    assert.deepEqual(parseConfigRoutes(null, "routes"), []);
  });
  const malformed: { routes: unknown; message: RegExp }[] = [
    { routes: {}, message: /: routes: expected a list of routes/ },
    { routes: [{ dst: "10.0.0.0/8" }, {}], message: /: routes\[1\]: dst is missing/ },
    { routes: [{ dst: "10.0.0.1/8" }], message: /: routes\[0\]: "10.0.0.1\/8" is not a CIDR/ },
    { routes: [{ dst: "10.0.0.0/8", gw: "x" }], message: /: routes\[0\]: "x" is not an IP address/ },
    { routes: ["10.0.0.0/8"], message: /: routes\[0\]: dst is missing/ },
  ];
  for (const { routes, message } of malformed) {
    test(`are refused: ${JSON.stringify(routes)}`, () => {
      assert.throws(() => parseConfigRoutes(routes, "routes"), refusal(7, message));
    });
  }
});

describe("what the shim sends", () => {
  const word = fc.string({ unit: "binary" }).filter((text) => !text.includes("\0"));
  const variables = fc.dictionary(fc.stringMatching(/^CNI_[A-Z]{1,8}$/), word);

  test("is split into environment and standard input, whatever they hold", () => {
    fc.assert(
      fc.property(variables, fc.string({ unit: "binary" }), (environment, stdin) => {
        const text = Object.entries(environment).map(([name, value]) => `${name}=${value}\0`);
        const split = splitRequest(new TextEncoder().encode(`${text.join("")}\0${stdin}`));
        assert.deepEqual({ ...split.environment }, { ...environment });
        assert.equal(split.stdin, stdin.replace(/^\uFEFF/, ""));
      }),
    );
  });

  test("is refused where it ends too soon", () => {
    for (const text of ["", "CNI_COMMAND=ADD", "CNI_COMMAND=ADD\0"]) {
      assert.throws(() => splitRequest(new TextEncoder().encode(text)), refusal(6, /ends within its environment/));
    }
    assert.deepEqual(splitRequest(new TextEncoder().encode("\0")), { environment: {}, stdin: "" });
  });
});
