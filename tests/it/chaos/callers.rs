//! Callers: what a runtime does, with calls that are repeated when no answer came.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use leasehold::clock;
use serde_json::{Value, json};

use super::history::{Addresses, By, Container, What};
use super::run::{Node, Run};
use crate::common::{Call, Client, Outcome, my_ipam, run};

/// Containers of the network of two families, for each caller.
const DUAL: usize = 2;
/// Of a hundred calls: those through the plugin, those whose caller hangs up soon.
const PLUGIN: u8 = 3;
const IMPATIENT: u8 = 4;
/// The longest pause between two calls.
const PAUSE_MAX_MS: u64 = 40;
/// The time within which everything is ended after all was mended.
const ENDED_WITHIN: Duration = Duration::from_secs(90);
/// Codes of errors: a failed journal, and one that may go away.
const MAY_COUNT: [u64; 2] = [5, 11];

/// A place for one container after the other.
struct Place {
    network: usize,
    container: Container,
    state: State,
    /// The number of times that the node's containers had been stopped, and that its machine had
    /// been rebooted, when the last ADD was sent.
    stops: u32,
    boots: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Holds,
    /// Nobody knows whether the node holds something.
    Unsure,
}

/// A client of one node.
pub(super) struct Caller<'a> {
    run: &'a Run,
    node: &'a Node,
    rng: Rng,
    client: Client,
    places: Vec<Place>,
}

impl<'a> Caller<'a> {
    /// A caller, the one of this number among as many.
    pub(super) fn new(run: &'a Run, node: &'a Node, rng: Rng, number: usize, of: usize) -> Self {
        let tight = usize::from(run.settings.tight);
        let own = tight / of + usize::from(number < tight % of);
        let networks = std::iter::repeat_n(0, own).chain(std::iter::repeat_n(1, DUAL));
        let place =
            |network| Place { network, container: 0, state: State::Empty, stops: 0, boots: 0 };
        let client = Client::new(node.socket.clone());
        Self { run, node, rng, client, places: networks.map(place).collect() }
    }

