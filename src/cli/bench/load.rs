//! Callers on a daemon's socket: connections that are kept open, each with one call at a time, all
//! on one thread of this process.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::LocalSet;

use super::calls;
use super::report::{Times, add_time, times};

/// The longest time that one answer may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// Calls in one array when many have to be made.
pub(super) const ARRAY_MAX: u64 = 1000;

/// The number of the next maker: no two makers make containers of the same name.
static MAKERS: AtomicU32 = AtomicU32::new(1);

/// A number for a new maker of containers.
pub(super) fn maker() -> u32 {
    MAKERS.fetch_add(1, Ordering::Relaxed)
}

/// The size of a load.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// The load lasts this long; the addresses that are held at the end are released.
    Time(Duration),
    /// Each connection makes this number of ADDs; their addresses stay held.
    Adds(u64),
}

/// Callers on one socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load<'a> {
    pub(super) socket: &'a Path,
    pub(super) connections: u64,
    pub(super) until: Until,
    /// The number of containers that live on each connection at once.
    pub(super) keep: usize,
    /// The time from one ADD to the next on a connection; zero: as fast as ADDs are answered.
    pub(super) period: Duration,
    pub(super) config: &'a Value,
}

/// The answers that the callers of a load got.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) adds: Times,
    pub(super) dels: Times,
    pub(super) took: Duration,
}

impl Loaded {
    /// ADDs and DELs together.
    pub(super) fn both(&self) -> anyhow::Result<Times> {
        let mut both = self.adds.clone();
        both.add(&self.dels)?;
        Ok(both)
    }

    /// Adds another part of the same round to this one.
    pub(super) fn add(&mut self, more: &Self) -> anyhow::Result<()> {
        self.adds.add(&more.adds)?;
        self.dels.add(&more.dels)?;
        self.took += more.took;
        Ok(())
    }
}

/// Runs a future on this thread to its end.
pub(super) fn block_on<T>(what: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, what)
}

impl Load<'_> {
    /// Makes the calls of the load.
    ///
    /// # Errors
    /// A connection broke, or a call was refused.
    pub(super) fn run(self) -> anyhow::Result<Loaded> {
        let mut all = run_all(&[self])?;
        all.pop().context("the load has no result")
    }
}

