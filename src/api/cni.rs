//! `POST /v1/cni`: one CNI call, or an array of them.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::value::RawValue;
use tracing::Instrument as _;

use super::AppState;
use super::call::{self, Answering};
use super::delivery::Answers;
use crate::actors::WAITED;
use crate::cni::error::{Code, Error};
use crate::cni::parse;
use crate::cni::request::{Body, Calls, Request};
use crate::core::attachment::AttachmentId;
use crate::core::container_id::ContainerId;
use crate::points::{self, Point};
use crate::{limits, metrics};

/// The header of an answer with the number of its call, which the log's lines about it have, too.
const CALL_HEADER: &str = "leasehold-call";

/// The calls that this daemon was ever asked to carry out.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// One answer of an array.
#[derive(Serialize)]
struct Answer {
    /// The number of its call.
    call: u64,
    status: u16,
    /// Null: it is empty.
    body: Option<Box<RawValue>>,
}

/// The handler.
pub async fn handle(
    node: web::Data<AppState>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let answers = request.conn_data::<Rc<Answers>>().cloned().unwrap_or_default();
    answers.begin();
    let calls = match read(payload).await {
        Ok(body) => parse::split(&body, &*node.networks),
        Err(error) => Err(error),
    };
    let call = match calls {
        Ok(Calls::One(request)) => Ok(request),
        Ok(Calls::Many(calls)) => {
            return HttpResponse::Ok().json(all(&node, &answers, calls).await);
        }
        Err(error) => Err(error),
    };
    let call = InFlight::start(&node, &answers, call).await;
    let id = call.id;
    let (status, body) = call.end().await;
    points::pass(Point::BeforeAnswer);
    let mut answer = HttpResponse::build(status);
    answer.insert_header((CALL_HEADER, id)).content_type("application/json").body(body)
}

