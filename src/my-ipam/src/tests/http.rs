//! The HTTP client: which answers it takes, and what it says of the others.

use super::*;
use crate::client::Response;
use crate::limits::{ANSWER_BYTES_MAX, ANSWER_HEAD_BYTES_MAX};

/// The answer to a GET from a server that sends these bytes, in these pieces, and closes.
fn get(pieces: Vec<Vec<u8>>) -> Result<Response, ClientError> {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        assert!(read_request(&stream).0.starts_with("GET /v1/status HTTP/1.1\r\n"));
        for piece in pieces {
            // The client hangs up as soon as it has what it wants, or sees what it cannot take.
            let _ = stream.write_all(&piece);
            thread::sleep(Duration::from_millis(1));
        }
    });
    let answer = client::request(&socket, "GET", "/v1/status", &[], Instant::now() + WAIT);
    server.join().unwrap();
    answer
}

#[test]
fn good_answers_of_any_form_and_in_any_pieces() {
    for (answer, status, body) in [
        ("HTTP/1.1 200 OK\r\ncontent-LENGTH:  2 \r\nx: y\r\n\r\n{}more", 200, "{}"),
        ("HTTP/1.0 503 \r\n\r\nuntil the end", 503, "until the end"),
        ("HTTP/1.1 404\r\nContent-Length:0\r\n\r\n", 404, ""),
        ("HTTP/1.1 204 No Content\r\n\r\nx", 204, ""),
    ] {
        let bytes = answer.as_bytes();
        for pieces in [vec![bytes.to_vec()], bytes.chunks(1).map(<[u8]>::to_vec).collect()] {
            let response = get(pieces).unwrap();
            assert_eq!((response.status, response.body.as_slice()), (status, body.as_bytes()));
        }
    }
}

#[test]
fn a_long_answer_is_whole() {
    let body = vec![b'x'; ANSWER_BYTES_MAX - 100];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    assert_eq!(get(vec![head.into(), body.clone()]).unwrap().body, body);
}

#[test]
fn answers_that_are_not_http_as_expected_say_why() {
    let endless = vec![b'x'; ANSWER_BYTES_MAX];
    let head = vec![b'x'; ANSWER_HEAD_BYTES_MAX];
    for (answer, more, why) in [
        ("SSH-2.0-OpenSSH", vec![], "it starts with \"SSH-2.0\""),
        ("HTTP/1.1 OK\r\n\r\n", vec![], "its status line is \"HTTP/1.1 OK\""),
        ("HTTP/1.1 100 Go\r\n\r\n", vec![], "its status line is \"HTTP/1.1 100 Go\""),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            vec![],
            "its length \"-1\" is not usable",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 16777217\r\n\r\n",
            vec![],
            "its length \"16777217\" is not usable",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            vec![],
            "its transfer encoding is \"chunked\"",
        ),
        ("HTTP/1.1 200 OK\r\nx: ", head, "its head is larger than 16384 bytes"),
        ("HTTP/1.1 200 OK\r\n\r\n", endless, "it is larger than 16777216 bytes"),
    ] {
        match get(vec![answer.into(), more]) {
            Err(ClientError::Malformed(said)) => assert_eq!(said, why),
            other => panic!("{other:?} for {answer:?}"),
        }
    }
}

#[test]
fn a_path_that_cannot_be_a_sockets_is_an_error() {
    let long = "x".repeat(108);
    for path in ["", "a\0b", &long] {
        let deadline = Instant::now() + WAIT;
        let error = client::request(Path::new(path), "GET", "/", &[], deadline).unwrap_err();
        assert!(matches!(error, ClientError::NotReachable(_)), "{error}");
        let error = error.to_string();
        assert!(error.ends_with("1 to 107 bytes and no zero byte"), "{error}");
    }
}
