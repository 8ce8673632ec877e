//! Addresses and networks as Go's `net` package reads them, which is what host-local does: dotted
//! quads without leading zeros, IPv6 in any case and compression, no zone, and an IPv4 address
//! that is written as IPv6 (`::ffff:10.0.0.1`) is an IPv4 address.

use std::net::IpAddr;

use ipnet::IpNet;

/// An address without a prefix length.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    Some(address.to_canonical())
}

/// An address with its prefix length, in the family in which it was written: IPv4 written as IPv6
/// stays IPv6.
pub(super) fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, len) = text.split_once('/')?;
    // Go accepts leading zeros here, but no sign, and no more bits than the family has.
    if len.is_empty() || !len.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (address, len): (IpAddr, u8) = (address.parse().ok()?, len.parse().ok()?);
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if len <= bits { Some((address, len)) } else { None }
}

/// A network with its host bits kept.
pub(super) fn net(text: &str) -> Option<IpNet> {
    let (address, len) = cidr(text)?;
    let canonical = address.to_canonical();
    if canonical.is_ipv4() && address.is_ipv6() && len >= 96 {
        return IpNet::new(canonical, len - 96).ok();
    }
    IpNet::new(address, len).ok()
}

/// A requested address, with or without a prefix length, which is dropped.
pub(super) fn requested(text: &str) -> Option<IpAddr> {
    if text.contains('/') {
        return cidr(text).map(|(address, _)| address.to_canonical());
    }
    address(text)
}

/// An address alone, or a network, whose host bits do not count.
pub(super) fn net_or_address(text: &str) -> Option<IpNet> {
    if text.contains('/') { net(text) } else { address(text).map(IpNet::from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_as_go_reads_them() {
        assert_eq!(address("10.0.0.1"), Some(ip("10.0.0.1")));
        assert_eq!(address("2001:DB8::1"), Some(ip("2001:db8::1")));
        assert_eq!(address("::ffff:10.0.0.1"), Some(ip("10.0.0.1")));
        for text in ["", "010.0.0.1", "10.0.0", "10.0.0.1 ", "fe80::1%eth0", "10.0.0.1/24", "::1::"]
        {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn networks_keep_their_host_bits() {
        assert_eq!(net("10.0.0.7/24").unwrap().to_string(), "10.0.0.7/24");
        assert_eq!(net("2001:DB8::/032").unwrap().to_string(), "2001:db8::/32");
        assert_eq!(net("::ffff:10.0.0.0/120").unwrap().to_string(), "10.0.0.0/24");
        for text in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "::/129", "::/+1", "/8", "::/999"]
        {
            assert_eq!(net(text), None, "{text}");
        }
    }

    #[test]
    fn an_asked_for_address_may_have_a_prefix() {
        assert_eq!(requested("10.1.2.11/24"), Some(ip("10.1.2.11")));
        assert_eq!(requested("::ffff:10.1.2.11/120"), Some(ip("10.1.2.11")));
        assert_eq!(requested("2001:db8::b"), Some(ip("2001:db8::b")));
        for text in ["", "foo", "10.1.2.11/", "10.1.2.11/33", "10.1.2.10,10.1.2.11"] {
            assert_eq!(requested(text), None, "{text}");
        }
    }
}
