//! Asks the container runtime of this node which pods it has, by its runtime interface (CRI).
//!
//! Source: `runtime.v1` in the package `cri-api` of Kubernetes, which containerd and CRI-O serve on
//! a unix socket. Of its messages only the fields that are used have a name here.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::limits;

/// The request for the pods in every state.
#[derive(Clone, PartialEq, Message)]
struct ListPodSandboxRequest {}

#[derive(Clone, PartialEq, Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodSandbox>,
}

/// A pod.
#[derive(Clone, PartialEq, Message)]
struct PodSandbox {
    /// The id that the runtime gives to CNI as the container's.
    #[prost(string, tag = "1")]
    id: String,
}

/// The runtime of this node.
#[derive(Clone, Debug)]
pub struct Cri {
    socket: PathBuf,
}

impl Cri {
    /// The runtime that serves this socket. It is connected to at each question, since it may be
    /// started again at any time.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the ids of all pods that the runtime knows, in any state.
    ///
    /// # Errors
    /// It cannot be reached, does not answer within [`limits::CRI_WAIT_MAX`], or does not serve the
    /// interface.
    pub async fn pods(&self) -> Result<HashSet<String>, String> {
        let asked = tokio::time::timeout(limits::CRI_WAIT_MAX, self.list());
        asked.await.unwrap_or_else(|_| {
            Err(format!("it does not answer within {} s", limits::CRI_WAIT_MAX.as_secs()))
        })
    }

    async fn list(&self) -> Result<HashSet<String>, String> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket.display()));
        let connected = endpoint.map_err(|error| because(&error))?.connect().await;
        let channel = connected.map_err(|error| because(&error))?;
        let mut client = Grpc::new(channel).max_decoding_message_size(limits::CRI_BYTES_MAX);
        client.ready().await.map_err(|error| because(&error))?;
        let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListPodSandbox");
        let codec = ProstCodec::<ListPodSandboxRequest, ListPodSandboxResponse>::default();
        let answer = client.unary(Request::new(ListPodSandboxRequest {}), path, codec).await;
        let answer = answer.map_err(|status: Status| status.message().to_owned())?;
        Ok(answer.into_inner().items.into_iter().map(|pod| pod.id).collect())
    }
}

/// The last cause of an error, which is the one that says something.
fn because(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
