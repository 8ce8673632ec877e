//! The plugin with an environment and a standard input that no runtime gives it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Command, Output};

use fastrand::Rng;
use serde_json::Value;
use tempfile::TempDir;

use super::{World, calls, mutate, no_error_object, no_result, seeds, shown};
use crate::common::{builds, feed_bytes};

/// Runs in one batch, and batches of every run.
const RUNS: usize = 60;
const BATCHES: u64 = 6;
/// The longest time of one run, in seconds: far less than its wait for an answer.
const RUN_SECONDS_MAX: &str = "20";
/// The longest value that the kernel lets a variable have, less its name.
const VALUE_BYTES_MAX: usize = (128 << 10) - 64;

type Environment = Vec<(&'static str, OsString)>;

/// A value of a variable that may be odd. It has no zero byte, which a variable cannot have.
fn value(rng: &mut Rng, usual: &str) -> OsString {
    let mut bytes = match rng.u8(..12) {
        0 => Vec::new(),
        1 => mutate::noise(rng, 300),
        2 => vec![b'x'; rng.usize(1..VALUE_BYTES_MAX)],
        3 => b"IP=10.1.2.3;".repeat(rng.usize(1..3_000)),
        4 => {
            let mut bytes = usual.as_bytes().to_vec();
            mutate::bytes(rng, &mut bytes);
            bytes
        }
        _ => usual.as_bytes().to_vec(),
    };
    bytes.retain(|byte| *byte != 0);
    OsString::from_vec(bytes)
}

/// The environment of a call, where some values are odd and some are not there.
fn environment(rng: &mut Rng, call: &Value) -> Environment {
    let mut environment = Vec::new();
    for (variable, key) in [
        ("CNI_COMMAND", "command"),
        ("CNI_CONTAINERID", "containerId"),
        ("CNI_NETNS", "netns"),
        ("CNI_IFNAME", "ifname"),
        ("CNI_ARGS", "args"),
        ("CNI_PATH", "path"),
    ] {
        if rng.u8(..20) > 0 {
            let usual = call[key].as_str().unwrap_or("VERSION");
            environment.push((variable, value(rng, usual)));
        }
    }
    environment
}

/// Standard input that may be anything.
fn input(rng: &mut Rng, call: &Value) -> Vec<u8> {
    match rng.u8(..12) {
        0 => mutate::noise(rng, 2_000),
        1 => b"[".repeat(rng.usize(1..100_000)),
        // Not more than the plugin reads: the helper reads its output only after it has written
        // all.
        2 => vec![b' '; rng.usize(1..3 << 20)],
        3 => Vec::new(),
        4 => format!("{{\"cniVersion\":\"{}\"}}", "9".repeat(rng.usize(1..50_000))).into_bytes(),
        // Sockets that are not there; beside the last one a DEL can leave its note.
        5 => br#"{"cniVersion":"1.0.0","name":"n","ipam":{"socket":"\u0000"}}"#.to_vec(),
        6 => format!("{{\"ipam\":{{\"socket\":\"{}\"}}}}", "s".repeat(rng.usize(1..300))).into(),
        7 | 8 => {
            let mut bytes = call["config"].to_string().into_bytes();
            mutate::bytes(rng, &mut bytes);
            bytes
        }
        _ => mutate::json_text(rng, &call["config"]).into_bytes(),
    }
}

/// The fault of the end of a run, if it has one.
fn wrong(environment: &Environment, output: &Output) -> Option<String> {
    let command = environment.iter().find(|(name, _)| *name == "CNI_COMMAND");
    let command = command.map_or(OsStr::new(""), |(_, value)| value);
    let (stdout, stderr) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    let Ok(stdout) = std::str::from_utf8(stdout) else {
        return Some("standard output is not UTF-8".to_owned());
    };
    // Without a command a person runs it, and it prints a description of itself.
    if stderr.is_empty() == command.is_empty() || stderr.contains("panick") {
        return Some(format!("standard error: {stderr}"));
    }
    match output.status.code() {
        Some(0) if command.is_empty() => None,
        Some(0) => no_result(&command.to_string_lossy(), stdout),
        Some(1) => no_error_object(stdout),
        _ => Some(format!("{}", output.status)),
    }
}

#[test]
fn whatever_the_plugin_is_given_it_ends_with_a_result_or_an_error_object() {
    let (mut world, calls) = (World::new(), calls::valid());
    let calls: Vec<&Value> = calls.iter().filter(|call| call.is_object()).collect();
    let directory = TempDir::with_prefix("leasehold-it-").expect("a temporary directory");
    let (mut runs, mut succeeded) = (0, 0);
    seeds(BATCHES, |rng| {
        for _ in 0..RUNS {
            let call = calls[rng.usize(..calls.len())];
            let (environment, stdin) = (environment(rng, call), input(rng, call));
            let plugin = &builds()[runs % builds().len()].program;
            let mut command = Command::new("timeout");
            command.arg(RUN_SECONDS_MAX).arg(plugin).env_clear().current_dir(directory.path());
            command.env("LEASEHOLD_SOCKET", world.daemon.socket()).envs(environment.clone());
            let output = feed_bytes(command, &stdin);
            if let Some(wrong) = wrong(&environment, &output) {
                let stdout = shown(&output.stdout);
                panic!("{wrong}\n{stdout}\nwith {environment:?}\nand {}", shown(&stdin));
            }
            runs += 1;
            succeeded += usize::from(output.status.success());
        }
        world.end_all();
    });
    println!("{succeeded} of {runs} runs of the plugin succeeded");
    assert!(succeeded > 0 && succeeded < runs, "{succeeded} of {runs}: not a fuzzer");
}
