//! The notation of the vectors: paragraphs of a name, a configuration and steps.
//!
//! ```text
//! T3 a name in words
//!   {"subnet": "192.168.1.0/29"}                  an `ipam` object, or a whole configuration
//!   add a ip 192.168.1.3 => 192.168.1.3/29        ADD of container a; `via GATEWAY` may follow
//!   add a/net1 args X,Y caps Z => …, …            two results: one for each range set
//!   add b cniargs K=V;L=W !! words                refused on both sides, with these words
//!   add b ips … !~ words                          the same; which words follow is left to chance
//!   del a                                         DEL; succeeds unless `!!` follows
//!   fill 192.168.1.4 192.168.1.5                  one ADD of a new container for each of these
//!   config {"subnet": "192.168.1.0/28"}           the same network has another configuration now
//! ```

use serde_json::Value;

use super::{Asks, Sides, Way, addresses, agree, configuration};
use crate::common::{Call, Outcome};

/// One paragraph of a table.
pub(super) struct Vector {
    pub(super) name: String,
    config: Value,
    steps: Vec<(String, Step)>,
}

enum Step {
    Call { command: &'static str, attachment: String, asks: Asks, raw: String, expect: Expect },
    Fill(Vec<String>),
    Config(Value),
}

enum Expect {
    /// Success; the addresses begin so (`via …` may be left out).
    Addresses(Vec<String>),
    /// Success with any output.
    Success,
    /// The same refusal on both sides, with these words in it.
    Refusal(String),
    /// A refusal on both sides with these words; the rest is left to chance by the oracle.
    LooseRefusal(String),
}

/// Reads a table.
pub(super) fn parse(text: &str) -> Vec<Vector> {
    text.trim().split("\n\n").map(parse_vector).collect()
}

fn parse_vector(paragraph: &str) -> Vector {
    let mut lines = paragraph.lines().map(str::trim).filter(|line| !line.is_empty());
    let name = lines.next().expect("a name").to_owned();
    let mut json = String::new();
    let mut steps = Vec::new();
    for line in lines {
        match parse_step(line) {
            Some(step) => steps.push((line.to_owned(), step)),
            None if steps.is_empty() => json.push_str(line),
            None => panic!("{name}: not a step: {line}"),
        }
    }
    let config = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{name}: {e}: {json}"));
    Vector { name, config, steps }
}

fn parse_step(line: &str) -> Option<Step> {
    let (verb, rest) = line.split_once(' ')?;
    match verb {
        "add" => Some(parse_call("ADD", rest)),
        "del" => Some(parse_call("DEL", rest)),
        "fill" => Some(Step::Fill(rest.split(' ').map(str::to_owned).collect())),
        "config" => Some(Step::Config(serde_json::from_str(rest).expect("a configuration"))),
        _ => None,
    }
}

fn parse_call(command: &'static str, rest: &str) -> Step {
    let cut = ["=>", "!!", "!~"].into_iter().find_map(|sign| {
        rest.split_once(sign).map(|(head, tail)| (head, sign, tail.trim().to_owned()))
    });
    let (head, expect) = match cut {
        None => (rest, Expect::Success),
        Some((head, "=>", tail)) => {
            (head, Expect::Addresses(tail.split(", ").map(str::to_owned).collect()))
        }
        Some((head, "!!", tail)) => (head, Expect::Refusal(tail)),
        Some((head, _, tail)) => (head, Expect::LooseRefusal(tail)),
    };
    let mut words = head.split_whitespace();
    let attachment = words.next().expect("a container").to_owned();
    let (mut asks, mut raw) = (Asks::default(), String::new());
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("a value after {word} in {rest}"));
        let list = || value.split(',').map(str::to_owned).collect();
        match word {
            "ip" => asks.environment = Some(value.to_owned()),
            "args" => asks.args = list(),
            "caps" => asks.capability = list(),
            "cniargs" => raw = value.to_owned(),
            _ => panic!("{word} in {rest}"),
        }
    }
    Step::Call { command, attachment, asks, raw, expect }
}

impl Vector {
    /// Runs the steps on both sides. Returns the number of calls on each side; the error has the
    /// fault.
    pub(super) fn run(&self, sides: &mut Sides, network: &str) -> Result<usize, String> {
        let mut config = configuration(network, &self.config);
        let mut calls = 0;
        for (line, step) in &self.steps {
            match step {
                Step::Config(given) => config = configuration(network, given),
                Step::Call { command, attachment, asks, raw, expect } => {
                    let (container, ifname) =
                        attachment.split_once('/').unwrap_or((attachment, "eth0"));
                    let mut call = Call::new(command, container, &config);
                    call.ifname = ifname.to_owned();
                    call.args.clone_from(raw);
                    asks.apply(&mut call);
                    let outcomes = sides.both(&call, Way::Plugin);
                    expect.check(outcomes).map_err(|why| format!("{line}: {why}"))?;
                    calls += 1;
                }
                Step::Fill(wanted) => {
                    for address in wanted {
                        let call = Call::new("ADD", &format!("new-{calls}"), &config);
                        let outcomes = sides.both(&call, Way::Plugin);
                        let expect = Expect::Addresses(vec![format!("{address}/")]);
                        expect.check(outcomes).map_err(|why| format!("{line}: {why}"))?;
                        calls += 1;
                    }
                }
            }
        }
        let (theirs, ours) = (sides.held_by_theirs(network), sides.held_by_ours(network));
        if theirs == ours {
            Ok(calls)
        } else {
            Err(format!("held at the end:\n    host-local: {theirs:?}\n    my-ipam:    {ours:?}"))
        }
    }
}

impl Expect {
    fn check(&self, (theirs, ours): (Outcome, Outcome)) -> Result<(), String> {
        self.check_one(&theirs).map_err(|why| format!("host-local: {why}"))?;
        self.check_one(&ours).map_err(|why| format!("my-ipam: {why}"))?;
        match self {
            Self::LooseRefusal(_) => Ok(()),
            _ => agree(&theirs, &ours),
        }
    }

    fn check_one(&self, outcome: &Outcome) -> Result<(), String> {
        let good = match (self, outcome) {
            (Self::Addresses(wanted), Outcome::Done(Some(result))) => {
                let given = addresses(result);
                given.len() == wanted.len()
                    && given.iter().zip(wanted).all(|(given, wanted)| given.starts_with(wanted))
            }
            (Self::Success, Outcome::Done(_)) => true,
            (Self::Refusal(text) | Self::LooseRefusal(text), Outcome::Refused(_)) => {
                outcome.message().contains(text.as_str())
            }
            _ => false,
        };
        if good { Ok(()) } else { Err(format!("{outcome:?}")) }
    }
}