/// Carries out the calls of an array, in its order. All of them are with the coordinator before
/// the first one is waited for, so the journal commits them together.
async fn all(
    node: &web::Data<AppState>,
    answers: &Rc<Answers>,
    calls: Vec<Result<Request, Error>>,
) -> Vec<Answer> {
    let mut in_flight = Vec::with_capacity(calls.len());
    for call in calls {
        in_flight.push(InFlight::start(node, answers, call).await);
    }
    let mut all = Vec::with_capacity(in_flight.len());
    for call in in_flight {
        let id = call.id;
        let (status, body) = call.end().await;
        // Looked through, but not taken apart to be put together again.
        let body = RawValue::from_string(body).ok();
        all.push(Answer { call: id, status: status.as_u16(), body });
    }
    all
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

/// A call on its way to its status and what the plugin prints.
struct InFlight {
    id: u64,
    network: Option<Arc<str>>,
    subject: Subject,
    verb: &'static str,
    began: Instant,
    answer: Answering,
}

impl InFlight {
    async fn start(
        node: &web::Data<AppState>,
        answers: &Rc<Answers>,
        call: Result<Request, Error>,
    ) -> Self {
        let began = Instant::now();
        let id = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        // Everything that is logged on behalf of the call has its number, too; on behalf of an ADD
        // or a DEL at debug only, since a span costs as much as a part of the call.
        let span = match &call {
            Ok(Request { body: Body::Add(_) | Body::Del(_), .. }) => {
                tracing::debug_span!("call", id)
            }
            _ => tracing::info_span!("call", id),
        };
        match call {
            Ok(request) => {
                let (verb, version) = (request.verb.as_str(), request.version.as_str());
                let network = Some(request.network.clone()).filter(|name| !name.is_empty());
                let subject = Subject::of(node, &request.network, &request.body);
                let begun = call::begin(node, answers, Some(id), request).instrument(span.clone());
                let answer = begun.await;
                let answer = async move { answer.await.map_err(|error| error.version(version)) };
                let answer: Answering = Box::pin(answer.instrument(span));
                Self { id, network, subject, verb, began, answer }
            }
            Err(error) => {
                let verb = error.verb.unwrap_or("unknown");
                let answer = Box::pin(async move { Err(error) });
                Self { id, network: None, subject: Subject::default(), verb, began, answer }
            }
        }
    }

    async fn end(self) -> (StatusCode, String) {
        let answering = async {
            let answer = self.answer.await;
            (answer, WAITED.with(Cell::get))
        };
        let (answer, waited) = WAITED.scope(Cell::new(false), answering).await;
        let result = answer.as_ref().map_or_else(|error| error.code.name(), |_| "ok");
        let took = metrics::Took { time: self.began.elapsed(), waited };
        self.subject.log(self.id, self.network.as_deref(), self.verb, &took, &answer);
        metrics::request(self.network.as_deref(), self.verb, result, took);
        match answer {
            Ok(body) => (StatusCode::OK, body),
            Err(error) if is_logged(self.verb) => {
                (status(error.code), error.of_call(self.id).render())
            }
            Err(error) => (status(error.code), error.render()),
        }
    }
}

/// The subject of an ADD or a DEL, if these calls or their refusals are logged: the container, the
/// pod, and, at debug, the addresses that a DEL ends.
#[derive(Default)]
struct Subject(Option<(ContainerId, String, String)>);

impl Subject {
    fn of(node: &AppState, network: &Arc<str>, body: &Body) -> Self {
        if !tracing::enabled!(tracing::Level::INFO) {
            return Self(None);
        }
        let named = |namespace: &str, name: &str| format!("{namespace}/{name}");
        Self(match body {
            Body::Add(add) => {
                let pod = add.pod.as_ref().map(|pod| named(&pod.namespace, &pod.name));
                Some((add.id.container_id.clone(), pod.unwrap_or_default(), String::new()))
            }
            Body::Del(del) => {
                let (id, network) = (del.id.clone(), network.clone());
                let id = AttachmentId { network, container_id: id.container_id, ifname: id.ifname };
                let debug = tracing::enabled!(tracing::Level::DEBUG);
                let held = debug.then(|| node.index.look_up(&id)).flatten();
                let pod = held.as_deref().and_then(|held| held.pod.as_deref());
                let pod = pod.map(|pod| named(&pod.namespace, &pod.name)).unwrap_or_default();
                let ends = held.iter().flat_map(|held| held.addresses.iter());
                let ends = ends.map(ToString::to_string).collect::<Vec<_>>().join(",");
                Some((del.id.container_id.clone(), pod, ends))
            }
            _ => None,
        })
    }

    /// One line for each ADD and DEL at debug, and one at info for each that is refused: of those
    /// that are refused alike for the same pod, the log writes one a minute and counts the others.
    fn log(
        self,
        call: u64,
        network: Option<&str>,
        verb: &'static str,
        took: &metrics::Took,
        answer: &Result<String, Error>,
    ) {
        let (network, waited) = (network.unwrap_or_default(), took.waited);
        let Some((container, pod, ends)) = self.0 else {
            if let (Err(error), true) = (answer, is_logged(verb)) {
                tracing::info!(call, network, cause = error.code.name(), "{verb} refused: {error}");
            }
            return;
        };
        if let Err(error) = answer {
            let cause = error.code.name();
            tracing::info!(call, network, %container, pod, cause, "{verb} refused: {error}");
        }
        let millis = took.time.as_secs_f64() * 1e3;
        match answer {
            Ok(body) => {
                let addresses = if verb == "DEL" { ends } else { addresses(body) };
                tracing::debug!(
                    call, network, %container, pod, addresses, millis, waited, "{verb}"
                );
            }
            Err(error) => {
                let cause = error.code.name();
                tracing::debug!(
                    call, network, %container, pod, cause, millis, waited, "{verb}: {error}"
                );
            }
        }
    }
}

/// Returns whether calls of a command have lines of their own in the log. The others only look, or
/// tell of each container that they end.
fn is_logged(verb: &str) -> bool {
    matches!(verb, "ADD" | "DEL")
}

/// The addresses of a result, for the log.
fn addresses(result: &str) -> String {
    let result: serde_json::Value = serde_json::from_str(result).unwrap_or_default();
    let listed = result["ips"].as_array().into_iter().flatten();
    let of_list = listed.filter_map(|ip| ip["address"].as_str());
    // Results of old versions have one of each family.
    let old = ["ip4", "ip6"].iter().filter_map(|family| result[family]["ip"].as_str());
    of_list.chain(old).collect::<Vec<_>>().join(",")
}

/// The HTTP status of an error: for people with `curl`; the plugin looks at the body.
fn status(code: Code) -> StatusCode {
    match code {
        Code::IncompatibleVersion | Code::Environment | Code::Decode | Code::Config => {
            StatusCode::BAD_REQUEST
        }
        Code::AlreadyHeld | Code::Taken | Code::CheckFailed | Code::Overtaken => {
            StatusCode::CONFLICT
        }
        Code::NotAllowed => StatusCode::FORBIDDEN,
        Code::TryAgain | Code::NotAvailable | Code::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
        // The journal failed. The plugin leaves a note of a DEL that is refused so.
        Code::Io => StatusCode::INSUFFICIENT_STORAGE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
