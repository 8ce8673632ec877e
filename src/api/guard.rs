//! The policy of the TCP listener. Everybody may see figures. Names of pods and containers, and
//! paths of network namespaces, are shown if the operator says so, or to the holder of a token.
//! Requests that a browser makes for somebody else are refused: those by a foreign name (DNS
//! rebinding), and those from foreign pages.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, ORIGIN};
use actix_web::http::header::{HeaderMap, WWW_AUTHENTICATE};
use actix_web::http::{StatusCode, Uri};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse, web};
use subtle::ConstantTimeEq as _;

use super::{AppState, refuse};

/// The listener on which a request came, which says what its client may see.
#[derive(Clone, Debug)]
pub enum Listener {
    /// Root, on the socket: everything.
    Socket,
    /// Anybody, over TCP: what its guard admits.
    Tcp(Arc<Guard>),
}

/// The policy of the TCP listener.
pub struct Guard {
    /// The socket, which `/healthz` probes.
    pub socket: Arc<Path>,
    /// True if everybody sees names of pods and containers.
    pub details: bool,
    /// The token whose holder sees them.
    pub token: Option<String>,
    /// The names, beside `localhost`, by which the listener may be asked. By address it always may:
    /// a foreign page has no power over an address.
    pub hosts: Vec<String>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { socket, details, token: _, hosts } = self;
        let mut shown = f.debug_struct("Guard");
        shown.field("socket", socket).field("details", details).field("hosts", hosts);
        shown.finish_non_exhaustive()
    }
}

impl Listener {
    /// Lets a request for names of pods and containers pass.
    ///
    /// # Errors
    /// Those are not for this client: the answer says so.
    pub(super) fn shows_details(&self, request: &HttpRequest) -> Result<(), Box<HttpResponse>> {
        match self {
            Self::Socket => Ok(()),
            Self::Tcp(guard) => guard.shows_details(request.headers()),
        }
    }
}

/// The header of the map that says whether its reader sees names of pods and containers.
pub(super) const NAMES: HeaderName = HeaderName::from_static("leasehold-names");

impl Listener {
    /// Says if a client sees names of pods and containers: `shown`, `token` (it would with the
    /// token), or `hidden`.
    pub(super) fn names(&self, request: &HttpRequest) -> HeaderValue {
        HeaderValue::from_static(match self {
            _ if self.shows_details(request).is_ok() => "shown",
            Self::Tcp(guard) if guard.token.is_some() => "token",
            _ => "hidden",
        })
    }
}

impl Guard {
    fn shows_details(&self, headers: &HeaderMap) -> Result<(), Box<HttpResponse>> {
        if self.details {
            return Ok(());
        }
        let Some(given) = headers.get(AUTHORIZATION) else {
            let remedy = match self.token {
                Some(_) => "send the token in listenTokenFile (Authorization: Bearer TOKEN)",
                None => "set listenDetails or listenTokenFile",
            };
            let why = format!(
                "this lists pods and containers, which are not shown to everybody over TCP: ask on \
                 the unix socket, or {remedy}"
            );
            return Err(refuse(StatusCode::FORBIDDEN, why).into());
        };
        let is_token = self.token.as_deref().is_some_and(|token| is_bearer(given, token));
        if is_token {
            return Ok(());
        }
        let why = match self.token {
            Some(_) => "the token is not the one in listenTokenFile",
            None => "no token is valid: the daemon has no listenTokenFile",
        };
        let mut refusal = refuse(StatusCode::UNAUTHORIZED, why);
        refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Err(refusal.into())
    }

    /// Lets requests by the names and from the pages of this listener pass.
    ///
    /// # Errors
    /// The text says what is foreign, and what to do.
    fn check_names(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
        // The one in the request's target counts before the header (RFC 9112, 3.2.2).
        let host = match uri.authority() {
            Some(authority) => Some(authority.as_str().to_owned()),
            None => text(headers, &HOST)?,
        };
        if let Some(host) = &host
            && !self.is_own(name_in(host))
        {
            let why = format!(
                "{:?} is not a name of this daemon: ask it by its address or as localhost, or add \
                 the name to listenHosts",
                name_in(host)
            );
            return Err((StatusCode::MISDIRECTED_REQUEST, why));
        }
        let Some(origin) = text(headers, &ORIGIN)? else { return Ok(()) };
        let of = origin.split_once("://").map(|(_, host)| host);
        if of.is_some_and(|of| Some(of) == host.as_deref()) {
            return Ok(());
        }
        let why = format!("pages of {origin:?} may not ask this daemon: use a page of its own");
        Err((StatusCode::FORBIDDEN, why))
    }

