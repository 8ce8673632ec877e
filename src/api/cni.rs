//! `POST /v1/cni`: one CNI call, or an array of them.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::io::AsyncReadExt as _;

use super::{Node, Phase};
use crate::actors::coordinator::{CanServe, Execute};
use crate::cni::error::{Code, Error};
use crate::cni::request::{self, Body, Calls, Id, Request, Verb};
use crate::cni::resolv::{self, Dns};
use crate::cni::result::{self, Assigned};
use crate::core::attachment::{AttachmentId, Holding, Pod};
use crate::core::coordinator::{Add, Call, CallError, Del, Outcome, Which};
use crate::core::range::Ranges;
use crate::core::range_set::AssignError;
use crate::{clock, limits, metrics};

/// One answer of an array.
#[derive(Serialize)]
struct Answer {
    status: u16,
    body: serde_json::Value,
}

/// The handler.
pub async fn handle(node: web::Data<Node>, payload: web::Payload) -> HttpResponse {
    let calls = match read(payload).await {
        Ok(body) => request::split(&body),
        Err(error) => Err(error),
    };
    match calls {
        Ok(Calls::One(request)) => {
            let (status, body) = execute(&node, Ok(request)).await;
            HttpResponse::build(status).content_type("application/json").body(body)
        }
        Ok(Calls::Many(calls)) => {
            // All of them reach the coordinator before the journal commits: one group for all.
            let answers = join_all(calls.into_iter().map(|call| execute(&node, call))).await;
            let answers: Vec<Answer> = (answers.into_iter())
                .map(|(status, body)| Answer {
                    status: status.as_u16(),
                    body: serde_json::from_str(&body).unwrap_or_default(),
                })
                .collect();
            HttpResponse::Ok().json(answers)
        }
        Err(error) => {
            let (status, body) = execute(&node, Err(error)).await;
            HttpResponse::build(status).content_type("application/json").body(body)
        }
    }
}

/// Reads the body of a request, bounded in size and time.
async fn read(payload: web::Payload) -> Result<web::Bytes, Error> {
    let body = payload.to_bytes_limited(limits::BODY_BYTES_MAX);
    let failed = |msg: String| Error::new(Code::Decode, msg);
    match tokio::time::timeout(limits::REQUEST_WAIT_MAX, body).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(error))) => Err(failed(format!("request body: {error}"))),
        Ok(Err(_)) => {
            Err(failed(format!("the request body is larger than {} bytes", limits::BODY_BYTES_MAX)))
        }
        Err(_) => Err(failed(format!(
            "the request body did not come within {} s",
            limits::REQUEST_WAIT_MAX.as_secs()
        ))),
    }
}

/// Carries one call out: the status and what the plugin prints.
async fn execute(node: &Node, call: Result<Request, Error>) -> (StatusCode, String) {
    let began = Instant::now();
    let (verb, answer) = match call {
        Ok(request) => (request.verb.as_str(), serve(node, request).await),
        Err(error) => ("unknown", Err(error)),
    };
    let result = answer.as_ref().map_or_else(|error| error.code.name(), |_| "ok");
    metrics::request(verb, result, began.elapsed());
    match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (status(error.code), error.render()),
    }
}

