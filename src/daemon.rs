//! The daemon's life: start in order, serve, stop in order. The only file that knows all parts.

mod disk;

use std::fs::{self, File};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::actors::{self, Running};
use crate::api::check::sweep::Sweeps;
use crate::api::check::{Checks, Places, sweep};
use crate::api::foreign::Foreign;
use crate::api::guard::Listener;
use crate::api::history::Own;
use crate::api::lists::Lists;
use crate::api::network_cache::NetworkCache;
use crate::api::older::Older;
use crate::api::peers::Peers;
use crate::api::pools::Pools;
use crate::api::room::Room;
use crate::api::socket::{Serving, Socket};
use crate::api::tcp;
use crate::api::warnings::Warnings;
use crate::api::{self, About, AppState, Phase, Policy, answers, figures, netns, notes, read};
use crate::config::{self, Commit, Config};
use crate::core::cause::Cause;
use crate::core::keys::NETWORKS;
use crate::core::leaseholder::NodeIdentity;
use crate::core::node::{self, BootOptions, Booted};
use crate::core::range_set::Settings;
use crate::core::time::{BootTime, StartTime};
use crate::cri::Cri;
use crate::events::Recent;
use crate::identity::Identity;
use crate::journal::{self, Journal, Opened};
use crate::points::{self, Point};
use crate::store::ClusterStore;
use crate::{clock, files, limits, metrics};

mod boot;
mod certificates;
mod cluster;
mod init;
mod memory;
mod private;
mod supervisor;

pub use private::token;

use boot::Boot;
use memory::Memory;
use supervisor::Supervisor;

/// A node whose actors have not been started.
pub struct BootState {
    journal: Journal,
    booted: Booted,
    store: Arc<dyn ClusterStore>,
}

/// Runs the daemon until SIGTERM or SIGINT. `hung_up` is called at each SIGHUP, which ends nothing.
///
/// # Errors
/// The daemon cannot start; the error says why.
pub async fn serve(mut config: Config, hung_up: impl Fn() + 'static) -> anyhow::Result<()> {
    let began = Instant::now();
    // From the first moment on a signal ends the daemon in order.
    let mut signals = Signals::listen()?;
    at_each_hang_up(hung_up)?;
    let _lock = lock(&config.state_dir)?;
    let (other_init, boot) = (init::inspect(&config), Boot::find(&mut config)?);
    let alone_since = clock::start();
    let metrics = metrics::install().context("metrics")?;
    metrics::alone(config.etcd.is_none());
    let room = Room::make();
    let supervisor = Supervisor::of_environment();
    let mut socket = Socket::bind(&config.socket)?;
    let identity = Identity::claim(&config)?;
    config.node.clone_from(&identity.node);
    say_where(&config);
    let notes_dir = my_ipam::note::directory(&config.socket);
    files::make_directory(&notes_dir).with_context(|| notes_dir.display().to_string())?;
    let guard = private::guard(&config)?;
    let tcp = tcp::bind(config.listen)?;
    let listen = tcp.local_addr()?;
    let (journal, opened) = open_journal(&config, boot)?;
    let store = cluster::open(&config)?;
    let state = rebuild(&config, &identity.id, journal, opened, store, alone_since)?;
    let about = about(&config, listen.to_string());
    let (phase, phases) = watch::channel(Phase::Starting);
    let start = {
        let (config, about) = (config.clone(), about.clone());
        move || start(state, &config, about, metrics, phases)
    };
    let (on_socket, node) = socket.serve(room, start).await?;
    node.warnings.set("init", other_init.into_iter().collect());
    let on_tcp = tcp::serve(tcp, room, node.clone(), guard)?;
    certificates::start_watching(&config, &node);
    let ready = async {
        join(&node).await;
        notes::act_on(&node, &notes_dir).await;
    };
    let mut why = StopReason::Signal;
    let signalled = tokio::select! {
        () = signals.next() => true,
        () = ready => false,
    };
    if !signalled {
        let _ = phase.send(Phase::Serving);
        tracing::info!(
            node = config.node, socket = %config.socket.display(), listen = %listen,
            attachments = node.index.len(), started_in = ?began.elapsed(), "serving"
        );
        actix_rt::spawn(sweep::run(node.clone(), sweep_of(&config)));
        let housekeeping = Housekeeping { node: &node, notes_dir: &notes_dir, serving: &on_socket };
        why = tokio::select! {
            () = housekeeping.run(&mut socket, &mut signals) => StopReason::Signal,
            () = keep_informed(supervisor.as_ref(), &node, &config.socket) => StopReason::Signal,
            () = disk::mended(&node, &config.state_dir) => StopReason::DiskMended,
        };
    }
    tracing::info!("stopping: finishing what runs");
    supervisor.iter().for_each(Supervisor::stopping);
    // A client that comes now waits for the next daemon, or leaves a note.
    socket.unlink();
    tokio::time::sleep(limits::SOCKET_LINGER).await;
    let _ = phase.send(Phase::Stopping);
    finish(&node, on_socket, on_tcp).await;
    drop(socket);
    match why {
        StopReason::Signal => Ok(()),
        StopReason::DiskMended => disk::start_again(),
    }
}

