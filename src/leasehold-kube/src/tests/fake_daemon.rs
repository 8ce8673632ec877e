//! A daemon's socket that keeps which nodes it was told to remove.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

/// All that the daemon has.
#[derive(Default)]
pub(super) struct State {
    /// Each request: the node, the machine, and if it was a dry run.
    requests: Vec<(String, String, bool)>,
    /// Nodes that run.
    running: BTreeSet<String>,
    removed: BTreeSet<String>,
    /// The address map.
    map: Value,
}

/// A daemon, which ends with this value.
pub(super) struct FakeDaemon {
    dir: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeDaemon {
    pub(super) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket(dir.path())).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = shared.clone();
                let service = service_fn(move |request| answer(state.clone(), request));
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { dir, state, task }
    }

    pub(super) fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    pub(super) fn set_running(&self, node: &str, runs: bool) {
        let mut state = self.state.lock().unwrap();
        match runs {
            true => drop(state.running.insert(node.to_owned())),
            false => drop(state.running.remove(node)),
        }
    }

    /// The removals that it was told: node and machine.
    pub(super) fn removals(&self) -> Vec<(String, String)> {
        let state = self.state.lock().unwrap();
        let removals = state.requests.iter().filter(|(_, _, is_dry)| !is_dry);
        removals.map(|(node, machine, _)| (node.clone(), machine.clone())).collect()
    }

    pub(super) fn set_map(&self, map: Value) {
        self.state.lock().unwrap().map = map;
    }

    pub(super) fn dry_runs(&self) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|(_, _, is_dry)| *is_dry).count()
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("s")
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if path == "/v1/map" {
        let map = state.lock().unwrap().map.to_string();
        return Ok(Response::new(Full::new(Bytes::from(map))));
    }
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let node = path.strip_prefix("/v1/nodes/").and_then(|rest| rest.strip_suffix("/remove"));
    let node = node.expect("a removal").to_owned();
    let machine = asked["incarnation"].as_str().expect("a machine").to_owned();
    let is_dry = asked["dryRun"].as_bool().unwrap();
    let mut state = state.lock().unwrap();
    state.requests.push((node.clone(), machine, is_dry));
    let (code, answer) = if state.running.contains(&node) {
        (409, json!({ "error": format!("node {node} is still running") }))
    } else {
        let is_first = is_dry || state.removed.insert(node.clone());
        let outcome = if is_first { "removed" } else { "alreadyRemoved" };
        (200, json!({ "node": node, "outcome": outcome, "quarantineS": 300 }))
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    Ok(response)
}
