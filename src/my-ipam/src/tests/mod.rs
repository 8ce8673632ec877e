//! Whole runs of the plugin against a fake daemon: a thread that answers what it is told to.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tempfile::TempDir;

use super::*;

mod absent;
mod alone;
mod http;
mod next;

const CONFIG: &str = "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"n\"\n}";

/// The time that the daemon of a test may take, in most tests.
const WAIT: Duration = Duration::from_secs(10);

/// An error object, as the daemon words it.
const ERROR: &str = "{\n  \"cniVersion\": \"1.0.0\",\n  \"code\": 11,\n  \"msg\": \"m\"\n}";

fn ok(body: &str) -> String {
    answer("200 OK", body)
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nx: y\r\n\r\n{body}", body.len())
}

/// The surroundings of one test.
struct Case {
    home: TempDir,
    variables: HashMap<&'static str, OsString>,
    config: Vec<u8>,
    wait: Duration,
    argument: Option<&'static str>,
    started_at_ns: Option<u64>,
}

/// The result of a run.
#[derive(Debug)]
struct Ran {
    status: u8,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// The error object, checked for its form.
    fn error(&self) -> Value {
        assert_eq!(self.status, 1, "{self:?}");
        assert!(self.stdout.starts_with("{\n    \"cniVersion\": \""), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    fn code_and_msg(&self) -> (u64, String) {
        let error = self.error();
        (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
    }
}

impl Case {
    fn new(command: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let variables = [
            ("CNI_COMMAND", OsString::from(command)),
            ("CNI_CONTAINERID", "c\"1".into()),
            ("CNI_NETNS", "/run/netns/a".into()),
            ("CNI_IFNAME", "eth0".into()),
            ("CNI_ARGS", "A=1;B=\\".into()),
            ("CNI_PATH", "/opt/cni/bin".into()),
            ("LEASEHOLD_SOCKET", home.path().join("s").into()),
            ("LEASEHOLD_WAIT_SECONDS", "0".into()),
        ];
        let variables = variables.into();
        let (config, started_at_ns) = (CONFIG.into(), Some(42));
        Self { home, variables, config, wait: WAIT, argument: None, started_at_ns }
    }

    fn without(mut self, variable: &str) -> Self {
        self.variables.remove(variable);
        self
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("s")
    }

    /// Answers each of so many connections and ends; gives the heads and bodies it got.
    fn daemon(&self, answers: Vec<String>) -> JoinHandle<Vec<(String, String)>> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        thread::spawn(move || {
            let mut seen = vec![];
            for answer in answers {
                let mut stream = listener.accept().unwrap().0;
                seen.push(read_request(&stream));
                stream.write_all(answer.as_bytes()).unwrap();
            }
            seen
        })
    }

    fn run_into(&self, stdout: &mut dyn Write) -> (u8, String) {
        let mut stderr = vec![];
        let status = run(&mut ProcessIo {
            started_at_ns: self.started_at_ns,
            argument: self.argument.map(OsStr::new),
            environment: &|name| self.variables.get(name).cloned(),
            stdin: &mut self.config.as_slice(),
            stdout,
            stderr: &mut stderr,
            answer_wait: self.wait,
        });
        (status, String::from_utf8(stderr).unwrap())
    }

    fn run(&self) -> Ran {
        let mut stdout = vec![];
        let (status, stderr) = self.run_into(&mut stdout);
        Ran { status, stdout: String::from_utf8(stdout).unwrap(), stderr }
    }

    /// The notes by name.
    fn notes(&self) -> Vec<(String, String)> {
        let entries = fs::read_dir(note::directory(&self.socket())).into_iter().flatten();
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        entries
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), text(&entry.path())))
            .collect()
    }
}

fn read_request(stream: &UnixStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0);
    }
    let length = head.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// The body that a call of [`Case::new`] sends.
fn body(command: &str, more: &str) -> String {
    format!(
        "{{\"command\":\"{command}\",\"containerId\":\"c\\\"1\",\"netns\":\"/run/netns/a\",\
         \"ifname\":\"eth0\",\"args\":\"A=1;B=\\\\\",\"path\":\"/opt/cni/bin\",\
         \"startedAt\":42{more},\"config\":\n{CONFIG}\n}}"
    )
}

#[test]
fn an_answer_of_200_is_printed_as_it_is() {
    let case = Case::new("ADD");
    let daemon = case.daemon(vec![ok("{\n  \"ips\": []\n}")]);
    let ran = case.run();
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "{\n  \"ips\": []\n}"), "{ran:?}");
    let (head, sent) = daemon.join().unwrap().remove(0);
    assert_eq!(sent, body("ADD", ""));
    serde_json::from_str::<Value>(&sent).unwrap();
    assert!(head.starts_with("POST /v1/cni HTTP/1.1\r\nHost: leasehold\r\n"), "{head}");
    assert!(head.ends_with("Connection: close\r\n\r\n"), "{head}");
}

#[test]
fn an_empty_answer_prints_nothing() {
    for command in ["DEL", "CHECK", "GC", "STATUS"] {
        let case = Case::new(command);
        let daemon = case.daemon(vec!["HTTP/1.1 200 OK\r\n\r\n".to_owned()]);
        let ran = case.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (0, ""), "{ran:?}");
        assert_eq!(daemon.join().unwrap()[0].1, body(command, ""));
    }
}

