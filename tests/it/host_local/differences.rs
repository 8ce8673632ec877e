//! Goal: know every point in which `my-ipam` answers differently from host-local.
//!
//! Method: each has a name and a reason here, and a demonstration that runs on both sides. When one
//! side changes its behaviour, the demonstration fails, so the list stays true.

use serde_json::{Value, json};

use super::{Sides, UNCLASSIFIED, Way, addresses, configuration};
use crate::common::{Call, Outcome, Passing};

/// A point in which we answer differently from host-local, on purpose.
#[derive(Clone, Copy, Debug)]
enum Difference {
    ErrorHasVersion,
    ErrorCodes,
    DecoderWords,
    RepeatedAdd,
    RepeatedAddForItsAddress,
    RepeatedAddForAnotherAddress,
    RollbackOfItsOwnWork,
    DelDespiteConfiguration,
    CheckOfPreviousResult,
    StartAtBroadcast,
    DataDirectory,
    EmptyDns,
    NewerVersion,
    GarbageCollection,
    NullAddress,
    LeadingZeroByte,
    GatewayOfAnotherRange,
}

impl Difference {
    const ALL: [Self; 17] = [
        Self::ErrorHasVersion,
        Self::ErrorCodes,
        Self::DecoderWords,
        Self::RepeatedAdd,
        Self::RepeatedAddForItsAddress,
        Self::RepeatedAddForAnotherAddress,
        Self::RollbackOfItsOwnWork,
        Self::DelDespiteConfiguration,
        Self::CheckOfPreviousResult,
        Self::StartAtBroadcast,
        Self::DataDirectory,
        Self::EmptyDns,
        Self::NewerVersion,
        Self::GarbageCollection,
        Self::NullAddress,
        Self::LeadingZeroByte,
        Self::GatewayOfAnotherRange,
    ];

    const fn reason(self) -> &'static str {
        match self {
            Self::ErrorHasVersion => "the specification wants cniVersion in an error object",
            Self::ErrorCodes => "the specification has codes; host-local says 999 to everything",
            Self::DecoderWords => "the words for broken JSON are those of Go's decoder",
            Self::RepeatedAdd => "a runtime that asks again after a lost answer gets it again",
            Self::RepeatedAddForItsAddress => "the same, when it asks for the address by name",
            Self::RepeatedAddForAnotherAddress => "host-local then gives a second address",
            Self::RollbackOfItsOwnWork => "host-local also takes what an earlier ADD was given",
            Self::DelDespiteConfiguration => "a DEL that fails leaves addresses behind for ever",
            Self::CheckOfPreviousResult => "the specification wants prevResult compared",
            Self::StartAtBroadcast => "host-local walks out of the subnet",
            Self::DataDirectory => "the state is the daemon's; the directory names nothing",
            Self::EmptyDns => "1.1.1 prints an empty dns for 1.0.0, newer host-local does not",
            Self::NewerVersion => "1.1.1 is older than version 1.1.0 of the specification",
            Self::GarbageCollection => "host-local has no GC",
            Self::NullAddress => "host-local crashes",
            Self::GatewayOfAnotherRange => "a container must not have the address of a gateway",
            Self::LeadingZeroByte => {
                "1.1.1 loses leading zero bytes (T54), fixed in newer host-local"
            }
        }
    }

    fn demonstrate(self, sides: &mut Sides, network: &str) -> Result<(), String> {
        match self {
            Self::ErrorHasVersion => error_has_version(sides, network),
            Self::ErrorCodes => error_codes(sides, network),
            Self::DecoderWords => decoder_words(sides, network),
            Self::RepeatedAdd => repeated_add(sides, network, [None, None]),
            Self::RepeatedAddForItsAddress => {
                repeated_add(sides, network, [Some("10.0.0.5"), Some("10.0.0.5")])
            }
            Self::RepeatedAddForAnotherAddress => repeated_add_for_another(sides, network),
            Self::RollbackOfItsOwnWork => rollback_of_its_own_work(sides, network),
            Self::DelDespiteConfiguration => del_despite_configuration(sides, network),
            Self::CheckOfPreviousResult => check_of_previous_result(sides, network),
            Self::StartAtBroadcast => start_at_broadcast(sides, network),
            Self::DataDirectory => data_directory(sides, network),
            Self::EmptyDns => empty_dns(sides, network),
            Self::NewerVersion => newer_version(sides, network),
            Self::GarbageCollection => garbage_collection(sides, network),
            Self::NullAddress => null_address(sides, network),
            Self::LeadingZeroByte => leading_zero_byte(sides, network),
            Self::GatewayOfAnotherRange => gateway_of_another_range(sides, network),
        }
    }
}

