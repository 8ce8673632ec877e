//! The calls to the API server, and only those that the role allows.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Event, EventSource, Node, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, Error};
use serde_json::Value;
use tokio::time::timeout;

use super::election::LeaseState;
use super::ledger::NodeObject;
use super::{limits, times};

/// The reason why a write was not carried out.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// Another instance has written since.
    Conflict,
    /// Anything else.
    Other(anyhow::Error),
}

/// A change of a Node object.
#[derive(Debug)]
pub(crate) enum Change {
    /// It is there, new or changed.
    There(NodeObject),
    /// It is deleted.
    Deleted(String),
    /// The API server says only that it lives.
    Nothing,
    /// The list is too old to be continued.
    Expired,
}

/// A pod whose sandbox could not be made, as the kubelet's event says.
#[derive(Debug)]
pub(crate) struct PodFailure {
    /// The namespace of the pod.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) pod: String,
    /// Its UID.
    pub(crate) uid: String,
    /// The kubelet's message.
    pub(crate) message: String,
}

/// The resources of each node that have a start of their name in common, by the node's name.
pub(crate) type Capacities = BTreeMap<String, BTreeMap<String, u64>>;

/// The reason of the kubelet's event.
const SANDBOX_FAILED: &str = "reason=FailedCreatePodSandBox";
/// The component that events are from.
const PROGRAM: &str = "leasehold-kube";
/// The reason of ours.
pub(crate) const NO_ADDRESS: &str = "LeaseholdNoAddress";

/// The API server.
#[derive(Clone)]
pub(crate) struct Kubernetes {
    client: Client,
    nodes: Api<Node>,
    leases: Api<Lease>,
    memories: Api<ConfigMap>,
    lease_name: String,
    memory_name: String,
}

impl Kubernetes {
    /// The API server with the names of our objects.
    pub(crate) fn new(client: Client, namespace: &str, lease: &str, memory: &str) -> Self {
        Self {
            client: client.clone(),
            nodes: Api::all(client.clone()),
            leases: Api::namespaced(client.clone(), namespace),
            memories: Api::namespaced(client, namespace),
            lease_name: lease.to_owned(),
            memory_name: memory.to_owned(),
        }
    }

