//! The output of a successful call, in the form of the configuration's version: that of
//! host-local in release 1.9 of the plugins (CNI library 1.3).

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::print::pretty;
use super::resolv::Dns;
use super::version::Version;

/// An address that an ADD hands out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// The prefix length of the subnet it comes from.
    pub prefix_len: u8,
    /// The gateway of its range.
    pub gateway: IpAddr,
}

impl Assigned {
    fn cidr(&self) -> String {
        format!("{}/{}", self.address, self.prefix_len)
    }
}

/// A route of a configuration, passed through to the result unchecked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The destination, host bits kept.
    pub dst: IpNet,
    /// The gateway.
    pub gw: Option<IpAddr>,
    /// In bytes; 0 when not set.
    pub mtu: i64,
    /// In bytes; 0 when not set.
    pub advmss: i64,
    /// 0 when not set.
    pub priority: i64,
    /// The routing table; 0 is a value.
    pub table: Option<i64>,
    /// The scope; 0 is a value.
    pub scope: Option<i64>,
}

/// The result of an ADD: JSON indented by four spaces, without a trailing newline.
pub fn render_add(version: Version, ips: &[Assigned], routes: &[Route], dns: &Dns) -> String {
    let mut result = Map::new();
    result.insert("cniVersion".into(), version.as_str().into());
    if version < Version::V0_3_0 {
        add_by_family(&mut result, ips, routes);
    } else {
        let with_family = version < Version::V1_0_0;
        let ips = ips.iter().map(|ip| {
            let mut object = Map::new();
            if with_family {
                let family = if ip.address.is_ipv4() { "4" } else { "6" };
                object.insert("version".into(), family.into());
            }
            object.insert("address".into(), ip.cidr().into());
            object.insert("gateway".into(), ip.gateway.to_string().into());
            Value::Object(object)
        });
        result.insert("ips".into(), ips.collect());
        if !routes.is_empty() {
            result.insert("routes".into(), routes.iter().map(route).collect());
        }
    }
    if version < Version::V1_0_0 || !dns.is_empty() {
        result.insert("dns".into(), dns_object(dns));
    }
    let mut result = Value::Object(result);
    if version >= Version::V1_0_0 {
        // The CNI library sends these through a Go map, which prints its keys in order.
        result.sort_all_objects();
    }
    pretty(&result)
}

/// The answer to VERSION, on one line without a newline. `echo` is the caller's `cniVersion`; if it
/// is empty, the answer has the newest supported one (CNI specification 1.1, section "VERSION").
pub fn render_version(echo: &str) -> String {
    let echo = if echo.is_empty() { Version::NEWEST.as_str() } else { echo };
    json!({
        "cniVersion": echo,
        "supportedVersions": Version::ALL.map(Version::as_str),
    })
    .to_string()
}

/// Adds `ip4` and `ip6` of versions before 0.3.0, which have one address per family; the
/// configuration was checked for that. A route goes to its family's part, or is left out.
fn add_by_family(result: &mut Map<String, Value>, ips: &[Assigned], routes: &[Route]) {
    for (key, v4) in [("ip4", true), ("ip6", false)] {
        let Some(ip) = ips.iter().find(|ip| ip.address.is_ipv4() == v4) else {
            continue;
        };
        let mut object = Map::new();
        object.insert("ip".into(), ip.cidr().into());
        object.insert("gateway".into(), ip.gateway.to_string().into());
        let routes = routes.iter().filter(|route| route.dst.addr().is_ipv4() == v4);
        let routes: Vec<_> = routes.map(|route| Value::Object(short_route(route))).collect();
        if !routes.is_empty() {
            object.insert("routes".into(), routes.into());
        }
        result.insert(key.into(), object.into());
    }
}

fn short_route(route: &Route) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("dst".into(), route.dst.to_string().into());
    if let Some(gw) = route.gw {
        object.insert("gw".into(), gw.to_string().into());
    }
    object
}

fn route(route: &Route) -> Value {
    let mut object = short_route(route);
    let set = |number: i64| Some(number).filter(|&number| number != 0);
    for (key, number) in [
        ("mtu", set(route.mtu)),
        ("advmss", set(route.advmss)),
        ("priority", set(route.priority)),
        ("table", route.table),
        ("scope", route.scope),
    ] {
        if let Some(number) = number {
            object.insert(key.into(), number.into());
        }
    }
    object.into()
}

