//! The answers for each version of the specification: results, refusals, VERSION, STATUS.

use serde_json::{Value, json};

use crate::common::{Call, Daemon, Options, Outcome};

/// Every supported version, oldest first.
const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A configuration with addresses of both families, routes and name servers.
fn whole(version: &str, resolv_conf: &str) -> Value {
    json!({
        "cniVersion": version, "name": format!("net-{version}"),
        "ipam": {
            "ranges": [[{"subnet": "10.71.0.0/24"}], [{"subnet": "fd00:71::/64"}]],
            "resolvConf": resolv_conf,
            "routes": [
                {"dst": "0.0.0.0/0"},
                {"dst": "10.99.0.0/16", "gw": "10.71.0.9", "mtu": 1400, "advmss": 1360,
                    "priority": 7, "table": 0, "scope": 253},
                {"dst": "::/0", "gw": "fd00:71::9"},
            ],
        },
    })
}

/// The result of the first ADD on it.
fn expected(version: &str) -> Value {
    let dns = json!({"nameservers": ["192.0.2.53"], "search": ["example"]});
    let route = json!({
        "dst": "10.99.0.0/16", "gw": "10.71.0.9", "mtu": 1400, "advmss": 1360, "priority": 7,
        "table": 0, "scope": 253,
    });
    let v6_route = json!({"dst": "::/0", "gw": "fd00:71::9"});
    let short = json!({"dst": "10.99.0.0/16", "gw": "10.71.0.9"});
    match version {
        "0.1.0" | "0.2.0" => json!({
            "cniVersion": version,
            "ip4": {"ip": "10.71.0.2/24", "gateway": "10.71.0.1",
                "routes": [{"dst": "0.0.0.0/0"}, short]},
            "ip6": {"ip": "fd00:71::2/64", "gateway": "fd00:71::1", "routes": [v6_route]},
            "dns": dns,
        }),
        "0.3.0" | "0.3.1" | "0.4.0" => json!({
            "cniVersion": version,
            "ips": [
                {"version": "4", "address": "10.71.0.2/24", "gateway": "10.71.0.1"},
                {"version": "6", "address": "fd00:71::2/64", "gateway": "fd00:71::1"},
            ],
            "routes": [{"dst": "0.0.0.0/0"}, route, v6_route],
            "dns": dns,
        }),
        _ => json!({
            "cniVersion": version,
            "ips": [
                {"address": "10.71.0.2/24", "gateway": "10.71.0.1"},
                {"address": "fd00:71::2/64", "gateway": "fd00:71::1"},
            ],
            "routes": [{"dst": "0.0.0.0/0"}, route, v6_route],
            "dns": dns,
        }),
    }
}

#[test]
fn every_version_gets_the_result_and_the_refusal_of_its_shape() {
    let daemon = Daemon::start(&Options::default());
    let file = daemon.state_dir().with_file_name("resolv.conf");
    std::fs::write(&file, "nameserver 192.0.2.53\nsearch example\n").expect("a file");
    for version in VERSIONS {
        let config = whole(version, file.to_str().expect("a path in UTF-8"));
        let add = Call::new("ADD", "a", &config);
        assert_eq!(*daemon.plugin(&add).expect_result(), expected(version));
        let mut bad = add.clone();
        bad.config["ipam"]["ranges"][0][0]["subnet"] = "10.71.0.0/33".into();
        let Outcome::Refused(error) = daemon.plugin(&bad) else { panic!("no refusal: {version}") };
        assert_eq!(error["cniVersion"], version, "{error:?}");
        assert_eq!(error["code"], 7, "{error:?}");
        let keys: Vec<&String> = error.keys().collect();
        assert_eq!(keys, ["cniVersion", "code", "msg", "details"]);
        // Another container gets the next address, and a DEL prints nothing.
        let mut check = Call { command: "CHECK", ..add.clone() };
        check.config["prevResult"] = expected(version);
        let checked = daemon.plugin(&check);
        let old = ["0.1.0", "0.2.0", "0.3.0", "0.3.1"].contains(&version);
        let code = old.then_some(1);
        assert_eq!((checked.succeeded(), checked.code()), (!old, code), "{checked:?}");
        let del = Call { command: "DEL", ..add };
        assert_eq!(daemon.plugin(&del), Outcome::Done(None));
    }
    assert_eq!(daemon.allocations(), [Value::Null; 0]);
}

