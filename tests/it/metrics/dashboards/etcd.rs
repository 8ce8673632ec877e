//! etcd with its leases, as the nodes see it and by its own metrics.

use super::{Dashboard, Panel, Shape};

/// The dashboard.
pub(crate) const ETCD: Dashboard = Dashboard {
    file: "dashboards/etcd.json",
    uid: "leasehold-etcd",
    title: "Leasehold: etcd",
    rows: &[("As the nodes see it", AS_THE_NODES_SEE_IT), ("etcd itself", ETCD_ITSELF)],
};

const AS_THE_NODES_SEE_IT: &[Panel] = &[
    Panel {
        title: "Answers",
        says: "1 while etcd answers the node.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[("leasehold_store_up{@node}", "{{instance}}")],
    },
    Panel {
        title: "Time since the last answer",
        says: "More than a few seconds means that etcd does not answer.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[("leasehold_store_contact_age_seconds{@node}", "{{instance}}")],
    },
    Panel {
        title: "Time until the lease ends",
        says: "If etcd is not reached before. It is renewed when a third is over.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[("leasehold_session_remaining_seconds{@node}", "{{instance}}")],
    },
    Panel {
        title: "Time until certificates end",
        says: "Of the client's certificate and its authorities; empty without certificates. Below \
               zero: it has ended.",
        unit: "s",
        shape: Shape::Signed,
        targets: &[(
            "(leasehold_etcd_certificate_end_timestamp_seconds{@node} > 0) - time()",
            "{{instance}} {{certificate}}",
        )],
    },
    Panel {
        title: "Requests by operation",
        says: "Requests of the nodes to etcd.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[(
            "sum by (operation) (rate(leasehold_etcd_requests_total{@node}[@rate]))",
            "{{operation}}",
        )],
    },
    Panel {
        title: "Requests without success",
        says: "Refused: somebody else was first. Unknown: the answer was lost.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[(
            "sum by (operation, result) \
              (rate(leasehold_etcd_requests_total{@node,result!=\"ok\"}[@rate]))",
            "{{operation}} {{result}}",
        )],
    },
    Panel {
        title: "Time of a request",
        says: "By operation.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[
            (
                "histogram_quantile(0.5, sum by (operation, le) \
              (rate(leasehold_etcd_request_duration_seconds_bucket{@node}[@rate])))",
                "{{operation}} p50",
            ),
            (
                "histogram_quantile(0.99, sum by (operation, le) \
              (rate(leasehold_etcd_request_duration_seconds_bucket{@node}[@rate])))",
                "{{operation}} p99",
            ),
        ],
    },
    Panel {
        title: "Transactions that lease blocks",
        says: "Conflicts: nodes wanted the same block.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[(
            "sum by (result) (rate(leasehold_block_leases_total{@both}[@rate]))",
            "{{result}}",
        )],
    },
    Panel {
        title: "Records that wait",
        says: "Allocations that are not in etcd yet, and the age of the oldest.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[
            ("leasehold_records_waiting{@node}", "{{instance}} records"),
            ("leasehold_record_lag_seconds{@node}", "{{instance}} seconds"),
        ],
    },
    Panel {
        title: "Joins, losses, restored backups",
        says: "Joins of the node; blocks that etcd gives to others; times that etcd went back.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[
            ("leasehold_epoch{@node}", "{{instance}} epoch"),
            ("leasehold_lost_blocks{@node}", "{{instance}} lost blocks"),
            ("leasehold_store_went_back_total{@node}", "{{instance}} went back"),
        ],
    },
];

const ETCD_ITSELF: &[Panel] = &[
    Panel {
        title: "Leader",
        says: "1 while the member knows a leader; and how often it changed.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[
            ("etcd_server_has_leader{@etcd}", "{{instance}} has leader"),
            (
                "increase(etcd_server_leader_changes_seen_total{@etcd}[1h])",
                "{{instance}} changes in an hour",
            ),
        ],
    },
    Panel {
        title: "Time to write the log",
        says: "More than 10 ms at p99 is a slow disk.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[(
            "histogram_quantile(0.99, sum by (instance, le) \
              (rate(etcd_disk_wal_fsync_duration_seconds_bucket{@etcd}[@rate])))",
            "{{instance}} p99",
        )],
    },
    Panel {
        title: "Size of the database",
        says: "At its quota etcd refuses every write.",
        unit: "bytes",
        shape: Shape::Lines,
        targets: &[
            ("etcd_mvcc_db_total_size_in_bytes{@etcd}", "{{instance}}"),
            ("etcd_server_quota_backend_bytes{@etcd}", "{{instance}} quota"),
        ],
    },
    Panel {
        title: "Keys",
        says: "Keys of everything in this etcd.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[("etcd_debugging_mvcc_keys_total{@etcd}", "{{instance}}")],
    },
    Panel {
        title: "Leases",
        says: "Leases per second that were granted, renewed, revoked and ended by themselves.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[
            ("rate(etcd_debugging_lease_granted_total{@etcd}[@rate])", "{{instance}} granted"),
            ("rate(etcd_debugging_lease_renewed_total{@etcd}[@rate])", "{{instance}} renewed"),
            ("rate(etcd_debugging_lease_revoked_total{@etcd}[@rate])", "{{instance}} revoked"),
            ("rate(etcd_debugging_server_lease_expired_total{@etcd}[@rate])", "{{instance}} ended"),
        ],
    },
    Panel {
        title: "Watches",
        says: "Watches of everything that uses this etcd. Each daemon has a handful.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[("etcd_debugging_mvcc_watcher_total{@etcd}", "{{instance}}")],
    },
];
