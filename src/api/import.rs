//! `POST /v1/import`: takes over what another plugin holds, for all containers of a list or for
//! none. The daemon judges each before anything is changed, so a dry run and the real one agree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::call;
use super::delivery::Answers;
use super::foreign::Asking;
use super::older::recorded;
use super::outcome::explain;
use super::serving::{admit, misasked, other_block_size};
use super::{AppState, EMBEDDED, check, refuse};
use crate::cni::error::Error;
use crate::cni::parse;
use crate::cni::request::{self, Body, Calls, Request};
use crate::core::address::Address;
use crate::core::attachment::AttachmentId;
use crate::core::coordinator::CallError;
use crate::core::range::Ranges;
use crate::core::range_set::AssignError;

/// A list of containers to take over.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Import {
    /// True if nothing is to be changed.
    pub dry_run: bool,
    /// The containers.
    pub containers: Vec<Container>,
}

/// One container to take over.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    /// An ADD, as `POST /v1/cni` takes it, that asks for the container's addresses.
    pub add: Box<RawValue>,
    /// The files of host-local that say so.
    pub files: Vec<PathBuf>,
}

/// The fate of a container.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// The fate.
    pub outcome: ImportOutcome,
    /// The reason for a conflict.
    pub why: Option<String>,
}

/// The fate of a container in a word.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub enum ImportOutcome {
    /// Its addresses were taken over.
    Imported,
    /// They would be: a dry run, or a conflict of another one.
    WouldImport,
    /// This node holds them for it already, or its DEL came before.
    Held,
    /// They cannot be taken over.
    Conflict,
}

impl Imported {
    fn of(outcome: ImportOutcome) -> Self {
        Self { outcome, why: None }
    }

    fn conflict(why: String) -> Self {
        Self { outcome: ImportOutcome::Conflict, why: Some(why) }
    }
}

impl From<Error> for Imported {
    fn from(error: Error) -> Self {
        Self::conflict(match &*error.details {
            "" => error.msg,
            details => format!("{}: {details}", error.msg),
        })
    }
}

impl From<CallError> for Imported {
    fn from(error: CallError) -> Self {
        explain(error).into()
    }
}

/// The handler: an answer for each container, in their order.
pub(super) async fn handle(node: web::Data<AppState>, import: web::Json<Import>) -> HttpResponse {
    let Import { dry_run, containers } = import.into_inner();
    let (adds, files): (Vec<_>, Vec<_>) =
        containers.into_iter().map(|container| (container.add, container.files)).unzip();
    let text = serde_json::to_vec(&adds).unwrap_or_default();
    let calls = match parse::split(&text, &*node.networks) {
        Ok(Calls::Many(calls)) => calls,
        Ok(Calls::One(_)) => Vec::new(),
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("{error}")),
    };
    let mut judge = Judge::new(&node);
    let mut all = Vec::with_capacity(calls.len());
    for (call, files) in calls.iter().zip(&files) {
        all.push(match call {
            Ok(request) => judge.judge(request, files).await,
            Err(error) => error.clone().into(),
        });
    }
    if !dry_run && all.iter().all(|of| of.outcome != ImportOutcome::Conflict) {
        carry_out(&node, calls, &mut all).await;
    }
    HttpResponse::Ok().json(all)
}

/// Takes over what was judged good; if one fails all the same, none.
async fn carry_out(
    node: &web::Data<AppState>,
    calls: Vec<Result<Request, Error>>,
    all: &mut [Imported],
) {
    let answers = Rc::new(Answers::default());
    let mut done: Vec<AttachmentId> = Vec::new();
    for (call, of) in calls.into_iter().zip(&mut *all) {
        let (Ok(request), ImportOutcome::WouldImport) = (call, of.outcome) else { continue };
        let Body::Add(add) = &request.body else { continue };
        let id = attachment(&request.network, &add.id);
        let answer = call::begin(node, &answers, None, request).await;
        match answer.await {
            Ok(_) => {
                *of = Imported::of(ImportOutcome::Imported);
                done.push(id);
            }
            Err(error) => {
                *of = error.into();
                break;
            }
        }
    }
    if all.iter().any(|of| of.outcome == ImportOutcome::Conflict) {
        for id in done {
            if let Some(holding) = node.index.find(&id) {
                check::gc::end(node, id, holding.sequence).await;
            }
        }
        for of in all.iter_mut().filter(|of| of.outcome == ImportOutcome::Imported) {
            *of = Imported::of(ImportOutcome::WouldImport);
        }
    }
}

