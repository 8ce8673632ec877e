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
