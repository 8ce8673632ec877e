//! The dashboards: the source of `dashboards/*.json`, for Grafana.

mod cluster;
mod etcd;
mod node;
mod schema;

use serde_json::{Value, json};

use super::generated;

/// Every dashboard.
pub(super) const DASHBOARDS: [Dashboard; 3] = [cluster::CLUSTER, node::NODE, etcd::ETCD];

/// A dashboard.
pub(super) struct Dashboard {
    pub(super) file: &'static str,
    pub(super) uid: &'static str,
    pub(super) title: &'static str,
    pub(super) rows: &'static [(&'static str, &'static [Panel])],
}

/// The parts that the expressions of panels leave out: the choice of series, the period of rates.
const SHORT: [(&str, &str); 7] = [
    ("@cluster", r#"cluster=~"$cluster""#),
    ("@network", r#"cluster=~"$cluster",network=~"$network""#),
    ("@node", r#"cluster=~"$cluster",instance=~"$node""#),
    ("@both", r#"cluster=~"$cluster",instance=~"$node",network=~"$network""#),
    // The Prometheus operator puts the namespace before the name.
    ("@job", r#"job=~"(.+/)?leasehold""#),
    ("@etcd", r#"job=~"$etcd""#),
    ("@rate", "$__rate_interval"),
];

/// An expression as Grafana knows it.
pub(super) fn expression(short: &str) -> String {
    SHORT.iter().fold(short.to_owned(), |text, (word, whole)| text.replace(word, whole))
}

/// A panel with its expressions, each with its legend.
pub(super) struct Panel {
    pub(super) title: &'static str,
    /// A text on the figures, and on the meaning of a strange picture.
    pub(super) says: &'static str,
    /// A unit of Grafana's.
    pub(super) unit: &'static str,
    pub(super) shape: Shape,
    pub(super) targets: &'static [(&'static str, &'static str)],
}

/// The form in which a panel shows its figures.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Lines,
    /// Lines that may go below zero.
    Signed,
    /// Lines on top of each other.
    Stacked,
    /// The figure of now.
    Figure,
    /// The legend in place of the figure.
    Name,
}

/// Panels beside each other, and the width and height of one in Grafana's grid of 24 columns.
const PER_ROW: u32 = 3;
const SIZE: [u32; 2] = [24 / PER_ROW, 8];
/// The version of Grafana's dashboard model, and the oldest Grafana that reads all of it.
const SCHEMA: u32 = 39;
const GRAFANA: &str = "10.4.0";

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// A variable that offers the values of a label.
fn variable(name: &str, label: &str, query: &str) -> Value {
    json!({
        "name": name, "label": label, "type": "query", "datasource": source(),
        "query": { "query": query, "refId": format!("variable-{name}") },
        "refresh": 2, "sort": 1, "includeAll": true, "multi": true, "allValue": ".*",
        "current": { "text": ["All"], "value": ["$__all"] }, "options": [], "hide": 0,
    })
}

/// The variables, each with its label and its query.
const VARIABLES: [(&str, &str, &str); 4] = [
    ("cluster", "Cluster", "label_values(leasehold_build_info, cluster)"),
    ("node", "Node", "label_values(leasehold_build_info{cluster=~\"$cluster\"}, instance)"),
    (
        "network",
        "Network",
        "label_values(leasehold_pool_addresses{cluster=~\"$cluster\"}, network)",
    ),
    ("etcd", "Job of etcd", "label_values(etcd_server_has_leader, job)"),
];

/// The variables that the panels of a dashboard use.
fn variables(of: &Dashboard) -> Vec<Value> {
    let source = json!({
        "name": "datasource", "label": "Data source", "type": "datasource",
        "query": "prometheus", "options": [], "refresh": 1, "hide": 0,
        "includeAll": false, "multi": false,
    });
    let used = VARIABLES.iter().filter(|(name, ..)| uses(of, name));
    let rest = used.map(|(name, label, query)| variable(name, label, query));
    std::iter::once(source).chain(rest).collect()
}

/// Returns whether an expression of a dashboard has this variable.
fn uses(of: &Dashboard, variable: &str) -> bool {
    let targets = of.rows.iter().flat_map(|(_, panels)| *panels).flat_map(|panel| panel.targets);
    targets.into_iter().any(|(expr, _)| expression(expr).contains(&format!("\"${variable}\"")))
}

fn panel(panel: &Panel, id: u32, [x, y]: [u32; 2]) -> Value {
    let targets: Vec<Value> = (panel.targets.iter().zip('A'..='Z'))
        .map(|((expr, legend), name)| {
            json!({
                "refId": name.to_string(), "datasource": source(), "expr": expression(expr),
                "legendFormat": legend, "editorMode": "code", "range": true,
            })
        })
        .collect();
    let (kind, options) = match panel.shape {
        Shape::Figure | Shape::Name => (
            "stat",
            json!({
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "textMode": if matches!(panel.shape, Shape::Name) { "name" } else { "auto" },
            }),
        ),
        Shape::Lines | Shape::Signed | Shape::Stacked => (
            "timeseries",
            json!({
                "legend": {
                    "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [],
                },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
        ),
    };
    let stacking = match panel.shape {
        Shape::Stacked => json!({ "mode": "normal", "group": "A" }),
        _ => json!({ "mode": "none", "group": "A" }),
    };
    let mut defaults = json!({
        "unit": panel.unit,
        "custom": { "lineWidth": 1, "fillOpacity": 10, "stacking": stacking },
    });
    if !matches!(panel.shape, Shape::Signed) {
        defaults["min"] = json!(0);
    }
    json!({
        "id": id, "type": kind, "title": panel.title, "description": panel.says,
        "datasource": source(), "gridPos": { "x": x, "y": y, "w": SIZE[0], "h": SIZE[1] },
        "targets": targets, "options": options,
        "fieldConfig": { "defaults": defaults, "overrides": [] },
    })
}

fn dashboard(of: &Dashboard) -> String {
    let (mut panels, mut id, mut y) = (Vec::new(), 0, 0);
    for (title, row) in of.rows {
        id += 1;
        panels.push(json!({
            "id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
        }));
        y += 1;
        for (at, of) in (0..).zip(*row) {
            id += 1;
            panels.push(panel(of, id, [at % PER_ROW * SIZE[0], y + at / PER_ROW * SIZE[1]]));
        }
        y += (u32::try_from(row.len()).expect("few panels")).div_ceil(PER_ROW) * SIZE[1];
    }
    let model = json!({
        "uid": of.uid, "title": of.title, "tags": ["leasehold"], "schemaVersion": SCHEMA,
        "version": 1, "id": null, "editable": true, "graphTooltip": 1, "timezone": "browser",
        "refresh": "30s", "time": { "from": "now-6h", "to": "now" },
        "templating": { "list": variables(of) }, "annotations": { "list": [] }, "links": [],
        "panels": panels, "fiscalYearStartMonth": 0, "liveNow": false, "weekStart": "",
        "__requires": [
            { "type": "grafana", "id": "grafana", "name": "Grafana", "version": GRAFANA },
            {
                "type": "datasource", "id": "prometheus", "name": "Prometheus",
                "version": "1.0.0",
            },
        ],
    });
    serde_json::to_string_pretty(&model).expect("JSON") + "\n"
}

#[test]
fn generated_the_dashboards_are_what_their_source_makes() {
    for of in &DASHBOARDS {
        generated(of.file, &dashboard(of));
    }
}

#[test]
fn a_dashboard_has_the_variables_that_its_panels_use() {
    for (of, expected) in DASHBOARDS.iter().zip([
        &["datasource", "cluster", "network"][..],
        &["datasource", "cluster", "node", "network"],
        &["datasource", "cluster", "node", "network", "etcd"],
    ]) {
        let model: Value = serde_json::from_str(&dashboard(of)).expect("JSON");
        let list = model["templating"]["list"].as_array().expect("variables");
        let names: Vec<&str> = list.iter().filter_map(|of| of["name"].as_str()).collect();
        assert_eq!(names, expected, "{}", of.title);
    }
}

#[test]
fn a_version_is_shown_as_a_name_and_an_expired_certificate_below_zero() {
    let panels = |of: &Dashboard| -> Vec<Value> {
        let model: Value = serde_json::from_str(&dashboard(of)).expect("JSON");
        model["panels"].as_array().expect("panels").clone()
    };
    let all: Vec<Value> = DASHBOARDS.iter().flat_map(panels).collect();
    let named = |title: &str| all.iter().find(|panel| panel["title"] == title).expect("a panel");
    assert_eq!(named("Version")["options"]["textMode"], "name");
    let ends = &named("Time until certificates end")["fieldConfig"]["defaults"];
    assert!(ends.get("min").is_none(), "{ends}");
    assert_eq!(named("Memory")["fieldConfig"]["defaults"]["min"], 0);
}

#[test]
fn panels_have_room_names_and_explanations() {
    for of in DASHBOARDS {
        let panels: Vec<&Panel> = of.rows.iter().flat_map(|(_, panels)| *panels).collect();
        let mut titles: Vec<&str> = panels.iter().map(|panel| panel.title).collect();
        titles.sort_unstable();
        assert!(titles.windows(2).all(|pair| pair[0] != pair[1]), "{}: {titles:?}", of.title);
        for panel in panels {
            assert!(panel.says.ends_with('.') && !panel.targets.is_empty(), "{}", panel.title);
            for (expr, _) in panel.targets {
                // The metrics of etcd itself have other labels.
                let ours = expr.contains("leasehold_") || expr.contains("process_");
                let chosen =
                    ["cluster=~", "job=~\"$etcd\""].map(|choice| expression(expr).contains(choice));
                assert_eq!([ours, !ours], chosen, "{}: the choice: {expr}", panel.title);
            }
        }
    }
}
