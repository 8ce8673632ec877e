//! The recording rules and the alerts: the source of `dashboards/recording.yml`,
//! `dashboards/alerts.yml` and the `PrometheusRule` for Kubernetes.

mod alerts;
mod promtool;

use std::fmt::Write as _;

use super::{generated, root};

pub(super) use alerts::ALERTS;

/// A recording rule: its name and its expression.
pub(super) struct Recording {
    pub(super) name: &'static str,
    pub(super) expr: &'static str,
}

/// An alert.
pub(super) struct Alert {
    pub(super) name: &'static str,
    pub(super) expr: &'static str,
    /// For how long the expression must return something.
    pub(super) lasts: &'static str,
    /// `critical`: somebody gets up at night. `warning`: somebody looks at it during the day.
    pub(super) severity: &'static str,
    pub(super) summary: &'static str,
    /// Series, in promtool's words, with which it fires at this time, and with which it does not.
    pub(super) fires: (&'static [(&'static str, &'static str)], &'static str),
    pub(super) rests: (&'static [(&'static str, &'static str)], &'static str),
}

/// A figure of a range set that every node shows: from the nodes that reach the cluster's store,
/// since the others know what was, and of those from the ones that know its gateways.
macro_rules! of_all {
    ($figure:literal) => {
        concat!(
            "max by (cluster, network, family, range_set) (",
            $figure,
            "{exact=\"true\"} and on (cluster, job, instance) (leasehold_store_up == 1)) or ",
            "max by (cluster, network, family, range_set) (",
            $figure,
            " and on (cluster, job, instance) (leasehold_store_up == 1))",
        )
    };
}

pub(super) const RECORDINGS: &[Recording] = &[
    Recording {
        name: "network:leasehold_pool_addresses:max",
        expr: "max by (cluster, network, family, range_set) \
               (leasehold_pool_addresses{exact=\"true\"}) or max by (cluster, network, family, \
               range_set) (leasehold_pool_addresses)",
    },
    Recording {
        name: "network:leasehold_pool_unclaimed_addresses:max",
        expr: of_all!("leasehold_pool_unclaimed_addresses"),
    },
    Recording {
        name: "network:leasehold_pool_gone_addresses:max",
        expr: of_all!("leasehold_pool_gone_addresses"),
    },
    Recording {
        name: "network:leasehold_pool_quarantined_addresses:max",
        expr: of_all!("leasehold_pool_quarantined_addresses"),
    },
    Recording {
        name: "network:leasehold_addresses:sum",
        expr: "sum by (cluster, network, family, range_set, state) (leasehold_addresses)",
    },
    // What cools goes out when nothing else is left. If all nodes that use a range set are gone, no
    // node has addresses of it.
    Recording {
        name: "network:leasehold_available_addresses:sum",
        expr: "network:leasehold_pool_unclaimed_addresses:max + (sum by (cluster, network, \
               family, range_set) (leasehold_addresses{state=~\"free|spare|cooling\"}) or 0 * \
               network:leasehold_pool_unclaimed_addresses:max)",
    },
    Recording {
        name: "network:leasehold_fill:ratio",
        expr: "sum by (cluster, network, family, range_set) \
               (leasehold_addresses{state=\"allocated\"}) / network:leasehold_pool_addresses:max",
    },
    Recording {
        name: "network:leasehold_exhaustion:seconds",
        expr: "network:leasehold_available_addresses:sum / \
               (-deriv(network:leasehold_available_addresses:sum[1h]) > 0)",
    },
    Recording {
        name: "instance:leasehold_add_duration_seconds:p99",
        expr: "histogram_quantile(0.99, sum by (cluster, job, instance, le) \
               (rate(leasehold_request_duration_seconds_bucket{verb=\"ADD\"}[5m])))",
    },
];

/// The causes of refused ADDs that nobody but the caller can do something about.
const OF_THE_CALLER: [&str; 5] = ["taken", "gateway", "stage", "already-held", "overtaken"];

/// The period at which the rules are evaluated. Later ones use the results of earlier ones.
const INTERVAL: &str = "30s";
/// The page with a section for each alert, where it can be read over HTTP. The host is a stand-in:
/// operators put the place of their copy there (`docs/metrics.md`).
const RUNBOOK: &str = "https://runbook.invalid/docs/runbook.md";

