//! The cooldown goes on across a restart.

use std::time::{Duration, Instant};

use super::{addresses_of, config};
use crate::common::{Call, Client, Daemon, Options, poll};

/// So long that it ends in no test.
const HOUR: &str = "1h";
/// Two releases are this far apart, so that the daemon can tell their order.
const APART: Duration = Duration::from_millis(5);

/// A call on a pool of six addresses, .2 to .7.
fn call(command: &'static str, container: &str) -> Call {
    let mut config = config("six", &["10.40.0.0/24"]);
    config["ipam"]["ranges"][0][0]["rangeEnd"] = "10.40.0.7".into();
    Call::new(command, container, &config)
}

fn add(client: &mut Client, container: &str) -> String {
    addresses_of(&client.call(&call("ADD", container))).remove(0)
}

fn del(client: &mut Client, container: &str) {
    let deleted = client.call(&call("DEL", container));
    assert!(deleted.succeeded(), "{deleted:?}");
    let released = Instant::now();
    poll(APART * 2, || released.elapsed() >= APART);
}

#[test]
fn a_cooling_address_goes_last_and_the_oldest_first_also_after_a_kill() {
    let options = Options { cooldown: HOUR, ..Options::default() };
    let mut daemon = Daemon::start(&options);
    let mut client = daemon.client();
    for (container, address) in [("a", 2), ("b", 3), ("c", 4)] {
        assert_eq!(add(&mut client, container), format!("10.40.0.{address}"));
    }
    // The cursor stands at the end: without a cooldown, the next one would be .2.
    let mut last = call("ADD", "last");
    last.args = "IP=10.40.0.7".to_owned();
    assert_eq!(addresses_of(&client.call(&last)), ["10.40.0.7"]);
    for container in ["c", "a", "b"] {
        del(&mut client, container);
    }
    daemon.kill9();
    daemon.restart();
    let mut client = daemon.client();
    for (container, address, why) in [
        ("d", 5, "free and never used"),
        ("e", 6, "free and never used"),
        ("f", 4, "cooled longest"),
        ("g", 2, "cooled longer than the other"),
        ("h", 3, "the last one"),
    ] {
        assert_eq!(add(&mut client, container), format!("10.40.0.{address}"), "{why}");
    }
    let none = client.call(&call("ADD", "i"));
    assert_eq!(none.code(), Some(100), "{none:?}");
}

#[test]
fn an_address_that_was_handed_out_while_it_cooled_cools_anew() {
    let options = Options { cooldown: HOUR, ..Options::default() };
    let mut daemon = Daemon::start(&options);
    let mut client = daemon.client();
    for container in ["a", "b", "c", "d", "e", "f"] {
        add(&mut client, container);
    }
    del(&mut client, "a"); // .2
    del(&mut client, "b"); // .3
    assert_eq!(add(&mut client, "g"), "10.40.0.2");
    del(&mut client, "g"); // .2 again: now it is the youngest
    daemon.kill9();
    daemon.restart();
    let mut client = daemon.client();
    let status = client.get("/v1/status");
    assert_eq!(status["rangeSets"][0]["cooling"], 2, "{status}");
    assert_eq!(add(&mut client, "h"), "10.40.0.3", "{}", daemon.log_tail());
    assert_eq!(add(&mut client, "i"), "10.40.0.2");
}

#[test]
fn an_address_in_use_does_not_cool_after_a_kill() {
    let options = Options { cooldown: HOUR, ..Options::default() };
    let mut daemon = Daemon::start(&options);
    let mut client = daemon.client();
    for container in ["a", "b", "c", "d", "e", "f"] {
        add(&mut client, container);
    }
    del(&mut client, "a");
    assert_eq!(add(&mut client, "g"), "10.40.0.2");
    daemon.kill9();
    daemon.restart();
    let mut client = daemon.client();
    let status = client.get("/v1/status");
    assert_eq!(status["rangeSets"][0]["cooling"], 0, "{status}");
    assert_eq!(status["rangeSets"][0]["allocated"], 6, "{status}");
    let none = client.call(&call("ADD", "h"));
    assert_eq!(none.code(), Some(100), "{none:?}");
}