#[test]
fn the_daemons_error_object_is_printed_as_it_is() {
    let never = ERROR.replace("11", "5");
    for (error, command) in [(ERROR, "ADD"), (ERROR, "CHECK"), (&*never, "ADD"), (&*never, "DEL")] {
        let case = Case::new(command);
        let daemon = case.daemon(vec![answer("503 Service Unavailable", error)]);
        let ran = case.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (1, error), "{ran:?}");
        daemon.join().unwrap();
        assert_eq!(case.notes(), []);
    }
}

/// A daemon that stops refuses every call: what it does not take of a DEL, the next one does.
#[test]
fn a_del_that_is_to_be_tried_again_leaves_a_note_and_succeeds() {
    let case = Case::new("DEL");
    let daemon = case.daemon(vec![answer("503 Service Unavailable", ERROR)]);
    let ran = case.run();
    assert_eq!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    daemon.join().unwrap();
    assert_eq!(case.notes()[0].1, body("DEL", ""));
}

#[test]
fn an_error_that_is_not_cni_or_not_http_is_code_5() {
    let odd = [
        (answer("404 Not Found", "not found"), "status 404, \"not found\""),
        (answer("503 No", "{\"code\""), "status 503, \"{\\\"code\\\"\""),
        (ok("not found"), "status 200, \"not found\""),
        ("SSH-2.0-OpenSSH_9\r\n".to_owned(), "it starts with \"SSH-2.0\""),
    ];
    for (answer, expected) in odd {
        for (command, expected) in [("ADD", expected), ("DEL", expected.split(',').next().unwrap())]
        {
            let case = Case::new(command);
            let daemon = case.daemon(vec![answer.clone()]);
            let (code, msg) = case.run().code_and_msg();
            assert_eq!(code, 5);
            assert!(
                msg.starts_with("the daemon's answer is not ") && msg.ends_with(expected),
                "{msg}"
            );
            daemon.join().unwrap();
        }
    }
}

/// Standard output whose reader is gone.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_add_that_cannot_be_printed_is_undone() {
    let case = Case::new("ADD");
    let daemon = case.daemon(vec![ok("{}"), ok("")]);
    let (status, stderr) = case.run_into(&mut Broken);
    assert_eq!(status, 1);
    assert!(stderr.ends_with("; the ADD was undone\n"), "{stderr}");
    let seen = daemon.join().unwrap();
    assert_eq!(seen[0].1, body("ADD", ""));
    assert_eq!(seen[1].1, body("DEL", ",\"undo\":true"));
    assert_eq!(case.notes(), []);
}

#[test]
fn an_undoing_that_the_daemon_does_not_take_is_left_as_a_note() {
    for answers in [vec![ok("{}")], vec![ok("{}"), answer("503 No", "{}")]] {
        let case = Case::new("ADD");
        let daemon = case.daemon(answers);
        let (status, stderr) = case.run_into(&mut Broken);
        assert_eq!(status, 1);
        assert!(stderr.ends_with("; a note was left for it\n"), "{stderr}");
        assert_eq!(case.notes()[0].1, body("DEL", ",\"undo\":true"));
        daemon.join().unwrap();
    }
}

#[test]
fn only_a_successful_add_is_undone() {
    let case = Case::new("ADD");
    let daemon = case.daemon(vec![answer("500 No", "{\"code\":7}")]);
    assert_eq!(case.run_into(&mut Broken).0, 1);
    daemon.join().unwrap();
    assert_eq!(case.notes(), []);
}

#[test]
fn a_configuration_past_the_limit_is_code_6_and_the_largest_one_arrives() {
    let mut case = Case::new("ADD");
    case.config = vec![b' '; STDIN_BYTES_MAX];
    let daemon = case.daemon(vec![ok("{}")]);
    assert_eq!(case.run().status, 0);
    assert!(daemon.join().unwrap()[0].1.len() > STDIN_BYTES_MAX);
    case.config = format!("{{\"cniVersion\":\"0.4.0\",{}", " ".repeat(STDIN_BYTES_MAX)).into();
    let ran = case.run();
    assert_eq!(ran.error()["cniVersion"], "0.4.0");
    let msg = "the network configuration on stdin is over 3145728 bytes".to_owned();
    assert_eq!(ran.code_and_msg(), (6, msg));
}

#[test]
fn an_early_answer_to_a_large_body_is_heard() {
    let mut case = Case::new("ADD");
    case.config = vec![b' '; STDIN_BYTES_MAX];
    let listener = UnixListener::bind(case.socket()).unwrap();
    let daemon = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let early = answer("413 Payload Too Large", ERROR);
        stream.write_all(early.as_bytes()).unwrap();
    });
    let ran = case.run();
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ERROR), "{ran:?}");
    daemon.join().unwrap();
}

/// The daemon may live in another directory, so the plugin sends what is there.
#[test]
fn the_file_of_resolv_conf_goes_with_an_add_and_a_status() {
    for (file, sent) in [
        ("resolv.conf", ",\"resolvConf\":\"search \\\"a\\\"\\n\""),
        ("none", ",\"resolvConfError\":\"no such file or directory\""),
    ] {
        for (command, more) in [("ADD", sent), ("STATUS", sent), ("DEL", ""), ("CHECK", "")] {
            let mut case = Case::new(command);
            fs::write(case.home.path().join("resolv.conf"), "search \"a\"\n").unwrap();
            let path = case.home.path().join(file);
            let config = format!("{{\"ipam\":{{\"resolvConf\":{path:?}}}}}");
            case.config = config.clone().into_bytes();
            let daemon = case.daemon(vec![answer("503 Service Unavailable", ERROR)]);
            case.run();
            let body = body(command, more).replace(CONFIG, &config);
            assert_eq!(daemon.join().unwrap().remove(0).1, body, "{file}");
        }
    }
}