/// Finishes what runs, but not for ever.
async fn finish(node: &AppState, on_socket: Serving, on_tcp: tcp::Running) {
    let finish = async {
        points::pass(Point::Stopping);
        node.machines.shutdown().await;
        points::pass(Point::Stopping);
        on_socket.stop().await;
        points::pass(Point::Stopping);
        on_tcp.stop().await;
    };
    if tokio::time::timeout(limits::SHUTDOWN_WAIT_MAX, finish).await.is_err() {
        tracing::warn!("stopped before all calls were finished; none of them was answered");
    }
}

/// The reason why the daemon stops.
enum StopReason {
    /// A signal told it to stop.
    Signal,
    /// Its journal failed, and the disk takes writes again.
    DiskMended,
}

/// Says which configuration counts, and whether the node is alone.
fn say_where(config: &Config) {
    match &config.file {
        Some(file) => tracing::info!(file = %file.display(), "configuration file read"),
        None => tracing::info!("no configuration file ({} is not there)", config::FILE_DEFAULT),
    }
    if config.etcd.is_none() {
        tracing::warn!("{}: {}", api::ALONE, api::ALONE_MEANS);
    }
}

/// Makes the state directory and locks it for the life of the process: one daemon per node.
fn lock(dir: &Path) -> anyhow::Result<File> {
    private::keep_private();
    files::make_directory(dir)
        .with_context(|| format!("state directory {} (another one: --state-dir)", dir.display()))?;
    let path = dir.join("lock");
    let options = files::options().read(true).write(true).create(true).truncate(false).clone();
    let mut file = files::open(&path, &options).with_context(|| path.display().to_string())?;
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

/// `of_init`: this may be the boot of a new PID 1, and the kernel went on.
fn journal_options(config: &Config, of_init: bool) -> journal::Options {
    journal::Options {
        dir: config.state_dir.clone(),
        fsync: config.fsync,
        keep_after_reboot: config.keep_after_reboot,
        boot_id: config.boot_id.clone(),
        cooldown: config.cooldown,
        now: clock::boot(),
        marker: marker(config),
        still_there: of_init.then_some(netns::is_there),
        history: config.history,
    }
}

/// The file beside the socket that remembers this boot's state. With etcd, that remembers more.
fn marker(config: &Config) -> Option<PathBuf> {
    if config.etcd.is_some() {
        return None;
    }
    let marker = config.socket.with_extension("boot");
    let is_there = |name| config.state_dir.join(name).exists();
    // An operator moves a damaged journal away, and the node's own store knows its blocks.
    if !is_there("journal.redb") && is_there("cluster.redb") {
        let _ = fs::remove_file(&marker);
    }
    Some(marker)
}

/// Opens the journal, and writes down which boot it is once the journal has taken it for that.
fn open_journal(config: &Config, boot: Boot) -> anyhow::Result<(Journal, Opened)> {
    let (journal, opened) = Journal::open(&journal_options(config, boot.of_init))?;
    report(&opened);
    boot.keep(&config.state_dir)?;
    Ok((journal, opened))
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

/// Makes the journal one state in memory. `id`: the identity of the state directory;
/// `alone_since`: when this daemon locked it.
///
/// # Errors
/// The journal contradicts itself, or cannot be written.
pub fn rebuild(
    config: &Config,
    id: &str,
    mut journal: Journal,
    opened: Opened,
    store: Arc<dyn ClusterStore>,
    alone_since: StartTime,
) -> anyhow::Result<BootState> {
    let options = BootOptions {
        identity: node_identity(config, id),
        settings: settings(config),
        alone_since,
        booted_at: clock::unix().before(clock::boot().since(BootTime::BOOT)),
    };
    let booted = node::boot(opened.state, options)?;
    if !booted.entries.is_empty() {
        journal.commit(&booted.entries).map_err(|cause| anyhow::anyhow!("journal: {cause}"))?;
    }
    Ok(BootState { journal, booted, store })
}

fn settings(config: &Config) -> Settings {
    // Nodes begin at different places of a pool, each always at the same one.
    let seed = BuildHasherDefault::<DefaultHasher>::default().hash_one(&config.node);
    Settings {
        cooldown: config.cooldown,
        min_free: config.warm_addresses,
        forget_after: config.forget_after,
        seed,
    }
}

fn sweep_of(config: &Config) -> Option<sweep::Sweep> {
    let config::Sweep { every, grace, cri } = config.sweep.clone()?;
    let cri = cri.map(|(socket, grace)| (Cri::new(socket), grace));
    Some(sweep::Sweep { every, grace, cri })
}

fn node_identity(config: &Config, id: &str) -> NodeIdentity {
    NodeIdentity {
        node: config.node.as_str().into(),
        machine_id: (!config.machine_id.is_empty()).then(|| config.machine_id.as_str().into()),
        // The embedded store is in the state directory: nobody else can have its blocks.
        identity: config.etcd.is_some().then(|| id.into()),
        boot_id: config.boot_id.as_str().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        since: clock::unix(),
        ttl: config.lease_ttl,
        offline_limit: config.offline_limit,
        records_awaited: config.commit == Commit::Etcd,
        keeps_after_reboot: config.keep_after_reboot,
        records: config.etcd.is_some(),
    }
}

fn about(config: &Config, listen: String) -> About {
    About {
        node: config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: metrics::COMMIT.to_owned(),
        pid: std::process::id(),
        epoch: None,
        state_dir: config.state_dir.display().to_string(),
        config: config.file.as_ref().map(|file| file.display().to_string()),
        listen,
        store: match &config.etcd {
            Some(etcd) => format!("etcd {}", etcd.endpoints.join(",")),
            None => api::EMBEDDED.to_owned(),
        },
        since_unix_ms: clock::unix().as_millis(),
    }
}

/// Starts the actors on the current thread.
///
/// # Errors
/// The journal's thread cannot be started.
pub fn start(
    state: BootState,
    config: &Config,
    about: About,
    metrics: metrics::Series,
    phase: watch::Receiver<Phase>,
) -> std::io::Result<AppState> {
    let BootState { journal, booted, store } = state;
    let networks = Arc::new(NetworkCache::open(config.state_dir.join("networks.json")));
    actix_rt::spawn(networks.clone().follow(store.watch(NETWORKS.to_owned())));
    let pools = Arc::new(Pools::default());
    let recent = Arc::new(Recent::default());
    actix_rt::spawn(pools.clone().follow(store.clone(), recent.clone()));
    let past = journal.past();
    let running = actors::start(booted, journal, config.fsync, store.clone(), recent.clone())?;
    let Running { handle: machines, standing, index } = running;
    let about = Arc::new(about);
    let history = Own::new(&config.node, index.clone(), past);
    let places = Places::open(config.state_dir.join("places.json"), &config.boot_id);
    let node = AppState {
        machines,
        standing,
        store,
        networks,
        pools,
        counts: Arc::default(),
        trends: Arc::default(),
        recent,
        history,
        peers: Peers::default(),
        outlooks: Arc::default(),
        since: Arc::default(),
        checks: Checks::new(places),
        sweeps: Sweeps::default(),
        policy: Policy {
            status_fails_when_full: config.status_fails_when_full,
            import_host_local: config.import_host_local,
        },
        lists: Lists::start(Duration::ZERO)?,
        foreign: Foreign::open(config.state_dir.join("settled")),
        older: Older::open(config.state_dir.join("admitted")),
        warnings: Warnings::default(),
        index,
        metrics,
        about,
        listener: Listener::Socket,
        phase,
    };
    if config.etcd.is_some() {
        actix_rt::spawn(answers::answer_all(node.clone()));
    }
    Ok(node)
}

/// Waits until the node has joined, but not for long: what its journal holds can be served without
/// the cluster's store.
async fn join(node: &AppState) {
    let mut standing = node.standing.clone();
    // Central configurations are known as soon as the store answers.
    let ready = async {
        let _ = standing.wait_for(|standing| standing.member).await;
        node.networks.listed().await;
    };
    if tokio::time::timeout(limits::JOIN_WAIT_MAX, ready).await.is_err() {
        let cause = node.standing.borrow().stalled.clone().unwrap_or(Cause::NoAnswerInTime);
        tracing::warn!(
            %cause,
            "not joined yet: serving from what the journal holds, and no block can be leased"
        );
    }
}

/// Has each SIGHUP end in a call, and not in the end of the daemon.
fn at_each_hang_up(hung_up: impl Fn() + 'static) -> std::io::Result<()> {
    let mut hang_ups = signal(SignalKind::hangup())?;
    actix_rt::spawn(async move {
        while hang_ups.recv().await.is_some() {
            hung_up();
        }
    });
    Ok(())
}

/// The signals that end the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Keeps the supervisor told, for ever.
async fn keep_informed(supervisor: Option<&Supervisor>, node: &AppState, socket: &Path) {
    if let Some(supervisor) = supervisor {
        supervisor.keep_informed(node, socket).await;
    }
    std::future::pending::<()>().await;
}

/// The things that the daemon looks after while it serves.
struct Housekeeping<'a> {
    node: &'a AppState,
    notes_dir: &'a Path,
    serving: &'a Serving,
}

impl Housekeeping<'_> {
    /// Binds the socket again if somebody removed its file.
    fn mend(&self, socket: &mut Socket) {
        if socket.is_there() {
            return;
        }
        let path = socket.path().to_owned();
        let bound = Socket::bind(&path).and_then(|bound| {
            self.serving.take(&bound)?;
            files::make_directory(self.notes_dir)?;
            Ok(bound)
        });
        match bound {
            Ok(bound) => {
                tracing::warn!(socket = %path.display(), "its file was gone: bound again");
                *socket = bound;
            }
            Err(error) => tracing::error!("the socket's file is gone: {error:#}"),
        }
    }

    /// Does all of this until a signal comes.
    async fn run(&self, socket: &mut Socket, signals: &mut Signals) {
        let mut memory = Memory::new();
        let mut due = tokio::time::interval(limits::HOUSEKEEPING);
        due.tick().await;
        loop {
            tokio::select! {
                () = signals.next() => return,
                _ = due.tick() => {
                    self.mend(socket);
                    let _ = read::ready(self.node).await;
                    figures::sample(self.node).await;
                    self.node.metrics.upkeep();
                    notes::act_on(self.node, self.notes_dir).await;
                    memory.inspect(&self.node.index);
                }
            }
        }
    }
}
