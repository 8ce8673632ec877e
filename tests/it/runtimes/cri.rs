//! The few calls of the container runtime interface (`runtime.v1`) that make and end pods, as
//! kubelet makes them. Of the messages only the fields that are used here are named.

use std::path::Path;
use std::time::Duration;

use prost::Message;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::common::poll;

/// The longest time of one call.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// The time within which the service must answer.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, Message)]
struct PodMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodMetadata>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct RunRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodConfig>,
}

/// The id of a pod: the answer to `RunPodSandbox`, and the request of the others.
#[derive(Clone, PartialEq, Message)]
struct PodId {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct Network {
    #[prost(string, tag = "1")]
    ip: String,
    /// A message with one field, the address.
    #[prost(message, repeated, tag = "2")]
    additional_ips: Vec<PodId>,
}

#[derive(Clone, PartialEq, Message)]
struct PodStatus {
    #[prost(message, optional, tag = "5")]
    network: Option<Network>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<PodStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct List {
    /// Only the first field of each is of interest.
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodId>,
}

/// A client of the service.
pub(super) struct Cri {
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    /// Waits until the service answers on its socket.
    pub(super) fn connect(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
        let endpoint = endpoint.expect("the address of a socket").timeout(CALL_LIMIT);
        let mut last = None;
        let answered = poll(PATIENCE, || {
            let connected = runtime.block_on(endpoint.connect());
            let Ok(channel) = connected.inspect_err(|error| last = Some(error.to_string())) else {
                return false;
            };
            let cri = call::<_, List>(channel.clone(), "ListPodSandbox", Nothing {});
            last = Some(match runtime.block_on(cri) {
                Ok(_) => return true,
                Err(status) => status.to_string(),
            });
            false
        });
        assert!(answered, "containerd does not answer within {PATIENCE:?}: {last:?}");
        let channel = runtime.block_on(endpoint.connect()).expect("a connection");
        Self { runtime, channel }
    }

    /// Starts pods of these names at once. Returns their ids, in this order.
    pub(super) fn run(&self, cgroup: &str, names: &[String]) -> Result<Vec<String>, Status> {
        let request = |name: &String| {
            let metadata = PodMetadata {
                name: name.clone(),
                uid: format!("uid-of-{name}"),
                namespace: "work".to_owned(),
            };
            let linux = LinuxConfig { cgroup_parent: cgroup.to_owned() };
            RunRequest { config: Some(PodConfig { metadata: Some(metadata), linux: Some(linux) }) }
        };
        let requests = names.iter().map(request).collect();
        let pods: Vec<PodId> = self.at_once("RunPodSandbox", requests)?;
        Ok(pods.into_iter().map(|pod| pod.id).collect())
    }

    /// Stops pods at once, which ends their networks.
    pub(super) fn stop(&self, pods: &[String]) -> Result<(), Status> {
        self.at_once::<_, Nothing>("StopPodSandbox", ids(pods)).map(drop)
    }

    /// Removes pods at once.
    pub(super) fn remove(&self, pods: &[String]) -> Result<(), Status> {
        self.at_once::<_, Nothing>("RemovePodSandbox", ids(pods)).map(drop)
    }

    /// The addresses of a pod, the first of them its main one.
    pub(super) fn addresses(&self, pod: &str) -> Vec<String> {
        let answer: Result<StatusAnswer, Status> = self.runtime.block_on(call(
            self.channel.clone(),
            "PodSandboxStatus",
            PodId { id: pod.to_owned() },
        ));
        let status = answer.expect("the status of a pod").status.expect("a status");
        let network = status.network.unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|ip| ip.id);
        std::iter::once(network.ip).chain(more).collect()
    }

    /// The pods that are known.
    pub(super) fn list(&self) -> Vec<String> {
        let list = call::<_, List>(self.channel.clone(), "ListPodSandbox", Nothing {});
        let list = self.runtime.block_on(list).expect("a list of pods");
        list.items.into_iter().map(|pod| pod.id).collect()
    }

    fn at_once<Q, A>(&self, method: &'static str, requests: Vec<Q>) -> Result<Vec<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.runtime.block_on(async {
            let mut calls = JoinSet::new();
            for (number, request) in requests.into_iter().enumerate() {
                let channel = self.channel.clone();
                calls.spawn(async move { (number, call::<Q, A>(channel, method, request).await) });
            }
            let mut answers = calls.join_all().await;
            answers.sort_by_key(|(number, _)| *number);
            answers.into_iter().map(|(_, answer)| answer).collect()
        })
    }
}

fn ids(pods: &[String]) -> Vec<PodId> {
    pods.iter().map(|id| PodId { id: id.clone() }).collect()
}

async fn call<Q, A>(channel: Channel, method: &str, request: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"));
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Q, A>::default();
    let answer = client.unary(Request::new(request), path.expect("a path"), codec).await?;
    Ok(answer.into_inner())
}
