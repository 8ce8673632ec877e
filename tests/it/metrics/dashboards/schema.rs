//! The dashboards fit the schema that Grafana publishes on npm; what does not fit is found.

use std::fs;
use std::process::Command;

use super::super::root;
use super::{DASHBOARDS, dashboard};

fn output(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// Checks these texts, each a dashboard, against the schema.
fn check(texts: &[String]) -> (bool, String) {
    let (good, modules) = output(&mut Command::new(root().join("tests/grafana/modules")));
    assert!(good, "npm cannot get Grafana's schema: {modules}");
    let dir = tempfile::tempdir().expect("a directory");
    let mut check = Command::new(root().join("tests/grafana/check"));
    check.arg(modules.trim());
    for (at, text) in texts.iter().enumerate() {
        let file = dir.path().join(format!("dashboard{at}.json"));
        fs::write(&file, text).expect("a written file");
        check.arg(file);
    }
    output(&mut check)
}

#[test]
fn the_dashboards_fit_grafanas_own_schema() {
    let (good, said) = check(&DASHBOARDS.iter().map(dashboard).collect::<Vec<_>>());
    assert!(good, "{said}");
}

#[test]
fn what_does_not_fit_is_found() {
    let good = dashboard(&DASHBOARDS[0]);
    for (right, wrong) in [
        ("\"schemaVersion\": 39", "\"schemaVersion\": \"39\""),
        ("\"displayMode\": \"list\"", "\"displayMode\": \"lists\""),
        ("\"fillOpacity\": 10", "\"fillOpacities\": 10"),
        ("\"gridPos\"", "\"gridPosition\""),
        ("\"type\": \"datasource\"", "\"type\": \"datasources\""),
        ("\"lastNotNull\"", "7"),
    ] {
        let bad = good.replacen(right, wrong, 1);
        assert!(bad != good, "{right} is not there");
        let (fits, said) = check(&[bad]);
        assert!(!fits && said.contains("dashboard0"), "{wrong}: {said}");
    }
}
