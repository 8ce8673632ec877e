//! host-local's own test vectors. The notation: [`super::table`].
//!
//! T1 to T25 are those of its allocator, T26 to T38 of its configuration, T39 to T59 of its ranges.
//! Left out: T54 (the oracle's version counts wrongly in 0.0.0.0/24) and the second half of T18
//! (a repeated ADD) are in [`super::differences`]; T60 tests a function that no caller reaches.

/// Vectors about the order of addresses.
pub(super) const ALLOCATOR: &str = r#"
T1 the network, the gateway and the broadcast address are never given
  {"subnet": "192.168.1.0/29"}
  add a => 192.168.1.2/29 via 192.168.1.1
  fill 192.168.1.3 192.168.1.4 192.168.1.5 192.168.1.6
  add z !! no IP addresses available in range set: 192.168.1.1-192.168.1.6

T2 the walk goes on after an address that was asked for, and wraps
  {"subnet": "192.168.1.0/29"}
  add a ip 192.168.1.6 => 192.168.1.6/29
  del a
  fill 192.168.1.2 192.168.1.3 192.168.1.4 192.168.1.5 192.168.1.6
  add z !! failed to allocate for range 0: no IP addresses available in range set

T3 a released address comes last in the round that follows
  {"subnet": "192.168.1.0/29"}
  add a ip 192.168.1.3 => 192.168.1.3/29
  del a
  fill 192.168.1.4 192.168.1.5 192.168.1.6 192.168.1.2 192.168.1.3
  add z !! no IP addresses available in range set

T4 the first address of a small pool is .2
  {"subnet": "10.0.0.0/29"}
  add a => 10.0.0.2/29 via 10.0.0.1

T5 the first address of an IPv6 pool is ::2
  {"subnet": "2001:db8:1::0/64"}
  add a => 2001:db8:1::2/64 via 2001:db8:1::1

T6 a /30 has one address to give
  {"subnet": "10.0.0.0/30"}
  add a => 10.0.0.2/30 via 10.0.0.1

T7 the second container gets the second address
  {"subnet": "10.0.0.0/29"}
  fill 10.0.0.2 10.0.0.3

T8 after a release the walk does not go back
  {"subnet": "10.0.0.0/29"}
  add a ip 10.0.0.5 => 10.0.0.5/29
  del a
  fill 10.0.0.6

T9 the walk skips what is held
  {"subnet": "10.0.0.0/29"}
  add a ip 10.0.0.4 => 10.0.0.4/29
  add b ip 10.0.0.5 => 10.0.0.5/29
  add c ip 10.0.0.3 => 10.0.0.3/29
  del c
  fill 10.0.0.6

T10 the walk wraps past the end
  {"subnet": "10.0.0.0/29"}
  add a ip 10.0.0.6 => 10.0.0.6/29
  add b ip 10.0.0.5 => 10.0.0.5/29
  del b
  fill 10.0.0.2

T11 a place of the walk outside of a new configuration counts for nothing
  {"subnet": "192.168.1.0/24"}
  add a ip 192.168.1.2 => 192.168.1.2/24
  add b ip 192.168.1.128 => 192.168.1.128/24
  config {"subnet": "192.168.1.0/29"}
  add c => 192.168.1.3/29

T12 the place of the walk itself is the last candidate
  {"subnet": "192.168.1.0/29"}
  add a ip 192.168.1.2 => 192.168.1.2/29
  add b ip 192.168.1.4 => 192.168.1.4/29
  add c ip 192.168.1.5 => 192.168.1.5/29
  add d ip 192.168.1.6 => 192.168.1.6/29
  add l ip 192.168.1.3 => 192.168.1.3/29
  del l
  fill 192.168.1.3