    fn is_own(&self, name: &str) -> bool {
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let is_local = |name: &str| name.eq_ignore_ascii_case("localhost");
        address.unwrap_or(name).parse::<IpAddr>().is_ok()
            || is_local(name)
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// The name in a host with or without a port.
fn name_in(host: &str) -> &str {
    let end = host.rfind(':').filter(|end| !host[*end..].contains(']'));
    let name = &host[..end.unwrap_or(host.len())];
    name.strip_suffix('.').unwrap_or(name)
}

/// The text of a header that may be there once.
fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, (StatusCode, String)> {
    let mut all = headers.get_all(name);
    let (first, more) = (all.next(), all.next());
    match (first.map(HeaderValue::to_str), more) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => Ok(Some(text.to_owned())),
        _ => Err((StatusCode::BAD_REQUEST, format!("{name}: give one, in ASCII"))),
    }
}

fn is_bearer(given: &HeaderValue, token: &str) -> bool {
    let (scheme, rest) = given.as_bytes().split_at(given.len().min("Bearer ".len()));
    scheme.eq_ignore_ascii_case(b"Bearer ") && rest.ct_eq(token.as_bytes()).into()
}

/// Lets requests pass that are for this listener.
pub(super) async fn check(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let guard = match request.app_data::<web::Data<AppState>>().map(|node| &node.listener) {
        Some(Listener::Tcp(guard)) => guard.clone(),
        _ => return next.call(request).await.map(ServiceResponse::map_into_boxed_body),
    };
    match guard.check_names(request.uri(), request.headers()) {
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_boxed_body),
        Err((status, why)) => Ok(request.into_response(refuse(status, why))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard {
            socket: Path::new("/run/s").into(),
            details: false,
            token: Some("secret".to_owned()),
            hosts: vec!["node-a".to_owned(), "metrics.example".to_owned()],
        }
    }

    fn headers(all: &[(HeaderName, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
        all.iter().map(|(name, text)| (name.clone(), value(text))).collect()
    }

    fn status(uri: &str, all: &[(HeaderName, &str)]) -> u16 {
        let checked = guard().check_names(&uri.parse().unwrap(), &headers(all));
        checked.map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn the_listener_answers_by_its_own_names_and_by_addresses() {
        for host in [
            "localhost",
            "LOCALHOST:9750",
            "localhost.:80",
            "127.0.0.1",
            "127.0.0.1:9750",
            "10.1.2.3:9750",
            "[::1]",
            "[fd00::7]:9750",
            "node-a",
            "Node-A:9750",
            "metrics.example:443",
        ] {
            assert_eq!(status("/metrics", &[(HOST, host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9750",
            "localhost.evil.example",
            "node-a.evil.example",
            "127.0.0.1.evil.example",
            "xnode-a",
            "",
            "[::1",
            "::1]:80",
            "127.0.0.1:80:80",
            "node-a@evil.example",
        ] {
            assert_eq!(status("/metrics", &[(HOST, host)]), 421, "{host}");
        }
        assert_eq!(status("/metrics", &[]), 200, "no browser leaves it out");
        assert_eq!(status("http://evil.example/metrics", &[(HOST, "localhost")]), 421);
        assert_eq!(status("/metrics", &[(HOST, "localhost"), (HOST, "evil.example")]), 400);
    }

    #[test]
    fn foreign_pages_are_refused() {
        let from = |origin: &str| status("/", &[(HOST, "localhost:9750"), (ORIGIN, origin)]);
        assert_eq!(from("http://localhost:9750"), 200);
        for origin in ["http://evil.example", "null", "http://localhost:80", "localhost:9750", ""] {
            assert_eq!(from(origin), 403, "{origin}");
        }
    }

    #[test]
    fn details_are_for_the_holder_of_the_token() {
        let ask = |guard: &Guard, given: Option<&str>| {
            let given = given.map(|given| (AUTHORIZATION, given));
            let shown = guard.shows_details(&headers(given.as_slice()));
            shown.map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
        };
        let closed = guard();
        assert_eq!(ask(&closed, Some("Bearer secret")), 200);
        assert_eq!(ask(&closed, Some("bearer secret")), 200);
        assert_eq!(ask(&closed, None), 403);
        for wrong in
            ["Bearer secre", "Bearer secrets", "Bearer ", "Bearer", "secret", "Basic secret", ""]
        {
            assert_eq!(ask(&closed, Some(wrong)), 401, "{wrong}");
        }
        let tokenless = Guard { token: None, ..guard() };
        assert_eq!([ask(&tokenless, None), ask(&tokenless, Some("Bearer "))], [403, 401]);
        let open = Guard { details: true, token: None, ..guard() };
        assert_eq!(ask(&open, None), 200);
        assert!(!format!("{closed:?}").contains("secret"), "it is in no log");
    }
}
