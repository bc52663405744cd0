#!/bin/sh
# Writes the goldens of nf_tables beside it anew: the bytes that nft and the kernel really exchange, as capture.sh does
# for ip; and those of connections and of logged packets. Needs root, strace, nftables,
# conntrack, ping and tcpdump. Everything happens in network namespaces of its own.
#
#   $ what nft was told
#   > the transaction it sent
#   < what the kernel answered to `nft list ruleset`, all of its dumps
#   # and what nft made of that
#
# Hex in words of 4 bytes. Ports are written as zero; sequence numbers are nft's own, which begin at 0.
set -eu
cd "$(dirname "$(readlink -f "$0")")"

if [ "${1:-}" != inside ]; then
  unshare -n sh "$0" inside
  exit
fi

# hexdumps of strace to lines; $1: how each begins
words() {
  awk -v mark="$1" '
    function flush() { if (line != "") print mark line; line = ""; count = 0 }
    / bytes in buffer |^ \| 00000  / { flush() }
    / \| [0-9a-f]+  / {
      text = substr($0, 11, 48)
      n = split(text, byte, " ")
      for (i = 1; i <= n; i++) {
        at = count++
        if (at % 4 == 0) line = line " "
        line = line (at >= 12 && at < 16 ? "00" : byte[i])
      }
    }
    END { flush() }'
}

change() {
  echo "\$ $*"
  strace -qq -e trace=sendmsg -e write=all nft "$*" 2>&1 | words '>'
}
list() {
  echo "\$ list ruleset"
  strace -qq -e trace=recvmsg -e read=all nft list ruleset 2>&1 | words '<' | grep -E '^< ........ ..0a'
  nft list ruleset | sed 's/^/# /; s/ *$//'
}

{
  change add table ip calico
  change 'add table ip6 calico { comment "ours" ; }'
  change 'add table inet fw { flags dormant ; }'
  change 'add table arp calico-arp'
  change 'add chain ip calico filter-FORWARD { type filter hook forward priority filter ; policy drop ; }'
  change 'add chain ip calico nat-PREROUTING { type nat hook prerouting priority dstnat ; }'
  change 'add chain ip calico mangle-OUTPUT { type route hook output priority mangle ; comment "marks" ; }'
  change 'add chain arp calico-arp filter-OUTPUT { type filter hook output priority filter ; }'
  change 'add chain ip calico cali-fw-1'
  change 'add chain ip calico cali-tw-1 { comment "to pod" ; }'
  change 'add counter ip calico hits { packets 5 bytes 700 ; comment "seen" ; }'
  change 'add quota ip calico share { over 25 mbytes ; }'
  change 'add limit ip calico slow { rate 5/second burst 10 packets ; }'
  change 'add rule ip calico cali-fw-1 counter comment "cali:abcDEF_-0123456"'
  change 'insert rule ip calico cali-fw-1 accept'
  change 'add rule ip calico cali-fw-1 handle 9 drop'
  change 'insert rule ip calico cali-fw-1 handle 9 drop'
  list
  change 'replace rule ip calico cali-fw-1 handle 9 return'
  change 'delete rule ip calico cali-fw-1 handle 9'
  change 'flush chain ip calico cali-fw-1'
  change 'delete chain ip calico cali-fw-1'
  change 'delete counter ip calico hits'
  change 'flush table ip6 calico'
  change 'delete table ip6 calico'
} >nftTable.hex

