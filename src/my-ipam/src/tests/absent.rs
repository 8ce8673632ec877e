//! No daemon, a deaf one, a silent one.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt};

use super::*;

#[test]
fn without_a_daemon_a_call_is_to_be_tried_again() {
    for (command, expected) in [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)] {
        for stale in [false, true] {
            let case = Case::new(command);
            if stale {
                drop(UnixListener::bind(case.socket()).unwrap());
            }
            let ran = case.run();
            let error = ran.error();
            assert_eq!((&error["code"], &error["cniVersion"]), (&expected.into(), &"1.0.0".into()));
            let (_, msg) = ran.code_and_msg();
            let cause =
                if stale { "Connection refused" } else { "the path does not exist (ENOENT)" };
            assert!(msg.contains(cause) && msg.contains(case.socket().to_str().unwrap()), "{msg}");
            assert_eq!(msg.starts_with("try again later: "), expected == 11, "{msg}");
            assert!(error["details"].as_str().unwrap().starts_with("start the daemon"));
            assert_eq!(case.notes(), []);
        }
    }
}

#[test]
fn an_add_waits_for_a_daemon_that_comes_late() {
    for stale in [false, true] {
        let mut case = Case::new("ADD");
        case.config = br#"{"ipam":{"waitSeconds":20}}"#.to_vec();
        if stale {
            drop(UnixListener::bind(case.socket()).unwrap());
        }
        let socket = case.socket();
        let daemon = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            let _ = fs::remove_file(&socket);
            let listener = UnixListener::bind(socket).unwrap();
            let mut stream = listener.accept().unwrap().0;
            read_request(&stream);
            stream.write_all(ok("{\"ips\": []}").as_bytes()).unwrap();
        });
        let ran = case.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (0, "{\"ips\": []}"), "{ran:?}");
        daemon.join().unwrap();
    }
}

#[test]
fn the_wait_ends_and_only_an_add_waits() {
    for (command, configured, environment, seconds) in [
        ("ADD", ",\"waitSeconds\":1", "30", 1),
        ("ADD", "", "1", 1),
        ("ADD", ",\"waitSeconds\":0", "30", 0),
        ("CHECK", ",\"waitSeconds\":30", "30", 0),
        ("STATUS", ",\"waitSeconds\":30", "30", 0),
        ("DEL", ",\"waitSeconds\":30", "30", 0),
    ] {
        let mut case = Case::new(command);
        case.config = format!("{{\"ipam\":{{\"type\":\"my-ipam\"{configured}}}}}").into_bytes();
        case.variables.insert("LEASEHOLD_WAIT_SECONDS", environment.into());
        let start = Instant::now();
        case.run();
        let took = start.elapsed().as_secs();
        assert!((seconds..seconds + 5).contains(&took), "{command}{configured}: {took} s");
    }
}

#[test]
fn what_is_not_json_is_no_reason_to_try_again() {
    for (config, words) in [
        ("{\"ipam\":\n {x}", "not valid JSON at line 2 column 3: key must be a string"),
        ("", "network configuration is empty"),
        ("[]", "must be an object"),
    ] {
        for command in ["ADD", "CHECK", "GC", "STATUS"] {
            let mut case = Case::new(command);
            case.config = config.into();
            case.variables.insert("LEASEHOLD_WAIT_SECONDS", "30".into());
            let start = Instant::now();
            let (code, msg) = case.run().code_and_msg();
            assert_eq!(code, 6, "{command}: {msg}");
            assert!(msg.contains(words), "{command}: {msg}");
            assert!(start.elapsed().as_secs() < 10, "{command} waited");
        }
    }
    // A DEL works with any configuration.
    let mut case = Case::new("DEL");
    case.config = b"{".to_vec();
    assert_eq!((case.run().status, case.notes().len()), (0, 1));
}

