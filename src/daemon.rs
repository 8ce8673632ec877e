//! The daemon's life: start in order, serve, stop in order. The only file that knows all parts.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor as _, Addr};
use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::actors::coordinator::{CoordinatorActor, Drain};
use crate::actors::index::Index;
use crate::actors::journal::JournalActor;
use crate::actors::leaseholder::{Claim, Leaseholder, claim_runs};
use crate::api::server::{self, Socket};
use crate::api::{About, Node, Phase, notes};
use crate::config::Config;
use crate::core::Millis;
use crate::core::claim::{self, Owner};
use crate::core::coordinator::{self, Coordinator, HeldBlock, JournalState, SetRecord};
use crate::core::range_set::{Claimed, RangeSet};
use crate::core::txn::{Compare, Txn, TxnOutcome, Write};
use crate::journal::{self, Journal, Opened};
use crate::store::ClusterStore;
use crate::store::embedded::Embedded;
use crate::store::value::{NodeValue, encode};
use crate::{clock, limits, metrics};

/// Everything that is known before the first actor starts.
pub struct Restored {
    journal: Journal,
    coordinator: Coordinator,
    sets: Vec<(SetRecord, RangeSet)>,
    store: Arc<dyn ClusterStore>,
    owner: Owner,
    epoch: u64,
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// Why it did not start.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let began = Instant::now();
    let _lock = lock(&config.state_dir)?;
    let alone_since = clock::boot_ns();
    let metrics = metrics::install().context("metrics")?;
    let socket = Socket::bind(&config.socket)?;
    let notes_dir = crate::plugin::note::directory(&config.socket);
    notes::make_directory(&notes_dir)
        .with_context(|| format!("directory {}", notes_dir.display()))?;
    let tcp = server::bind_tcp(config.listen)?;
    let listen = tcp.local_addr()?;
    let (journal, opened) = Journal::open(&journal_options(&config))?;
    report(&opened);
    let path = config.state_dir.join("cluster.redb");
    let store = Embedded::open(&path).with_context(|| path.display().to_string())?;
    let restored = restore(&config, journal, opened.state, Arc::new(store), alone_since).await?;
    let about = about(&config, listen.to_string(), restored.epoch);
    let (phase, phases) = watch::channel(Phase::Starting);
    let start = {
        let (config, about) = (config.clone(), about.clone());
        move || start(restored, &config, about, metrics, phases)
    };
    let (on_socket, node) = socket.serve(start).await?;
    let on_tcp = server::serve_tcp(tcp, node.clone())?;
    notes::act_on(&node, &notes_dir).await;
    let _ = phase.send(Phase::Serving);
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        node = config.node, socket = %config.socket.display(), listen = %listen,
        attachments = node.index.len(), started_in_ms = millis, "serving"
    );
    until_told_to_stop(&node, &notes_dir).await?;
    tracing::info!("stopping: finishing what runs");
    let _ = phase.send(Phase::Stopping);
    let stop = async {
        let _ = node.coordinator.send(Drain).await;
        on_socket.stop().await;
        on_tcp.stop().await;
    };
    if tokio::time::timeout(limits::SHUTDOWN_WAIT_MAX, stop).await.is_err() {
        tracing::warn!("stopped before all calls were finished; none of them was answered");
    }
    drop(socket);
    Ok(())
}

