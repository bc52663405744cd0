import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  checkLabName,
  labFiles,
  labsDirectory,
  memberNamespace,
  namespacePrefix,
  nodeFiles,
  podNamespace,
} from "./files.ts";

const word = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?$/);
const podWord = fc.stringMatching(/^[a-z0-9]([a-z0-9.-]{0,6}[a-z0-9])?$/);

test("everything of a lab lies in its folder", () => {
  const { directory, ...files } = labFiles("mine");
  assert.equal(directory, `${labsDirectory()}/mine`);
  for (const path of [...Object.values(files), ...Object.values(nodeFiles("mine", "node1"))]) {
    assert.ok(path.startsWith(`${directory}/`), path);
  }
  const paths = [...Object.values(files), ...["a", "b"].flatMap((node) => Object.values(nodeFiles("mine", node)))];
  assert.equal(new Set(paths).size, paths.length);
});

test("unix sockets' paths fit into sun_path, with the longest names that labs and nodes may have", () => {
  const lab = checkLabName("l".repeat(24));
  const files = labFiles(lab);
  const { runDirectory } = nodeFiles(lab, "n".repeat(40));
  for (const path of [files.apiSocket, files.keeperSocket, `${runDirectory}/agent.sock`, `${runDirectory}/cni.sock`]) {
    assert.ok(path.length <= 107, `${path} has ${path.length} bytes`);
  }
});

test("no lab's namespaces are another's, and no pod's is a member's", () => {
  fc.assert(
    fc.property(word, word, word, word, podWord, (lab, other, member, namespace, pod) => {
      const own = [memberNamespace(lab, member), podNamespace(lab, namespace, pod)];
      for (const path of own) {
        assert.ok(path.startsWith(`/run/netns/${namespacePrefix(lab)}`));
        assert.equal(path.startsWith(`/run/netns/${namespacePrefix(other)}`), lab === other);
      }
      assert.notEqual(own[0], own[1]);
    }),
  );
});