nft flush ruleset
nft add table ip calico
nft add chain ip calico cali-fw
{
  change 'add set ip calico s { type ipv4_addr ; }'
  change 'add set ip calico sized { type ipv4_addr ; size 1048576 ; comment "members" ; }'
  change 'add set ip calico timed { type ipv4_addr ; flags dynamic,timeout ; timeout 90s ; }'
  change 'add set ip calico n { type ipv4_addr ; flags interval ; }'
  change 'add set ip calico n6 { type ipv6_addr ; flags interval ; }'
  change 'add set ip calico ports { type inet_service ; flags interval ; }'
  change 'add set ip calico pairs { type ipv4_addr . inet_proto . inet_service ; }'
  change 'add set ip calico c { type ipv4_addr . inet_proto . inet_service ; flags interval ; }'
  change 'add set ip calico names { type ifname ; flags interval ; }'
  change 'add set ip calico marks { type mark ; }'
  change 'add set ip calico counted { type ipv4_addr ; counter ; }'
  change 'add map ip calico dispatch { type ifname : verdict ; }'
  change 'add map ip calico nets { type ipv4_addr : verdict ; flags interval ; }'
  change 'add map ip calico fip { type ipv4_addr : ipv4_addr ; }'
  change 'add map ip calico publish { type inet_proto . inet_service : ipv4_addr . inet_service ; }'
  change 'add map ip calico tally { type ipv4_addr : counter ; }'
  nft add counter ip calico hits
  change 'add element ip calico s { 10.0.0.1, 10.0.0.2 }'
  change 'add element ip calico s { 10.0.0.3 comment "pod" }'
  change 'add element ip calico timed { 10.0.0.1 timeout 30s }'
  change 'add element ip calico n { 0.0.0.0/8, 10.0.0.0/8, 192.168.1.0-192.168.1.9, 198.51.100.1, 255.0.0.0/8 }'
  change 'add element ip calico n6 { ::/8, 2001:db8::/64, ff00::/8 }'
  change 'add element ip calico ports { 0-79, 443, 8000-65535 }'
  change 'add element ip calico pairs { 10.0.0.1 . tcp . 80 }'
  change 'add element ip calico c { 10.0.0.0/24 . tcp . 80-90, 10.0.1.1 . udp . 53 }'
  change 'add element ip calico names { "aali*", "eth0" }'
  change 'add element ip calico marks { 0x10000 }'
  change 'add element ip calico counted { 10.0.0.1 counter packets 3 bytes 180 }'
  change 'add element ip calico dispatch { "cali1" : goto cali-fw, "cali2" : drop }'
  change 'add element ip calico nets { 0.0.0.0/8 : accept, 10.0.0.0/8 : jump cali-fw }'
  change 'add element ip calico fip { 192.0.2.1 : 10.0.0.1 }'
  change 'add element ip calico publish { tcp . 80 : 10.0.0.1 . 8080 }'
  change 'add element ip calico tally { 10.0.0.1 : "hits" }'
  list
  change 'delete element ip calico s { 10.0.0.3 }'
  change 'delete element ip calico n { 10.0.0.0/8 }'
  change 'delete element ip calico c { 10.0.1.1 . udp . 53 }'
  change 'delete element ip calico dispatch { "cali2" }'
  change 'flush set ip calico s'
  change 'delete set ip calico s'
} >nftSet.hex