fn attachment(network: &Arc<str>, id: &request::Id) -> AttachmentId {
    AttachmentId {
        network: network.clone(),
        container_id: id.container_id.clone(),
        ifname: id.ifname.clone(),
    }
}

/// Judges containers one after the other.
struct Judge<'a> {
    node: &'a AppState,
    /// The addresses that records of the cluster have, by pool.
    recorded: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
    /// The addresses that were judged good, by pool.
    asked: BTreeMap<(Arc<str>, IpAddr), AttachmentId>,
}

impl<'a> Judge<'a> {
    fn new(node: &'a AppState) -> Self {
        Self { node, recorded: BTreeMap::new(), asked: BTreeMap::new() }
    }

    async fn judge(&mut self, request: &Request, files: &[PathBuf]) -> Imported {
        let Body::Add(add) = &request.body else {
            return Imported::conflict("only an ADD can take addresses over".to_owned());
        };
        let id = attachment(&request.network, &add.id);
        if self.node.foreign.are_settled(files, &id) {
            return Imported::of(ImportOutcome::Held);
        }
        let wanted: BTreeSet<IpAddr> = add.requested.iter().copied().collect();
        if let Some(held) = self.node.index.find(&id) {
            let has: BTreeSet<IpAddr> = held.addresses.iter().copied().collect();
            if has == wanted {
                return Imported::of(ImportOutcome::Held);
            }
            let text: Vec<String> = has.iter().map(ToString::to_string).collect();
            return Imported::conflict(format!(
                "this node holds {} for it, and host-local or the list says otherwise",
                text.join(", ")
            ));
        }
        let sets: Vec<Arc<Ranges>> = add.sets.iter().cloned().map(Arc::new).collect();
        if let Some(fault) = self.misfit(&request.pool, &sets, add).await {
            return fault;
        }
        let requested = &*add.requested;
        let (pool, data_dir) = (&request.pool, add.data_dir.clone());
        let asking = Asking { id: &id, pool, sets: &sets, requested, data_dir, takes_over: false };
        if let Err((_, error)) = admit(self.node, &asking).await {
            return error.into();
        }
        for &address in requested {
            let key = (request.pool.clone(), address);
            if let Some(other) = self.asked.insert(key, id.clone()).filter(|other| *other != id) {
                return Imported::conflict(format!(
                    "container {} is to have {address} too",
                    other.container_id
                ));
            }
        }
        Imported::of(ImportOutcome::WouldImport)
    }

    /// Returns why an ADD that asks for these addresses would fail.
    async fn misfit(
        &mut self,
        pool: &Arc<str>,
        sets: &[Arc<Ranges>],
        add: &request::Add,
    ) -> Option<Imported> {
        if let Some(error) = misasked(sets, &add.requested) {
            return Some(error.into());
        }
        if sets.len() != add.requested.len() {
            let why = "the configuration gives more addresses than the container has";
            return Some(Imported::conflict(why.to_owned()));
        }
        for (set, ranges) in sets.iter().enumerate() {
            let stage = add.stage;
            for &address in &add.requested {
                let Some(range) = ranges.find_address(address) else { continue };
                if !range.may_have(Address::of(address), stage) {
                    let error = AssignError::Stage { address, stage };
                    return Some(CallError::Assign { set, error }.into());
                }
            }
        }
        if let Some(error) = other_block_size(self.node, pool, sets).await {
            return Some(error.into());
        }
        for &address in &add.requested {
            let holders = self.node.index.of_address(address);
            if let Some(other) = holders.iter().find(|held| held.scope.pool == *pool) {
                let other = other.container_id.to_text();
                return Some(Imported::conflict(format!("container {other} holds {address}")));
            }
        }
        let elsewhere = self.recorded(pool).await;
        let other = add.requested.iter().find(|address| elsewhere.contains(address))?;
        Some(Imported::conflict(format!("a record says that another node holds {other}")))
    }

    /// The addresses of a pool that have records; none, if the store does not say.
    async fn recorded(&mut self, pool: &Arc<str>) -> &BTreeSet<IpAddr> {
        if !self.recorded.contains_key(pool) {
            let all = match &*self.node.about.store {
                EMBEDDED => BTreeSet::new(),
                _ => recorded(self.node, pool).await.unwrap_or_default(),
            };
            self.recorded.insert(pool.clone(), all);
        }
        &self.recorded[pool]
    }
}