/// Every difference in the list is there on both sides.
#[test]
fn every_permitted_difference_happens_on_both_sides() {
    let mut sides = Sides::start();
    let mut failures = Vec::new();
    for (index, difference) in Difference::ALL.into_iter().enumerate() {
        if let Err(why) = difference.demonstrate(&mut sides, &format!("difference-{index}")) {
            failures.push(format!("{difference:?} ({}): {why}", difference.reason()));
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

/// A result without the empty `dns` that [`Difference::EmptyDns`] is about.
pub(super) fn without_empty_dns(result: &Option<Value>) -> Option<Value> {
    let mut result = result.clone();
    if let Some(Value::Object(fields)) = &mut result
        && fields.get("cniVersion") == Some(&json!("1.0.0"))
        && fields.get("dns") == Some(&json!({}))
    {
        fields.remove("dns");
    }
    result
}

fn shown(condition: bool, theirs: &Outcome, ours: &Outcome) -> Result<(), String> {
    if condition {
        return Ok(());
    }
    Err(format!("\n    host-local: {theirs:?}\n    my-ipam:    {ours:?}"))
}

/// The result of an outcome; null if there is none.
fn result(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Done(Some(result)) => result.clone(),
        Outcome::Done(None) | Outcome::Refused(_) | Outcome::Broken(_) => Value::Null,
    }
}

/// The configuration of one /29 of ten-net.
fn small(network: &str) -> Value {
    configuration(network, &json!({"subnet": "10.0.0.0/29"}))
}

fn add(container: &str, config: &Value, asked: Option<&str>) -> Call {
    let mut call = Call::new("ADD", container, config);
    call.args = asked.map(|address| format!("IP={address}")).unwrap_or_default();
    call
}

fn error_has_version(sides: &mut Sides, network: &str) -> Result<(), String> {
    let config = json!({"cniVersion": "0.4.0", "ipam": {"subnet": "10.0.0.0/31"}});
    let call = Call::new("ADD", "a", &configuration(network, &config));
    let (theirs, ours) = sides.both(&call, Way::Plugin);
    let version = |outcome: &Outcome| match outcome {
        Outcome::Refused(object) => object.get("cniVersion").cloned(),
        Outcome::Done(_) | Outcome::Broken(_) => None,
    };
    shown(version(&theirs).is_none() && version(&ours) == Some("0.4.0".into()), &theirs, &ours)
}

fn error_codes(sides: &mut Sides, network: &str) -> Result<(), String> {
    let config = configuration(network, &json!({"subnet": "10.0.0.0/30"}));
    let bad = configuration(network, &json!({"subnet": "10.0.0.0/33"}));
    let first = sides.both(&add("a", &config, None), Way::Plugin);
    shown(first.0.succeeded() && first.1.succeeded(), &first.0, &first.1)?;
    for (call, codes) in [
        (add("b", &bad, None), 7..=7),
        (add("b", &config, None), 100..=UNCLASSIFIED - 1),
        (add("b", &config, Some("10.0.0.2")), 100..=UNCLASSIFIED - 1),
        (add("b", &config, Some("10.0.0.9")), 1..=UNCLASSIFIED - 1),
    ] {
        let (theirs, ours) = sides.both(&call, Way::Plugin);
        let good = ours.code().is_some_and(|code| codes.contains(&code));
        shown(theirs.code() == Some(UNCLASSIFIED) && good, &theirs, &ours)?;
    }
    Ok(())
}

fn decoder_words(sides: &mut Sides, network: &str) -> Result<(), String> {
    let call = Call::new("ADD", "a", &Value::Null);
    for stdin in ["", "{", "[]"] {
        let theirs = crate::common::run(&super::oracle(), &call.environment(), stdin);
        let theirs = Outcome::of_process(&theirs);
        let ours = sides.daemon.plugin_raw(&call.environment(), stdin);
        let ours = Outcome::of_process(&ours);
        shown(theirs.code() == Some(6) && ours.code() == Some(6), &theirs, &ours)?;
    }
    let config = configuration(network, &json!({"subnet": 5}));
    let (theirs, ours) = sides.both(&Call::new("ADD", "a", &config), Way::Plugin);
    let ours_is_typed = ours.code().is_some_and(|code| code == 6 || code == 7);
    shown(theirs.code() == Some(UNCLASSIFIED) && ours_is_typed, &theirs, &ours)
}

fn repeated_add(sides: &mut Sides, network: &str, asked: [Option<&str>; 2]) -> Result<(), String> {
    let config = small(network);
    let (first_theirs, first_ours) = sides.both(&add("a", &config, asked[0]), Way::Plugin);
    shown(first_theirs.succeeded() && first_ours.succeeded(), &first_theirs, &first_ours)?;
    let (theirs, ours) = sides.both(&add("a", &config, asked[1]), Way::Plugin);
    let refused = match asked[1] {
        None => theirs.message().contains("duplicate allocation is not allowed"),
        Some(_) => theirs.message().contains("is not available in range set"),
    };
    shown(refused && ours == first_ours, &theirs, &ours)
}

fn repeated_add_for_another(sides: &mut Sides, network: &str) -> Result<(), String> {
    let config = small(network);
    sides.both(&add("a", &config, None), Way::Plugin);
    let (theirs, ours) = sides.both(&add("a", &config, Some("10.0.0.5")), Way::Plugin);
    let held = (sides.held_by_theirs(network).len(), sides.held_by_ours(network).len());
    let good = theirs.succeeded() && !ours.message().is_empty() && held == (2, 1);
    shown(good, &theirs, &ours)
}

fn rollback_of_its_own_work(sides: &mut Sides, network: &str) -> Result<(), String> {
    let ranges = json!({"ranges": [[{"subnet": "10.0.0.0/29"}], [{"subnet": "10.0.1.0/29"}]]});
    let config = configuration(network, &ranges);
    sides.both(&add("a", &config, None), Way::Plugin);
    let (theirs, ours) = sides.both(&add("a", &config, Some("10.0.0.5")), Way::Plugin);
    let held = (sides.held_by_theirs(network).len(), sides.held_by_ours(network).len());
    let refused = !theirs.message().is_empty() && !ours.message().is_empty();
    shown(refused && held == (0, 2), &theirs, &ours)
}

fn del_despite_configuration(sides: &mut Sides, network: &str) -> Result<(), String> {
    let good = small(network);
    let bad = configuration(network, &json!({"subnet": "nonsense"}));
    let mut bad_args = Call::new("DEL", "b", &good);
    bad_args.args = "nonsense".to_owned();
    for (container, del) in [("a", Call::new("DEL", "a", &bad)), ("b", bad_args)] {
        sides.both(&add(container, &good, None), Way::Plugin);
        let (theirs, ours) = sides.both(&del, Way::Plugin);
        let released = sides.held_by_ours(network).is_empty();
        let kept = !sides.held_by_theirs(network).is_empty();
        let refused = theirs.code() == Some(UNCLASSIFIED);
        shown(refused && kept && ours == Outcome::Done(None) && released, &theirs, &ours)?;
    }
    Ok(())
}

fn check_of_previous_result(sides: &mut Sides, network: &str) -> Result<(), String> {
    let config = small(network);
    let (theirs, given) = sides.both(&add("a", &config, None), Way::Plugin);
    shown(theirs.succeeded() && given.succeeded(), &theirs, &given)?;
    let mut truth = Call::new("CHECK", "a", &config);
    truth.config["prevResult"] = result(&given);
    let mut lie = truth.clone();
    lie.config["prevResult"]["ips"][0]["address"] = "10.0.0.6/29".into();
    let mut stranger = truth.clone();
    stranger.container = "b".to_owned();
    for (call, expected) in [(truth, [true, true]), (lie, [true, false]), (stranger, [false; 2])] {
        let (theirs, ours) = sides.both(&call, Way::Plugin);
        let whole = !matches!(theirs, Outcome::Broken(_)) && !matches!(ours, Outcome::Broken(_));
        let found = [theirs.succeeded(), ours.succeeded()];
        shown(whole && found == expected, &theirs, &ours)?;
    }
    Ok(())
}

fn start_at_broadcast(sides: &mut Sides, network: &str) -> Result<(), String> {
    let ipam = json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.255"});
    let config = configuration(network, &ipam);
    sides.theirs(&add("a", &config, None));
    let (theirs, ours) = sides.both(&add("b", &config, None), Way::Plugin);
    let outside = addresses(&result(&theirs)) == ["10.0.1.0/24 via 10.0.0.1"];
    shown(outside && ours.code() == Some(7), &theirs, &ours)
}

fn gateway_of_another_range(sides: &mut Sides, network: &str) -> Result<(), String> {
    let ipam = json!({"ranges": [[
        {"subnet": "10.0.0.0/30", "rangeStart": "10.0.0.2", "gateway": "10.0.1.2"},
        {"subnet": "10.0.1.0/29", "rangeStart": "10.0.1.2"}
    ]]});
    let config = configuration(network, &ipam);
    sides.both(&add("a", &config, None), Way::Plugin);
    let (theirs, ours) = sides.both(&add("b", &config, None), Way::Plugin);
    let of = |outcome| addresses(&result(outcome));
    let differ =
        of(&theirs) == ["10.0.1.2/29 via 10.0.1.1"] && of(&ours) == ["10.0.1.3/29 via 10.0.1.1"];
    shown(differ, &theirs, &ours)
}

fn data_directory(sides: &mut Sides, network: &str) -> Result<(), String> {
    let mut config = small(network);
    let unused = sides.data.path().join("unused");
    config["ipam"]["dataDir"] = unused.to_string_lossy().into();
    let (theirs, ours) = sides.both(&add("a", &config, None), Way::Plugin);
    let directories = sides.data.path().join(network).is_dir() && !unused.exists();
    shown(theirs.succeeded() && ours.succeeded() && directories, &theirs, &ours)
}

fn empty_dns(sides: &mut Sides, network: &str) -> Result<(), String> {
    let (theirs, ours) = sides.both(&add("a", &small(network), None), Way::Plugin);
    let without = ours.succeeded() && result(&ours).get("dns").is_none();
    shown(result(&theirs)["dns"] == json!({}) && without, &theirs, &ours)
}

fn newer_version(sides: &mut Sides, network: &str) -> Result<(), String> {
    let mut config = small(network);
    config["cniVersion"] = "1.1.0".into();
    let (theirs, ours) = sides.both(&add("a", &config, None), Way::Plugin);
    let version = result(&ours)["cniVersion"] == "1.1.0";
    shown(theirs.code() == Some(1) && version, &theirs, &ours)?;
    let (theirs, ours) = sides.both(&Call::new("STATUS", "", &config), Way::Plugin);
    shown(!theirs.succeeded() && ours.succeeded(), &theirs, &ours)?;
    let (theirs, ours) = sides.both(&Call::new("VERSION", "", &config), Way::Plugin);
    let versions = |outcome: &Outcome| result(outcome)["supportedVersions"].clone();
    let mut expected = versions(&theirs).as_array().cloned().unwrap_or_default();
    expected.push("1.1.0".into());
    shown(versions(&ours) == Value::Array(expected), &theirs, &ours)
}

fn garbage_collection(sides: &mut Sides, network: &str) -> Result<(), String> {
    let mut config = small(network);
    config["cniVersion"] = "1.1.0".into();
    for container in ["a", "b"] {
        let passing = Passing::start();
        let call = Call { netns: passing.path(), ..add(container, &config, None) };
        sides.ours(&call, Way::Plugin);
    }
    let valid = json!([{"containerID": "b", "ifname": "eth0"}]);
    config["cni.dev/valid-attachments"] = valid;
    let (theirs, ours) = sides.both(&Call::new("GC", "", &config), Way::Plugin);
    let held: Vec<String> = sides.held_by_ours(network).into_iter().collect();
    let good = !theirs.succeeded() && ours == Outcome::Done(None);
    shown(good && held == ["10.0.0.3 b eth0"], &theirs, &ours)
}

fn null_address(sides: &mut Sides, network: &str) -> Result<(), String> {
    let mut config = small(network);
    config["args"] = json!({"cni": {"ips": [null]}});
    let (theirs, ours) = sides.both(&add("a", &config, None), Way::Plugin);
    let crash = matches!(theirs, Outcome::Broken(_)) && !matches!(ours, Outcome::Broken(_));
    shown(crash, &theirs, &ours)
}

fn leading_zero_byte(sides: &mut Sides, network: &str) -> Result<(), String> {
    for (family, subnet, right) in
        [("v4", "0.0.0.0/24", "0.0.0.2/24 via 0.0.0.1"), ("v6", "::/24", "::2/24 via ::1")]
    {
        let network = format!("{network}-{family}");
        let config = configuration(&network, &json!({"subnet": subnet}));
        let (theirs, ours) = sides.both(&add("a", &config, None), Way::Plugin);
        let good = addresses(&result(&theirs)) != [right] && addresses(&result(&ours)) == [right];
        shown(good, &theirs, &ours)?;
    }
    Ok(())
}
