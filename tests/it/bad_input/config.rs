//! Faults of a call or its configuration, through the plugin.

use std::process::Command;

use serde_json::{Value, json};

use super::{Held, config};
use crate::common::{Call, Daemon, Options, feed_bytes, my_ipam, run};

/// The example configuration of the plugin's predecessor, unchanged: with a trailing comma after
/// the only route.
const EXAMPLE: &str = include_str!("../../../deploy/examples/my-ipam.as-printed.json");

/// A change of the configuration: a pointer into it, and the value to put there or to take away.
type Change<'a> = (&'a str, Option<Value>);

fn changed((pointer, value): &Change<'_>) -> Value {
    let mut config = config("bad", "10.1.2.0/24");
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = config.pointer_mut(parent).expect("a parent");
    match (parent, value) {
        (Value::Object(object), Some(value)) => drop(object.insert(key.to_owned(), value.clone())),
        (Value::Object(object), None) => drop(object.remove(key)),
        (Value::Array(array), Some(value)) => {
            array[key.parse::<usize>().expect("an index")] = value.clone();
        }
        (parent, _) => panic!("{pointer} cannot be changed in {parent}"),
    }
    config
}

impl Held {
    /// Gives the plugin these bytes for an ADD, which it must refuse.
    fn refuses_bytes(&self, stdin: &[u8], code: u64, words: &[&str]) {
        let call = Call::new("ADD", "bad", &Value::Null);
        let mut command = Command::new(my_ipam());
        command.env_clear().envs(call.environment()).env("LEASEHOLD_SOCKET", self.daemon.socket());
        self.refused(&feed_bytes(command, stdin), code, words);
    }

    /// Makes this call through the plugin, which must refuse it.
    fn refuses(&self, call: &Call, code: u64, words: &[&str]) {
        let socket = self.daemon.socket();
        let mut environment = call.environment().to_vec();
        environment.push(("LEASEHOLD_SOCKET", socket.to_str().expect("a path in UTF-8")));
        self.refused(&run(my_ipam(), &environment, &call.config.to_string()), code, words);
    }

    fn refuses_change(&self, change: Change<'_>, code: u64, words: &[&str]) {
        self.refuses(&Call::new("ADD", "bad", &changed(&change)), code, words);
    }
}

#[test]
fn the_examples_trailing_comma_is_pointed_at() {
    let mut held = Held::new();
    let comma = EXAMPLE.find(",\n\t\t],").expect("the comma");
    let line = EXAMPLE[..comma].matches('\n').count() + 1;
    let column = comma - EXAMPLE[..comma].rfind('\n').expect("a line before");
    let place = format!("comma at line {line} column {column}");
    let words = ["network configuration", "trailing comma", &place, "0.0.0.0/0"];
    held.refuses_bytes(EXAMPLE.as_bytes(), 6, &words);
    held.assert_serves("the example");
}

#[test]
fn what_is_no_json_object_is_refused_with_its_place() {
    let mut held = Held::new();
    let deep = "[".repeat(1 << 20);
    for (stdin, words) in [
        (b"".as_slice(), ["network configuration is empty"].as_slice()),
        (b" \n\t\n", &["network configuration is empty"]),
        (b"{", &["not valid JSON", "line 1 column 1"]),
        (b"{\n  \"name\": bad\n}", &["not valid JSON", "line 2 column 11"]),
        (b"{\"name\": \"bad\"} x", &["not valid JSON", "line 1 column 17"]),
        (b"{},\"command\":\"DEL\"", &["not valid JSON", "trailing characters"]),
        (b"null", &["network configuration"]),
        (b"[]", &["must be an object", "array"]),
        (b"5", &["must be an object", "number"]),
        (b"{\"name\":\"\xff\xfe\"}", &["not valid JSON", "line 1"]),
        (b"\0\0\0\0", &["not valid JSON", "line 1 column 1"]),
        (deep.as_bytes(), &["recursion limit"]),
    ] {
        held.refuses_bytes(stdin, 6, words);
    }
    held.assert_serves("bytes that are no configuration");
}

#[test]
fn a_configuration_of_100_mb_is_refused_by_the_plugin() {
    let mut held = Held::new();
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(100 << 20));
    held.refuses_bytes(long.as_bytes(), 6, &["stdin", "bytes"]);
    held.assert_serves("a configuration of 100 MB");
}