/// The section of the runbook about an alert, as its anchor.
pub(super) fn anchor(alert: &Alert) -> String {
    alert.name.to_lowercase()
}

/// A scalar of YAML: JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text")
}

fn recording_group(indent: &str) -> String {
    let mut yaml = format!(
        "{indent}- name: leasehold.recording\n{indent}  interval: {INTERVAL}\n{indent}  rules:\n"
    );
    for Recording { name, expr } in RECORDINGS {
        let expr = quoted(expr);
        let _ = writeln!(yaml, "{indent}    - record: {name}\n{indent}      expr: {expr}");
    }
    yaml
}

fn alert_group(indent: &str) -> String {
    let mut yaml = format!(
        "{indent}- name: leasehold.alerts\n{indent}  interval: {INTERVAL}\n{indent}  rules:\n"
    );
    for alert in ALERTS {
        let Alert { name, expr, lasts, severity, summary, .. } = alert;
        let (expr, summary) = (quoted(expr), quoted(summary));
        let url = quoted(&format!("{RUNBOOK}#{}", anchor(alert)));
        let _ = write!(
            yaml,
            "{indent}    - alert: {name}\n{indent}      expr: {expr}\n{indent}      for: {lasts}\n\
             {indent}      labels:\n{indent}        severity: {severity}\n\
             {indent}      annotations:\n{indent}        summary: {summary}\n\
             {indent}        runbook_url: {url}\n"
        );
    }
    yaml
}

const ORIGIN: &str = "# Made by tests/it/metrics/rules.rs: change it there.\n";

pub(super) fn recording_file() -> String {
    format!("{ORIGIN}groups:\n{}", recording_group("  "))
}

pub(super) fn alert_file() -> String {
    format!("{ORIGIN}groups:\n{}", alert_group("  "))
}

/// For the Prometheus operator of Kubernetes.
fn kubernetes_file() -> String {
    let (recording, alerts) = (recording_group("    "), alert_group("    "));
    format!(
        "{ORIGIN}apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  \
         name: leasehold\n  namespace: leasehold\n  labels:\n    \
         app.kubernetes.io/name: leasehold\nspec:\n  groups:\n{recording}{alerts}"
    )
}

#[test]
fn generated_the_rules_are_what_their_source_makes() {
    generated("dashboards/recording.yml", &recording_file());
    generated("dashboards/alerts.yml", &alert_file());
    generated("deploy/kubernetes/components/monitoring/prometheusrule.yaml", &kubernetes_file());
}

#[test]
fn links_into_the_runbook_are_absolute_and_say_what_to_replace() {
    let host = RUNBOOK.strip_suffix("/docs/runbook.md").expect("the runbook");
    assert!(host.starts_with("https://") && !host[8..].contains('/'), "{host}");
    let document = std::fs::read_to_string(root().join("docs/metrics.md")).expect("it");
    assert!(document.contains(&format!("s#{host}#")), "docs/metrics.md says how to replace it");
    for rules in [alert_file(), kubernetes_file()] {
        let urls = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: \""));
        assert!(urls.clone().all(|url| url.starts_with(host)), "{rules}");
        assert_eq!(urls.count(), ALERTS.len());
    }
}

#[test]
fn each_cause_of_a_refusal_is_in_an_alert_or_the_callers_own_fault() {
    let alerts = [alert("LeaseholdAddFailing"), alert("LeaseholdNoBlock")];
    for cause in leasehold::metrics::CAUSES {
        let in_alert = |alert: &Alert| {
            let choice = alert.expr.split_once("cause=~\"").expect("a choice of causes").1;
            choice.split('"').next().is_some_and(|all| all.split('|').any(|of| of == *cause))
        };
        let count = alerts.iter().filter(|alert| in_alert(alert)).count();
        let own = OF_THE_CALLER.contains(cause);
        assert_eq!(count, usize::from(!own), "{cause} is in {count} alerts");
    }
}

fn alert(name: &str) -> &'static Alert {
    ALERTS.iter().find(|alert| alert.name == name).expect("an alert")
}

#[test]
fn every_alert_has_a_section_in_the_runbook() {
    let path = root().join("docs/runbook.md");
    let text = std::fs::read_to_string(path).expect("docs/runbook.md");
    let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let names: Vec<&str> = ALERTS.iter().map(|alert| alert.name).collect();
    assert_eq!(sections, names, "the sections of the runbook are the alerts, in their order");
}
