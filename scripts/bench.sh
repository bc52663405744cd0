#!/bin/sh
# Benchmarks: `bench.sh PROGRAM [ARGUMENT…]` runs bench/PROGRAM.ts with the packages that it compares with. What each
# takes and writes stands at its head.
set -eu
here=$(dirname "$(readlink -f "$0")")
cd "$(dirname "$here")"
node=$(sh scripts/setup.sh node)
if [ "$(id -u)" != 0 ]; then
  echo "caracal: benchmarks build network namespaces and need root: run them with sudo" >&2
  exit 1
fi
program=$1
shift
case "$program" in
  main) packages="gcc:gcc /usr/lib/cni/ptp:containernetworking-plugins" ;;
  bgp) packages="bird:bird2 /usr/lib/frr/bgpd:frr gobgpd:gobgpd bgpctl:openbgpd" ;;
  policy) packages="gcc:gcc nft:nftables iptables:iptables ipset:ipset" ;;
  paths) packages="gcc:gcc nft:nftables ethtool:ethtool taskset:util-linux" ;;
  *) echo "caracal: there is no benchmark $program" >&2; exit 2 ;;
esac
# shellcheck disable=SC2086
sh scripts/setup.sh packages ip:iproute2 $packages
exec "$node" --disable-warning=ExperimentalWarning "bench/$program.ts" "$@"