nft flush ruleset
nft add table ip calico
for chain in c d; do nft add chain ip calico $chain; done
nft 'add chain ip calico out { type filter hook output priority filter ; }'
nft 'add chain ip calico pre { type nat hook prerouting priority dstnat ; }'
nft 'add chain ip calico post { type nat hook postrouting priority srcnat ; }'
nft 'add chain ip calico raw { type filter hook prerouting priority raw ; }'
nft 'add set ip calico s { type ipv4_addr ; }'
nft 'add set ip calico pairs { type ipv4_addr . inet_proto . inet_service ; }'
nft 'add set ip calico timed { type ipv4_addr ; flags dynamic,timeout ; timeout 90s ; }'
nft 'add map ip calico dispatch { type ifname : verdict ; }'
nft 'add map ip calico fip { type ipv4_addr : ipv4_addr ; }'
nft 'add counter ip calico hits'
{
  change 'add rule ip calico c iifname "cali1" accept'
  change 'add rule ip calico c oifname "cali*" drop'
  change 'add rule ip calico c iifname != "eth0" return'
  change 'add rule ip calico c iifname vmap @dispatch'
  change 'add rule ip calico c meta mark & 0x00030000 == 0x00010000 jump d'
  change 'add rule ip calico c meta mark set meta mark & 0xfffcffff'
  change 'add rule ip calico c meta mark set meta mark | 0x00010000'
  change 'add rule ip calico c meta mark set 0x00010000'
  change 'add rule ip calico c ct mark set meta mark'
  change 'add rule ip calico c ct mark & 0x00080000 != 0x0 goto d'
  change 'add rule ip calico c ct state established,related accept'
  change 'add rule ip calico c ct state invalid drop'
  change 'add rule ip calico c ct status dnat accept'
  change 'add rule ip calico c ct direction original accept'
  change 'add rule ip calico c ct original ip daddr 10.0.0.1 accept'
  change 'add rule ip calico raw ct zone set 7'
  change 'add rule ip calico c ip saddr 10.1.0.0/16 accept'
  change 'add rule ip calico c ip daddr != 10.1.2.0/23 accept'
  change 'add rule ip calico c ip saddr 10.1.2.3 accept'
  change 'add rule ip calico c ip saddr 10.0.0.5-10.0.0.9 accept'
  change 'add rule ip calico c ip saddr @s accept'
  change 'add rule ip calico c ip daddr != @s drop'
  change 'add rule ip calico c ip daddr . ip protocol . th dport @pairs accept'
  change 'add rule ip calico c ip protocol tcp accept'
  change 'add rule ip calico c meta l4proto udp accept'
  change 'add rule ip calico c tcp dport 80 accept'
  change 'add rule ip calico c tcp dport 8000-8999 accept'
  change 'add rule ip calico c udp sport != 53 accept'
  change 'add rule ip calico c udp dport != 5000-6000 accept'
  change 'add rule ip calico c meta l4proto tcp th dport { 80, 443, 8000-8999 } accept'
  change 'add rule ip calico c icmp type echo-request accept'
  change 'add rule ip calico c icmp type destination-unreachable icmp code 4 accept'
  change 'add rule ip calico c ip dscp set 0x2e'
  change 'add rule ip calico c fib saddr . mark . iif oif 0 drop'
  change 'add rule ip calico c fib daddr type local accept'
  change 'add rule ip calico c fib saddr . iif oif missing drop'
  change 'add rule ip calico c counter packets 3 bytes 252 accept'
  change 'add rule ip calico c counter name "hits"'
  change 'add rule ip calico c limit rate 10/second burst 5 packets accept'
  change 'add rule ip calico c limit rate over 1 mbytes/minute drop'
  change 'add rule ip calico c log prefix "API0|default.allow" group 1'
  change 'add rule ip calico c log prefix "calico-packet: " snaplen 80 group 2 queue-threshold 4'
  change 'add rule ip calico c log prefix "calico-packet: " level debug flags ip options'
  change 'add rule ip calico out reject with icmp type host-prohibited'
  change 'add rule ip calico out meta l4proto tcp reject with tcp reset'
  change 'add rule ip calico raw notrack'
  change 'add rule ip calico pre ip daddr 192.0.2.1 dnat to 10.0.0.1'
  change 'add rule ip calico pre tcp dport 80 dnat to 10.0.0.1:8080'
  change 'add rule ip calico pre dnat to ip daddr map @fip'
  change 'add rule ip calico pre tcp dport 81 redirect to :8081'
  change 'add rule ip calico post ip saddr 10.0.0.1 snat to 192.0.2.1'
  change 'add rule ip calico post snat to 192.0.2.1-192.0.2.9 random,persistent'
  change 'add rule ip calico post masquerade'
  change 'add rule ip calico post masquerade fully-random'
  change 'add rule ip calico post meta l4proto tcp masquerade to :1024-65535'
  change 'add rule ip calico c add @timed { ip saddr }'
  change 'add rule ip calico c update @timed { ip saddr timeout 30s }'
  change 'add rule ip calico c ct count over 20 drop'
  change 'add rule ip calico c meta pkttype broadcast queue num 3'
  list
} >nftRule.hex
{
  nft flush ruleset
  nft add table ip6 calico
  nft add chain ip6 calico c
  nft 'add chain ip6 calico pre { type nat hook prerouting priority dstnat ; }'
  nft 'add chain ip6 calico out { type filter hook output priority filter ; }'
  change 'add rule ip6 calico c ip6 saddr 2001:db8::/64 accept'
  change 'add rule ip6 calico c ip6 daddr 2001:db8::1 accept'
  change 'add rule ip6 calico c ip6 daddr 2001:db8::1-2001:db8::9 accept'
  change 'add rule ip6 calico c meta l4proto icmpv6 icmpv6 type { 130-136 } accept'
  change 'add rule ip6 calico c icmpv6 type nd-neighbor-solicit accept'
  change 'add rule ip6 calico pre dnat to 2001:db8::1'
  change 'add rule ip6 calico pre tcp dport 80 dnat to [2001:db8::1]:8080'
  change 'add rule ip6 calico out reject'
  list
} >nftRule6.hex

nft flush ruleset
ip link set lo up
nft add table ip calico
nft 'add chain ip calico out { type filter hook output priority filter ; }'
nft 'add rule ip calico out ct state new accept'
sysctl -q net.netfilter.nf_conntrack_acct=1 net.netfilter.nf_conntrack_timestamp=1
{
  echo '$ conntrack -I'
  strace -qq -e trace=sendto,sendmsg -e write=all conntrack -I -s 10.0.0.1 -d 192.0.2.10 -r 10.0.0.2 -q 10.0.0.1 -p tcp \
    --sport 1000 --dport 80 --reply-port-src 8080 --reply-port-dst 1000 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 600 -m 7 2>&1 | words '>'
  conntrack -I -s 2001:db8::1 -d 2001:db8::2 -p udp --sport 53 --dport 5353 -t 600 2>/dev/null >/dev/null
  ping -q -c 1 127.0.0.1 >/dev/null
  for family in ipv4 ipv6; do
    echo "\$ conntrack -L -f $family"
    strace -qq -e trace=recvmsg,recvfrom -e read=all conntrack -L -f $family 2>&1 | words '<' | grep -E '^< ........ ..01'
    conntrack -L -f $family 2>/dev/null | sed 's/^/# /; s/ *$//'
  done
  echo '$ tcpdump -i nflog:7'
  nft 'add rule ip calico out meta mark set 0x10000 log prefix "APE0|np.default/web" group 7'
  (sleep 1; ping -q -c 1 127.0.0.1 >/dev/null) &
  strace -f -qq -e trace=recvfrom,recvmsg -e read=all timeout 5 tcpdump -c 1 -i nflog:7 -w /dev/null 2>&1 | words '<' | grep -E '^< ........ 0004'
  wait
} >conntrack.hex