#[test]
fn a_missing_or_wrong_field_is_named() {
    let mut held = Held::new();
    let range = |range: Value| Some(json!([[range]]));
    let subnet = "10.1.2.0/24";
    for (change, words) in [
        (("/name", None), ["name"].as_slice()),
        (("/name", Some(json!(7))), &["name", "string", "number"]),
        (("/name", Some(json!("a b"))), &["network name"]),
        (("/name", Some(json!("n".repeat(256)))), &["network name", "255"]),
        (("/ipam", None), &["ipam"]),
        (("/ipam", Some(json!("my-ipam"))), &["ipam", "object"]),
        (("/ipam/ranges", None), &["ranges"]),
        (("/ipam/ranges", Some(json!([]))), &["ranges"]),
        (("/ipam/ranges", Some(json!({}))), &["ipam.ranges", "array"]),
        (("/ipam/ranges", Some(json!([[]]))), &["ranges", "0"]),
        (("/ipam/ranges", range(json!({}))), &["subnet"]),
        (("/ipam/ranges", range(json!({ "subnet": 5 }))), &["subnet", "string"]),
        (("/ipam/ranges", range(json!({ "subnet": "10.1.2.0" }))), &["subnet", "10.1.2.0"]),
        (("/ipam/ranges", range(json!({ "subnet": "10.1.2.0/33" }))), &["subnet", "/33"]),
        (("/ipam/ranges", range(json!({ "subnet": "10.1.2.5/24" }))), &["subnet", "10.1.2.0/24"]),
        (("/ipam/ranges", range(json!({ "subnet": "10.1.2.0/31" }))), &["/31"]),
        (
            ("/ipam/ranges", range(json!({ "subnet": subnet, "rangeStart": "10.1.3.1" }))),
            &["rangeStart", "10.1.3.1"],
        ),
        (
            ("/ipam/ranges", range(json!({ "subnet": subnet, "rangeEnd": "10.1.2.300" }))),
            &["rangeEnd", "10.1.2.300"],
        ),
        (
            (
                "/ipam/ranges",
                range(json!({
                    "subnet": subnet, "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8"
                })),
            ),
            &["rangeStart", "10.1.2.9", "rangeEnd"],
        ),
        (
            ("/ipam/ranges", range(json!({ "subnet": subnet, "gateway": "ten" }))),
            &["gateway", "ten"],
        ),
        (
            ("/ipam/ranges", range(json!({ "subnet": subnet, "sandbox": ["10.2.0.1"] }))),
            &["sandbox", "10.2.0.1"],
        ),
        (("/ipam/routes", Some(json!([{ "dst": "everywhere" }]))), &["routes", "everywhere"]),
        (("/ipam/routes", Some(json!([{}]))), &["routes", "dst"]),
        (("/ipam/resolvConf", Some(json!("/nowhere/resolv.conf"))), &["resolvConf", "/nowhere"]),
        (("/ipam/resolvConf", Some(json!("/"))), &["resolvConf", "regular file"]),
        (("/ipam/blockSize", Some(json!("large"))), &["ipam.blockSize", "number"]),
        (("/args", Some(json!({ "cni": { "ips": ["10.1"] } }))), &["ips", "10.1"]),
        (("/runtimeConfig", Some(json!({ "ips": "10.1.2.3" }))), &["ips", "array"]),
    ] {
        held.refuses_change(change, 7, words);
    }
    held.assert_serves("wrong fields");
}

#[test]
fn families_do_not_mix_and_ranges_do_not_overlap() {
    let mut held = Held::new();
    for (ranges, words) in [
        (
            json!([[{ "subnet": "10.1.2.0/24", "rangeStart": "2001:db8::1" }]]),
            ["rangeStart", "2001:db8::1"].as_slice(),
        ),
        (
            json!([[{ "subnet": "2001:db8::/64", "rangeEnd": "10.1.2.9" }]]),
            &["rangeEnd", "10.1.2.9"],
        ),
        (
            json!([[{ "subnet": "10.1.2.0/24" }, { "subnet": "2001:db8::/64" }]]),
            &["range set 0", "mixed"],
        ),
        (
            json!([[{ "subnet": "10.1.2.0/24" }, { "subnet": "10.1.0.0/16" }]]),
            &["range set 0", "overlap", "10.1.2"],
        ),
        (
            json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.1.0.0/16" }]]),
            &["range set 0 overlaps with 1"],
        ),
    ] {
        held.refuses_change(("/ipam/ranges", Some(ranges)), 7, words);
    }
    held.assert_serves("ranges that do not go together");
}

