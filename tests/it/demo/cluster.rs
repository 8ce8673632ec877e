//! `leasehold demo --nodes 3`: a real cluster, a killed daemon and an etcd that is stopped.

use std::path::Path;

use super::*;

/// The phases after the first, in which the nodes lease their first blocks.
const TROUBLE: [&str; 5] = [
    "nothing is wrong",
    "a daemon is killed (SIGKILL)",
    "the daemon is back",
    "etcd is stopped",
    "etcd is back",
];

fn report(demo: &Demo, args: &[&str], code: i32) -> Value {
    let output = demo.run(&[args, &["--once", "-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
}

#[test]
fn nothing_is_given_twice_and_nothing_waits() {
    let demo = Demo::new(Path::new(LEASEHOLD));
    let report = report(&demo, &["--nodes", "3"], 0);
    assert_eq!((&report["ok"], &report["nodes"]), (&true.into(), &3.into()), "{report}");
    assert_eq!((&report["duplicates"], &report["leftOver"]), (&0.into(), &0.into()), "{report}");
    let phases = report["phases"].as_array().expect("phases");
    let titles: Vec<&str> = phases.iter().filter_map(|phase| phase["title"].as_str()).collect();
    assert_eq!(titles[1..], TROUBLE, "{report}");
    for phase in &phases[1..] {
        for calls in ["add", "del"] {
            let of = &phase[calls];
            assert!(of["calls"].as_u64() > Some(0) && of["failures"] == 0, "{phase}");
        }
        assert_eq!(phase["waitedLong"], 0.0, "{phase}");
        assert!(phase["waited"].as_f64() >= Some(0.0), "{phase}");
    }
    demo.assert_nothing_left();
}

#[test]
fn the_first_line_is_where_the_map_is() {
    let demo = Demo::new(Path::new(LEASEHOLD));
    let output = demo.run(&["--nodes", "2", "--once"]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(shown.starts_with("the address map: http://127.0.0.1:"), "{shown}");
    for phase in TROUBLE {
        assert_eq!(shown.matches(phase).count(), 2, "{phase}, and its row: {shown}");
    }
    let right =
        "no address was held twice, and no ADD waited for a block for longer than 0.25 s: ok";
    assert!(shown.contains(right), "{shown}");
    demo.assert_nothing_left();
}

#[test]
fn without_etcd_it_says_how_to_install_it() {
    let demo = Demo::new(Path::new(LEASEHOLD));
    let output = demo.run(&["--nodes", "3", "--etcd-bin", "/nonexistent/etcd", "--once"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("apt-get install etcd-server"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    demo.assert_nothing_left();
}

#[test]
fn an_address_given_twice_in_the_cluster_is_noticed() {
    let beside = Beside::with_plugin(
        r#"case "$CNI_COMMAND" in
        ADD) "$REAL" | sed 's|"10\.20[^"/]*/16"|"10.20.0.9/16"|' ;;
        *) exec "$REAL" ;;
        esac"#,
    );
    let report = report(&Demo::new(&beside.leasehold()), &["--nodes", "2"], 1);
    assert!(report["duplicates"].as_u64() > Some(0), "{report}");
    assert!(wrong(&report).contains("10.20.0.9/16 was given to container batch-"), "{report}");
}
