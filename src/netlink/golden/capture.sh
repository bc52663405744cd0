#!/bin/sh
# Writes the goldens beside it anew: the bytes that iproute2 and the kernel really exchange. Needs root and strace.
# Everything happens in network namespaces of its own.
#
#   $ the command, as it was run
#   > what it sent, without what looks up links by their names and what tries out the kernel
#   < what the kernel answered to a command that lists
#   # and what the command made of it
#
# Hex in words of 4 bytes. The sequence number and port of each datagram's first message are written as zero.
set -eu
cd "$(dirname "$(readlink -f "$0")")"

if [ "${1:-}" != inside ]; then
  peer=caracal-golden-$$
  trap 'ip netns del "$peer"' EXIT
  ip netns add "$peer"
  unshare -n sh "$0" inside "$peer"
  exit
fi
peer=$2

# hexdumps of strace to lines; $1: how each begins, $2: message types (second word of the header) to leave out
words() {
  awk -v mark="$1" -v skip="$2" '
    function flush() { if (line != "" && line !~ skip) print mark line; line = ""; count = 0 }
    / bytes in buffer / { flush() }
    / \| [0-9a-f]+  / {
      text = substr($0, 11, 48)
      n = split(text, byte, " ")
      for (i = 1; i <= n; i++) {
        at = count++
        if (at % 4 == 0) line = line " "
        line = line (at >= 8 && at < 16 ? "00" : byte[i])
      }
    }
    END { flush() }'
}

change() {
  echo "\$ $*"
  strace -qq -e trace=sendmsg,sendto -e write=all "$@" 2>&1 |
    words '>' '^ ........ 1200|^ 20000000 10000500 00000000 00000000 00000000 00000000'
}
# $1: the type of messages to keep
list() {
  type=$1
  shift
  echo "\$ $*"
  strace -qq -e trace=recvmsg -e read=all "$@" 2>&1 | words '<' '^$' | grep "^< ........ $type"
  "$@" | sed 's/^/# /; s/ *$//'
}

ip link set lo up
{
  change ip link add br0 address 66:00:00:00:00:01 type bridge mcast_snooping 0
  change ip link add cali0 address ee:ee:ee:ee:ee:ee mtu 1450 txqueuelen 100 type veth peer name eth0 address 02:00:00:00:00:02 mtu 1450 netns "$peer"
  change ip link add vxlan.calico address 66:00:00:00:00:02 type vxlan id 4096 local 192.0.2.7 dev br0 dstport 4789 nolearning
  change ip link add vxlan6 type vxlan id 4097 local 2001:db8::7 remote 2001:db8::9 dev br0 dstport 4789 noudpcsum
  change ip link set br0 up
  change ip link set cali0 up
  change ip link set cali0 master br0
  change ip link set cali0 nomaster
  change ip link set cali0 mtu 1400
  change ip link set vxlan6 name vxlan7
  change ip link set vxlan7 address 66:00:00:00:00:03
  change ip link set vxlan.calico up
  change ip link del vxlan7
} | sed "s/$peer/PEER/" >link.hex

{
  change ip addr add 192.0.2.7/26 dev br0
  change ip addr add 192.0.2.8/26 broadcast 192.0.2.63 dev br0 noprefixroute
  change ip addr add 198.51.100.1 peer 198.51.100.2/32 dev br0
  change ip addr add 127.0.0.2/8 scope host dev lo
  change ip addr add 2001:db8::7/64 dev br0 nodad
  change ip addr replace 192.0.2.7/26 dev br0
  change ip addr del 192.0.2.8/26 dev br0
} >addr.hex

{
  change ip route add 10.1.2.0/26 via 192.0.2.9
  change ip route add 10.1.3.0/26 via 192.0.2.9 dev br0 proto bird metric 50
  change ip route add 10.1.4.0/26 via 203.0.113.9 dev br0 onlink proto 80 mtu 1400
  change ip route add 10.1.5.1 dev cali0 scope link proto 80
  change ip route replace blackhole 10.1.6.0/26 proto 80
  change ip route add unreachable 10.1.7.0/26
  change ip route add prohibit 10.1.8.0/26 table 1000
  change ip route add 10.1.9.0/26 table 7 src 192.0.2.7 dev br0
  change ip route add 10.1.10.0/26 nexthop via 192.0.2.9 weight 1 nexthop via 192.0.2.10 dev br0 weight 3 onlink
  change ip route add 10.1.11.0/26 via inet6 2001:db8::9 dev br0
  change ip route add default via 192.0.2.1
  change ip route add local 10.1.12.1 dev lo table local
  change ip -6 route add 2001:db8:1::/64 via 2001:db8::9 dev br0 proto bird
  change ip -6 route add blackhole 2001:db8:2::/64 proto 80
  change ip -6 route add 2001:db8:3::/64 metric 7 nexthop via 2001:db8::9 nexthop via 2001:db8::a
  change ip route del 10.1.2.0/26
  change ip route del 10.1.3.0/26 via 192.0.2.9 proto bird metric 50
  list 18 ip route show table all
  list 18 ip -6 route show
} >route.hex

{
  change ip neigh add 10.1.9.0 lladdr 66:00:00:00:00:09 dev vxlan.calico nud permanent
  change ip neigh replace 10.1.9.1 lladdr 66:00:00:00:00:0a dev vxlan.calico nud reachable
  change ip neigh add proxy 2001:db8::99 dev cali0
  change ip neigh del 10.1.9.1 dev vxlan.calico
  change bridge fdb add 66:00:00:00:00:09 dev vxlan.calico dst 192.0.2.9 self permanent
  change bridge fdb append 00:00:00:00:00:00 dev vxlan.calico dst 192.0.2.10 self permanent
  change bridge fdb append 00:00:00:00:00:00 dev vxlan.calico dst 192.0.2.11 port 8472 self permanent
  change bridge fdb replace 66:00:00:00:00:09 dev vxlan.calico dst 192.0.2.12 self permanent
  ip link set cali0 master br0
  change bridge fdb add 66:00:00:00:00:0b dev cali0 master static
  change bridge fdb del 66:00:00:00:00:09 dev vxlan.calico self
  ip -6 neigh flush all >/dev/null
  list 1c ip -4 neigh show nud all
  list 1c bridge fdb show dev vxlan.calico
} >neigh.hex

{
  change ip rule add fwmark 0x10000/0x10000 priority 100 table 99
  change ip rule add from 10.1.0.0/16 to 10.2.0.0/16 priority 101 table 1000
  change ip rule add not iif br0 priority 102 blackhole
  change ip rule add oif br0 priority 103 table 99 suppress_prefixlength 0
  change ip -6 rule add from 2001:db8::/64 priority 104 table 99 protocol 80
  change ip rule del priority 103 table 99
  list 20 ip rule
  list 20 ip -6 rule
} >rule.hex

{
  list 10 ip -d link
  list 14 ip -4 addr
  list 14 ip -6 addr show dev br0
} | sed "s/$peer/PEER/" >list.hex
