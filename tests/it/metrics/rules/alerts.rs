//! The alerts, each with series with which it fires and others with which it does not.

use super::Alert;

/// Shows that the node reaches the cluster's store.
const UP: (&str, &str) = (r#"leasehold_store_up{job="leasehold",instance="a"}"#, "1x600");
/// A figure of range set 10.0.0.0 of network n, as node a shows it, or another one.
macro_rules! pool {
    ($name:literal, $more:literal) => {
        pool!($name, $more, "a", "10.0.0.0")
    };
    ($name:literal, $more:literal, $node:literal, $range_set:literal) => {
        concat!(
            $name,
            "{job=\"leasehold\",instance=\"",
            $node,
            "\",network=\"n\",family=\"ipv4\",range_set=\"",
            $range_set,
            "\",",
            $more,
            "}"
        )
    };
}

const UNCLAIMED: &str = pool!("leasehold_pool_unclaimed_addresses", "exact=\"true\"");
const UNCLAIMED_OTHER: &str =
    pool!("leasehold_pool_unclaimed_addresses", "exact=\"true\"", "a", "10.0.1.0");
const UNCLAIMED_BY_B: &str =
    pool!("leasehold_pool_unclaimed_addresses", "exact=\"false\"", "b", "10.0.0.0");
const FREE: &str = pool!("leasehold_addresses", "state=\"free\"");
const FREE_OTHER: &str = pool!("leasehold_addresses", "state=\"free\"", "a", "10.0.1.0");
const COOLING: &str = pool!("leasehold_addresses", "state=\"cooling\"");
const FAILURES: &str =
    r#"leasehold_add_failures_total{job="leasehold",instance="a",network="n",cause="journal"}"#;
const NO_BLOCK: &str =
    r#"leasehold_add_failures_total{job="leasehold",instance="a",network="n",cause="no-block"}"#;
const TAKEN: &str =
    r#"leasehold_add_failures_total{job="leasehold",instance="a",network="n",cause="taken"}"#;
macro_rules! bucket {
    ($le:literal) => {
        concat!(
            "leasehold_request_duration_seconds_bucket{job=\"leasehold\",instance=\"a\",",
            "verb=\"ADD\",le=\"",
            $le,
            "\"}"
        )
    };
}

const FAST: &str = bucket!("0.1");
const SLOW: &str = bucket!("1");
const ALL: &str = bucket!("+Inf");
const GONE_BY_IDLE: &str = pool!("leasehold_pool_gone_addresses", "exact=\"false\"");
const GONE: &str = pool!("leasehold_pool_gone_addresses", "exact=\"true\"");
const QUARANTINED: &str = pool!("leasehold_pool_quarantined_addresses", "exact=\"true\"");

const CERTIFICATE: &str = concat!(
    "leasehold_etcd_certificate_end_timestamp_seconds{job=\"leasehold\",instance=\"a\",",
    "certificate=\"client\"}"
);

macro_rules! of_a {
    ($name:literal) => {
        concat!($name, "{job=\"leasehold\",instance=\"a\"}")
    };
}

/// Every alert, the most urgent first.
pub(crate) const ALERTS: &[Alert] = &[
    Alert {
        name: "LeaseholdDuplicate",
        expr: "max by (cluster, job, instance) (leasehold_check_findings{kind=\"duplicate\"}) > 0",
        lasts: "0m",
        severity: "critical",
        summary: "A check on {{ $labels.instance }} found {{ $value }} addresses that are held \
                  twice, or may be",
        fires: (
            &[(r#"leasehold_check_findings{instance="a",kind="duplicate"}"#, "0 0 1x10")],
            "4m",
        ),
        rests: (
            &[
                (r#"leasehold_check_findings{instance="a",kind="duplicate"}"#, "0x10"),
                (r#"leasehold_check_findings{instance="a",kind="unreadable"}"#, "7x10"),
            ],
            "8m",
        ),
    },
    Alert {
        name: "LeaseholdNetworkExhausted",
        expr: "network:leasehold_available_addresses:sum == 0",
        lasts: "1m",
        severity: "critical",
        summary: "No address of network {{ $labels.network }} (range set \
                  {{ $labels.range_set }}) can go out on any node",
        // The other range set of the network has room, and a node that does not know the gateway
        // counts it.
        fires: (
            &[
                UP,
                (UNCLAIMED, "5 3 0x20"),
                (FREE, "7 3 0x20"),
                (COOLING, "0 4 0x20"),
                (UNCLAIMED_OTHER, "200x20"),
                (FREE_OTHER, "9x20"),
                (r#"leasehold_store_up{job="leasehold",instance="b"}"#, "1x600"),
                (UNCLAIMED_BY_B, "6 4 1x20"),
            ],
            "8m",
        ),
        // What cools goes out when nothing else is left.
        rests: (&[UP, (UNCLAIMED, "5 3 0x20"), (FREE, "7 3 0x20"), (COOLING, "0 4 5x20")], "8m"),
    },
    Alert {
        name: "LeaseholdNetworkExhaustedSoon",
        expr: "predict_linear(network:leasehold_available_addresses:sum[1h], 4 * 3600) < 0 and \
               network:leasehold_available_addresses:sum > 0",
        lasts: "15m",
        severity: "warning",
        summary: "Network {{ $labels.network }} (range set {{ $labels.range_set }}) will have no \
                  address left within four hours if it goes on like this",
        // One address a minute: 1000 would last for 16 hours, and 180 for three.
        fires: (&[UP, (UNCLAIMED, "180-1x170"), (FREE, "0x170")], "100m"),
        rests: (&[UP, (UNCLAIMED, "1000-1x170"), (FREE, "0x170")], "100m"),
    },
    Alert {
        name: "LeaseholdAddFailing",
        expr: "sum by (cluster, job, instance, network, cause) \
               (increase(leasehold_add_failures_total{cause=~\"journal|halted|busy|node-gone|\
               block-size|range-sets|exhausted|not-imported|stopping\"}[5m])) > 0",
        lasts: "5m",
        severity: "warning",
        summary: "Node {{ $labels.instance }} refuses ADDs of network {{ $labels.network }}: \
                  {{ $labels.cause }}",
        fires: (&[(FAILURES, "0+3x30")], "15m"),
        rests: (&[(FAILURES, "3x30"), (TAKEN, "0+3x30")], "15m"),
    },
    Alert {
        name: "LeaseholdNoBlock",
        expr: "sum by (cluster, job, instance, network) \
               (increase(leasehold_add_failures_total{cause=~\"no-block|store\"}[5m])) > 0",
        lasts: "5m",
        severity: "critical",
        summary: "Node {{ $labels.instance }} has had no block for network {{ $labels.network }} \
                  for five minutes",
        fires: (&[(NO_BLOCK, "0+1x30")], "15m"),
        rests: (&[(NO_BLOCK, "0 1x30")], "15m"),
    },
    Alert {
        name: "LeaseholdJournalBroken",
        expr: "leasehold_journal_broken == 1",
        lasts: "0m",
        severity: "critical",
        summary: "The journal of node {{ $labels.instance }} failed: it refuses ADD",
        fires: (&[(of_a!("leasehold_journal_broken"), "0 1x5")], "4m"),
        rests: (&[(of_a!("leasehold_journal_broken"), "0x5")], "4m"),
    },
    Alert {
        name: "LeaseholdStoreWentBack",
        expr: "increase(leasehold_store_went_back_total[15m]) > 0",
        lasts: "0m",
        severity: "critical",
        summary: "Node {{ $labels.instance }} saw that the cluster's store went back in time, as \
                  if restored from a backup",
        fires: (&[(of_a!("leasehold_store_went_back_total"), "0 0 1x30")], "5m"),
        rests: (&[(of_a!("leasehold_store_went_back_total"), "1x60")], "30m"),
    },
    Alert {
        name: "LeaseholdBlocksLost",
        expr: "leasehold_lost_blocks > 0",
        lasts: "1m",
        severity: "critical",
        summary: "The cluster's store gives {{ $value }} blocks of node {{ $labels.instance }} to \
                  others",
        fires: (&[(of_a!("leasehold_lost_blocks"), "0 2x10")], "5m"),
        rests: (&[(of_a!("leasehold_lost_blocks"), "0x10")], "5m"),
    },
    Alert {
        name: "LeaseholdDown",
        expr: "up{job=~\"(.+/)?leasehold\"} == 0",
        lasts: "5m",
        severity: "critical",
        summary: "The daemon of node {{ $labels.instance }} cannot be scraped",
        fires: (&[(of_a!("up"), "1 0x20")], "10m"),
        rests: (&[(of_a!("up"), "1 0 0 1x20")], "10m"),
    },
    Alert {
        name: "LeaseholdNotReady",
        expr: "leasehold_ready == 0",
        lasts: "5m",
        severity: "critical",
        summary: "Node {{ $labels.instance }} does not serve ADD",
        fires: (&[(of_a!("leasehold_ready"), "1 0x20")], "10m"),
        rests: (&[(of_a!("leasehold_ready"), "0 0 1x20")], "10m"),
    },
    Alert {
        name: "LeaseholdEtcdAway",
        expr: "leasehold_store_contact_age_seconds > 60",
        lasts: "1m",
        severity: "warning",
        summary: "The cluster's store has not answered node {{ $labels.instance }} for \
                  {{ $value | humanizeDuration }}",
        fires: (&[(of_a!("leasehold_store_contact_age_seconds"), "0+60x20")], "6m"),
        rests: (&[(of_a!("leasehold_store_contact_age_seconds"), "9 70 3x20")], "6m"),
    },
    Alert {
        name: "LeaseholdSessionLost",
        expr: "leasehold_session_up == 0",
        lasts: "5m",
        severity: "warning",
        summary: "Node {{ $labels.instance }} is no member of the cluster: it can lease no block",
        fires: (&[(of_a!("leasehold_session_up"), "1 0x20")], "10m"),
        rests: (&[(of_a!("leasehold_session_up"), "1 0 1x20")], "10m"),
    },
    Alert {
        name: "LeaseholdCertificateEnds",
        expr: "(leasehold_etcd_certificate_end_timestamp_seconds > 0) - time() < 7 * 86400",
        lasts: "15m",
        severity: "warning",
        summary: "The {{ $labels.certificate }} certificate for etcd of node \
                  {{ $labels.instance }} ends in {{ $value | humanizeDuration }}",
        // promtool's time begins at 0: six days, and eight.
        fires: (&[(CERTIFICATE, "518400x60")], "30m"),
        rests: (&[(CERTIFICATE, "691200x60")], "30m"),
    },
    Alert {
        name: "LeaseholdAddSlow",
        expr: "instance:leasehold_add_duration_seconds:p99 > 0.25",
        lasts: "10m",
        severity: "warning",
        summary: "One in a hundred ADDs on node {{ $labels.instance }} takes longer than \
                  {{ $value | humanizeDuration }}",
        fires: (&[(FAST, "0+90x40"), (SLOW, "0+100x40"), (ALL, "0+100x40")], "30m"),
        rests: (&[(FAST, "0+100x40"), (SLOW, "0+100x40"), (ALL, "0+100x40")], "30m"),
    },
    Alert {
        name: "LeaseholdRecordsLag",
        expr: "leasehold_record_lag_seconds > 60",
        lasts: "5m",
        severity: "warning",
        summary: "What node {{ $labels.instance }} holds is not in the cluster's store: the \
                  oldest record has waited for {{ $value | humanizeDuration }}",
        fires: (&[(of_a!("leasehold_record_lag_seconds"), "0+60x20")], "15m"),
        rests: (&[(of_a!("leasehold_record_lag_seconds"), "0 70 1x20")], "15m"),
    },
    Alert {
        name: "LeaseholdNodeGone",
        expr: "network:leasehold_pool_gone_addresses:max > 0",
        lasts: "15m",
        severity: "warning",
        summary: "Nodes that are gone hold {{ $value }} addresses of network \
                  {{ $labels.network }} (range set {{ $labels.range_set }})",
        // Nobody is left who uses the network.
        fires: (&[UP, (GONE_BY_IDLE, "0 64x40")], "30m"),
        rests: (&[UP, (GONE, "0 64x10 0x40")], "30m"),
    },
    Alert {
        name: "LeaseholdQuarantine",
        expr: "network:leasehold_pool_quarantined_addresses:max > 0",
        lasts: "1h",
        severity: "warning",
        summary: "{{ $value }} addresses of network {{ $labels.network }} (range set \
                  {{ $labels.range_set }}) have been in quarantine for an hour",
        fires: (&[UP, (QUARANTINED, "0 64x100")], "90m"),
        rests: (&[UP, (QUARANTINED, "0 64x30 0x100")], "90m"),
    },
    Alert {
        name: "LeaseholdLeaksGrow",
        expr: "delta(leasehold_network_namespaces{state=\"gone\"}[1h]) > 0 and \
               leasehold_network_namespaces{state=\"gone\"} > 0",
        lasts: "30m",
        severity: "warning",
        summary: "{{ $value }} more attachments on node {{ $labels.instance }} than an hour ago \
                  hold addresses without a network namespace",
        fires: (
            &[(r#"leasehold_network_namespaces{instance="a",state="gone"}"#, "0+1x120")],
            "100m",
        ),
        rests: (
            &[
                (r#"leasehold_network_namespaces{instance="a",state="gone"}"#, "3x120"),
                (r#"leasehold_network_namespaces{instance="a",state="there"}"#, "0+1x120"),
            ],
            "100m",
        ),
    },
    Alert {
        name: "LeaseholdNetworksOverlap",
        expr: "leasehold_network_overlaps > 0",
        lasts: "15m",
        severity: "warning",
        summary: "{{ $value }} pairs of networks on node {{ $labels.instance }} have addresses in \
                  common: each may hand out the other's",
        fires: (&[(of_a!("leasehold_network_overlaps"), "0 1x40")], "30m"),
        rests: (&[(of_a!("leasehold_network_overlaps"), "0x40")], "30m"),
    },
    Alert {
        name: "LeaseholdClusterNetworksOverlap",
        expr: "max by (cluster) (leasehold_cluster_network_overlaps and on (cluster, job, \
               instance) (leasehold_store_up == 1)) > 0",
        lasts: "15m",
        severity: "warning",
        summary: "Blocks of {{ $value }} pairs of networks have addresses in common, maybe on \
                  different nodes: each may hand out the other's",
        fires: (&[UP, (of_a!("leasehold_cluster_network_overlaps"), "0 1x40")], "30m"),
        rests: (&[UP, (of_a!("leasehold_cluster_network_overlaps"), "0 1x5 0x40")], "30m"),
    },
];
