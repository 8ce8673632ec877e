//! Calls with mutations: each answer is a result that fits or an error object of CNI.

use serde_json::{Value, json};

use super::{World, corpus, honest, mutate, no_error_object, no_result, seeds, shown};
use crate::common::Client;

/// Calls in one batch.
const CALLS: usize = 250;
/// Batches of every run.
const BATCHES: u64 = 12;
/// Largest error object, in bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Sends a body and judges the answer. True if any call in it succeeded.
pub(super) fn judge(client: &mut Client, body: &str) -> bool {
    let reply = client.request("POST", "/v1/cni", body);
    let sent: Option<Value> = serde_json::from_str(body).ok();
    let command = |call: &Value| call["command"].as_str().unwrap_or_default().to_owned();
    let mut succeeded = false;
    let mut wrong = |command: &str, status: u64, text: &str| {
        succeeded |= status == 200;
        match status {
            200 => no_result(command, text),
            400..=599 if text.len() <= ERROR_BYTES_MAX => no_error_object(text),
            _ => Some(format!("status {status} with {} bytes", text.len())),
        }
    };
    let wrong = match (&sent, reply.status) {
        (Some(Value::Array(calls)), 200) => {
            let answers: Vec<Value> = serde_json::from_str(&reply.body).unwrap_or_default();
            let each = calls.iter().zip(&answers).find_map(|(call, answer)| {
                let status = answer["status"].as_u64().unwrap_or_default();
                let text = match &answer["body"] {
                    Value::Null => String::new(),
                    body => body.to_string(),
                };
                wrong(&command(call), status, &text)
            });
            let missing = answers.len() != calls.len();
            each.or_else(|| missing.then(|| format!("{} answers", answers.len())))
        }
        (Some(call), status) => wrong(&command(call), status.into(), &reply.body),
        // Not JSON, or not for this parser: it cannot be a good call.
        (None, status) => wrong("", status.into(), &reply.body),
    };
    if let Some(wrong) = wrong {
        panic!(
            "{wrong}, as the answer {} to {}",
            shown(reply.body.as_bytes()),
            shown(body.as_bytes())
        );
    }
    succeeded
}

/// The calls of the corpus.
pub(super) fn valid() -> Vec<Value> {
    let call = |(name, text): (String, Vec<u8>)| {
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    corpus("calls").into_iter().map(call).collect()
}

#[test]
fn mutated_calls_get_an_answer_that_fits_and_leave_nothing() {
    let (mut world, calls) = (World::new(), valid());
    for call in &calls {
        judge(&mut world.client, &call.to_string());
    }
    world.end_all();
    let (mut sent, mut succeeded) = (0, 0);
    seeds(BATCHES, |rng| {
        for _ in 0..CALLS {
            let call = &calls[rng.usize(..calls.len())];
            let body = mutate::json_text(rng, call);
            succeeded += usize::from(judge(&mut world.client, &body));
            sent += 1;
        }
        world.end_all();
    });
    println!("{succeeded} of {sent} mutated calls succeeded");
    let share = sent / 10..sent * 9 / 10;
    assert!(share.contains(&succeeded), "{succeeded} of {sent}: too many or too few for a fuzzer");
}

/// A call of the attachment `far`, with another time of the plugin's start.
fn far(command: &str, started_at: u64) -> Value {
    let mut call = honest(command);
    call["containerId"] = json!("far");
    call["startedAt"] = json!(started_at);
    call
}

/// The seeds above found this: a start time in the future outlived every DEL, or every ADD.
#[test]
fn a_start_that_is_yet_to_come_outlives_no_honest_call() {
    let mut world = World::new();
    for command in ["ADD", "DEL", "GC"] {
        for started_at in [u64::MAX, 1 << 62] {
            judge(&mut world.client, &far(command, started_at).to_string());
            world.end_all();
            for command in ["ADD", "DEL"] {
                let call = far(command, leasehold::clock::boot_ns()).to_string();
                let reply = world.client.request("POST", "/v1/cni", &call);
                assert_eq!(reply.status, 200, "an honest {command}: {}", reply.body);
            }
        }
    }
}

/// An answer that does not fit must be noticed.
#[test]
fn an_answer_that_does_not_fit_is_noticed() {
    let object = r#"{"cniVersion":"1.1.0","code":7,"msg":"m"}"#;
    assert_eq!(no_error_object(object), None);
    for wrong in ["", "[]", r#"{"code":7,"msg":"m"}"#, &object.replace('7', "\"7\"")] {
        assert!(no_error_object(wrong).is_some(), "{wrong}");
    }
    assert_eq!(no_result("ADD", r#"{"cniVersion":"1.1.0","ips":[]}"#), None);
    assert_eq!(no_result("DEL", ""), None);
    for (command, wrong) in [("ADD", ""), ("ADD", "{}"), ("DEL", "{}"), ("VERSION", "{}")] {
        assert!(no_result(command, wrong).is_some(), "{command} {wrong}");
    }
}
