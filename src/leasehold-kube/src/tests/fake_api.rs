//! An API server with Node objects, Leases and ConfigMaps: lists in pages, watches, versions and
//! conflicts, as the documentation of the Kubernetes API has them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

type Body = BoxBody<Bytes, std::io::Error>;
type Watcher = mpsc::UnboundedSender<Result<Frame<Bytes>, std::io::Error>>;

/// All that the server has.
#[derive(Default)]
pub(super) struct State {
    version: u64,
    /// Node objects by name.
    nodes: BTreeMap<String, Value>,
    /// Leases and ConfigMaps by path.
    others: BTreeMap<String, Value>,
    watchers: Vec<Watcher>,
    event_watchers: Vec<Watcher>,
    /// The requests, each with its method, path and query.
    pub(super) requests: Vec<String>,
    /// True if every answer is an error.
    pub(super) is_away: bool,
    /// True if Leases cannot be written.
    pub(super) is_without_leases: bool,
    /// The next watches that are answered with 410 Gone.
    pub(super) gone: usize,
    /// True if lists are empty.
    pub(super) lists_nothing: bool,
    /// Objects in a page of a list: two, or more.
    pub(super) page_size: usize,
    /// True if deletions are reported to no watch.
    pub(super) is_silent: bool,
}

/// A server, which ends with this value.
pub(super) struct FakeApi {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeApi {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { version: 100, ..State::default() }));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = shared.clone();
                let service = service_fn(move |request| answer(state.clone(), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { address, state, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes the object of a node, or changes it. The ready condition is part of it.
    pub(super) fn put_node(&self, name: &str, uid: &str, machine: &str, ready: bool) {
        let mut state = self.state();
        let node = state.node(name, uid, machine, ready);
        let known = state.nodes.insert(name.to_owned(), node.clone());
        state.tell(if known.is_some() { "MODIFIED" } else { "ADDED" }, &node);
    }

    /// Makes the object of a node, of which no watch hears.
    pub(super) fn put_node_silently(&self, name: &str, uid: &str, machine: &str) {
        let mut state = self.state();
        let node = state.node(name, uid, machine, true);
        state.nodes.insert(name.to_owned(), node);
    }

    pub(super) fn delete_node(&self, name: &str) {
        let mut state = self.state();
        let mut node = state.nodes.remove(name).unwrap();
        node["metadata"]["resourceVersion"] = state.next().into();
        if !state.is_silent {
            state.tell("DELETED", &node);
        }
    }

    /// The kubelet says why it could not make the sandbox of a pod.
    pub(super) fn sandbox_failed(&self, pod: &str, error: &str) {
        let mut state = self.state();
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "reason": "FailedCreatePodSandBox",
            "metadata": { "name": "e", "namespace": "shop", "resourceVersion": state.next() },
            "involvedObject": {
                "kind": "Pod", "namespace": "shop", "name": pod, "uid": format!("uid of {pod}"),
            },
            "message": format!("Failed to create pod sandbox: plugin failed (add): {error}"),
        });
        let line = format!("{}\n", json!({ "type": "ADDED", "object": event }));
        let frame = || Ok(Frame::data(Bytes::from(line.clone())));
        state.event_watchers.retain(|watcher| watcher.send(frame()).is_ok());
    }

    /// The capacity of a node by a resource; null: it has none.
    pub(super) fn capacity(&self, node: &str, resource: &str) -> Value {
        self.state().nodes[node]["status"]["capacity"][resource].clone()
    }

    pub(super) fn event_watches(&self) -> usize {
        self.state().event_watchers.len()
    }

    /// The events that were written in a namespace.
    pub(super) fn events(&self, namespace: &str) -> Vec<Value> {
        let start = format!("/api/v1/namespaces/{namespace}/events/");
        let state = self.state();
        let events = state.others.iter().filter(|(path, _)| path.starts_with(&start));
        events.map(|(_, event)| event.clone()).collect()
    }

    /// Breaks every watch in the middle.
    pub(super) fn break_watches(&self) {
        for watcher in self.state().watchers.drain(..) {
            let _ = watcher.send(Err(std::io::Error::other("broken")));
        }
    }

    /// Ends every watch with 410 Gone, as an event.
    pub(super) fn expire_watches(&self) {
        let mut state = self.state();
        state.tell("ERROR", &status(410, "Expired"));
        state.watchers.clear();
    }

    pub(super) fn watches(&self) -> usize {
        let mut state = self.state();
        state.watchers.retain(|watcher| !watcher.is_closed());
        state.watchers.len()
    }

    /// A Lease or a ConfigMap.
    pub(super) fn other(&self, name: &str) -> Option<Value> {
        let state = self.state();
        let end = format!("/{name}");
        state.others.iter().find(|(path, _)| path.ends_with(&end)).map(|(_, of)| of.clone())
    }

    /// The number of requests that begin so.
    pub(super) fn requests(&self, start: &str) -> usize {
        self.state().requests.iter().filter(|request| request.starts_with(start)).count()
    }
}

