//! The course of one CNI call, from the parsed request to what the plugin prints.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::web;

use super::delivery::Answers;
use super::foreign::Asking;
use super::outcome::{execute, explain};
use super::serving::{admit, can_serve};
use super::{AppState, cause, check, events, resolv_conf, shortage};
use crate::cni::error::{Code, Error};
use crate::cni::request::{self, Body, Id, Request};
use crate::cni::resolv::Dns;
use crate::cni::result::{self, Assigned};
use crate::cni::version::Version;
use crate::core::attachment::{AttachmentId, Holding, Pod};
use crate::core::coordinator::{Add, Call, CallError, Del, HoldingSelector, Outcome};
use crate::core::range::Ranges;
use crate::core::range_set::AssignError;
use crate::core::time::StartTime;
use crate::{clock, metrics};

/// Resolves to the text that the plugin prints, or to the error object, as soon as it is known.
pub(super) type Answering = Pin<Box<dyn Future<Output = Result<String, Error>>>>;

/// Sends a call on its way. When this is done, all that the call asks of the coordinator is in the
/// coordinator's mailbox: calls are carried out in the order in which they are begun.
pub(super) async fn begin(
    node: &web::Data<AppState>,
    answers: &Rc<Answers>,
    number: Option<u64>,
    request: Request,
) -> Answering {
    let Request { version, network, pool, netns, undo, body, .. } = request;
    let (started_at, waited_since) = (request.started_at, request.waited_since);
    // A start that is yet to come cannot be, and would outlive every DEL, or every ADD, of those
    // that tell the truth.
    let started_at = started_at.map(|at| at.min(clock::start()));
    match body {
        Body::Version { echo } => Box::pin(async move { Ok(result::render_version(&echo)) }),
        Body::Add(add) => {
            let from = Origin { number, network, pool, netns, started_at, waited_since };
            self::add(node, answers.clone(), from, version, *add).await
        }
        Body::Del(del) => {
            let now = clock::start();
            let selector = match started_at {
                Some(at) if undo => HoldingSelector::MadeBy(at),
                at => HoldingSelector::StartedBy(at.unwrap_or(now)),
            };
            let (id, data_dir) = (attachment(&network, del.id), del.data_dir);
            let call = Call::Del(Del { id: id.clone(), selector });
            let (outcome, foreign) = (execute(node, call).await, node.foreign.clone());
            Box::pin(async move {
                let answer = quiet(outcome.await)?;
                if !undo {
                    foreign.end(&id, data_dir).await;
                }
                Ok(answer)
            })
        }
        Body::Check(check) => {
            let node = node.clone();
            Box::pin(async move { compare(&node, &network, check) })
        }
        Body::Gc(gc) => match gc.valid {
            None => Box::pin(async { Ok(String::new()) }),
            Some(valid) => {
                let started_at = started_at.unwrap_or_else(clock::start);
                collect(node, network, valid, started_at).await
            }
        },
        Body::Status(status) => {
            let node = node.clone();
            Box::pin(async move { can_serve(&node, network, pool, status).await })
        }
    }
}

/// Carries out a GC of the runtime. An attachment that the GC does not name is kept unless its
/// namespace was seen at its ADD and is gone: a list that names too few must not take the addresses
/// of containers that run.
async fn collect(
    node: &AppState,
    network: Arc<str>,
    valid: Vec<Id>,
    started_at: StartTime,
) -> Answering {
    let mut valid: Vec<_> = valid.into_iter().map(|id| (id.container_id, id.ifname)).collect();
    let unnamed = check::namespaces::unnamed(node, &network, &valid).await;
    node.checks.kept.learn(&network, &valid, &unnamed.kept);
    for holding in &unnamed.kept {
        tracing::warn!(
            network = &*network,
            container = &*holding.container_id.to_text(),
            ifname = &*holding.scope.ifname,
            netns = &*holding.netns.path,
            "kept although a GC does not name it: {} (if its container is gone all the same: \
             leasehold gc --force)",
            check::namespaces::why_kept(&holding.netns)
        );
        metrics::collected("kept", 1);
        valid.push((holding.container_id.clone(), holding.scope.ifname.clone()));
    }
    let call = Call::Gc { network: network.clone(), valid, started_at };
    let (outcome, index) = (execute(node, call).await, node.index.clone());
    Box::pin(async move {
        let outcome = outcome.await;
        for id in unnamed.others.into_iter().filter(|id| index.find(id).is_none()) {
            let (container, ifname) = (&*id.container_id.to_text(), &*id.ifname);
            tracing::info!(network = &*network, container, ifname, "released by a GC");
            metrics::collected("released", 1);
        }
        quiet(outcome)
    })
}