/// Makes the state directory and locks it for the life of the process: one daemon per node.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("state directory {}", dir.display()))?;
    let path = dir.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    if file.try_lock().is_err() {
        let mut pid = String::new();
        let _ = file.read_to_string(&mut pid);
        anyhow::bail!(
            "another daemon (pid {}) uses state directory {}: stop it, or choose another \
             directory with --state-dir",
            pid.trim(),
            dir.display()
        );
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

fn journal_options(config: &Config) -> journal::Options {
    journal::Options {
        dir: config.state_dir.clone(),
        fsync: config.fsync,
        keep_after_reboot: config.keep_after_reboot,
        boot_id: config.boot_id.clone(),
        cooldown: cooldown(config),
        now: clock::boot_ms(),
    }
}

fn cooldown(config: &Config) -> Millis {
    u64::try_from(config.cooldown.as_millis()).unwrap_or(u64::MAX)
}

fn report(opened: &Opened) {
    if let Some(ended) = opened.ended_by_reboot {
        tracing::info!(ended, "this is another boot: what its containers held is released");
    }
    if let Some(path) = &opened.replaced {
        tracing::warn!(
            moved_to = %path.display(),
            "the journal of an earlier boot could not be read and is replaced"
        );
    }
}

/// Makes this daemon the node's newest, and journal and store one state in memory. `alone_since`:
/// when it locked the state directory, in nanoseconds on the boot clock.
///
/// # Errors
/// The store does not answer, or contradicts the journal.
pub async fn restore(
    config: &Config,
    journal: Journal,
    state: JournalState,
    store: Arc<dyn ClusterStore>,
    alone_since: u64,
) -> anyhow::Result<Restored> {
    let (owner, epoch) = register(config, &*store).await?;
    let mut blocks = blocks_of(&config.node, &*store).await?;
    let stray: Vec<HeldBlock> = coordinator::stray(&state, &blocks).cloned().collect();
    for block in &stray {
        let txn = owner.give_back(&block.network, block.family, &[(block.run, block.revision)]);
        store.txn(txn).await?;
        tracing::info!(network = &*block.network, block = %block.run.net(block.family),
            "a block that was claimed for nobody is given back");
    }
    blocks.retain(|block| !stray.contains(block));
    for (network, family, run) in coordinator::uncovered(&state, &blocks) {
        tracing::warn!(network = &*network, address = %family.address(run.start),
            "the store has no block around an address in use: one is claimed");
        let message = Claim { network: network.clone(), family, runs: vec![run] };
        match claim_runs(&*store, &owner, epoch, message).await? {
            Claimed::Done(runs) => blocks.extend(runs.into_iter().map(|(run, revision)| {
                HeldBlock { network: network.clone(), family, run, revision }
            })),
            other => anyhow::bail!(
                "{} on network {network} is in use here: {other:?}",
                family.address(run.start)
            ),
        }
    }
    let cooldown = cooldown(config);
    let coordinator = Coordinator::new(cooldown, alone_since);
    let (coordinator, sets) = coordinator::restore(coordinator, state, &blocks)?;
    Ok(Restored { journal, coordinator, sets, store, owner, epoch })
}

/// Raises the node's epoch: whatever an earlier daemon of this node still has on its way to the
/// store is refused from now on.
async fn register(config: &Config, store: &dyn ClusterStore) -> anyhow::Result<(Owner, u64)> {
    let key = claim::node_key(&config.node);
    for _ in 0..limits::REGISTER_TRIES_MAX {
        let known = store.range(key.clone()).await?;
        let known = known.iter().find(|known| known.key == key);
        let before: Option<NodeValue> = match known {
            Some(known) => Some(
                serde_json::from_slice(&known.value)
                    .with_context(|| format!("value of {key} in the store"))?,
            ),
            None => None,
        };
        let value = NodeValue {
            epoch: before.map_or(1, |value| value.epoch + 1),
            boot_id: config.boot_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: clock::rfc3339(clock::unix_ms()),
        };
        let revision = known.map_or(0, |known| known.mod_revision);
        let when = vec![Compare::ModRevision(key.clone(), revision)];
        let then = vec![Write::Put(key.clone(), encode(&value))];
        if let TxnOutcome::Done(revision) = store.txn(Txn { when, then }).await? {
            return Ok((Owner { node: config.node.clone(), revision }, value.epoch));
        }
    }
    anyhow::bail!("another daemon of node {} keeps starting: give each node its name", config.node)
}

async fn blocks_of(node: &str, store: &dyn ClusterStore) -> anyhow::Result<Vec<HeldBlock>> {
    let mut blocks = Vec::new();
    for key in store.range(claim::BLOCKS.to_owned()).await? {
        let value: crate::store::value::BlockValue = serde_json::from_slice(&key.value)
            .with_context(|| format!("value of {} in the store", key.key))?;
        let (network, family, start) = claim::parse_block_key(&key.key)
            .with_context(|| format!("key {} in the store", key.key))?;
        let run = crate::core::address::Run::of(value.prefix);
        anyhow::ensure!(run.start == start, "key {} has the value of another block", key.key);
        if value.owner == node {
            let revision = key.mod_revision;
            blocks.push(HeldBlock { network: network.into(), family, run, revision });
        }
    }
    Ok(blocks)
}

fn about(config: &Config, listen: String, epoch: u64) -> About {
    About {
        node: config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        epoch,
        state_dir: config.state_dir.display().to_string(),
        listen,
        store: "embedded".to_owned(),
        since_unix_ms: clock::unix_ms(),
    }
}

/// Starts the actors on the current thread.
///
/// # Errors
/// The journal's thread cannot be started.
pub fn start(
    restored: Restored,
    config: &Config,
    about: About,
    metrics: PrometheusHandle,
    phase: watch::Receiver<Phase>,
) -> std::io::Result<Node> {
    let Restored { journal, coordinator, sets, store, owner, epoch } = restored;
    let index = Arc::new(Index::default());
    let journal: Addr<JournalActor> = JournalActor::new(journal, config.fsync)?.start();
    let leaseholder = Leaseholder::new(store, owner, epoch).start();
    let coordinator = CoordinatorActor::new(
        coordinator,
        cooldown(config),
        sets,
        journal,
        leaseholder,
        index.clone(),
    );
    let coordinator = coordinator.start();
    Ok(Node { coordinator, index, metrics, about: Arc::new(about), phase })
}

/// Keeps house until a signal comes.
async fn until_told_to_stop(node: &Node, notes_dir: &Path) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut housekeeping = tokio::time::interval(limits::HOUSEKEEPING);
    housekeeping.tick().await;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = housekeeping.tick() => {
                node.metrics.run_upkeep();
                notes::act_on(node, notes_dir).await;
            }
        }
    }
}
