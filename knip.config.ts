export default {
  entry: ["src/cli/main.ts", "src/lab/demo.io.ts", "src/**/*.test.ts", "bench/*.ts"],
  project: ["src/**/*.ts", "bench/**/*.ts"],
  // The linter needs the one beside it for its rules about types; scripts/check.sh starts the linter by its path.
  ignoreDependencies: ["oxlint", "oxlint-tsgolint"],
  // What scripts/setup.sh installs from Debian.
  ignoreBinaries: ["bgpdump", "etcd", "etcdctl", "gcc", "ip", "ping", "tcpdump"],
  ignoreExportsUsedInFile: true,
};