    /// Every Node object, page by page, and the version from which a watch goes on.
    pub(crate) async fn list(&self) -> anyhow::Result<(Vec<NodeObject>, String)> {
        let mut params = ListParams::default().limit(limits::NODES_PER_PAGE);
        let mut nodes = Vec::new();
        loop {
            let page = in_time(self.nodes.list(&params)).await.context("the list of nodes")?;
            nodes.extend(page.items.into_iter().filter_map(object));
            let version = page.metadata.resource_version.unwrap_or_default();
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok((nodes, version)),
            }
        }
    }

    /// The resources whose names begin so, of every Node object, by its name.
    pub(crate) async fn capacities(&self, start: &str) -> anyhow::Result<Capacities> {
        let mut params = ListParams::default().limit(limits::NODES_PER_PAGE);
        let mut all = Capacities::new();
        loop {
            let page = in_time(self.nodes.list(&params)).await.context("the list of nodes")?;
            for node in page.items {
                let Some(name) = node.metadata.name else { continue };
                let of_node = all.entry(name).or_default();
                let capacity = node.status.and_then(|status| status.capacity);
                for (resource, quantity) in capacity.into_iter().flatten() {
                    // What is no number is written anew.
                    let count = quantity.0.parse().unwrap_or(u64::MAX);
                    if resource.starts_with(start) {
                        of_node.insert(resource, count);
                    }
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// Merges something into the status of a Node object, if it is there.
    pub(crate) async fn publish(&self, name: &str, status: &Value) -> anyhow::Result<()> {
        let params = PatchParams::default();
        let written = in_time(self.nodes.patch_status(name, &params, &Patch::Merge(status))).await;
        match written {
            Ok(_) => Ok(()),
            Err(error) => match error.downcast_ref::<Error>() {
                Some(Error::Api(status)) if status.code == 404 => Ok(()),
                _ => Err(error.context(format!("the status of node {name}"))),
            },
        }
    }

    /// The Node object of a name as it is now, from no cache of the API server.
    pub(crate) async fn node(&self, name: &str) -> anyhow::Result<Option<NodeObject>> {
        let found = in_time(self.nodes.get_opt(name)).await;
        Ok(found.with_context(|| format!("the object of node {name}"))?.and_then(object))
    }

    /// The changes of Node objects after a list.
    pub(crate) async fn watch(
        &self,
        version: &str,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<Change>> + use<>> {
        let params = WatchParams::default().timeout(limits::WATCH_SECONDS);
        let events = in_time(self.nodes.watch(&params, version)).await.context("the watch")?;
        Ok(events.map(|event| {
            Ok(match event.context("the watch")? {
                WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                    object(node).map_or(Change::Nothing, Change::There)
                }
                WatchEvent::Deleted(node) => {
                    object(node).map_or(Change::Nothing, |node| Change::Deleted(node.uid))
                }
                WatchEvent::Bookmark(_) => Change::Nothing,
                WatchEvent::Error(status) if status.code == 410 => Change::Expired,
                WatchEvent::Error(status) => anyhow::bail!("the watch: {}", status.message),
            })
        }))
    }

    /// The pods whose sandbox cannot be made, from now on; nothing for other changes.
    pub(crate) async fn pod_failures(
        &self,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<Option<PodFailure>>> + use<>> {
        let events: Api<Event> = Api::all(self.client.clone());
        // Only for the version from which the watch goes on.
        let params = ListParams::default().fields(SANDBOX_FAILED).limit(1);
        let list = in_time(events.list(&params)).await.context("the list of events")?;
        let version = list.metadata.resource_version.unwrap_or_default();
        let params = WatchParams::default().fields(SANDBOX_FAILED).timeout(limits::WATCH_SECONDS);
        let changes = in_time(events.watch(&params, &version)).await.context("the watch")?;
        Ok(changes.map(|change| {
            Ok(match change.context("the watch of events")? {
                WatchEvent::Added(event) | WatchEvent::Modified(event) => pod_failure(event),
                WatchEvent::Error(status) => anyhow::bail!("the watch: {}", status.message),
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => None,
            })
        }))
    }

    /// Writes an event on a pod.
    pub(crate) async fn report(
        &self,
        of: &PodFailure,
        text: &str,
        identity: &str,
    ) -> anyhow::Result<()> {
        let now = Timestamp::try_from(std::time::UNIX_EPOCH + times::unix()).ok().map(Time);
        // A name of the API has up to 253 characters.
        let start: String = of.pod.chars().take(limits::EVENT_NAME_CHARS_MAX).collect();
        let start = start.trim_end_matches(['.', '-']);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{start}.{:x}", times::unix().as_nanos())),
                namespace: Some(of.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(of.namespace.clone()),
                name: Some(of.pod.clone()),
                uid: Some(of.uid.clone()),
                ..ObjectReference::default()
            },
            reason: Some(NO_ADDRESS.to_owned()),
            message: Some(text.to_owned()),
            type_: Some("Warning".to_owned()),
            source: Some(EventSource { component: Some(PROGRAM.to_owned()), host: None }),
            reporting_component: Some(PROGRAM.to_owned()),
            reporting_instance: Some(identity.to_owned()),
            first_timestamp: now.clone(),
            last_timestamp: now,
            count: Some(1),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), &of.namespace);
        in_time(events.create(&PostParams::default(), &event)).await.context("the event")?;
        Ok(())
    }

    /// The Lease, if it is there.
    pub(crate) async fn lease(&self) -> anyhow::Result<Option<LeaseState>> {
        let found = in_time(self.leases.get_opt(&self.lease_name)).await.context("the Lease")?;
        Ok(found.map(|lease| {
            let spec = lease.spec.unwrap_or_default();
            let seconds = spec.lease_duration_seconds.and_then(|seconds| seconds.try_into().ok());
            LeaseState {
                version: lease.metadata.resource_version.unwrap_or_default(),
                holder: spec.holder_identity.unwrap_or_default(),
                duration: Duration::from_secs(seconds.unwrap_or_default()),
                transitions: spec.lease_transitions.unwrap_or_default(),
            }
        }))
    }

    /// Writes the Lease over this version, or makes it.
    pub(crate) async fn write_lease(
        &self,
        version: Option<&str>,
        holder: &str,
        duration: Duration,
        transitions: i32,
    ) -> Result<(), WriteError> {
        let now = Timestamp::try_from(std::time::UNIX_EPOCH + times::unix());
        let now = now.ok().map(MicroTime);
        let lease = Lease {
            metadata: metadata(&self.lease_name, version),
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
                lease_transitions: Some(transitions),
                renew_time: now,
                ..LeaseSpec::default()
            }),
        };
        let params = PostParams::default();
        let written = match version {
            Some(_) => in_time(self.leases.replace(&self.lease_name, &params, &lease)).await,
            None => in_time(self.leases.create(&params, &lease)).await,
        };
        written.map(drop).map_err(|error| refused(error, "the Lease"))
    }

    /// The ConfigMap, if it is there.
    pub(crate) async fn memory(&self) -> anyhow::Result<Option<ConfigMap>> {
        let name = &self.memory_name;
        in_time(self.memories.get_opt(name)).await.with_context(|| format!("ConfigMap {name}"))
    }

    /// Writes the ConfigMap over this version, or makes it.
    pub(crate) async fn write_memory(
        &self,
        version: Option<&str>,
        data: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    ) -> Result<ConfigMap, WriteError> {
        let mut metadata = metadata(&self.memory_name, version);
        metadata.annotations = Some(annotations);
        let memory = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
        let params = PostParams::default();
        let written = match version {
            Some(_) => in_time(self.memories.replace(&self.memory_name, &params, &memory)).await,
            None => in_time(self.memories.create(&params, &memory)).await,
        };
        written.map_err(|error| refused(error, "the ConfigMap"))
    }
}