T13 the first range of a set comes first
  {"ranges": [[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30"}]]}
  add a => 10.0.0.2/30 via 10.0.0.1

T14 the walk goes to the next range although the first has an address again
  {"ranges": [[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30"}]]}
  add a => 10.0.0.2/30
  del a
  add b => 10.0.1.2/30 via 10.0.1.1

T15 the walk wraps from the last range to the first
  {"ranges": [[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30"},
    {"subnet": "10.0.2.0/30"}]]}
  add a ip 10.0.2.2 => 10.0.2.2/30
  del a
  add b => 10.0.0.2/30

T16 the same container does not get its address again at once
  {"subnet": "192.168.1.0/29"}
  add ID => 192.168.1.2/29
  del ID
  add ID => 192.168.1.3/29

T17 an address that is asked for is given
  {"subnet": "192.168.1.0/29"}
  add ID ip 192.168.1.5 => 192.168.1.5/29 via 192.168.1.1

T18 an address that is held is refused to another container
  {"subnet": "192.168.1.0/29"}
  add ID ip 192.168.1.5 => 192.168.1.5/29
  add other ip 192.168.1.5 !! IP address 192.168.1.5 is not available in range set 192.168.1.1-

T19 an address after the end of the range is refused
  {"subnet": "192.168.1.0/29", "rangeEnd": "192.168.1.4"}
  add a ip 192.168.1.5 !! failed to allocate all requested IPs: 192.168.1.5

T20 an address before the start of the range is refused
  {"subnet": "192.168.1.0/29", "rangeStart": "192.168.1.3"}
  add a ip 192.168.1.2 !! failed to allocate all requested IPs: 192.168.1.2

T21 a /30 is empty after one address
  {"subnet": "10.0.0.0/30"}
  fill 10.0.0.2
  add z !! no IP addresses available in range set: 10.0.0.1-10.0.0.2

T22 a /29 is empty after five addresses
  {"subnet": "10.0.0.0/29"}
  fill 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6
  add z !! no IP addresses available in range set: 10.0.0.1-10.0.0.6

T23 the refusal of an empty set lists its ranges
  {"ranges": [[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30"}]]}
  fill 10.0.0.2 10.0.1.2
  add z !! no IP addresses available in range set: 10.0.0.1-10.0.0.2,10.0.1.1-10.0.1.2

T24 after the end of the first range comes the start of the second
  {"ranges": [[
    {"subnet": "192.168.1.0/30", "rangeStart": "192.168.1.0", "rangeEnd": "192.168.1.3"},
    {"subnet": "192.168.2.0/30", "rangeStart": "192.168.2.0", "rangeEnd": "192.168.2.3"}]]}
  add a ip 192.168.1.3 => 192.168.1.3/30
  fill 192.168.2.0

T25 a set whose ranges are given whole ends with a refusal and not with an endless walk
  {"ranges": [[
    {"subnet": "192.168.1.0/30", "rangeStart": "192.168.1.0", "rangeEnd": "192.168.1.3"},
    {"subnet": "192.168.2.0/30", "rangeStart": "192.168.2.0", "rangeEnd": "192.168.2.3"}]]}
  fill 192.168.1.0 192.168.1.2 192.168.1.3 192.168.2.0 192.168.2.2 192.168.2.3
  add y !! no IP addresses available in range set
  add z !! no IP addresses available in range set
"#;

/// Vectors about the reading of a configuration.
pub(super) const CONFIG: &str = r#"
T26 the single range of the old form
  {"cniVersion": "0.3.1", "ipam": {"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9",
    "rangeEnd": "10.1.2.20", "gateway": "10.1.2.30"}}
  add a => 10.1.2.9/24 via 10.1.2.30
  fill 10.1.2.10 10.1.2.11 10.1.2.12 10.1.2.13 10.1.2.14 10.1.2.15 10.1.2.16 10.1.2.17
  fill 10.1.2.18 10.1.2.19 10.1.2.20
  add z !! no IP addresses available in range set: 10.1.2.9-10.1.2.20

T27 two sets give one address each
  {"cniVersion": "0.3.1", "ipam": {"ranges": [
    [{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.20",
      "gateway": "10.1.2.30"}, {"subnet": "10.1.4.0/24"}],
    [{"subnet": "11.1.2.0/24", "rangeStart": "11.1.2.9", "rangeEnd": "11.1.2.20",
      "gateway": "11.1.2.30"}]]}}
  add a => 10.1.2.9/24 via 10.1.2.30, 11.1.2.9/24 via 11.1.2.30
  add b ip 10.1.4.254 => 10.1.4.254/24 via 10.1.4.1, 11.1.2.10/24 via 11.1.2.30
  add c ip 10.1.4.255 !! failed to allocate all requested IPs: 10.1.4.255

T28 the sets of runtimeConfig come first, then the old form, then ranges
  {"cniVersion": "0.3.1", "runtimeConfig": {"irrelevant": "a",
    "ipRanges": [[{"subnet": "12.1.3.0/24"}]]}, "ipam": {"subnet": "10.1.2.0/24",
    "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.20", "gateway": "10.1.2.30",
    "ranges": [[{"subnet": "11.1.2.0/24", "rangeStart": "11.1.2.9", "rangeEnd": "11.1.2.20",
      "gateway": "11.1.2.30"}]]}}
  add a => 12.1.3.2/24 via 12.1.3.1, 10.1.2.9/24 via 10.1.2.30, 11.1.2.9/24 via 11.1.2.30

T29 an address in CNI_ARGS is asked for
  {"cniVersion": "0.3.1", "ipam": {"ranges": [[{"subnet": "10.1.2.0/24"}]]}}
  add a ip 10.1.2.10 => 10.1.2.10/24 via 10.1.2.1

T30 a prefix of an address that is asked for counts for nothing
  {"cniVersion": "0.3.1", "ipam": {"ranges": [[{"subnet": "10.1.2.0/24"}]]}}
  add a ip 10.1.2.11/24 => 10.1.2.11/24 via 10.1.2.1

T31 one address too many, and everything that was taken comes back
  {"cniVersion": "0.3.1", "ipam": {"ranges": [[{"subnet": "10.1.2.0/24"}],
    [{"subnet": "11.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]]}}
  add a ip 10.1.2.10 args 10.1.2.11,11.11.11.11,2001:db8:1::11 !~ failed to allocate all requested
  add b ip 10.1.2.10 => 10.1.2.10/24, 11.1.2.3/24, 2001:db8:1::12/64
  add c ip 10.1.2.11 args 2001:db8:1::11 => 10.1.2.11/24, 11.1.2.4/24, 2001:db8:1::11/64

T32 the same with a prefix on each
  {"cniVersion": "0.3.1", "ipam": {"ranges": [[{"subnet": "10.1.2.0/24"}],
    [{"subnet": "11.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]]}}
  add a ip 10.1.2.10/24 args 10.1.2.11/24,11.11.11.11/24,2001:db8:1::11/64 !~ 11.11.11.11
  add b ip 10.1.2.10/24 => 10.1.2.10/24, 11.1.2.3/24, 2001:db8:1::12/64

T33 two sets over one subnet overlap
  {"ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "10.1.3.0/24"}],
    [{"subnet": "10.1.4.0/24"}, {"subnet": "10.1.2.0/24"}]]}
  add a !! range set 0 overlaps with 1

T34 two ranges of a set overlap
  {"ranges": [[{"subnet": "10.1.0.0/22"}, {"subnet": "10.1.2.0/24"}]]}
  add a !! invalid range set 0: subnets 10.1.0.1-10.1.3.254 and 10.1.2.1-10.1.2.254 overlap

T35 a set is of one family
  {"ranges": [[{"subnet": "10.1.0.0/22"}, {"subnet": "2001:db8:5::/64"}]]}
  add a !! invalid range set 0: mixed address families

T36 version 0.2.0 has room for one address of a family
  {"cniVersion": "0.2.0", "ipam": {"ranges": [[{"subnet": "10.1.2.0/24"}],
    [{"subnet": "10.2.2.0/24"}]]}}
  add a !! CNI version 0.2.0 does not support more than 1 address per family

T37 version 0.2.0 has room for one address of each family
  {"cniVersion": "0.2.0", "ipam": {"ranges": [[{"subnet": "10.1.2.0/24"}],
    [{"subnet": "2001:db8:1::/48"}]]}}
  add a => 10.1.2.2/24 via 10.1.2.1, 2001:db8:1::2/48 via 2001:db8:1::1

T38 addresses of runtimeConfig that no range has are listed without prefix
  {"subnet": "10.1.2.0/24"}
  add a caps 192.168.0.1,192.168.0.5/24,2001:db8::1/64 !! failed to allocate all requested IPs:
"#;

/// Vectors about the rules for a range.
pub(super) const RANGES: &str = r#"
T39 a /24 ends before its broadcast address
  {"subnet": "192.0.2.0/24"}
  add a ip 192.0.2.254 => 192.0.2.254/24 via 192.0.2.1
  add b ip 192.0.2.255 !! failed to allocate all requested IPs: 192.0.2.255

T40 a /25 ends before its broadcast address
  {"subnet": "192.0.2.0/25"}
  add a ip 192.0.2.126 => 192.0.2.126/25 via 192.0.2.1
  add b ip 192.0.2.127 !! failed to allocate all requested IPs: 192.0.2.127

T41 a range of IPv6 reaches its very last address
  {"subnet": "2001:DB8:1::/64"}
  add a ip 2001:db8:1::ffff:ffff:ffff:ffff => 2001:db8:1:0:ffff:ffff:ffff:ffff/64 via 2001:db8:1::1
  add b => 2001:db8:1::2/64 via 2001:db8:1::1

T42 a subnet with host bits is refused, and the network address is named
  {"subnet": "192.0.2.12/24"}
  add a !! For a subnet mask of length 24 the network address is 192.0.2.0

T43 a subnet of IPv6 with host bits is refused
  {"subnet": "2001:DB8:1::24:19ff:fee1:c44a/64"}
  add a !! For a subnet mask of length 64 the network address is 2001:db8:1::

T44 host bits just below the mask are found
  {"subnet": "2001:DB8:24:19ff::/63"}
  add a !! For a subnet mask of length 63 the network address is 2001:db8:24:19fe::

T45 host bits in a /23 are found
  {"subnet": "192.168.127.0/23"}
  add a !! For a subnet mask of length 23 the network address is 192.168.126.0

T46 a /31 is too small
  {"subnet": "192.0.2.0/31"}
  add a !! Network 192.0.2.0/31 too small to allocate from

T47 a start outside of the subnet is refused
  {"subnet": "192.0.2.0/24", "rangeStart": "192.0.3.0"}
  add a !! RangeStart 192.0.3.0 not in network 192.0.2.0/24

T48 an end outside of the subnet is refused
  {"subnet": "192.0.2.0/24", "rangeEnd": "192.0.4.0"}
  add a !! RangeEnd 192.0.4.0 not in network 192.0.2.0/24

T49 a start after the end is refused
  {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.50", "rangeEnd": "192.0.2.40"}
  add a !! RangeStart 192.0.2.50 not in network 192.0.2.0/24

T50 start, end and gateway as given
  {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.40", "rangeEnd": "192.0.2.50",
    "gateway": "192.0.2.254"}
  add a => 192.0.2.40/24 via 192.0.2.254

T51 exactly the addresses from start to end can be asked for
  {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.40", "rangeEnd": "192.0.2.50",
    "gateway": "192.0.2.254"}
  add a ip 192.0.3.0 !! failed to allocate all requested IPs: 192.0.3.0
  add a ip 192.0.2.39 !! failed to allocate all requested IPs: 192.0.2.39
  add a ip 192.0.2.40 => 192.0.2.40/24
  add b ip 192.0.2.50 => 192.0.2.50/24
  add c ip 192.0.2.51 !! failed to allocate all requested IPs: 192.0.2.51

T52 the same for IPv6
  {"subnet": "2001:db8:1::/64", "rangeStart": "2001:db8:1::40", "rangeEnd": "2001:db8:1::50"}
  add a ip 2001:db8:2:: !! failed to allocate all requested IPs: 2001:db8:2::
  add a ip 2001:db8:1::39 !! failed to allocate all requested IPs: 2001:db8:1::39
  add a ip 2001:db8:1::40 => 2001:db8:1::40/64
  add b ip 2001:db8:1::50 => 2001:db8:1::50/64
  add c ip 2001:db8:1::51 !! failed to allocate all requested IPs: 2001:db8:1::51

T53 neighbours do not overlap
  {"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.1.0/24"}]]}
  add a => 10.0.0.2/24, 10.0.1.2/24

T55 equal subnets overlap
  {"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/24"}]]}
  add a !! range set 0 overlaps with 1

T56 a subnet overlaps with one inside of it
  {"ranges": [[{"subnet": "10.0.0.0/20"}], [{"subnet": "10.0.1.0/24"}]]}
  add a !! range set 0 overlaps with 1

T57 the halves of a subnet do not overlap
  {"ranges": [[{"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.127"}],
    [{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.128"}]]}
  add a => 10.0.0.2/24 via 10.0.0.1, 10.0.0.128/24 via 10.0.0.1

T58 halves that share an address overlap
  {"ranges": [[{"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.127"}],
    [{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.127"}]]}
  add a !! range set 0 overlaps with 1

T59 a range inside of another one of its set overlaps
  {"ranges": [[{"subnet": "192.168.0.0/20"}, {"subnet": "192.168.2.0/24"}]]}
  add a !! subnets 192.168.0.1-192.168.15.254 and 192.168.2.1-192.168.2.254 overlap
"#;