    /// Calls until the run is quiet, and ends what must not stay.
    pub(super) fn go(mut self) {
        while !self.run.is_quiet() {
            let answered = self.step();
            let pause = if answered { PAUSE_MAX_MS } else { 8 * PAUSE_MAX_MS };
            thread::sleep(Duration::from_millis(self.rng.u64(..pause)));
        }
        let begun = Instant::now();
        for at in 0..self.places.len() {
            let place = &self.places[at];
            let due = place.state == State::Unsure || self.is_stopped(place);
            if due || place.state == State::Holds && self.rng.bool() {
                while !self.del(at) && !self.run.is_over() {
                    assert!(begun.elapsed() < ENDED_WITHIN, "{} ends no DEL", self.node.name);
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    /// One call. False if it got no answer.
    fn step(&mut self) -> bool {
        let at = self.rng.usize(..self.places.len());
        let place = &self.places[at];
        let draw = self.rng.u8(..10);
        match place.state {
            State::Empty => {
                if draw > 0 || place.container == 0 {
                    self.places[at].container = self.run.new_container();
                }
                self.add(at)
            }
            // A runtime may know of the containers of an earlier boot, or not.
            _ if self.is_of_earlier_boot(place) && draw < 5 => {
                self.places[at].state = State::Empty;
                true
            }
            // After their stop containers are only ended.
            _ if self.is_stopped(place) => self.del(at),
            State::Holds if draw < 2 => self.add(at),
            State::Holds if draw < 6 => self.del(at),
            State::Holds => true,
            State::Unsure if draw < 3 => self.add(at),
            State::Unsure => self.del(at),
        }
    }

    fn is_stopped(&self, place: &Place) -> bool {
        let stops = self.node.stops.load(Ordering::SeqCst);
        place.state != State::Empty && place.stops != stops || self.is_of_earlier_boot(place)
    }

    fn is_of_earlier_boot(&self, place: &Place) -> bool {
        place.state != State::Empty && place.boots != self.node.boots.load(Ordering::SeqCst)
    }

    fn add(&mut self, at: usize) -> bool {
        let history = &self.run.history;
        self.places[at].stops = self.node.stops.load(Ordering::SeqCst);
        self.places[at].boots = self.node.boots.load(Ordering::SeqCst);
        let (container, before) = (self.places[at].container, self.places[at].state);
        let asked = (before == State::Empty && self.rng.u8(..10) == 0).then(|| self.asked(at));
        let by = self.way();
        let era = history.era(self.node.at);
        history.note(What::Add(container, self.node.at));
        let what = match self.send("ADD", at, by, asked.flatten()) {
            Some(Outcome::Done(Some(result))) => What::Added(container, addresses(&result)),
            Some(Outcome::Refused(error)) => {
                let code = error["code"].as_u64().expect("a code");
                assert_ne!(code, 199, "an internal error: {error:?}");
                // The plugin had no answer.
                let lost = by == By::Plugin && MAY_COUNT.contains(&code);
                if lost { What::AddLost(container) } else { What::Refused(container, code) }
            }
            Some(other) => panic!("an ADD is answered with {other:?}"),
            None => What::AddLost(container),
        };
        let state = match what {
            What::Added(..) => State::Holds,
            What::Refused(_, code) if before != State::Holds && code != 5 => before,
            What::Refused(_, code) if before == State::Holds && MAY_COUNT.contains(&code) => before,
            _ if before == State::Holds => before,
            _ => State::Unsure,
        };
        let answered = !matches!(what, What::AddLost(_));
        let in_time = history.answer(self.node.at, era, what);
        self.places[at].state = if in_time { state } else { State::Unsure };
        answered
    }

    /// One DEL. True if it was answered.
    fn del(&mut self, at: usize) -> bool {
        let history = &self.run.history;
        let (container, by) = (self.places[at].container, self.way());
        let era = history.era(self.node.at);
        history.note(What::Del(container));
        self.places[at].state = State::Unsure;
        let done = match self.send("DEL", at, by, None) {
            Some(Outcome::Done(_)) => true,
            Some(Outcome::Refused(error)) => {
                let code = error["code"].as_u64().expect("a code");
                assert!(MAY_COUNT.contains(&code), "a DEL fails: {error:?}");
                false
            }
            Some(other) => panic!("a DEL is answered with {other:?}"),
            None => false,
        };
        if done && history.answer(self.node.at, era, What::Deleted(container, by)) {
            self.places[at].state = State::Empty;
            return true;
        }
        false
    }

    fn way(&mut self) -> By {
        if self.rng.u8(..100) < PLUGIN { By::Plugin } else { By::Socket }
    }

    /// An address of the tight network that an ADD asks for by name.
    fn asked(&mut self, at: usize) -> Option<String> {
        let last = 10 + self.rng.u8(..self.run.settings.tight);
        (self.places[at].network == 0).then(|| format!("IP=10.1.0.{last}"))
    }

    /// Makes a call; `None` if it got no answer.
    fn send(
        &mut self,
        verb: &'static str,
        at: usize,
        by: By,
        args: Option<String>,
    ) -> Option<Outcome> {
        let place = &self.places[at];
        let mut call = call(verb, place.container, &self.run.networks[place.network]);
        call.args = args.unwrap_or_default();
        if by == By::Plugin {
            let socket = self.node.socket.to_str().expect("a path in UTF-8");
            let mut environment = call.environment().to_vec();
            environment.push(("LEASEHOLD_SOCKET", socket));
            let output = run(my_ipam(), &environment, &call.config.to_string());
            return Some(Outcome::of_process(&output));
        }
        if self.rng.u8(..100) < IMPATIENT {
            let limit = Duration::from_millis(self.rng.u64(1..300));
            return post(&mut Client::with_limit(self.node.socket.clone(), limit), &call);
        }
        post(&mut self.client, &call)
    }
}

/// A call for a container.
pub(super) fn call(verb: &'static str, container: Container, network: &Value) -> Call {
    let mut call = Call::new(verb, &format!("c{container:06}"), network);
    // One that lives as long as the run: the daemon's sweep looks.
    call.netns = format!("/proc/{}/ns/net", std::process::id());
    call
}

/// Makes a call on a socket, with its start time, as the plugin does. `None` without an answer.
pub(super) fn post(client: &mut Client, call: &Call) -> Option<Outcome> {
    let mut body = call.body();
    body["startedAt"] = json!(clock::boot_ns());
    let reply = client.try_request("POST", "/v1/cni", &body.to_string()).ok()?;
    Some(match reply.status {
        200 => Outcome::success(&reply.body),
        status => Outcome::refusal(&reply.body, &format!("HTTP status {status}")),
    })
}

/// The addresses of a result.
pub(super) fn addresses(result: &Value) -> Addresses {
    let ips = result["ips"].as_array().unwrap_or_else(|| panic!("no addresses: {result}"));
    let address = |ip: &Value| -> IpAddr {
        let text = ip["address"].as_str().and_then(|text| text.split('/').next());
        text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no address: {ip}"))
    };
    ips.iter().map(address).collect()
}
