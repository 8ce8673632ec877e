//! Bytes on the socket and over TCP: each connection is answered in HTTP or closed, in time.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use super::{World, bytes, corpus, seeds, shown};
use crate::common::next_reply;

/// The longest time that a connection may stay open after its client has sent everything.
const ENDED_WITHIN: Duration = Duration::from_secs(15);
/// Connections in one batch.
const CONNECTIONS: usize = 300;
/// Batches of every run, on the socket and over TCP.
const BATCHES: u64 = 2;
const BATCHES_TCP: u64 = 1;
/// Clients that stop in the middle and stay connected.
const SILENT: usize = 100;

/// A connection of either listener.
pub(super) trait Stream: Read + Write + Send + Sized {
    fn again(&self) -> io::Result<Self>;
    fn end_of_input(&self) -> io::Result<()>;
    fn wait_at_most(&self, limit: Duration) -> io::Result<()>;
}

macro_rules! stream {
    ($stream:ty) => {
        impl Stream for $stream {
            fn again(&self) -> io::Result<Self> {
                self.try_clone()
            }

            fn end_of_input(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }

            fn wait_at_most(&self, limit: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(limit))?;
                self.set_write_timeout(Some(limit))
            }
        }
    };
}

stream!(UnixStream);
stream!(TcpStream);

/// The statuses of the answers on a connection until it is closed.
fn exchange<S: Stream>(mut stream: S, input: &[u8]) -> Vec<u16> {
    let began = Instant::now();
    stream.wait_at_most(ENDED_WITHIN).expect("a time limit");
    let mut sending = stream.again().expect("another handle");
    let mut answers = Vec::new();
    thread::scope(|scope| {
        // In parallel with the reading: a daemon may stop reading if its answers are not read.
        scope.spawn(move || {
            // The daemon may close before it has read all of it.
            let _ = sending.write_all(input);
            let _ = sending.end_of_input();
        });
        match stream.read_to_end(&mut answers) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error} after {:?} for {}", began.elapsed(), shown(input)),
        }
    });
    statuses(&answers).unwrap_or_else(|error| {
        panic!("{error} in the answer {} to {}", shown(&answers), shown(input))
    })
}

/// The same for many connections at once: the daemon gives up a connection with an incomplete body
/// only after seconds.
pub(super) fn exchange_all<S: Stream>(
    connect: impl Fn() -> S + Sync,
    inputs: &[Vec<u8>],
) -> Vec<Vec<u16>> {
    thread::scope(|scope| {
        let connect = &connect;
        let one = |input: &Vec<u8>| {
            let input = input.clone();
            scope.spawn(move || exchange(connect(), &input))
        };
        let connections: Vec<_> = inputs.iter().map(one).collect();
        let ended = connections.into_iter().map(thread::ScopedJoinHandle::join);
        ended.map(|end| end.unwrap_or_else(|cause| resume_unwind(cause))).collect()
    })
}

/// The statuses of answers one after the other, all of them well-formed.
fn statuses(answers: &[u8]) -> io::Result<Vec<u16>> {
    let (mut rest, mut statuses) = (answers, Vec::new());
    while !rest.is_empty() {
        let status = next_reply(&mut rest)?.status;
        if !(100..=599).contains(&status) {
            return Err(io::Error::other(format!("status {status}")));
        }
        statuses.push(status);
    }
    Ok(statuses)
}

/// The bodies of the corpus.
pub(super) fn bodies() -> Vec<Vec<u8>> {
    corpus("calls").into_iter().map(|(_, body)| body).collect()
}

/// The requests of the corpus.
fn requests() -> Vec<Vec<u8>> {
    corpus("http").into_iter().map(|(_, bytes)| bytes).collect()
}

/// The bytes for a batch of connections.
fn batch(rng: &mut Rng, bodies: &[Vec<u8>]) -> Vec<Vec<u8>> {
    (0..CONNECTIONS).map(|_| bytes::connection(rng, bodies)).collect()
}

#[test]
fn bytes_on_the_socket_are_answered_or_refused() {
    let (mut world, bodies) = (World::new(), bodies());
    exchange_all(|| world.daemon.connect(), &requests());
    world.end_all();
    let (mut answered, mut taken) = (0, 0);
    seeds(BATCHES, |rng| {
        let ends = exchange_all(|| world.daemon.connect(), &batch(rng, &bodies));
        answered += ends.iter().filter(|statuses| !statuses.is_empty()).count();
        taken += ends.iter().filter(|statuses| statuses.contains(&200)).count();
        world.end_all();
    });
    println!("{answered} connections were answered, {taken} of them with a success");
    assert!(taken > 0, "a fuzzer that reaches nothing tests nothing");
}

#[test]
fn bytes_over_tcp_are_answered_or_refused_and_change_nothing() {
    let (mut world, bodies) = (World::new(), bodies());
    let listen = world.daemon.listen();
    let connect = || TcpStream::connect(listen).expect("a TCP connection");
    let mut inputs = requests();
    inputs.extend(bodies.iter().map(|body| bytes::in_order(body)));
    seeds(BATCHES_TCP, |rng| {
        inputs.extend(batch(rng, &bodies));
        exchange_all(connect, &inputs);
        inputs.clear();
        assert_eq!(world.daemon.allocations(), Vec::<Value>::new());
        world.end_all();
    });
}

#[test]
fn clients_that_break_off_and_stay_are_let_go() {
    let (mut world, bodies) = (World::new(), bodies());
    let mut rng = Rng::with_seed(1);
    let mut silent: Vec<(UnixStream, Vec<u8>)> = Vec::new();
    for _ in 0..SILENT {
        let mut stream = world.daemon.connect();
        let mut bytes = bytes::in_order(&bodies[rng.usize(..bodies.len())]);
        bytes.truncate(rng.usize(1..bytes.len()));
        stream.write_all(&bytes).expect("a part of a request");
        silent.push((stream, bytes));
    }
    let began = Instant::now();
    for (mut stream, bytes) in silent {
        let left = ENDED_WITHIN.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        stream.wait_at_most(left).expect("a time limit");
        let mut answer = [0; 512];
        // An answer or a closed connection: both are fine.
        if let Err(error) = stream.read(&mut answer) {
            let ended = error.kind() == io::ErrorKind::ConnectionReset;
            assert!(ended, "{error} after {:?}: {}", began.elapsed(), shown(&bytes));
        }
    }
    world.end_all();
}