impl State {
    fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn node(&mut self, name: &str, uid: &str, machine: &str, ready: bool) -> Value {
        let ready = if ready { "True" } else { "Unknown" };
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "uid": uid, "resourceVersion": self.next() },
            "status": {
                "conditions": [{ "type": "Ready", "status": ready }],
                "nodeInfo": {
                    "machineID": machine, "architecture": "amd64", "bootID": "b",
                    "containerRuntimeVersion": "containerd://2", "kernelVersion": "6",
                    "kubeProxyVersion": "", "kubeletVersion": "v1.36.0",
                    "operatingSystem": "linux", "osImage": "x", "systemUUID": "s",
                },
            },
        })
    }

    fn tell(&mut self, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({ "type": kind, "object": object }));
        let frame = || Ok(Frame::data(Bytes::from(line.clone())));
        self.watchers.retain(|watcher| watcher.send(frame()).is_ok());
    }

    fn no_events(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "EventList", "items": [],
            "metadata": { "resourceVersion": self.version.to_string() },
        })
    }

    /// Merges a capacity into the status of a node, as the API server does: null takes a key away.
    fn patch(&mut self, path: &str, patch: &Value) -> (u16, Value) {
        let name = path.trim_start_matches('/').strip_suffix("/status").expect("a status");
        let version = self.next();
        let Some(node) = self.nodes.get_mut(name) else {
            return (404, status(404, "NotFound"));
        };
        node["metadata"]["resourceVersion"] = version.into();
        let capacity = &mut node["status"]["capacity"];
        if capacity.is_null() {
            *capacity = json!({});
        }
        let capacity = capacity.as_object_mut().unwrap();
        for (key, value) in patch["status"]["capacity"].as_object().unwrap() {
            match value.is_null() {
                true => drop(capacity.remove(key)),
                false => drop(capacity.insert(key.clone(), value.clone())),
            }
        }
        let node = node.clone();
        self.tell("MODIFIED", &node);
        (200, node)
    }

    /// One page of the list: two objects unless a test has another limit, so that each list has
    /// several pages; never more than it is asked for.
    fn page(&self, query: &str) -> Value {
        let number = |key: &str| {
            let value = query.split('&').find_map(|part| part.strip_prefix(key));
            value.map(|value| value.parse::<usize>().unwrap())
        };
        let from = number("continue=").unwrap_or(0);
        let size = self.page_size.max(2).min(number("limit=").expect("a bounded list"));
        let nodes: Vec<&Value> = match self.lists_nothing {
            true => vec![],
            false => self.nodes.values().collect(),
        };
        let page: Vec<&Value> = nodes.iter().skip(from).take(size).copied().collect();
        let next = from + size;
        let rest = if next < nodes.len() { next.to_string() } else { String::new() };
        json!({
            "apiVersion": "v1", "kind": "NodeList", "items": page,
            "metadata": { "resourceVersion": self.version.to_string(), "continue": rest },
        })
    }

    /// Makes an object, or writes it over the version that it names.
    fn write(&mut self, path: &str, mut object: Value, is_new: bool) -> (u16, Value) {
        let known = self.others.get(path);
        let uid = match (known, is_new) {
            (Some(_), true) => return (409, status(409, "AlreadyExists")),
            (None, false) => return (404, status(404, "NotFound")),
            (None, true) => format!("uid-{}", self.version),
            (Some(known), false) => {
                let given = &object["metadata"]["resourceVersion"];
                if *given != known["metadata"]["resourceVersion"] {
                    return (409, status(409, "Conflict"));
                }
                known["metadata"]["uid"].as_str().unwrap().to_owned()
            }
        };
        object["metadata"]["uid"] = uid.into();
        object["metadata"]["resourceVersion"] = self.next().into();
        self.others.insert(path.to_owned(), object.clone());
        (if is_new { 201 } else { 200 }, object)
    }
}

fn status(code: u16, reason: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": reason,
    })
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut state = state.lock().unwrap();
    state.requests.push(format!("{method} {path}?{query}"));
    let is_write = method != Method::GET;
    if state.is_away || (state.is_without_leases && is_write && path.contains("/leases")) {
        return Ok(reply(500, &status(500, "InternalError")));
    }
    let object = || serde_json::from_slice::<Value>(&body).unwrap();
    let is_watch = query.contains("watch=true");
    if path == "/api/v1/events" {
        return Ok(match is_watch {
            true => stream(&mut state.event_watchers),
            false => reply(200, &state.no_events()),
        });
    }
    let (code, value) = match path.strip_prefix("/api/v1/nodes") {
        Some("") if is_watch => return Ok(watch(&mut state)),
        Some("") => (200, state.page(&query)),
        Some(rest) if method == Method::PATCH => state.patch(rest, &object()),
        Some(name) => match state.nodes.get(name.trim_start_matches('/')) {
            Some(node) => (200, node.clone()),
            None => (404, status(404, "NotFound")),
        },
        None if method == Method::GET => match state.others.get(&path) {
            Some(object) => (200, object.clone()),
            None => (404, status(404, "NotFound")),
        },
        None if method == Method::POST => {
            let object = object();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            state.write(&format!("{path}/{name}"), object, true)
        }
        None => state.write(&path, object(), false),
    };
    Ok(reply(code, &value))
}

fn reply(code: u16, value: &Value) -> Response<Body> {
    let body = http_body_util::Full::new(Bytes::from(value.to_string()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

/// A stream of changes from now on: nothing happens between a list and its watch here.
fn watch(state: &mut State) -> Response<Body> {
    if state.gone > 0 {
        state.gone -= 1;
        return reply(410, &status(410, "Expired"));
    }
    stream(&mut state.watchers)
}

fn stream(watchers: &mut Vec<Watcher>) -> Response<Body> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    watchers.push(sender);
    let frames = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    Response::new(BodyExt::boxed(StreamBody::new(frames)))
}
