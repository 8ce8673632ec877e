//! A daemon that goes while an ADD is with it: the next one is asked.

use super::*;

/// The last act of a daemon, with a call in its hands.
type End = fn(&mut UnixStream, &Path);

const ENDS: [End; 3] = [
    // It dies before it answers, or in the middle of that.
    |_, socket| fs::remove_file(socket).unwrap(),
    |stream, _| stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").unwrap(),
    // It stops: its socket goes first.
    |stream, socket| {
        fs::remove_file(socket).unwrap();
        stream.write_all(answer("503 Service Unavailable", ERROR).as_bytes()).unwrap();
    },
];

#[test]
fn an_add_is_repeated_to_the_next_daemon() {
    for (at, end) in ENDS.into_iter().enumerate() {
        let mut case = Case::new("ADD");
        case.variables.insert("LEASEHOLD_WAIT_SECONDS", "20".into());
        let socket = case.socket();
        let last = UnixListener::bind(&socket).unwrap();
        let daemons = thread::spawn(move || {
            let mut stream = last.accept().unwrap().0;
            let first = read_request(&stream).1;
            end(&mut stream, &socket);
            drop((stream, last));
            let _ = fs::remove_file(&socket);
            // A daemon takes longer to start than the plugin takes to look.
            thread::sleep(Duration::from_millis(300));
            let next = UnixListener::bind(&socket).unwrap();
            let mut stream = next.accept().unwrap().0;
            let second = read_request(&stream).1;
            stream.write_all(ok("{\"ips\": []}").as_bytes()).unwrap();
            (first, second)
        });
        let ran = case.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (0, "{\"ips\": []}"), "{at}: {ran:?}");
        let (first, second) = daemons.join().unwrap();
        assert_eq!(first, body("ADD", ""), "{at}");
        // The next daemon has to know that nobody answered a DEL meanwhile.
        let since = second.split(",\"waitedSince\":").nth(1).expect("a time");
        assert!(since.starts_with(|digit: char| digit.is_ascii_digit()), "{at}: {second}");
    }
}

#[test]
fn a_daemon_that_stays_is_asked_once() {
    let mut case = Case::new("ADD");
    case.variables.insert("LEASEHOLD_WAIT_SECONDS", "20".into());
    let daemon = case.daemon(vec![answer("503 Service Unavailable", ERROR)]);
    let ran = case.run();
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ERROR));
    assert_eq!(daemon.join().unwrap().len(), 1);
}

#[test]
fn no_other_call_is_repeated() {
    for command in ["CHECK", "STATUS"] {
        let mut case = Case::new(command);
        case.variables.insert("LEASEHOLD_WAIT_SECONDS", "20".into());
        let daemon = case.daemon(vec![String::new()]);
        let start = Instant::now();
        assert_eq!(case.run().status, 1, "{command}");
        assert!(start.elapsed() < WAIT, "{command} waited");
        daemon.join().unwrap();
    }
}

/// Version 0.1 knows no `waitedSince`, and says so.
#[test]
fn a_daemon_of_the_version_before_is_asked_without_the_new_key() {
    let refusal = "{\"cniVersion\": \"1.1.0\", \"code\": 6, \
                   \"msg\": \"request body has an unknown key \\\"waitedSince\\\"\"}";
    let mut case = Case::new("ADD");
    case.variables.insert("LEASEHOLD_WAIT_SECONDS", "20".into());
    let socket = case.socket();
    let daemon = thread::spawn(move || {
        // Not before the plugin waits.
        thread::sleep(Duration::from_millis(200));
        let listener = UnixListener::bind(&socket).unwrap();
        let mut seen = vec![];
        for answer in [answer("400 Bad Request", refusal), ok("{\"ips\": []}")] {
            let mut stream = listener.accept().unwrap().0;
            seen.push(read_request(&stream).1);
            stream.write_all(answer.as_bytes()).unwrap();
        }
        seen
    });
    let ran = case.run();
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "{\"ips\": []}"), "{ran:?}");
    let seen = daemon.join().unwrap();
    assert!(seen[0].contains("waitedSince"), "{seen:?}");
    assert_eq!(seen[1], body("ADD", ""));
}
