#!/bin/sh
# Every benchmark, into bench/results.md; `npm run bench -- cni pods` runs and prints just these parts.
set -eu
here=$(dirname "$(readlink -f "$0")")
cd "$(dirname "$here")"
node=$(sh scripts/setup.sh node)
if [ "$(id -u)" != 0 ]; then
  echo "caracal: benchmarks build network namespaces and need root: run them with sudo" >&2
  exit 1
fi
sh scripts/setup.sh packages ip:iproute2 gcc:gcc /usr/lib/cni/ptp:containernetworking-plugins
exec "$node" --disable-warning=ExperimentalWarning bench/main.ts "$@"