/// Makes the calls of several loads at the same time.
pub(super) fn run_all(loads: &[Load<'_>]) -> anyhow::Result<Vec<Loaded>> {
    block_on(async {
        let mut callers = Vec::new();
        for load in loads {
            let mut of_load = Vec::new();
            for _ in 0..load.connections {
                of_load.push(Caller::new(load).await?);
            }
            callers.push(of_load);
        }
        let began = Instant::now();
        let mut tasks = Vec::new();
        for of_load in callers {
            let of_load = of_load.into_iter().map(|caller| tokio::task::spawn_local(caller.run()));
            tasks.push(of_load.collect::<Vec<_>>());
        }
        let mut all = Vec::new();
        for of_load in tasks {
            let mut sum = Loaded { adds: times()?, dels: times()?, took: Duration::ZERO };
            for task in of_load {
                let (adds, dels, until) = task.await??;
                sum.adds.add(&adds)?;
                sum.dels.add(&dels)?;
                sum.took = sum.took.max(until.saturating_duration_since(began));
            }
            all.push(sum);
        }
        Ok(all)
    })
}

/// One connection and its task.
struct Caller {
    connection: Connection,
    /// The text before and after the container's id in the body of an ADD, and of a DEL.
    bodies: [(String, String); 2],
    until: Until,
    keep: usize,
    period: Duration,
    maker: u32,
}

impl Caller {
    async fn new(load: &Load<'_>) -> anyhow::Result<Self> {
        let bodies = ["ADD", "DEL"].map(|command| {
            let body = calls::call(command, "<>", load.config).to_string();
            let (before, after) = body.split_once("<>").unwrap_or_default();
            (before.to_owned(), after.to_owned())
        });
        let Load { until, keep, period, .. } = *load;
        let connection = Connection::open(load.socket).await?;
        Ok(Self { connection, bodies, until, keep, period, maker: maker() })
    }

    /// Runs to the end. Returns the times of ADDs and DELs, and the time of the last answer.
    async fn run(mut self) -> anyhow::Result<(Times, Times, Instant)> {
        let (mut adds, mut dels) = (times()?, times()?);
        let (began, mut living) = (Instant::now(), VecDeque::new());
        let mut last = began;
        for number in 0.. {
            let over = match self.until {
                Until::Time(time) => last.duration_since(began) >= time,
                Until::Adds(count) => number >= count,
            };
            if over {
                break;
            }
            if !self.period.is_zero() {
                let due = began + self.period * u32::try_from(number).unwrap_or(u32::MAX);
                tokio::time::sleep_until(due.into()).await;
            }
            add_time(&mut adds, self.call(0, number).await?);
            living.push_back(number);
            if living.len() > self.keep
                && let Some(oldest) = living.pop_front()
            {
                add_time(&mut dels, self.call(1, oldest).await?);
            }
            last = Instant::now();
        }
        if let Until::Time(_) = self.until {
            for number in living {
                self.call(1, number).await?;
            }
        }
        Ok((adds, dels, last))
    }

    async fn call(&mut self, command: usize, number: u64) -> anyhow::Result<Duration> {
        let (before, after) = &self.bodies[command];
        let container = calls::container(self.maker, number);
        let body = format!("{before}{container}{after}");
        let began = Instant::now();
        let (status, answer) = self.connection.ask(&body).await?;
        let took = began.elapsed();
        anyhow::ensure!(status == 200, "refused: {}", String::from_utf8_lossy(answer));
        Ok(took)
    }
}

/// A connection that is kept open.
pub(super) struct Connection {
    stream: UnixStream,
    sent: Vec<u8>,
    got: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(socket: &Path) -> anyhow::Result<Self> {
        let failed = || format!("connection to {}", socket.display());
        let stream = UnixStream::connect(socket).await.with_context(failed)?;
        Ok(Self { stream, sent: Vec::new(), got: Vec::new() })
    }

    /// Sends one body to `/v1/cni` and waits for its answer: status and body.
    pub(super) async fn ask(&mut self, body: &str) -> anyhow::Result<(u16, &[u8])> {
        let answer = tokio::time::timeout(ANSWER_WAIT_MAX, self.exchange(body));
        let (status, from) = answer.await.context("no answer")??;
        Ok((status, &self.got[from..]))
    }

    async fn exchange(&mut self, body: &str) -> anyhow::Result<(u16, usize)> {
        self.sent.clear();
        let length = body.len();
        self.sent.extend_from_slice(
            format!(
                "POST /v1/cni HTTP/1.1\r\nHost: leasehold\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n"
            )
            .as_bytes(),
        );
        self.sent.extend_from_slice(body.as_bytes());
        self.stream.write_all(&self.sent).await?;
        self.got.clear();
        let mut end = None;
        while end.is_none_or(|(_, _, bytes)| self.got.len() < bytes) {
            let count = self.stream.read_buf(&mut self.got).await?;
            anyhow::ensure!(count > 0, "the daemon closed the connection");
            if end.is_none() {
                end = head(&self.got)?;
            }
        }
        let (status, from, _) = end.context("no answer")?;
        Ok((status, from))
    }
}

/// The status of an answer, where its body begins and where it ends, once its head is whole.
fn head(got: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let Some(bytes) = got.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&got[..bytes])?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let from = bytes + 4;
    Ok(Some((status, from, from + length.context("no content-length")??)))
}

/// Makes ADDs, or calls of another command, for containers of one maker, in arrays of a given size.
/// Returns the times of the arrays, and the time of all together.
pub(super) async fn in_arrays(
    connection: &mut Connection,
    command: &str,
    (maker, numbers): (u32, std::ops::Range<u64>),
    size: u64,
    config: &Value,
) -> anyhow::Result<(Times, Duration)> {
    let (mut each, mut sum, mut next) = (times()?, Duration::ZERO, numbers.start);
    while next < numbers.end {
        let some = next..numbers.end.min(next + size);
        next = some.end;
        let calls = some.map(|n| calls::call(command, &calls::container(maker, n), config));
        let body = Value::Array(calls.collect()).to_string();
        let began = Instant::now();
        let (status, answer) = connection.ask(&body).await?;
        let took = began.elapsed();
        let answer = String::from_utf8_lossy(answer);
        let failed = status != 200 || answer.contains("\"code\":");
        anyhow::ensure!(!failed, "{command} in an array was refused: {answer:.500}");
        add_time(&mut each, took);
        sum += took;
    }
    Ok((each, sum))
}
