//! Configurations with the results of host-local: its own tests (`config_test.go`, `range_test.go`,
//! `range_set_test.go`).

use std::net::IpAddr;

use crate::core::range::Ranges;

use super::error::{Code, Error};
use super::parse::parse;
use super::request::{Add, Body};

/// A call for container `c1`, interface `eth0`, network `net`.
pub(super) struct Call {
    /// `CNI_COMMAND`.
    pub(super) command: &'static str,
    /// `cniVersion`.
    pub(super) version: &'static str,
    /// `CNI_ARGS`.
    pub(super) args: String,
    /// The configuration's `ipam`, as JSON.
    pub(super) ipam: String,
    /// More of the configuration, as JSON, with a leading comma.
    pub(super) more: String,
}

impl Call {
    /// The body as the plugin writes it.
    pub(super) fn body(&self) -> String {
        let Self { command, version, args, ipam, more } = self;
        let config = format!(
            r#"{{"cniVersion":"{version}","name":"net","type":"macvlan","ipam":{ipam}{more}}}"#
        );
        format!(
            "{{\"command\":\"{command}\",\"containerId\":\"c1\",\"netns\":\"/proc/1/ns/net\",\
             \"ifname\":\"eth0\",\"args\":{args:?},\"path\":\"/opt/cni/bin\",\"startedAt\":12,\
             \"config\":\n{config}\n}}"
        )
    }
}

/// An ADD of version 0.3.1 with this `ipam`.
pub(super) fn with_ipam(ipam: &str) -> Call {
    let (args, more) = (String::new(), String::new());
    Call { command: "ADD", version: "0.3.1", args, ipam: ipam.into(), more }
}

/// Parses an ADD.
pub(super) fn add(call: &Call) -> Result<Add, Error> {
    match parse(call.body().as_bytes())?.body {
        Body::Add(add) => Ok(*add),
        other => panic!("not an ADD: {other:?}"),
    }
}

/// The error of a call, which must have that code.
pub(super) fn code_of(call: &Call, code: Code) -> Error {
    let error = parse(call.body().as_bytes()).unwrap_err();
    assert_eq!(error.code, code, "{error:?}");
    assert_eq!(error.cni_version, call.version);
    error
}

