//! The corners of host-local's grammar, in the notation of [`super::table`], and the calls that
//! its dispatch layer refuses.

/// Corners of configurations, `CNI_ARGS`, asked-for addresses and results.
pub(super) const GRAMMAR: &str = r#"
G1 an explicit start at the network address and end at the broadcast address are given out
  {"subnet": "10.0.0.0/30", "rangeStart": "10.0.0.0", "rangeEnd": "10.0.0.3"}
  fill 10.0.0.0 10.0.0.2 10.0.0.3
  add z !! no IP addresses available in range set: 10.0.0.0-10.0.0.3

G2 with a gateway elsewhere, the first address is given out
  {"subnet": "10.0.0.0/29", "gateway": "10.0.0.4"}
  fill 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.5 10.0.0.6
  add z !! no IP addresses available

G3 a gateway outside of the subnet is taken as it is
  {"subnet": "10.0.0.0/29", "gateway": "192.0.2.1"}
  add a => 10.0.0.1/29 via 192.0.2.1

G4 a gateway of the other family is taken as it is
  {"subnet": "10.0.0.0/29", "gateway": "2001:DB8::1"}
  add a => 10.0.0.1/29 via 2001:db8::1

G5 the default gateway of another range leaves its addresses to both
  {"ranges": [[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30"}]]}
  fill 10.0.0.2 10.0.1.2

G6 the gateway of a range is refused to who asks for it
  {"subnet": "10.0.0.0/29"}
  add a ip 10.0.0.1 !! failed to allocate for range 0: requested ip 10.0.0.1 is subnet's gateway

G7 a range that is nothing but its gateway is empty
  {"subnet": "10.0.0.0/29", "rangeStart": "10.0.0.3", "rangeEnd": "10.0.0.3",
    "gateway": "10.0.0.3"}
  add a !! no IP addresses available in range set: 10.0.0.3-10.0.0.3

G8 a v6 /126 has two addresses to give
  {"subnet": "2001:db8::/126"}
  fill 2001:db8::2 2001:db8::3
  add z !! no IP addresses available in range set: 2001:db8::1-2001:db8::3

G9 a v6 /127 is too small
  {"subnet": "2001:db8::/127"}
  add a !! Network 2001:db8::/127 too small to allocate from

G10 being too small is found before host bits
  {"subnet": "10.0.0.1/32"}
  add a !! Network 10.0.0.1/32 too small to allocate from

G11 no ipam
  {"cniVersion": "1.0.0", "ipam": null}
  add a !! IPAM config missing 'ipam' key

G12 no ranges
  {"cniVersion": "1.0.0", "ipam": {"rangeStart": "10.0.0.3"}}
  add a !! no IP ranges specified

G13 an empty set
  {"ranges": [[{"subnet": "10.0.0.0/24"}], []]}
  add a !! invalid range set 1: empty range set

G14 a subnet that is none
  {"subnet": "10.0.0.0"}
  add a !! invalid CIDR address: 10.0.0.0

G15 leading zeros are refused
  {"subnet": "010.0.0.0/24"}
  add a !! invalid CIDR address: 010.0.0.0/24

G16 a range without a subnet
  {"ranges": [[{"rangeStart": "10.0.0.3"}]]}
  add a !! invalid range set 0: IP <nil> not v4 nor v6

G17 a start that is no address
  {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.3/24"}
  add a !! invalid IP address: 10.0.0.3/24

G18 empty texts are as good as none
  {"subnet": "10.0.0.0/24", "rangeStart": "", "rangeEnd": "", "gateway": ""}
  add a => 10.0.0.2/24 via 10.0.0.1

G19 addresses of IPv4 in the form of IPv6 are those of IPv4
  {"subnet": "10.0.0.0/24", "rangeStart": "::ffff:10.0.0.9", "gateway": "::ffff:10.0.0.77"}
  add a => 10.0.0.9/24 via 10.0.0.77

G20 an end at the network address is before the start
  {"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.0"}
  add a !! RangeEnd 10.0.0.0 not in network 10.0.0.0/24

G21 CNI_ARGS: unknown keys are refused
  {"subnet": "10.0.0.0/24"}
  add a cniargs IP=10.0.0.9;K=V;K2=V2 !! ARGS: unknown args ["K=V" "K2=V2"]
  add a cniargs ip=10.0.0.9 !! ARGS: unknown args ["ip=10.0.0.9"]

G22 CNI_ARGS: unknown keys are passed over where that is asked for, in any place
  {"subnet": "10.0.0.0/24"}
  add a cniargs K8S_POD_NAME=x;IP=10.0.0.9;IgnoreUnknown=1 => 10.0.0.9/24
  add b cniargs IgnoreUnknown=TRUE;K8S_POD_NAME=x => 10.0.0.10/24
  add c cniargs IgnoreUnknown=yes !! error parsing value of pair "IgnoreUnknown=yes"

G23 CNI_ARGS: every piece is one pair
  {"subnet": "10.0.0.0/24"}
  add a cniargs IP=10.0.0.9; !! ARGS: invalid pair ""
  add a cniargs IgnoreUnknown=1;K=V=W !! ARGS: invalid pair "K=V=W"

G24 CNI_ARGS: an address that is none is refused, an empty one is none
  {"subnet": "10.0.0.0/24"}
  add a cniargs IP=foo !! ARGS: error parsing value of pair "IP=foo": invalid IP address foo
  add a cniargs IP=10.0.0.8,10.0.0.9 !! error parsing value of pair
  add a cniargs IP= => 10.0.0.2/24

G25 CNI_ARGS: of two addresses the last counts
  {"subnet": "10.0.0.0/24"}
  add a cniargs IP=10.0.0.8;IP=10.0.0.9 => 10.0.0.9/24

G26 one address asked for in three places is one address
  {"subnet": "2001:db8::/64"}
  add a ip 2001:db8::5 args 2001:DB8::5/64 caps 2001:db8:0::0:5 => 2001:db8::5/64

G27 two addresses of one set are one too many
  {"subnet": "10.0.0.0/24"}
  add a caps 10.0.0.8,10.0.0.9 !~ failed to allocate all requested IPs: 10.0.0.
  add b ip 10.0.0.8 => 10.0.0.8/24
  add c ip 10.0.0.9 => 10.0.0.9/24

G28 a refused ADD leaves the walk where it took it
  {"ranges": [[{"subnet": "10.0.0.0/29"}], [{"subnet": "10.0.1.0/30"}]]}
  add a => 10.0.0.2/29, 10.0.1.2/30
  add b !! failed to allocate for range 1: no IP addresses available in range set
  del a
  add c => 10.0.0.4/29, 10.0.1.2/30

G29 interfaces of one container are attachments of their own
  {"subnet": "10.0.0.0/29"}
  add a/eth0 => 10.0.0.2/29
  add a/net1 => 10.0.0.3/29
  del a/eth0
  add b ip 10.0.0.2 => 10.0.0.2/29
  add c ip 10.0.0.3 !! requested IP address 10.0.0.3 is not available

G30 a DEL of what is not there succeeds, again and again
  {"subnet": "10.0.0.0/29"}
  del nobody
  add a => 10.0.0.2/29
  del a
  del a

G31 a DEL with another subnet than the ADD releases all the same
  {"subnet": "10.0.0.0/29"}
  add a => 10.0.0.2/29
  config {"subnet": "10.5.0.0/29"}
  del a
  config {"subnet": "10.0.0.0/29"}
  add b ip 10.0.0.2 => 10.0.0.2/29

G32 routes by family where the version has one address of each
  {"cniVersion": "0.2.0", "ipam": {"subnet": "10.0.0.0/24", "routes": [{"dst": "0.0.0.0/0"},
    {"dst": "192.168.1.7/16", "gw": "10.0.0.9"}, {"dst": "::/0"}]}}
  add a => 10.0.0.2/24

G33 routes are passed on, as far as they are addresses
  {"cniVersion": "0.4.0", "ipam": {"subnet": "10.0.0.0/24", "routes": [{"dst": "0.0.0.0/0"},
    {"dst": "192.168.1.7/16", "gw": "10.0.0.9"}, {"dst": "2001:DB8::1/64", "gw": "2001:DB8::2"}]}}
  add a => 10.0.0.2/24

G34 without a version, the result is of 0.1.0
  {"cniVersion": "", "ipam": {"subnet": "10.0.0.0/24"}}
  add a => 10.0.0.2/24

G35 a version that is none
  {"cniVersion": "0.5.0", "ipam": {"subnet": "10.0.0.0/24"}}
  add a !! incompatible CNI versions

G36 unknown keys count for nothing
  {"cniVersion": "0.3.0", "bogus": 1, "dns": {"nameservers": ["192.0.2.53"]},
    "ipam": {"subnet": "10.0.0.0/24", "name": "other", "bogus": [], "ranges": null}}
  add a => 10.0.0.2/24

G37 ranges of one subnet in one set are walked one after the other
  {"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.20", "rangeEnd": "10.0.0.21"},
    {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.11"}]]}
  fill 10.0.0.20 10.0.0.21 10.0.0.10 10.0.0.11
  add z !! range set: 10.0.0.20-10.0.0.21,10.0.0.10-10.0.0.11
"#;

/// One call that is refused before IPAM: changed variables (empty: unset), standard input (empty:
/// a good one), and the code that both sides answer.
pub(super) type Refusal = (&'static [(&'static str, &'static str)], &'static str, u64);

/// The calls that the dispatch layer refuses.
pub(super) const DISPATCH: &[Refusal] = &[
    (&[("CNI_CONTAINERID", "")], "", 4),
    (&[("CNI_CONTAINERID", ""), ("CNI_NETNS", ""), ("CNI_IFNAME", ""), ("CNI_PATH", "")], "", 4),
    (&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", ""), ("CNI_IFNAME", "")], "", 4),
    (&[("CNI_CONTAINERID", "-a")], "", 4),
    (&[("CNI_CONTAINERID", "a/b")], "", 4),
    (&[("CNI_IFNAME", "sixteen-letters0")], "", 4),
    (&[("CNI_IFNAME", ".")], "", 4),
    (&[("CNI_IFNAME", "..")], "", 4),
    (&[("CNI_IFNAME", "a/b")], "", 4),
    (&[("CNI_IFNAME", "a:b")], "", 4),
    (&[("CNI_IFNAME", "a b")], "", 4),
    (&[("CNI_COMMAND", "EAT")], "", 4),
    (&[], r#"{"cniVersion": "1.0.0"}"#, 7),
    (&[], r#"{"cniVersion": "1.0.0", "name": ""}"#, 7),
    (&[], r#"{"cniVersion": "1.0.0", "name": "a b"}"#, 7),
    (&[], r#"{"cniVersion": "0.5.0", "name": "n"}"#, 1),
    (&[], r#"{"cniVersion": "1.0", "name": "n"}"#, 1),
    (&[("CNI_COMMAND", "CHECK")], r#"{"cniVersion": "0.3.1", "name": "n"}"#, 1),
];
