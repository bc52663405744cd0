#!/bin/sh
# Every test. `pure` ones touch nothing outside their process and share one; `root` ones (*.root.test.ts) build network
# namespaces and run one file at a time, each in a process of its own.
set -eu
here=$(dirname "$(readlink -f "$0")")
cd "$(dirname "$here")"
node=$(sh scripts/setup.sh node)
what=${1:-all}
[ $# -gt 0 ] && shift
run="$node --disable-warning=ExperimentalWarning --test --test-reporter=${CARACAL_TEST_REPORTER:-dot}"

# In two processes, which share the files: one for each of the two processors that the smallest machine has.
pure() {
  files=$(find src -name '*.test.ts' ! -name '*.root.test.ts' | sort)
  other=$(mktemp)
  # shellcheck disable=SC2046
  $run --test-isolation=none --test-timeout=60000 "$@" $(echo "$files" | awk 'NR % 2 == 0') >"$other" 2>&1 &
  pid=$!
  failed=0
  # shellcheck disable=SC2046
  $run --test-isolation=none --test-timeout=60000 "$@" $(echo "$files" | awk 'NR % 2 == 1') || failed=1
  wait "$pid" || failed=1
  cat "$other"
  rm -f "$other"
  return "$failed"
}
root() {
  if [ "$(id -u)" != 0 ]; then
    echo "caracal: the tests of the kernel need root: run them with sudo (npm run test:pure runs the others)" >&2
    exit 1
  fi
  sh scripts/setup.sh packages ip:iproute2 ping:iputils-ping sysctl:procps gcc:gcc nft:nftables \
    iptables:iptables ipset:ipset etcd:etcd-server etcdctl:etcd-client tcpdump:tcpdump \
    /usr/lib/cni/bridge:containernetworking-plugins \
    bird:bird2 /usr/lib/frr/bgpd:frr gobgpd:gobgpd bgpctl:openbgpd exabgp:exabgp bgpdump:bgpdump
  # shellcheck disable=SC2046
  $run --test-concurrency=1 --test-timeout=300000 "$@" $(find src -name '*.root.test.ts' | sort)
}
case "$what" in
  pure) pure "$@" ;;
  root) root "$@" ;;
  all) sh scripts/check.sh && pure && root ;;
  *) echo "usage: test.sh pure|root|all" >&2; exit 2 ;;
esac
