//! Real etcd for a test: one member or several on the loopback interface, in a temporary
//! directory, and ways to disturb them.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use leasehold::store::etcd::Options;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::{go_on, stop};

/// The time within which a cluster must have a leader.
const PATIENCE: Duration = Duration::from_secs(30);
/// The lines of a member's log that a failed test shows.
const LOG_TAIL_LINES: usize = 15;
/// The password of every user.
pub(crate) const PASSWORD: &str = "a secret";

/// Ports are taken in order from below those that the system gives to outgoing connections, so
/// that a member that is down does not lose its own.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

fn port() -> u16 {
    let first = 10_000 + u16::try_from(std::process::id() % 1_000).expect("below 1000") * 20;
    for _ in 0..2_000 {
        let port = first + NEXT_PORT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {first} on");
}

struct Member {
    name: String,
    /// For clients, other members, metrics.
    ports: [u16; 3],
    data: PathBuf,
    child: Option<Child>,
}

/// An etcd cluster. It is killed when it goes out of scope.
pub(crate) struct Cluster {
    dir: TempDir,
    members: Vec<Member>,
    tls: bool,
    /// The disk space that etcd allows itself, in bytes; 0: the usual one.
    quota: u32,
    /// With authentication: the user of `etcdctl`.
    user: Option<&'static str>,
}

impl Cluster {
    /// Starts members and waits until they have a leader.
    pub(crate) fn start(members: usize) -> Self {
        Self::start_with(members, false, 0)
    }

    /// Starts one member that has little room on its disk.
    pub(crate) fn start_small(quota: u32) -> Self {
        Self::start_with(1, false, quota)
    }

    /// Starts one member that is encrypted and wants a certificate of its clients.
    pub(crate) fn start_tls() -> Self {
        Self::start_with(1, true, 0)
    }

    fn start_with(members: usize, tls: bool, quota: u32) -> Self {
        let dir = TempDir::with_prefix("leasehold-etcd-").expect("a temporary directory");
        let member = |at| {
            let name = format!("m{at}");
            let data = dir.path().join(&name);
            Member { name, ports: [port(), port(), port()], data, child: None }
        };
        let members = (0..members).map(member).collect();
        let mut cluster = Self { dir, members, tls, quota, user: None };
        if tls {
            cluster.certify();
        }
        cluster.start_all();
        cluster
    }

    fn start_all(&mut self) {
        for at in 0..self.members.len() {
            self.spawn(at);
        }
        for at in 0..self.members.len() {
            self.await_health(at);
        }
    }

    /// The options of a client of the cluster, with the caller's prefix.
    pub(crate) fn options(&self, prefix: &str) -> Options {
        let mut options = Options {
            endpoints: (0..self.members.len()).map(|at| self.endpoint(at)).collect(),
            prefix: prefix.to_owned(),
            ..Options::default()
        };
        if self.tls {
            options.ca_file = Some(self.path("ca.pem"));
            options.cert_file = Some(self.path("client.pem"));
            options.key_file = Some(self.path("client.key"));
        }
        options
    }

    /// The client URL of a member.
    pub(crate) fn endpoint(&self, at: usize) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.members[at].ports[0])
    }

    /// A file beside the cluster's data.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spawn(&mut self, at: usize) {
        let scheme = if self.tls { "https" } else { "http" };
        let url = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}");
        let peer = |member: &Member| format!("{}={}", member.name, url("http", member.ports[1]));
        let peers: Vec<String> = self.members.iter().map(peer).collect();
        let member = &self.members[at];
        let (client, peer) = (url(scheme, member.ports[0]), url("http", member.ports[1]));
        let mut command = Command::new("etcd");
        command
            .args(["--name", &member.name])
            .arg("--data-dir")
            .arg(&member.data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-metrics-urls", &url("http", member.ports[2])])
            .args(["--quota-backend-bytes", &self.quota.to_string()])
            .args(["--initial-cluster", &peers.join(","), "--logger", "zap"]);
        if self.tls {
            command.arg("--client-cert-auth");
            for (flag, file) in [
                ("--trusted-ca-file", "ca.pem"),
                ("--cert-file", "server.pem"),
                ("--key-file", "server.key"),
            ] {
                command.arg(flag).arg(self.path(file));
            }
        }
        let mut log = OpenOptions::new();
        let log = log.create(true).append(true).open(self.log_path(at)).expect("etcd's log");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("cannot start etcd: {error}: install Debian's package etcd-server")
        });
        self.members[at].child = Some(child);
    }

    fn await_health(&mut self, at: usize) {
        let begun = Instant::now();
        while !self.get(at, "/health").contains("\"health\":\"true\"") {
            let child = self.members[at].child.as_mut().expect("a running member");
            let ended = child.try_wait().expect("the state of etcd");
            assert!(
                ended.is_none() && begun.elapsed() < PATIENCE,
                "etcd is not healthy ({ended:?})\n{}",
                self.log_tail(at)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The answer of a member to a GET on its port for metrics; empty if there is none.
    fn get(&self, at: usize, path: &str) -> String {
        let address = SocketAddr::from(([127, 0, 0, 1], self.members[at].ports[2]));
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().unwrap_or_default()
    }

    /// A figure of a member's metrics, added up over its labels.
    pub(crate) fn metric(&self, at: usize, name: &str) -> f64 {
        let text = self.get(at, "/metrics");
        let line = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let own = series == name || series.starts_with(&format!("{name}{{"));
            own.then(|| value.parse::<f64>().ok()).flatten()
        };
        text.lines().filter_map(line).sum()
    }

    /// The index of the leader.
    pub(crate) fn leader(&self) -> usize {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let leads = |&at: &usize| self.metric(at, "etcd_server_is_leader") > 0.5;
            if let Some(leader) = (0..self.members.len()).find(leads) {
                return leader;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no member leads");
    }

    /// Kills a member on the spot.
    pub(crate) fn kill(&mut self, at: usize) {
        let mut child = self.members[at].child.take().expect("a running member");
        child.kill().expect("SIGKILL to etcd");
        child.wait().expect("the end of etcd");
    }

    /// Starts a member that was killed, on its data, and waits until it is healthy.
    pub(crate) fn restart(&mut self, at: usize) {
        self.spawn(at);
        self.await_health(at);
    }

    /// Restarts several members that need each other.
    pub(crate) fn restart_all(&mut self, members: &[usize]) {
        members.iter().for_each(|&at| self.spawn(at));
        members.iter().for_each(|&at| self.await_health(at));
    }

    /// Suspends a member's process; its connections stay.
    pub(crate) fn pause(&self, at: usize) {
        stop(self.pid(at));
    }

    /// Resumes a suspended member.
    pub(crate) fn resume(&self, at: usize) {
        go_on(self.pid(at));
    }

    fn pid(&self, at: usize) -> u32 {
        self.members[at].child.as_ref().expect("a running member").id()
    }

    /// Runs `etcdctl` on all members.
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        let endpoints: Vec<String> = (0..self.members.len()).map(|at| self.endpoint(at)).collect();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoints.join(",")]);
        if self.tls {
            let file = |name| self.path(name);
            command.arg("--cacert").arg(file("ca.pem"));
            command.arg("--cert").arg(file("client.pem")).arg("--key").arg(file("client.key"));
        }
        if let Some(user) = self.user {
            command.args(["--user", &format!("{user}:{PASSWORD}")]);
        }
        run(command.args(args))
    }

    /// Turns authentication on, with the users `root` and those given, each of which may read
    /// and write under its prefix.
    pub(crate) fn authenticate(&mut self, users: &[(&str, &str)]) {
        self.ctl(&["user", "add", &format!("root:{PASSWORD}")]);
        self.ctl(&["user", "grant-role", "root", "root"]);
        for (user, prefix) in users {
            self.ctl(&["role", "add", user]);
            self.ctl(&["role", "grant-permission", user, "readwrite", "--prefix=true", prefix]);
            self.ctl(&["user", "add", &format!("{user}:{PASSWORD}")]);
            self.ctl(&["user", "grant-role", user, user]);
        }
        self.ctl(&["auth", "enable"]);
        self.user = Some("root");
    }

    /// Writes a password into a file beside the cluster's data.
    pub(crate) fn password_file(&self, password: &str) -> PathBuf {
        let path = self.path("password");
        fs::write(&path, format!("{password}\n")).expect("a password file");
        path
    }

    /// Saves a backup of the first member's data.
    pub(crate) fn save(&self) -> PathBuf {
        let path = self.path("backup.db");
        let _ = fs::remove_file(&path);
        let to = path.to_str().expect("a path in UTF-8");
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint(0)]);
        run(command.args(["snapshot", "save", to]));
        path
    }

    /// Sets all members back to a backup.
    pub(crate) fn restore(&mut self, backup: &Path) {
        let peer = |member: &Member| {
            (member.name.clone(), format!("http://127.0.0.1:{}", member.ports[1]))
        };
        let peers: Vec<_> = self.members.iter().map(peer).collect();
        let all: Vec<String> = peers.iter().map(|(name, url)| format!("{name}={url}")).collect();
        for (at, (name, url)) in peers.iter().enumerate() {
            if self.members[at].child.is_some() {
                self.kill(at);
            }
            let data = &self.members[at].data;
            fs::remove_dir_all(data).expect("a member's data");
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(backup);
            command.args(["--name", name, "--initial-advertise-peer-urls", url]);
            run(command.args(["--initial-cluster", &all.join(",")]).arg("--data-dir").arg(data));
        }
        self.start_all();
    }

    /// Makes an authority, a certificate for the servers, one for clients, and an unrelated
    /// authority.
    fn certify(&self) {
        let write = |name: &str, text: String| fs::write(self.path(name), text).expect(name);
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).expect("an authority");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let key = KeyPair::generate().expect("a key");
            let cert = params.self_signed(&key).expect("an authority's certificate");
            (cert.pem(), Issuer::new(params, key))
        };
        let (ca, issuer) = authority("ours");
        write("ca.pem", ca);
        let (other, other_issuer) = authority("another");
        write("other-ca.pem", other);
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let names = || vec!["127.0.0.1".to_owned(), "etcd.example".to_owned()];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
        let life = |left: Duration| Some((now - 30 * day, left));
        for (file, names, usage, issuer, life) in [
            ("server", names(), ServerAuth, &issuer, None),
            ("expired-server", names(), ServerAuth, &issuer, life(now - hour)),
            ("client", Vec::new(), ClientAuth, &issuer, None),
            ("expired-client", Vec::new(), ClientAuth, &issuer, life(now - hour)),
            ("ending-client", Vec::new(), ClientAuth, &issuer, life(now + 3 * hour)),
            ("other-client", Vec::new(), ClientAuth, &other_issuer, None),
        ] {
            let mut params = CertificateParams::new(names).expect("a certificate's names");
            params.extended_key_usages = vec![usage];
            if let Some((since, until)) = life {
                params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since;
                params.not_after = rcgen::date_time_ymd(1970, 1, 1) + until;
            }
            params.distinguished_name.push(rcgen::DnType::CommonName, file);
            let key = KeyPair::generate().expect("a key");
            let cert = params.signed_by(&key, issuer).expect("a certificate");
            write(&format!("{file}.pem"), cert.pem());
            write(&format!("{file}.key"), key.serialize_pem());
        }
    }

    fn log_path(&self, at: usize) -> PathBuf {
        self.path(&format!("{}.log", self.members[at].name))
    }

    fn log_tail(&self, at: usize) -> String {
        let log = fs::read(self.log_path(at)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
        format!("the end of the log of {}:\n{tail}", self.members[at].name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                // It may have ended by itself; then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            (0..self.members.len()).for_each(|at| eprintln!("{}", self.log_tail(at)));
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot run etcdctl: {error}: install Debian's package etcd-client")
    });
    let (said, wrong) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{command:?} fails: {wrong}");
    String::from_utf8(said).expect("text of etcdctl")
}