#[test]
fn version_answers_with_the_version_it_was_asked_in() {
    let daemon = Daemon::start(&Options::default());
    for version in VERSIONS {
        let environment = [("CNI_COMMAND", "VERSION")];
        let stdin = json!({"cniVersion": version}).to_string();
        let output = daemon.plugin_raw(&environment, &stdin);
        let answer = Outcome::of_process(&output);
        let expected = json!({"cniVersion": version, "supportedVersions": VERSIONS});
        assert_eq!(*answer.expect_result(), expected);
    }
    for version in ["0.5.0", "1.2.0", "1.0"] {
        let config = whole(version, "");
        let refused = daemon.plugin(&Call::new("ADD", "a", &config));
        assert_eq!(refused.code(), Some(1), "{refused:?}");
        assert!(refused.message().contains("incompatible CNI versions"), "{refused:?}");
    }
}

/// `args` of a configuration: addresses and a stage. Its other keys are ignored.
#[test]
fn what_args_say_is_heeded() {
    let daemon = Daemon::start(&Options::default());
    let mut config = super::config("args", "10.72.0.0/24");
    config["ipam"]["ranges"][0][0]["sandbox"] = json!(["10.72.0.50", "10.72.0.51"]);
    let given = |container: &str, cni: Value, cni_args: &str| {
        let mut call = Call::new("ADD", container, &config);
        call.config["args"] = json!({"cni": cni, "org.example": {"ips": [5]}});
        call.args = cni_args.to_owned();
        let outcome = daemon.plugin(&call);
        outcome.expect_result()["ips"][0]["address"].as_str().expect("an address").to_owned()
    };
    assert_eq!(given("a", json!({"ips": ["10.72.0.9/24"], "labels": []}), ""), "10.72.0.9/24");
    assert_eq!(given("b", json!({"stage": "sandbox"}), ""), "10.72.0.50/24");
    // The configuration comes before the environment.
    let args = "IgnoreUnknown=1;K8S_POD_UID=x;STAGE=smallflow";
    assert_eq!(given("c", json!({"stage": "sandbox"}), args), "10.72.0.51/24");
    let pod = "K8S_POD_NAMESPACE=work;IgnoreUnknown=true;K8S_POD_NAME=web-7;SOMETHING=else";
    assert_eq!(given("d", json!({}), pod), "10.72.0.52/24");
    let row = daemon.allocations().into_iter().find(|row| row["containerId"] == "d");
    let row = row.expect("a row");
    assert_eq!((&row["namespace"], &row["pod"]), (&json!("work"), &json!("web-7")), "{row}");
}

/// A runtime takes the whole node out of service when STATUS fails, so it does not fail because the
/// containers of this node use every address.
#[test]
fn status_is_good_while_every_address_is_taken() {
    let daemon = Daemon::start(&Options::default());
    let status = Call::new("STATUS", "", &super::config("net", "10.73.0.0/30"));
    let add = Call { command: "ADD", container: "a".to_owned(), ..status.clone() };
    daemon.plugin(&add).expect_result();
    assert_eq!(daemon.plugin(&status), Outcome::Done(None));
    let mut reserved = super::config("reserved", "10.74.0.0/30");
    reserved["ipam"]["ranges"] =
        serde_json::json!([[{ "subnet": "10.74.0.0/30", "sandbox": ["10.74.0.2"] }]]);
    let none = daemon.plugin(&Call::new("STATUS", "", &reserved));
    assert_eq!(none.code(), Some(50), "no plain ADD can work: {none:?}");
}

/// STATUS is 0 while an ADD can be served, and 50 otherwise, if the operator wants it so. 51 is
/// about the connectivity of containers, which an IPAM plugin does not provide.
#[test]
fn status_says_whether_an_add_can_be_served() {
    let args = vec!["--status-fails-when-full".to_owned()];
    let mut daemon = Daemon::start(&Options { args, ..Options::default() });
    let status = Call::new("STATUS", "", &super::config("net", "10.73.0.0/30"));
    let of_a = |command| Call { command, container: "a".to_owned(), ..status.clone() };
    assert_eq!(daemon.plugin(&status), Outcome::Done(None));
    daemon.plugin(&of_a("ADD")).expect_result();
    let full = daemon.plugin(&status);
    assert_eq!(full.code(), Some(50), "{full:?}");
    assert!(full.message().contains("no IP addresses available"), "{full:?}");
    assert!(daemon.plugin(&of_a("DEL")).succeeded());
    assert_eq!(daemon.plugin(&status), Outcome::Done(None));
    daemon.terminate();
    let down = daemon.plugin(&status);
    assert_eq!(down.code(), Some(50), "{down:?}");
    daemon.restart();
    assert_eq!(daemon.plugin(&status), Outcome::Done(None));
}
