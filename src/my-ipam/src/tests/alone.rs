//! Tests of what the plugin says without asking the daemon.

use std::os::unix::ffi::OsStringExt;

use super::*;

#[test]
fn version_echoes_the_version_of_the_caller() {
    let rest = "\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\
                \"1.1.0\"]}\n";
    for (config, version) in [("{\"cniVersion\":\"0.9\"}", "0.9"), ("", "1.1.0"), ("{]", "1.1.0")] {
        let mut case = Case::new("VERSION").without("CNI_PATH").without("CNI_IFNAME");
        case.config = config.into();
        let ran = case.run();
        assert_eq!(ran.status, 0);
        assert_eq!(ran.stdout, format!("{{\"cniVersion\":\"{version}\",{rest}"));
    }
}

#[test]
fn a_broken_environment_is_code_4() {
    let all = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"];
    for (command, required) in [
        ("ADD", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("DEL", "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH"),
        ("GC", "CNI_PATH"),
        ("STATUS", "CNI_PATH"),
    ] {
        let ran = all.iter().fold(Case::new(command), |case, name| case.without(name)).run();
        let msg = format!("required env variables [{required}] missing");
        assert_eq!(ran.code_and_msg(), (4, msg));
    }
    let ran = Case::new("add").run();
    let expected = r#"{
    "cniVersion": "1.0.0",
    "code": 4,
    "msg": "unknown CNI_COMMAND: add"
}"#;
    assert_eq!(ran.stdout, expected);
    for (command, name) in [("DEL", "CNI_COMMAND"), ("ADD", "CNI_NETNS"), ("CHECK", "CNI_ARGS")] {
        let mut case = Case::new(command);
        case.variables.insert(name, OsString::from_vec(vec![b'a', 0xff]));
        let msg = format!("the value of the env variable {name} is not UTF-8");
        assert_eq!(case.run().code_and_msg(), (4, msg));
    }
    // A DEL has no use for these.
    for name in ["CNI_NETNS", "CNI_ARGS", "CNI_PATH"] {
        let mut case = Case::new("DEL");
        case.variables.insert(name, OsString::from_vec(vec![b'a', 0xff]));
        assert_eq!((case.run().status, case.notes().len()), (0, 1), "{name}");
    }
}

#[test]
fn without_a_clock_no_call_is_made_and_versions_are_still_told() {
    for (command, expected) in [("VERSION", 0), ("ADD", 1), ("DEL", 1)] {
        let mut case = Case::new(command);
        case.started_at_ns = None;
        let ran = case.run();
        assert_eq!(ran.status, expected, "{ran:?}");
        if expected == 1 {
            let msg = "the time since boot cannot be read (CLOCK_BOOTTIME)".to_owned();
            assert_eq!(ran.code_and_msg(), (5, msg));
        }
        assert_eq!(case.notes(), []);
    }
}

#[test]
fn people_get_texts() {
    let versions = "0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n";
    assert_eq!(format!("{}\n", VERSIONS_SUPPORTED.join(", ")), versions);
    for command in ["", "unset"] {
        let case = Case::new("");
        let ran = if command.is_empty() { case } else { case.without("CNI_COMMAND") }.run();
        assert_eq!((ran.status, ran.stdout.as_str()), (0, ""));
        assert!(ran.stderr.starts_with("my-ipam ") && ran.stderr.ends_with(versions), "{ran:?}");
    }
    let mut case = Case::new("ADD");
    for (argument, length_min) in [("--help", 500), ("-h", 500), ("--version", 10), ("-V", 10)] {
        case.argument = Some(argument);
        let ran = case.run();
        assert_eq!(ran.status, 0);
        assert!(ran.stdout.starts_with("my-ipam ") && ran.stdout.len() > length_min, "{ran:?}");
    }
    // What a program says of itself to `demo` and `bench`: one line with version and target.
    let library = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let (version, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let line = format!("my-ipam {version}, {arch}-unknown-linux-{library}\n");
    assert_eq!(case.run().stdout, line);
}

#[test]
fn the_configured_socket_wins_and_the_usual_one_comes_last() {
    let environment = |name: &str| Case::new("ADD").variables.get(name).map(|_| "/e".into());
    let peek = Peek::at(b"{\"ipam\": {\"socket\": \"/c\"}}");
    assert_eq!(socket_path(&peek, &environment), Path::new("/c"));
    assert_eq!(socket_path(&Peek::default(), &environment), Path::new("/e"));
    for value in [None, Some(OsString::new())] {
        let path = socket_path(&Peek::default(), &|_| value.clone());
        assert_eq!(path, Path::new("/run/leasehold/leasehold.sock"));
    }
}
