//! Networks that come and go: what nobody uses is forgotten, and comes again.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Call, Daemon, Options, poll};

/// The time within which networks must be forgotten.
const PATIENCE: Duration = Duration::from_secs(120);
/// The range sets for which a node has room.
const ROOM: usize = 4_096;
/// Calls in one request.
const CALLS: usize = 256;

fn call(verb: &'static str, network: usize) -> Value {
    let subnet = format!("10.{}.{}.0/24", network / 256, network % 256);
    let ipam = json!({ "type": "my-ipam", "subnet": subnet });
    let config = json!({ "cniVersion": "1.1.0", "name": format!("net-{network}"), "ipam": ipam });
    Call::new(verb, &format!("c{network}"), &config).body()
}

/// Makes a call on each of these networks; all must succeed.
fn each(daemon: &Daemon, verb: &'static str, networks: std::ops::Range<usize>) {
    let networks: Vec<usize> = networks.collect();
    for some in networks.chunks(CALLS) {
        let calls: Vec<Value> = some.iter().map(|network| call(verb, *network)).collect();
        let reply = daemon.client().request("POST", "/v1/cni", &json!(calls).to_string());
        let answers: Value = serde_json::from_str(&reply.body).expect("answers");
        for answer in answers.as_array().expect("an answer for each call") {
            assert_eq!(answer["status"], 200, "{verb}: {answer}");
        }
    }
}

fn metrics(daemon: &Daemon) -> String {
    daemon.client().request("GET", "/metrics", "").body
}

fn options(args: &[&str]) -> Options {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Options { cooldown: "1s", args, ..Options::default() }
}

#[test]
fn a_network_that_nobody_uses_leaves_nothing_behind_and_comes_again() {
    let mut daemon = Daemon::start(&options(&["--forget-after", "2s"]));
    for round in 0..3 {
        each(&daemon, "ADD", 0..300);
        let many = metrics(&daemon);
        assert!(many.contains("network=\"net-7\"") && many.contains("network=\"net-299\""));
        each(&daemon, "DEL", 0..299);
        if round == 1 {
            daemon.kill9();
            daemon.restart();
        }
        let forgotten = poll(PATIENCE, || !metrics(&daemon).contains("network=\"net-7\""));
        assert!(forgotten, "round {round}");
        let gone =
            poll(PATIENCE, || daemon.client().get("/v1/pools").as_array().unwrap().len() == 1);
        assert!(gone, "round {round}: {}", daemon.client().get("/v1/pools"));
        let few = poll(PATIENCE, || metrics(&daemon).len() * 20 < many.len());
        assert!(few, "{} of {} bytes", metrics(&daemon).len(), many.len());
        let held = metrics(&daemon).contains("network=\"net-299\"");
        assert!(held, "a container holds an address there");
        each(&daemon, "DEL", 299..300);
        // Nothing of it is in the journal either.
        let all = poll(PATIENCE, || daemon.client().get("/v1/pools") == json!([]));
        assert!(all, "round {round}");
        daemon.restart();
        assert_eq!(daemon.client().get("/v1/pools"), json!([]));
    }
}

#[test]
fn a_node_without_room_for_networks_says_so_and_heals() {
    let daemon = Daemon::start(&options(&["--forget-after", "1d"]));
    let ready = || daemon.over_tcp("GET", "/readyz", "");
    assert_eq!(ready().status, 200);
    each(&daemon, "ADD", 0..ROOM);
    let one_more = |verb| {
        let reply = daemon.client().request("POST", "/v1/cni", &call(verb, ROOM).to_string());
        (reply.status, reply.body)
    };
    let (status, body) = one_more("ADD");
    assert!(status != 200 && body.contains("4096 range sets"), "{status}: {body}");
    let (status, body) = one_more("STATUS");
    assert!(status != 200 && body.contains("4096 range sets"), "{status}: {body}");
    assert_eq!((ready().status, ready().body.contains("4096 range sets")), (503, true));
    // A network that is there is served on.
    let known = daemon.client().request("POST", "/v1/cni", &call("STATUS", 5).to_string());
    assert_eq!(known.status, 200, "{}", known.body);
    // What holds nothing is forgotten at once, although it was used a moment ago.
    each(&daemon, "DEL", 0..ROOM);
    assert!(poll(PATIENCE, || ready().status == 200), "{}", ready().body);
    assert_eq!(one_more("ADD").0, 200);
    assert_eq!(one_more("STATUS").0, 200);
}
