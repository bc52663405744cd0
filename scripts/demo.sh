#!/bin/sh
# `npm run demo`: a cluster of three nodes on two segments with nine pods, shown and taken down again. `--keep` keeps it.
set -eu
here=$(dirname "$(readlink -f "$0")")
cd "$(dirname "$here")"
if [ "$(id -u)" != 0 ]; then
  echo "caracal: the demo makes network namespaces, which needs root: run it with sudo" >&2
  exit 1
fi
node=$(sh scripts/setup.sh node)
sh scripts/setup.sh packages ip:iproute2 ping:iputils-ping gcc:gcc
exec "$node" --disable-warning=ExperimentalWarning src/lab/demo.io.ts "$@"
