//! DEL with any configuration, GC in every spelling, CHECK against the addresses that were given.

use serde_json::{Value, json};

use super::{config, held};
use crate::common::{Call, Daemon, Options, Outcome, Passing};

fn add(daemon: &Daemon, network: &str, container: &str) -> Value {
    let call = Call::new("ADD", container, &config(network, "10.74.0.0/24"));
    daemon.plugin(&call).expect_result().clone()
}

/// An ADD of a container whose namespace ends at once.
fn add_passing(daemon: &Daemon, network: &str, container: &str) {
    let passing = Passing::start();
    let call = Call::new("ADD", container, &config(network, "10.74.0.0/24"));
    daemon.plugin(&Call { netns: passing.path(), ..call }).expect_result();
}

#[test]
fn a_del_needs_neither_a_good_configuration_nor_a_namespace() {
    let daemon = Daemon::start(&Options::default());
    let good = config("net", "10.74.0.0/24");
    let with = |pointer: &str, value: Value| {
        let mut config = good.clone();
        *config.pointer_mut(pointer).expect("a field") = value;
        Call::new("DEL", "a", &config)
    };
    let plain = Call::new("DEL", "a", &good);
    let mut without_ipam = plain.clone();
    without_ipam.config.as_object_mut().expect("an object").remove("ipam");
    let mut odd_rest = plain.clone();
    odd_rest.config["prevResult"] = json!("odd");
    odd_rest.config["runtimeConfig"] = json!({"ips": [5], "ipRanges": "odd"});
    odd_rest.config["args"] = json!({"cni": {"ips": [null], "stage": "odd"}});
    for del in [
        Call { netns: String::new(), ..plain.clone() },
        Call { args: "K=V;odd".to_owned(), ..plain.clone() },
        with("/ipam/ranges", json!([[{"subnet": "10.74.0.0/33"}]])),
        with("/ipam/ranges", json!([[{"subnet": "192.0.2.0/24"}]])),
        with("/ipam/ranges", json!([])),
        with("/ipam/ranges", json!(5)),
        with("/ipam", json!({"resolvConf": "/nowhere", "routes": 5})),
        without_ipam,
        odd_rest,
    ] {
        add(&daemon, "net", "a");
        add(&daemon, "net", "b");
        let mut environment = del.environment().to_vec();
        environment.retain(|(_, value)| !value.is_empty());
        let output = daemon.plugin_raw(&environment, &del.config.to_string());
        assert_eq!(Outcome::of_process(&output), Outcome::Done(None), "{del:?}");
        assert_eq!(held(&daemon, "a"), [""; 0], "{del:?}");
        assert_eq!(held(&daemon, "b").len(), 1, "{del:?}");
        assert!(!daemon.notes_dir().read_dir().expect("notes").any(|_| true), "{del:?}");
    }
}

#[test]
fn a_gc_keeps_what_is_listed_in_either_spelling_and_nothing_else() {
    let daemon = Daemon::start(&Options::default());
    let listed = json!([{"containerID": "b", "ifname": "eth0"}]);
    let elsewhere = json!([{"containerID": "b", "ifname": "net1"}]);
    let (valid, also) = ("cni.dev/valid-attachments", "cni.dev/attachments");
    for (lists, left) in [
        (vec![], ["a", "b"].as_slice()),
        (vec![(valid, Value::Null)], &[]),
        (vec![(valid, json!([]))], &[]),
        (vec![(also, Value::Null)], &[]),
        (vec![(also, json!([]))], &[]),
        (vec![(valid, listed.clone())], &["b"]),
        (vec![(also, listed.clone())], &["b"]),
        (vec![(valid, listed.clone()), (also, listed.clone())], &["b"]),
        (vec![(valid, Value::Null), (also, listed.clone())], &["b"]),
        (vec![(valid, elsewhere)], &[]),
    ] {
        for container in ["a", "b"] {
            add_passing(&daemon, "net", container);
        }
        add_passing(&daemon, "other", "a");
        let mut gc = Call::new("GC", "", &config("net", "10.74.0.0/24"));
        for (key, list) in &lists {
            gc.config[*key] = list.clone();
        }
        assert_eq!(daemon.plugin(&gc), Outcome::Done(None), "{lists:?}");
        let rows = daemon.allocations();
        let mut of_net: Vec<&str> = rows
            .iter()
            .filter(|row| row["network"] == "net")
            .map(|row| row["containerId"].as_str().expect("an id"))
            .collect();
        of_net.sort_unstable();
        assert_eq!(of_net, left, "{lists:?}");
        assert_eq!(rows.len(), left.len() + 1, "another network's attachment is gone: {lists:?}");
    }
    // A list that cannot be read releases nothing.
    let before = daemon.allocations();
    for bad in [json!({}), json!([5]), json!([{"containerID": "a"}])] {
        let mut gc = Call::new("GC", "", &config("other", "10.74.0.0/24"));
        gc.config[valid] = bad;
        assert_eq!(daemon.plugin(&gc).code(), Some(7), "{gc:?}");
    }
    assert_eq!(daemon.allocations(), before);
}

#[test]
fn a_check_compares_with_the_result_of_the_add() {
    let daemon = Daemon::start(&Options::default());
    let mut both = config("net", "10.74.0.0/24");
    both["ipam"]["ranges"] = json!([[{"subnet": "10.74.0.0/24"}], [{"subnet": "fd00:74::/64"}]]);
    let result = daemon.plugin(&Call::new("ADD", "a", &both)).expect_result().clone();
    let check = |container: &str, previous: &Value| {
        let mut call = Call::new("CHECK", container, &both);
        call.config["prevResult"] = previous.clone();
        daemon.plugin(&call)
    };
    assert_eq!(check("a", &result), Outcome::Done(None));
    assert_eq!(check("a", &Value::Null), Outcome::Done(None));
    // Addresses of other plugins are ignored.
    let mut more = result.clone();
    more["interfaces"] = json!([{"name": "eth0", "sandbox": "/x"}]);
    let foreign = json!({"address": "192.0.2.7/24", "interface": 0});
    more["ips"].as_array_mut().expect("an array").push(foreign);
    assert_eq!(check("a", &more), Outcome::Done(None));
    for (family, address) in [(0, "10.74.0.3/24"), (1, "fd00:74::3/64")] {
        let mut lie = result.clone();
        lie["ips"][family]["address"] = address.into();
        let refused = check("a", &lie);
        assert_eq!(refused.code(), Some(103), "{refused:?}");
        let address = address.split('/').next().expect("an address");
        assert!(refused.message().contains(address), "{refused:?}");
    }
    assert_eq!(check("nobody", &result).code(), Some(103));
    let del = Call::new("DEL", "a", &both);
    assert_eq!(daemon.plugin(&del), Outcome::Done(None));
    let gone = check("a", &result);
    assert_eq!(gone.code(), Some(103), "{gone:?}");
    assert!(!gone.message().contains("not found"), "some runtimes take these words for success");
}
