//! Goal: an operator can rely on the node: its access rights, its shutdown, its metrics and status,
//! its cost, and a plugin that is one small static file.
//!
//! Method: the tests look at the real daemon from outside: at its files, figures and process.

mod arrays;
mod burst;
mod figures;
mod life;
mod size;

use serde_json::{Value, json};

use crate::common::{Call, Client, Outcome};

/// A network of some range sets, each one subnet.
fn config(name: &str, subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
    json!({
        "cniVersion": "1.1.0", "name": name, "ipam": { "type": "my-ipam", "ranges": ranges },
    })
}

/// Many ADDs in one array, all of which must succeed.
fn add_many(client: &mut Client, config: &Value, count: usize) -> Vec<Outcome> {
    let call = |number| Call::new("ADD", &format!("many-{number}"), config);
    let calls: Vec<Call> = (0..count).map(call).collect();
    let answers = client.try_calls(&calls).expect("an array of answers");
    for answer in &answers {
        answer.expect_result();
    }
    answers
}