#[test]
fn the_version_decides_what_may_be_asked() {
    let mut held = Held::new();
    for (command, version, code, words) in [
        ("ADD", json!("7.0.0"), 1, ["version"].as_slice()),
        ("ADD", json!("one"), 1, &["version"]),
        ("ADD", json!(1), 7, &["cniVersion", "string"]),
        ("CHECK", json!("0.3.1"), 1, &["CHECK"]),
        ("GC", json!("1.0.0"), 1, &["GC"]),
        ("STATUS", json!("1.0.0"), 1, &["STATUS"]),
    ] {
        let config = changed(&("/cniVersion", Some(version)));
        held.refuses(&Call::new(command, "bad", &config), code, words);
    }
    // One address per family is all that a result of 0.2.0 has room for.
    let mut two = config("bad", "10.1.2.0/24");
    two["cniVersion"] = json!("0.2.0");
    two["ipam"]["ranges"] = json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.1.3.0/24" }]]);
    held.refuses(&Call::new("ADD", "bad", &two), 7, &["0.2.0"]);
    held.assert_serves("versions that do not fit");
}

#[test]
fn a_bad_environment_is_code_4_and_names_the_variable() {
    let mut held = Held::new();
    let good = Call::new("ADD", "bad", &config("bad", "10.1.2.0/24"));
    let container = |container: &str| Call { container: container.into(), ..good.clone() };
    let ifname = |ifname: &str| Call { ifname: ifname.into(), ..good.clone() };
    let args = |args: &str| Call { args: args.into(), ..good.clone() };
    for (call, words) in [
        (container("a/b"), ["containerID", "CNI_CONTAINERID", "a/b"].as_slice()),
        (container("../etc"), &["containerID"]),
        (container(&"c".repeat(256)), &["containerID", "too long"]),
        (container(""), &["CNI_CONTAINERID", "missing"]),
        (ifname("an-interface-too-long"), &["interface name", "16"]),
        (ifname("a/b"), &["interface name", "CNI_IFNAME"]),
        (ifname(""), &["CNI_IFNAME", "missing"]),
        (Call { netns: String::new(), ..good.clone() }, &["CNI_NETNS", "missing"]),
        (Call { path: String::new(), ..good.clone() }, &["CNI_PATH", "missing"]),
        (Call { command: "REMOVE", ..good.clone() }, &["CNI_COMMAND", "REMOVE"]),
        (args("IP"), &["ARGS", "IP"]),
        (args("IP=everything"), &["ARGS", "everything"]),
        (args("COLOUR=red"), &["ARGS", "COLOUR=red"]),
    ] {
        held.refuses(&call, 4, words);
    }
    held.assert_serves("a bad environment");
}

#[test]
fn an_address_that_cannot_be_had_is_not_replaced_by_another() {
    let mut held = Held::new();
    for (ip, code, words) in [
        ("10.99.0.2", 102, ["10.99.0.2"].as_slice()), // is held
        ("10.99.0.1", 102, &["10.99.0.1"]),           // is the gateway
        ("10.99.1.9", 102, &["10.99.1.9"]),           // is in no range
    ] {
        let mut call = Call::new("ADD", "bad", &config("held", "10.99.0.0/24"));
        call.args = format!("IP={ip}");
        held.refuses(&call, code, words);
    }
    // The holder itself cannot get another address by a second ADD.
    let mut call = Call::new("ADD", "held", &config("held", "10.99.0.0/24"));
    call.args = "IP=10.99.0.77".to_owned();
    held.refuses(&call, 101, &["10.99.0.2", "held"]);
    held.assert_serves("addresses that cannot be had");
}

/// A range that lists a stage makes a word that is none an error; elsewhere it is a word of
/// somebody else's tool.
#[test]
fn a_stage_is_checked_where_one_is_listed() {
    let mut held = Held::new();
    let mut plain = config("bad", "10.1.2.0/24");
    let mut listed = plain.clone();
    listed["ipam"]["ranges"] = json!([[{ "subnet": "10.1.2.0/24", "sandbox": ["10.1.2.9"] }]]);
    let env = Call { args: "STAGE=beta".into(), ..Call::new("ADD", "bad", &listed) };
    held.refuses(&env, 4, &["STAGE", "beta"]);
    listed["args"] = json!({ "cni": { "stage": "beta" } });
    held.refuses(&Call::new("ADD", "bad", &listed), 7, &["stage", "beta"]);
    held.assert_serves("a stage that is none");
    plain["name"] = json!("plain");
    plain["args"] = listed["args"].clone();
    let mut daemon = Daemon::start(&Options::default());
    let call = Call { args: "STAGE=beta".into(), ..Call::new("ADD", "a", &plain) };
    assert!(daemon.client().call(&call).succeeded());
    daemon.terminate();
}
