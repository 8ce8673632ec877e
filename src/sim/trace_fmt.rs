//! Requests and answers in a few words, for traces.

use std::fmt::Write as _;

use crate::core::ids::Link;
use crate::core::txn::{Answer, Compare, Request, StoreError, Txn, TxnOutcome, Write};
use crate::core::value::Value;

fn short(key: &str) -> &str {
    key.strip_prefix("blocks/net/ipv4/").unwrap_or(key)
}

pub(super) fn request(request: &Request) -> String {
    match request {
        Request::Txn(txn) => brief_txn(txn),
        Request::Read(spans) => {
            let of: Vec<&str> = spans.iter().map(|span| short(&span.first)).collect();
            format!("read {}", of.join(" "))
        }
        other => format!("{other:?}"),
    }
}

fn brief_txn(txn: &Txn) -> String {
    let mut text = "if".to_owned();
    for compare in &txn.when {
        let _ = match compare {
            Compare::At(key, revision) => write!(text, " {}@{revision}", short(key)),
            Compare::Absent(key) => write!(text, " {}@none", short(key)),
            Compare::NoneIn(first, past) => write!(text, " none {}..{}", short(first), short(past)),
        };
    }
    text.push_str(" then");
    for change in &txn.then {
        let _ = match change {
            Write::Delete(key) => write!(text, " -{}", short(key)),
            Write::DeleteIn(first, past) => write!(text, " -{}..{}", short(first), short(past)),
            Write::Put(key, value, lease) => {
                let what = match value {
                    Value::Block(block) => {
                        format!("/{}:{}:{:?}", block.cidr.size().log2(), block.owner, block.status)
                    }
                    Value::Node(node) => {
                        format!("=e{} s{}", node.epoch, node.sequence.map_or(0, Link::get))
                    }
                    Value::Message(message) => format!("={:?}", message.body),
                    Value::Allocation(allocation) => format!("={}", allocation.container_id),
                    _ => String::new(),
                };
                let lease = lease.map(|lease| format!("~{lease}")).unwrap_or_default();
                write!(text, " +{}{what}{lease}", short(key))
            }
        };
    }
    text
}

pub(super) fn answer(answer: &Result<Answer, StoreError>) -> String {
    match answer {
        Ok(Answer::Txn(TxnOutcome::Done(revision))) => format!("done @{revision}"),
        Ok(Answer::Txn(TxnOutcome::Refused(revision))) => format!("REFUSED @{revision}"),
        Ok(Answer::Read(snapshot)) => {
            let mut text = format!("read @{}", snapshot.revision);
            for key in snapshot.spans.iter().flatten() {
                let _ = match &key.value {
                    Value::Block(block) => write!(
                        text,
                        " {}/{}:{}:{:?}@{}",
                        short(&key.key),
                        block.cidr.size().log2(),
                        block.owner,
                        block.status,
                        key.mod_revision
                    ),
                    Value::Node(node) => write!(
                        text,
                        " {}=e{} s{}@{}",
                        key.key,
                        node.epoch,
                        node.sequence.map_or(0, Link::get),
                        key.mod_revision
                    ),
                    _ => write!(text, " {}", key.key),
                };
            }
            text
        }
        other => format!("{other:?}"),
    }
}