#[test]
fn without_a_daemon_a_del_leaves_a_note_and_succeeds() {
    let mut case = Case::new("DEL");
    let socket = case.home.path().join("deep/er/s");
    case.variables.insert("LEASEHOLD_SOCKET", socket.clone().into());
    // Anybody may have written the path, so nothing is made for it.
    let (code, msg) = case.run().code_and_msg();
    let above = socket.parent().unwrap();
    assert!(code == 11 && msg.contains(&format!("{}: ", above.display())), "{msg}");
    assert!(!case.home.path().join("deep").exists());
    fs::DirBuilder::new().recursive(true).mode(0o755).create(above).unwrap();
    let ran = case.run();
    assert_eq!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    let notes = note::directory(&socket);
    let note = notes.join(format!("42-{}.json", std::process::id()));
    assert_eq!(fs::read_to_string(&note).unwrap(), body("DEL", ""));
    assert_eq!(fs::read_dir(&notes).unwrap().count(), 1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&note), mode(&notes)), (0o600, 0o700));
}

#[test]
fn a_del_that_cannot_leave_its_note_names_both_failures() {
    let case = Case::new("DEL");
    fs::write(note::directory(&case.socket()), "in the way").unwrap();
    let (code, msg) = case.run().code_and_msg();
    assert_eq!(code, 11);
    assert!(msg.contains("the path does not exist (ENOENT); and a note of this DEL"), "{msg}");
    assert!(msg.contains(".notes: Not a directory"), "{msg}");
    // go-cni would take such words for a success.
    assert!(!msg.to_lowercase().contains("no such file"), "{msg}");
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    let whole = ok("{\"ips\": []}");
    for kept in [0, 5, 20, whole.len() - 1] {
        let part = &whole[..kept];
        let case = Case::new("ADD");
        let daemon = case.daemon(vec![part.to_owned()]);
        let (code, msg) = case.run().code_and_msg();
        assert_eq!(code, 11, "{msg}");
        let expected = format!("connection closed after {} bytes of the answer", part.len());
        assert!(msg.ends_with(&expected), "{msg}");
        daemon.join().unwrap();

        let case = Case::new("DEL");
        let daemon = case.daemon(vec![part.to_owned()]);
        assert_eq!(case.run().status, 0);
        assert_eq!(case.notes()[0].1, body("DEL", ""));
        daemon.join().unwrap();
    }
}

#[test]
fn a_daemon_that_stays_silent_is_given_up() {
    for (command, expected) in [("ADD", 1), ("DEL", 0)] {
        let mut case = Case::new(command);
        case.wait = Duration::from_millis(50);
        let _listener = UnixListener::bind(case.socket()).unwrap();
        let start = Instant::now();
        let ran = case.run();
        assert!((50..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        assert_eq!(ran.status, expected, "{ran:?}");
        assert!(command == "DEL" || ran.code_and_msg().1.ends_with("timed out"), "{ran:?}");
        assert_eq!(case.notes().len(), usize::from(command == "DEL"));
    }
}

#[test]
fn without_access_the_error_says_who_has_it() {
    let denied = || ClientError::Denied(io::ErrorKind::PermissionDenied.into());
    let socket = Path::new("/run/leasehold/leasehold.sock");
    let full = note::NoteError::Full("/n".into());
    for failure in [
        Failure::unanswered(socket, &denied(), Command::Status),
        Failure::unsent_note(socket, &denied(), &full),
    ] {
        let error: Value = serde_json::from_slice(&failure.to_json(&Peek::default())).unwrap();
        assert_eq!((&error["cniVersion"], &error["code"]), (&"1.1.0".into(), &5.into()));
        assert!(error["msg"].as_str().unwrap().contains(" /run/leasehold/leasehold.sock: may not"));
        assert!(error["details"].as_str().unwrap().starts_with("the plugin must run as root"));
    }
}

#[test]
fn a_daemon_that_accepts_nobody_is_given_up() {
    let mut case = Case::new("ADD");
    case.wait = Duration::from_millis(50);
    let listener = UnixListener::bind(case.socket()).unwrap();
    // Std has no way to set how many connections may wait.
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = UnixStream::connect(case.socket()).unwrap();
    let start = Instant::now();
    let (code, msg) = case.run().code_and_msg();
    assert!((50..5000).contains(&start.elapsed().as_millis()));
    assert_eq!(code, 11);
    assert!(msg.ends_with("cannot connect: timed out"), "{msg}");
}