fn sets(ranges: &str) -> Result<Vec<Ranges>, Error> {
    add(&with_ipam(&format!(r#"{{"type":"my-ipam","ranges":{ranges}}}"#))).map(|add| add.sets)
}

fn refused(ranges: &str) -> String {
    sets(ranges).unwrap_err().msg
}

/// Sets as text, with the gateways.
fn shown(sets: &[Ranges]) -> String {
    let range = |range: &crate::core::range::Range| format!("{range} via {}", range.gateway);
    let set = |set: &Ranges| set.iter().map(range).collect::<Vec<_>>().join(", ");
    sets.iter().map(set).collect::<Vec<_>>().join("; ")
}

fn contains(ranges: &str, address: &str) -> bool {
    let address: IpAddr = address.parse().unwrap();
    sets(ranges).unwrap()[0].find_address(address).is_some()
}

const FULL: &str = r#""subnet":"10.1.2.0/24","rangeStart":"10.1.2.9","rangeEnd":"10.1.2.20",
    "gateway":"10.1.2.30""#;

#[test]
fn t26_to_t28_sources_of_sets_in_order() {
    let legacy = add(&with_ipam(&format!("{{{FULL}}}"))).unwrap();
    assert_eq!(shown(&legacy.sets), "10.1.2.9-10.1.2.20 via 10.1.2.30");
    let two = sets(&format!(
        r#"[[{{{FULL}}},{{"subnet":"10.1.4.0/24"}}],[{{"subnet":"11.1.2.0/24",
        "rangeStart":"11.1.2.9","rangeEnd":"11.1.2.20","gateway":"11.1.2.30"}}]]"#
    ));
    assert_eq!(
        shown(&two.unwrap()),
        "10.1.2.9-10.1.2.20 via 10.1.2.30, 10.1.4.1-10.1.4.254 via 10.1.4.1; \
         11.1.2.9-11.1.2.20 via 11.1.2.30"
    );
    let call = with_ipam(&format!(r#"{{{FULL},"ranges":[[{{"subnet":"11.1.2.0/24"}}]]}}"#));
    let more = r#","runtimeConfig":{"irrelevant":"a","ipRanges":[[{"subnet":"12.1.3.0/24"}]]}"#;
    let three = add(&Call { more: more.into(), ..call }).unwrap();
    assert_eq!(
        shown(&three.sets),
        "12.1.3.1-12.1.3.254 via 12.1.3.1; 10.1.2.9-10.1.2.20 via 10.1.2.30; \
         11.1.2.1-11.1.2.254 via 11.1.2.1"
    );
}

#[test]
fn t29_to_t32_and_t38_asked_for_addresses() {
    let asked = |args: &str, more: &str| {
        let call = with_ipam(&format!("{{{FULL}}}"));
        let add = add(&Call { args: args.into(), more: more.into(), ..call }).unwrap();
        add.requested.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(asked("IP=10.1.2.10", ""), "10.1.2.10");
    assert_eq!(asked("IP=10.1.2.11/24", ""), "10.1.2.11");
    let plain = r#","args":{"cni":{"ips":["10.1.2.11","11.11.11.11","2001:db8:1::11"]}}"#;
    let all = "10.1.2.10 10.1.2.11 11.11.11.11 2001:db8:1::11";
    assert_eq!(asked("IP=10.1.2.10", plain), all);
    let nets = r#","args":{"cni":{"ips":["10.1.2.11/24","11.11.11.11/24","2001:db8:1::11/64"]}}"#;
    assert_eq!(asked("IP=10.1.2.10/24", nets), all);
    let runtime = r#","runtimeConfig":{"ips":["192.168.0.1","192.168.0.5/24","2001:db8::1/64"]}"#;
    assert_eq!(asked("", runtime), "192.168.0.1 192.168.0.5 2001:db8::1");
}

#[test]
fn t33_to_t37_sets_that_do_not_go_together() {
    assert_eq!(
        refused(r#"[[{"subnet":"10.1.2.0/24"}],[{"subnet":"10.1.2.0/24"}]]"#),
        "range set 0 overlaps with 1"
    );
    assert_eq!(
        refused(r#"[[{"subnet":"10.1.0.0/22"},{"subnet":"10.1.2.0/24"}]]"#),
        "invalid range set 0: subnets 10.1.0.1-10.1.3.254 and 10.1.2.1-10.1.2.254 overlap"
    );
    assert_eq!(
        refused(r#"[[{"subnet":"10.1.0.0/22"},{"subnet":"2001:db8:5::/64"}]]"#),
        "invalid range set 0: mixed address families"
    );
    let two = |second: &str, version| {
        let ranges = format!(r#"[[{{"subnet":"10.1.2.0/24"}}],[{{"subnet":"{second}"}}]]"#);
        Call { version, ..with_ipam(&format!(r#"{{"ranges":{ranges}}}"#)) }
    };
    assert_eq!(
        code_of(&two("10.1.3.0/24", "0.2.0"), Code::Config).msg,
        "CNI version 0.2.0 does not support more than 1 address per family"
    );
    let error = add(&two("10.1.3.0/24", "")).unwrap_err();
    assert_eq!(error.msg, "CNI version  does not support more than 1 address per family");
    assert_eq!(error.cni_version, "0.1.0");
    assert_eq!(add(&two("2001:db8::/48", "0.2.0")).unwrap().sets.len(), 2);
    assert_eq!(add(&two("10.1.3.0/24", "0.3.0")).unwrap().sets.len(), 2);
}

#[test]
fn t39_to_t49_ranges() {
    let v4 = r#"[[{"subnet":"192.0.2.0/24"}]]"#;
    assert_eq!(shown(&sets(v4).unwrap()), "192.0.2.1-192.0.2.254 via 192.0.2.1");
    let half = r#"[[{"subnet":"192.0.2.0/25"}]]"#;
    assert!(contains(half, "192.0.2.126") && !contains(half, "192.0.2.127"));
    assert_eq!(
        shown(&sets(r#"[[{"subnet":"2001:DB8:1::/64"}]]"#).unwrap()),
        "2001:db8:1::1-2001:db8:1:0:ffff:ffff:ffff:ffff via 2001:db8:1::1"
    );
    for (subnet, meant) in [
        ("192.0.2.12/24", "192.0.2.0"),
        ("2001:DB8:1::24:19ff:fee1:c44a/64", "2001:db8:1::"),
        ("2001:DB8:24:19ff::/63", "2001:db8:24:19fe::"),
        ("192.168.127.0/23", "192.168.126.0"),
    ] {
        let msg = refused(&format!(r#"[[{{"subnet":"{subnet}"}}]]"#));
        assert!(msg.ends_with(&format!("the network address is {meant}")), "{msg}");
    }
    for (more, msg) in [
        (r#""subnet":"192.0.2.0/31""#, "Network 192.0.2.0/31 too small to allocate from"),
        (
            r#""subnet":"192.0.2.0/24","rangeStart":"192.0.3.0""#,
            "RangeStart 192.0.3.0 not in network 192.0.2.0/24",
        ),
        (
            r#""subnet":"192.0.2.0/24","rangeEnd":"192.0.4.0""#,
            "RangeEnd 192.0.4.0 not in network 192.0.2.0/24",
        ),
        (
            r#""subnet":"192.0.2.0/24","rangeStart":"192.0.2.50","rangeEnd":"192.0.2.40""#,
            "RangeStart 192.0.2.50 not in network 192.0.2.0/24",
        ),
    ] {
        let expected = format!("invalid range set 0: {msg}");
        assert_eq!(refused(&format!("[[{{{more}}}]]")), expected);
    }
}

#[test]
fn t50_to_t59_membership_and_overlap() {
    let v4 = r#"[[{"subnet":"192.0.2.0/24","rangeStart":"192.0.2.40","rangeEnd":"192.0.2.50",
        "gateway":"192.0.2.254"}]]"#;
    assert_eq!(shown(&sets(v4).unwrap()), "192.0.2.40-192.0.2.50 via 192.0.2.254");
    assert!(contains(v4, "192.0.2.40") && contains(v4, "192.0.2.50"));
    assert!(!contains(v4, "192.0.2.39") && !contains(v4, "192.0.2.51"));
    assert!(!contains(v4, "192.0.3.0"));
    let v6 = r#"[[{"subnet":"2001:db8:1::/64","rangeStart":"2001:db8:1::40",
        "rangeEnd":"2001:db8:1::50"}]]"#;
    assert!(contains(v6, "2001:db8:1::40") && contains(v6, "2001:db8:1::50"));
    assert!(!contains(v6, "2001:db8:1::39") && !contains(v6, "2001:db8:1::51"));
    assert!(!contains(v6, "2001:db8:2::"));
    let pair = |a: &str, b: &str| sets(&format!("[[{{{a}}}],[{{{b}}}]]"));
    let subnet = |subnet: &str| format!(r#""subnet":"{subnet}""#);
    assert!(pair(&subnet("10.0.0.0/24"), &subnet("10.0.1.0/24")).is_ok());
    assert!(pair(&subnet("0.0.0.0/24"), &subnet("::/24")).is_ok());
    let low = r#""subnet":"10.0.0.0/24","rangeEnd":"10.0.0.127""#;
    let high = r#""subnet":"10.0.0.0/24","rangeStart":"10.0.0.128""#;
    assert!(pair(low, high).is_ok());
    for (a, b) in [
        (subnet("10.0.0.0/24"), subnet("10.0.0.0/24")),
        (subnet("10.0.0.0/20"), subnet("10.0.1.0/24")),
        (low.to_owned(), high.replace("128", "127")),
    ] {
        assert_eq!(pair(&a, &b).unwrap_err().msg, "range set 0 overlaps with 1");
    }
    assert_eq!(
        refused(r#"[[{"subnet":"192.168.0.0/20"},{"subnet":"192.168.2.0/24"}]]"#),
        "invalid range set 0: subnets 192.168.0.1-192.168.15.254 and 192.168.2.1-192.168.2.254 \
         overlap"
    );
}

#[test]
fn ranges_and_lists_have_limits() {
    let range = |i: usize| format!(r#"{{"subnet":"10.{}.{}.0/24"}}"#, i / 256, i % 256);
    let sets = |n| (0..n).map(|i| format!("[{}]", range(i))).collect::<Vec<_>>().join(",");
    assert_eq!(
        add(&with_ipam(&format!(r#"{{"ranges":[{}]}}"#, sets(256)))).unwrap().sets.len(),
        256
    );
    let error = code_of(&with_ipam(&format!(r#"{{"ranges":[{}]}}"#, sets(257))), Code::Config);
    assert_eq!(error.msg, "ipam.ranges has 257 entries, more than the 256 that are allowed");
    let ipam = format!(r#"{{"subnet":"11.0.0.0/24","ranges":[{}]}}"#, sets(256));
    let error = code_of(&with_ipam(&ipam), Code::Config);
    assert_eq!(
        error.msg,
        "ipam.ranges[255] brings the ranges of all sets to more than the 256 that are allowed"
    );
    let list = |from: usize, n: usize| {
        let list = (from..from + n).map(|i| format!("\"10.0.{}.{}\"", i / 256, i % 256));
        list.collect::<Vec<_>>().join(",")
    };
    let ipam = format!(
        r#"{{"subnet":"10.0.0.0/16","sandbox":[{}],"smallflow":[{}]}}"#,
        list(2, 4000),
        list(5000, 97)
    );
    let error = code_of(&with_ipam(&ipam), Code::Config);
    assert!(error.msg.starts_with("ipam.smallflow brings the addresses that are listed"));
}

/// The example of the plugin that this one replaces, verbatim, with the comma that breaks it.
const EXAMPLE: &str = include_str!("../../deploy/examples/my-ipam.as-printed.json");

#[test]
fn the_example_of_the_forerunner() {
    let body = |config: &str| {
        format!(
            "{{\"command\":\"DEL\",\"containerId\":\"c\",\"ifname\":\"e\",\"config\":\n{config}\n}}"
        )
    };
    let error = parse(body(EXAMPLE).as_bytes()).unwrap_err();
    assert_eq!(error.code, Code::Decode);
    assert_eq!(
        error.msg,
        "network configuration is not valid JSON at line 21 column 3: trailing comma"
    );
    assert_eq!(
        error.details,
        "remove the comma at line 20 column 26: JSON allows none before a closing bracket; \
         line 20 reads: { \"dst\": \"0.0.0.0/0\" },"
    );
    let repaired = EXAMPLE.replace("\" },", "\" }");
    assert_eq!(parse(body(&repaired).as_bytes()).unwrap_err().msg, "missing network name");
    let ipam = repaired.trim_start_matches("{\n\t\"ipam\":").trim_end().strip_suffix('}').unwrap();
    let add = add(&with_ipam(ipam)).unwrap();
    assert_eq!(
        shown(&add.sets),
        "10.10.1.20-10.10.1.40 via 10.10.1.1, 172.16.5.1-172.16.5.254 via 172.16.5.1"
    );
    assert_eq!(add.routes.len(), 1);
}