/// The HTTP status of an error: for people with `curl`; the plugin looks at the body.
fn status(code: Code) -> StatusCode {
    match code {
        Code::IncompatibleVersion
        | Code::UnsupportedField
        | Code::Environment
        | Code::Decode
        | Code::Config => StatusCode::BAD_REQUEST,
        Code::AlreadyHeld | Code::Taken | Code::CheckFailed | Code::Overtaken => {
            StatusCode::CONFLICT
        }
        Code::TryAgain | Code::NotAvailable | Code::Degraded | Code::Exhausted => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::Io | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Carries out a parsed call.
///
/// # Errors
/// The error object to print, with the configuration's version.
pub(super) async fn serve(node: &Node, request: Request) -> Result<String, Error> {
    let version = request.version.as_str();
    let Request { verb, version: of, network, started_at, undo, netns, body } = request;
    let answer = match body {
        Body::Version { echo } => Ok(result::render_version(&echo)),
        Body::Add(add) => {
            let from = Origin { network, netns, started_at };
            self::add(node, from, of, *add).await
        }
        Body::Del(del) => {
            let now = clock::boot_ns();
            let which = match started_at {
                Some(at) if undo => Which::MadeBy(at),
                at => Which::StartedBy(at.unwrap_or(now)),
            };
            let del = Del { id: attachment(&network, del.id), which };
            quiet(execute_call(node, Call::Del(del)).await)
        }
        Body::Check(check) => self::check(node, &network, check),
        Body::Gc(gc) => {
            let Some(valid) = gc.valid else { return Ok(String::new()) };
            let valid = valid.into_iter().map(|id| (id.container_id, id.ifname)).collect();
            let started_at = started_at.unwrap_or_else(clock::boot_ns);
            let call = Call::Gc { network, valid, started_at };
            quiet(execute_call(node, call).await)
        }
        Body::Status(status) => {
            let sets = status.sets.into_iter().map(Arc::new).collect();
            can_serve(node, network, sets).await
        }
    };
    answer.map_err(|error| match verb {
        // 50: the network cannot serve an ADD now (specification 1.1, STATUS).
        Verb::Status => Error::new(Code::NotAvailable, error.msg).version(version),
        _ => error.version(version),
    })
}

/// Where an ADD comes from.
struct Origin {
    network: Arc<str>,
    netns: Box<str>,
    started_at: Option<u64>,
}

async fn add(
    node: &Node,
    from: Origin,
    version: crate::cni::version::Version,
    add: request::Add,
) -> Result<String, Error> {
    let dns = match &add.resolv_conf {
        Some(path) => read_resolv_conf(path).await?,
        None => Dns::default(),
    };
    let sets: Vec<Arc<Ranges>> = add.sets.into_iter().map(Arc::new).collect();
    let call = Call::Add(Box::new(Add {
        id: attachment(&from.network, add.id),
        sets: sets.clone(),
        asked: add.asked,
        stage: add.stage,
        pod: add.pod.map(|pod| Pod { namespace: pod.namespace, name: pod.name }),
        netns: from.netns,
        started_at: from.started_at,
        at_unix_ms: clock::unix_ms(),
    }));
    match execute_call(node, call).await {
        Outcome::Added(holding) => {
            let ips = assigned(&holding, &sets);
            Ok(result::render_add(version, &ips, &add.routes, &dns))
        }
        Outcome::Failed(error) => Err(explain(error)),
        Outcome::Ended(_) => Err(Error::new(Code::Internal, "an ADD was answered like a DEL")),
    }
}

/// The result's addresses, with what the ranges say about them.
fn assigned(holding: &Holding, sets: &[Arc<Ranges>]) -> Vec<Assigned> {
    let with_range = |&address: &IpAddr| {
        let range = sets.iter().find_map(|set| set.find_address(address))?;
        Some(Assigned { address, prefix_len: range.subnet.prefix_len(), gateway: range.gateway })
    };
    holding.addresses.iter().filter_map(with_range).collect()
}

fn check(node: &Node, network: &Arc<str>, check: request::Check) -> Result<String, Error> {
    let id = attachment(network, check.id);
    let failed = |msg: String| {
        let details = "DEL the attachment and ADD it again";
        Error::new(Code::CheckFailed, msg).with_details(details)
    };
    let Some(holding) = node.index.find(&id) else {
        let container = &id.container_id;
        return Err(failed(format!("container {container} holds no address on this network")));
    };
    // Without a prevResult there is nothing to compare: holding something is all that is known.
    for net in check.prev_ips.unwrap_or_default() {
        let ours = check.sets.iter().any(|set| set.find_address(net.addr()).is_some());
        if ours && !holding.addresses.contains(&net.addr()) {
            let (container, address) = (&id.container_id, net.addr());
            return Err(failed(format!(
                "prevResult has {address}, which container {container} does not hold"
            )));
        }
    }
    Ok(String::new())
}

async fn can_serve(
    node: &Node,
    network: Arc<str>,
    sets: Vec<Arc<Ranges>>,
) -> Result<String, Error> {
    let answer = node.coordinator.send(CanServe { network, sets }).await;
    let answer = answer.unwrap_or_else(|error| Err(error.to_string()));
    answer.map(|()| String::new()).map_err(|cause| Error::new(Code::NotAvailable, cause))
}

async fn execute_call(node: &Node, call: Call) -> Outcome {
    // Calls wait until the notes that plugins left are acted on.
    let mut phase = node.phase.clone();
    if phase.wait_for(|phase| *phase != Phase::Starting).await.is_err() {
        return Outcome::Failed(CallError::Busy("the daemon stops"));
    }
    let answer = node.coordinator.send(Execute(call)).await;
    answer.unwrap_or(Outcome::Failed(CallError::Busy("the daemon stops")))
}

/// DEL and GC print nothing.
fn quiet(outcome: Outcome) -> Result<String, Error> {
    match outcome {
        Outcome::Failed(error) => Err(explain(error)),
        Outcome::Added(_) | Outcome::Ended(_) => Ok(String::new()),
    }
}

/// The error object for a failed call: its code and what to do about it.
pub(super) fn explain(error: CallError) -> Error {
    let (code, remedy) = match &error {
        CallError::Assign { error, .. } => match error {
            AssignError::Exhausted { .. } => (
                Code::Exhausted,
                "add a range, or find what is not released: leasehold allocations",
            ),
            AssignError::Taken { .. } => {
                (Code::Taken, "ask for another address, or see who has it: leasehold allocations")
            }
            AssignError::Gateway(_) => (Code::Taken, "ask for another address"),
            AssignError::Stage { .. } => {
                (Code::Taken, "ask for an address of the pod's stage, or for none")
            }
            AssignError::NoBlock(_) => (Code::TryAgain, "see the daemon's log: leasehold status"),
            AssignError::Busy => (Code::TryAgain, "try again"),
        },
        CallError::NotAllAsked(_) => {
            (Code::Taken, "each must be in a range set of its own, between its start and end")
        }
        CallError::AlreadyHeld { .. } => (Code::AlreadyHeld, "DEL the attachment first"),
        CallError::Overtaken(_) => (Code::Overtaken, "ADD again if the container is still wanted"),
        CallError::BlockSize { .. } => {
            (Code::Config, "leave blockSize out, or make it the same on every node")
        }
        CallError::Journal(_) => {
            (Code::Io, "free or mend the disk of the state directory and restart leasehold")
        }
        CallError::Busy(_) => (Code::TryAgain, "try again"),
    };
    Error::new(code, error.to_string()).with_details(remedy)
}

fn attachment(network: &Arc<str>, id: Id) -> AttachmentId {
    AttachmentId { network: network.clone(), container_id: id.container_id, ifname: id.ifname }
}

/// Reads a `resolv.conf` as host-local does, before anything is assigned. Only a plain file: a
/// pipe would hold the call up.
async fn read_resolv_conf(path: &Path) -> Result<Dns, Error> {
    let failed = |error: std::io::Error| {
        // host-local's words, which are Go's.
        let cause = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            _ => error.to_string(),
        };
        let msg = format!("open {}: {cause}", path.display());
        Error::new(Code::Config, msg).with_details("ipam.resolvConf: name a readable file")
    };
    let about = tokio::fs::metadata(path).await.map_err(failed)?;
    if !about.is_file() {
        return Err(failed(std::io::Error::other("not a plain file")));
    }
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = Vec::new();
    let mut limited = file.take(limits::RESOLV_CONF_BYTES_MAX + 1);
    limited.read_to_end(&mut text).await.map_err(failed)?;
    if text.len() as u64 > limits::RESOLV_CONF_BYTES_MAX {
        return Err(failed(std::io::Error::other("larger than 1 MiB")));
    }
    Ok(resolv::parse(&String::from_utf8_lossy(&text)))
}
