//! The rules are good rules, and each alert fires when it must and rests when it must.

use std::fmt::Write as _;
use std::fs;

use super::super::promtool;
use super::{ALERTS, alert_file, quoted, recording_file};

#[test]
fn each_alert_fires_when_it_must_and_rests_otherwise() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| dir.path().join(name).display().to_string();
    let (recording, alerts) = (place("recording.yml"), place("alerts.yml"));
    fs::write(&recording, recording_file()).expect("a written file");
    fs::write(&alerts, alert_file()).expect("a written file");
    promtool(&["check", "rules", &recording, &alerts], "");
    let mut cases = String::from("rule_files: [recording.yml, alerts.yml]\n");
    cases.push_str("evaluation_interval: 30s\ntests:\n");
    for alert in ALERTS {
        for (what, firing, (series, at)) in
            [("fires", true, alert.fires), ("rests", false, alert.rests)]
        {
            let name = format!("{} {what}", alert.name);
            let _ = write!(cases, "  - name: {name}\n    interval: 1m\n    input_series:\n");
            for (series, values) in series {
                let (series, values) = (quoted(series), quoted(values));
                let _ = writeln!(cases, "      - series: {series}\n        values: {values}");
            }
            let alerts = format!("ALERTS{{alertname=\"{}\",alertstate=\"firing\"}}", alert.name);
            let expr = quoted(&format!("count({alerts}) or vector(0)"));
            let value = u8::from(firing);
            let _ = write!(
                cases,
                "    promql_expr_test:\n      - expr: {expr}\n        eval_time: {at}\n        \
                 exp_samples:\n          - labels: '{{}}'\n            value: {value}\n"
            );
        }
    }
    let tests = place("tests.yml");
    fs::write(&tests, cases).expect("a written file");
    promtool(&["test", "rules", &tests], "");
}

/// Series of one of two nodes: its figures of the cluster, which both show, and its own.
fn of_node(node: &str, own: [u32; 2]) -> String {
    let set = "network=\"n\",family=\"ipv4\",range_set=\"10.0.0.0\"";
    let mut text = String::new();
    let mut series = |name: &str, labels: &str, value: u32| {
        let labels = format!("job=\"leasehold\",instance=\"{node}\"{labels}");
        let series = quoted(&format!("{name}{{{labels}}}"));
        let _ = writeln!(text, "      - series: {series}\n        values: {value}x10");
    };
    series("leasehold_store_up", "", 1);
    for (figure, value) in [("", 253), ("unclaimed_", 100), ("gone_", 31), ("quarantined_", 14)] {
        let name = format!("leasehold_pool_{figure}addresses");
        series(&name, &format!(",{set},exact=\"true\""), value);
    }
    for (state, value) in [("allocated", own[0]), ("free", own[1]), ("cooling", 2)] {
        series("leasehold_addresses", &format!(",{set},state=\"{state}\""), value);
    }
    text
}

#[test]
fn what_every_node_shows_is_not_added_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| dir.path().join(name).display().to_string();
    fs::write(place("recording.yml"), recording_file()).expect("a written file");
    let mut cases = String::from("rule_files: [recording.yml]\nevaluation_interval: 30s\ntests:\n");
    let _ = write!(
        cases,
        "  - name: two nodes\n    interval: 1m\n    input_series:\n{}{}    promql_expr_test:\n",
        of_node("a", [60, 10]),
        of_node("b", [20, 16])
    );
    for (rule, value) in [
        ("pool_addresses:max", "253"),
        ("pool_unclaimed_addresses:max", "100"),
        ("pool_gone_addresses:max", "31"),
        ("pool_quarantined_addresses:max", "14"),
        ("addresses:sum{state=\"allocated\"}", "80"),
        ("available_addresses:sum", "130"),
        ("fill:ratio * 253", "80"),
    ] {
        let expr = quoted(&format!("sum(network:leasehold_{rule})"));
        let _ = write!(
            cases,
            "      - expr: {expr}\n        eval_time: 5m\n        exp_samples:\n          \
             - labels: '{{}}'\n            value: {value}\n"
        );
    }
    let tests = place("tests.yml");
    fs::write(&tests, cases).expect("a written file");
    promtool(&["test", "rules", &tests], "");
}