/// The origin of an ADD: the number of its call, if a plugin made it, its network, its pool, its
/// network namespace and its times.
struct Origin {
    number: Option<u64>,
    network: Arc<str>,
    pool: Arc<str>,
    netns: Box<str>,
    started_at: Option<StartTime>,
    waited_since: Option<StartTime>,
}

async fn add(
    node: &web::Data<AppState>,
    answers: Rc<Answers>,
    from: Origin,
    version: Version,
    mut add: request::Add,
) -> Answering {
    node.warnings.add(&from.network, std::mem::take(&mut add.unknown));
    let id = attachment(&from.network, add.id);
    let sets: Vec<Arc<Ranges>> = add.sets.into_iter().map(Arc::new).collect();
    let (pool, requested, data_dir) = (&from.pool, &add.requested, add.data_dir.take());
    let asking = Asking { id: &id, pool, sets: &sets, requested, data_dir, takes_over: true };
    if let Err((cause, error)) = admit(node, &asking).await {
        metrics::add_failed(&from.network, cause);
        return Box::pin(async move { Err(error) });
    }
    let dns = match &add.resolv_conf {
        Some(file) => match resolv_conf::read(file).await {
            Ok(dns) => dns,
            Err(error) => return Box::pin(async move { Err(error) }),
        },
        None => Dns::default(),
    };
    let netns = super::netns::named(from.netns);
    check::observe_place(node, &netns);
    let at = clock::unix();
    let (number, network, pool) = (from.number, from.network.clone(), from.pool.clone());
    let call = Call::Add(Box::new(Add {
        id: id.clone(),
        pool: from.pool,
        sets: sets.clone(),
        requested: add.requested,
        stage: add.stage,
        pod: add.pod.map(|pod| Pod { namespace: pod.namespace, name: pod.name }),
        netns,
        started_at: from.started_at,
        waited_since: from.waited_since,
        at,
    }));
    let (again, node_again) = (call.clone(), node.clone());
    let (outcome, routes) = (execute(node, call).await, add.routes);
    Box::pin(async move {
        let mut outcome = outcome.await;
        // Leaked addresses are released before the answer is that every address is taken.
        if is_exhausted(&outcome) && node_again.sweeps.pass().await {
            outcome = execute(&node_again, again).await.await;
        }
        match outcome {
            Outcome::Added(holding) => {
                // A repeated ADD only renewed it.
                if holding.since == at {
                    answers.add(number, id, holding.sequence);
                }
                let ips = assigned(&holding, &sets);
                Ok(result::render_add(version, &ips, &routes, &dns))
            }
            Outcome::Failed(error) => {
                metrics::add_failed(&network, cause::label(&error));
                events::add_refusal(&node_again, &network, &error);
                Err(shortage::explain(&node_again, &pool, error).await)
            }
            Outcome::Ended(_) => Err(Error::new(Code::Internal, "an ADD was answered like a DEL")),
        }
    })
}

/// Returns whether an ADD failed because every address is taken.
fn is_exhausted(outcome: &Outcome) -> bool {
    let Outcome::Failed(CallError::Assign { error, .. }) = outcome else { return false };
    matches!(error, AssignError::Exhausted { .. } | AssignError::Gone { .. })
}

/// The result's addresses, with what the ranges say about them.
fn assigned(holding: &Holding, sets: &[Arc<Ranges>]) -> Vec<Assigned> {
    let with_range = |&address: &IpAddr| {
        let range = sets.iter().find_map(|set| set.find_address(address))?;
        Some(Assigned { address, prefix_len: range.subnet.prefix_len(), gateway: range.gateway })
    };
    holding.addresses.iter().filter_map(with_range).collect()
}

fn compare(node: &AppState, network: &Arc<str>, check: request::Check) -> Result<String, Error> {
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

/// DEL and GC print nothing.
fn quiet(outcome: Outcome) -> Result<String, Error> {
    match outcome {
        Outcome::Failed(error) => Err(explain(error)),
        Outcome::Added(_) | Outcome::Ended(_) => Ok(String::new()),
    }
}

fn attachment(network: &Arc<str>, id: Id) -> AttachmentId {
    let (network, ifname) = (network.clone(), id.ifname);
    AttachmentId { network, container_id: id.container_id, ifname }
}