fn dns_object(dns: &Dns) -> Value {
    let mut object = Map::new();
    let lists =
        [("nameservers", &dns.nameservers), ("search", &dns.search), ("options", &dns.options)];
    for (i, (key, list)) in lists.into_iter().enumerate() {
        if i == 1 && !dns.domain.is_empty() {
            object.insert("domain".into(), dns.domain.as_str().into());
        }
        if !list.is_empty() {
            object.insert(key.into(), list.as_slice().into());
        }
    }
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips() -> [Assigned; 2] {
        let assigned = |address: &str, prefix_len, gateway: &str| Assigned {
            address: address.parse().unwrap(),
            prefix_len,
            gateway: gateway.parse().unwrap(),
        };
        [assigned("10.1.2.9", 24, "10.1.2.1"), assigned("2001:db8::2", 64, "2001:db8::1")]
    }

    fn plain(dst: &str, gw: Option<&str>) -> Route {
        Route {
            dst: dst.parse().unwrap(),
            gw: gw.map(|gw| gw.parse().unwrap()),
            mtu: 0,
            advmss: 0,
            priority: 0,
            table: None,
            scope: None,
        }
    }

    fn routes() -> [Route; 2] {
        let full = Route {
            mtu: 1400,
            advmss: 1300,
            priority: -5,
            table: Some(0),
            scope: Some(253),
            ..plain("2001:db8:9::/48", None)
        };
        [plain("0.0.0.0/0", Some("10.1.2.254")), full]
    }

    fn same(rendered: &str, literal: &str) {
        let value: Value = serde_json::from_str(literal).unwrap();
        assert_eq!(rendered, pretty(&value));
    }

    #[test]
    fn it_is_indented_by_four_without_a_newline() {
        assert_eq!(
            render_add(Version::V1_1_0, &ips()[..1], &[], &Dns::default()),
            "{\n    \"cniVersion\": \"1.1.0\",\n    \"ips\": [\n        {\n            \
             \"address\": \"10.1.2.9/24\",\n            \"gateway\": \"10.1.2.1\"\n        }\n    \
             ]\n}"
        );
    }

    #[test]
    fn before_0_3_0_there_is_one_address_per_family() {
        for version in [Version::V0_1_0, Version::V0_2_0] {
            let literal = r#"{"cniVersion":"V",
                "ip4":{"ip":"10.1.2.9/24","gateway":"10.1.2.1",
                    "routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.254"}]},
                "ip6":{"ip":"2001:db8::2/64","gateway":"2001:db8::1",
                    "routes":[{"dst":"2001:db8:9::/48"}]},
                "dns":{}}"#;
            let rendered = render_add(version, &ips(), &routes(), &Dns::default());
            same(&rendered, &literal.replace("\"V\"", &format!("{:?}", version.as_str())));
        }
        let rendered = render_add(Version::V0_1_0, &ips()[1..], &routes()[..1], &Dns::default());
        same(
            &rendered,
            r#"{"cniVersion":"0.1.0","ip6":{"ip":"2001:db8::2/64","gateway":"2001:db8::1"},
                "dns":{}}"#,
        );
    }

    #[test]
    fn from_0_3_0_to_0_4_0_addresses_name_their_family() {
        for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
            let literal = r#"{"cniVersion":"V",
                "ips":[{"version":"4","address":"10.1.2.9/24","gateway":"10.1.2.1"},
                    {"version":"6","address":"2001:db8::2/64","gateway":"2001:db8::1"}],
                "routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.254"},
                    {"dst":"2001:db8:9::/48","mtu":1400,"advmss":1300,"priority":-5,"table":0,
                    "scope":253}],
                "dns":{}}"#;
            let rendered = render_add(version, &ips(), &routes(), &Dns::default());
            same(&rendered, &literal.replace("\"V\"", &format!("{:?}", version.as_str())));
        }
    }

    #[test]
    fn from_1_0_0_keys_are_in_order_and_empty_dns_is_left_out() {
        let dns = Dns {
            nameservers: vec!["192.0.2.1".into()],
            domain: "example".into(),
            search: vec!["a".into(), "b".into()],
            options: vec!["ndots:2".into()],
        };
        for version in [Version::V1_0_0, Version::V1_1_0] {
            let literal = r#"{"cniVersion":"V",
                "dns":{"domain":"example","nameservers":["192.0.2.1"],"options":["ndots:2"],
                    "search":["a","b"]},
                "ips":[{"address":"10.1.2.9/24","gateway":"10.1.2.1"},
                    {"address":"2001:db8::2/64","gateway":"2001:db8::1"}],
                "routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.254"},
                    {"advmss":1300,"dst":"2001:db8:9::/48","mtu":1400,"priority":-5,"scope":253,
                    "table":0}]}"#;
            let rendered = render_add(version, &ips(), &routes(), &dns);
            same(&rendered, &literal.replace("\"V\"", &format!("{:?}", version.as_str())));
        }
        let old = render_add(Version::V0_4_0, &[], &[], &dns);
        same(
            &old,
            r#"{"cniVersion":"0.4.0","ips":[],"dns":{"nameservers":["192.0.2.1"],
                "domain":"example","search":["a","b"],"options":["ndots:2"]}}"#,
        );
    }

    #[test]
    fn version_says_what_was_said() {
        let supported =
            r#""supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#;
        assert_eq!(render_version(""), format!("{{\"cniVersion\":\"1.1.0\",{supported}"));
        assert_eq!(render_version("0.4.0"), format!("{{\"cniVersion\":\"0.4.0\",{supported}"));
    }
}