fn metadata(name: &str, version: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        resource_version: version.map(str::to_owned),
        ..ObjectMeta::default()
    }
}

/// The part of an object that matters; none for an object without a name or a UID.
fn object(node: Node) -> Option<NodeObject> {
    let info = node.status.and_then(|status| status.node_info);
    Some(NodeObject {
        uid: node.metadata.uid?,
        name: node.metadata.name?,
        machine: info.map(|info| info.machine_id.trim().to_owned()).unwrap_or_default(),
    })
}

/// The pod of an event; none for an event on something else.
fn pod_failure(event: Event) -> Option<PodFailure> {
    let of = event.involved_object;
    if of.kind.as_deref() != Some("Pod") {
        return None;
    }
    let (namespace, pod, uid) = (of.namespace?, of.name?, of.uid?);
    Some(PodFailure { namespace, pod, uid, message: event.message? })
}

/// An answer within the limit.
async fn in_time<T>(call: impl Future<Output = Result<T, Error>>) -> anyhow::Result<T> {
    let answer = timeout(limits::API_TIME_MAX, call).await;
    Ok(answer.context("the API server did not answer in time")??)
}

fn refused(error: anyhow::Error, about: &str) -> WriteError {
    match error.downcast_ref::<Error>() {
        // Also of an object to be made that is there by now, and of one that is gone.
        Some(Error::Api(status)) if [404, 409].contains(&status.code) => WriteError::Conflict,
        _ => WriteError::Other(error.context(format!("writing {about}"))),
    }
}
