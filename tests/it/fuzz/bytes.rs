//! Requests that are wrong as HTTP, or right as HTTP and wrong inside.

use fastrand::Rng;
use serde_json::{Value, json};

use super::mutate;

/// Bodies of calls that are deep, long, or strange as JSON.
fn body(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let whole = &corpus[rng.usize(..corpus.len())];
    match rng.u8(..9) {
        0 => b"[".repeat(rng.usize(1..50_000)),
        1 => b"{\"config\":".repeat(rng.usize(1..20_000)),
        2 => format!("[{}0]", "0,".repeat(rng.usize(1..3_000))).into_bytes(),
        3 => {
            format!("{{{}\"a\":0}}", "\"command\":\"ADD\",".repeat(rng.usize(1..500))).into_bytes()
        }
        4 => b"9".repeat(rng.usize(1..50_000)),
        5 => [b"{\"command\":\"", b"\xff\xc3\x28".as_slice(), b"\"}"].concat(),
        6 => [whole.as_slice(), whole].concat(),
        7 => mutate::noise(rng, 2_000),
        _ => {
            let mut body = whole.clone();
            mutate::bytes(rng, &mut body);
            body
        }
    }
}

/// A request line that may be odd.
fn line(rng: &mut Rng) -> String {
    let method = ["POST", "POST", "GET", "PUT", "DELETE", "post", "OPTIONS", "P\u{e9}", "G ET", ""]
        [rng.usize(..10)];
    let path = match rng.u8(..14) {
        0 => "/v1/allocations?limit=18446744073709551616".to_owned(),
        1 => "/v1/allocations?limit=-1&after=,".to_owned(),
        2 => "/v1/allocations?after=%ff%00,10.0.0.1&limit=0".to_owned(),
        3 => "/v1/networks/%2e%2e%2f%ff?revision=x".to_owned(),
        4 => format!("/v1/networks/{}", "n".repeat(rng.usize(1..3_000))),
        5 => format!("/{}", "a/".repeat(rng.usize(1..60_000))),
        6 => "http://[::1/v1/cni".to_owned(),
        7 => "*".to_owned(),
        8 => format!("/v1/status?{}", "a=b&".repeat(rng.usize(1..2_000))),
        9 => ["/metrics", "/healthz", "/readyz", "/v1/status", "/v1/blocks"][rng.usize(..5)].into(),
        10 => {
            ["/v1/release", "/v1/gc", "/v1/networks/fuzz-put", "/v1/check"][rng.usize(..4)].into()
        }
        _ => "/v1/cni".to_owned(),
    };
    let version = ["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "http/1.1"];
    format!("{method} {path} {}\r\n", version[rng.usize(..6)])
}

/// Headers that may be odd, without the one that tells the length.
fn headers(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..12) {
        0 => format!("X: {}\r\n", "y".repeat(rng.usize(1..200_000))).into_bytes(),
        1 => b"X: y\r\n".repeat(rng.usize(1..400)),
        2 => b"no colon here\r\n".to_vec(),
        3 => b"X: \0\x01\x7f\r\n".to_vec(),
        4 => b"X: a\r\n folded\r\n".to_vec(),
        5 => b"Expect: 100-continue\r\n".to_vec(),
        6 => b"Connection: Upgrade\r\nUpgrade: h2c\r\n".to_vec(),
        7 => b"Connection: close\r\nContent-Type: \xff/\xfe\r\n".to_vec(),
        8 => b"Content-Encoding: gzip\r\n".to_vec(),
        _ => b"Host: leasehold\r\nContent-Type: application/json\r\n".to_vec(),
    }
}

/// The header of the length, right or wrong, and the body behind it.
fn framed(rng: &mut Rng, body: Vec<u8>) -> Vec<u8> {
    let length = body.len();
    let header = match rng.u8(..16) {
        0 => format!("Content-Length: {}\r\n", length + 1),
        1 => format!("Content-Length: {}\r\n", length.saturating_sub(1)),
        2 => "Content-Length: 18446744073709551615\r\n".to_owned(),
        3 => "Content-Length: 99999999999999999999999\r\n".to_owned(),
        4 => format!("Content-Length: -{length}\r\n"),
        5 => format!("Content-Length: +{length}\r\n"),
        6 => format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length / 2),
        7 => format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        8 => "Transfer-Encoding: gzip, chunked, identity\r\n".to_owned(),
        9 => String::new(),
        10..=12 => return chunked(rng, &body),
        _ => format!("Content-Length: {length}\r\n"),
    };
    [header.as_bytes(), b"\r\n", &body].concat()
}

fn chunked(rng: &mut Rng, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
    let wrong = rng.bool();
    for piece in body.chunks(rng.usize(1..4_000)) {
        let size = match rng.u8(..12) {
            0 if wrong => "ffffffffffffffff".to_owned(),
            1 if wrong => "fffffffffffffffffffffffff".to_owned(),
            2 if wrong => "-1".to_owned(),
            3 if wrong => format!("{:x}", piece.len() + 1),
            4 if wrong => String::new(),
            5 => format!("{:X};name=\"{}\"", piece.len(), "v".repeat(rng.usize(..9_000))),
            _ => format!("{:x}", piece.len()),
        };
        bytes.extend(size.bytes());
        bytes.extend(b"\r\n");
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    let end: &[u8] = [b"0\r\n\r\n".as_slice(), b"0\r\n\r\n", b"0\r\nX: trailer\r\n\r\n", b"0\r\n"]
        [rng.usize(..4)];
    bytes.extend(end);
    bytes
}

/// The bytes for a connection: one request or several, all wrong in some way, or no requests.
pub(super) fn connection(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let one = |rng: &mut Rng| {
        let body = body(rng, corpus);
        [line(rng).into_bytes(), headers(rng), framed(rng, body)].concat()
    };
    match rng.u8(..10) {
        0 => mutate::noise(rng, 3_000),
        1 => (0..rng.usize(2..20)).flat_map(|_| one(rng)).collect(),
        2 => in_order(&corpus[rng.usize(..corpus.len())]).repeat(rng.usize(1..60)),
        3 | 4 => {
            let mut bytes = in_order(&corpus[rng.usize(..corpus.len())]);
            mutate::bytes(rng, &mut bytes);
            bytes
        }
        5 => {
            let body = mutate::json_text(rng, &odd_release());
            let path = ["/v1/release", "/v1/gc", "/v1/networks/fuzz-put"][rng.usize(..3)];
            let method = if path.ends_with("put") { "PUT" } else { "POST" };
            request(method, path, body.as_bytes())
        }
        _ => one(rng),
    }
}

/// A body that the other write requests accept, or almost accept.
fn odd_release() -> Value {
    json!({
        "network": "fuzz-one", "containerId": "c", "ifname": "eth0", "sequence": 1,
        "findings": [{ "kind": "namespaceGone", "network": "fuzz-one", "containerId": "c",
                       "ifname": "eth0", "sequence": 1 }],
        "ranges": [[{ "subnet": "10.1.2.0/24" }]],
    })
}

/// A well-formed request with a call.
pub(super) fn in_order(body: &[u8]) -> Vec<u8> {
    request("POST", "/v1/cni", body)
}

fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: leasehold\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
