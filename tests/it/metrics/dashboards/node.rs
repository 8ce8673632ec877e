//! One node: its addresses, its calls, its journal, its process.

use super::{Dashboard, Panel, Shape};

/// The dashboard.
pub(crate) const NODE: Dashboard = Dashboard {
    file: "dashboards/node.json",
    uid: "leasehold-node",
    title: "Leasehold: node",
    rows: &[
        ("State", STATE),
        ("Calls", CALLS),
        ("Journal", JOURNAL),
        ("Leaks and the process", LEAKS_AND_THE_PROCESS),
    ],
};

const STATE: &[Panel] = &[
    Panel {
        title: "Serves ADD",
        says: "1 while the node serves ADD.",
        unit: "short",
        shape: Shape::Figure,
        targets: &[("leasehold_ready{@node}", "{{instance}}")],
    },
    Panel {
        title: "Member of the cluster",
        says: "1 while the node has a session.",
        unit: "short",
        shape: Shape::Figure,
        targets: &[("leasehold_session_up{@node}", "{{instance}}")],
    },
    Panel {
        title: "Version",
        says: "The version of the daemon and the commit of its source.",
        unit: "short",
        shape: Shape::Name,
        targets: &[("leasehold_build_info{@node}", "{{instance}}: {{version}} {{commit}}")],
    },
    Panel {
        title: "Addresses by state",
        says: "Every address of the node's blocks, once.",
        unit: "short",
        shape: Shape::Stacked,
        targets: &[("sum by (state) (leasehold_addresses{@both})", "{{state}}")],
    },
    Panel {
        title: "Blocks by state",
        says: "Spares are leased ahead of need.",
        unit: "short",
        shape: Shape::Stacked,
        targets: &[("sum by (state) (leasehold_blocks{@both})", "{{state}}")],
    },
    Panel {
        title: "Addresses that need no etcd",
        says: "What the node can hand out while etcd is away.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[(
            "sum by (instance, network, family, range_set) \
              (leasehold_addresses{@both,state=\"free\"})",
            "{{instance}} {{network}} {{range_set}}",
        )],
    },
];

const CALLS: &[Panel] = &[
    Panel {
        title: "Calls by verb",
        says: "Calls per second.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[(
            "sum by (verb, result) (rate(leasehold_requests_total{@node}[@rate]))",
            "{{verb}} {{result}}",
        )],
    },
    Panel {
        title: "Refused ADDs",
        says: "By cause.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[(
            "sum by (network, cause) (rate(leasehold_add_failures_total{@both}[@rate]))",
            "{{network}} {{cause}}",
        )],
    },
    Panel {
        title: "Time of an ADD, warm and waiting",
        says: "From the request at the socket to its answer: of ADDs that found a free \
               address in a block of the node, and of those that waited for a block.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[
            (
                "histogram_quantile(0.5, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@node,verb=\"ADD\",\
              waited=\"false\"}[@rate])))",
                "warm p50",
            ),
            (
                "histogram_quantile(0.99, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@node,verb=\"ADD\",\
              waited=\"false\"}[@rate])))",
                "warm p99",
            ),
            (
                "histogram_quantile(0.999, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@node,verb=\"ADD\",\
              waited=\"false\"}[@rate])))",
                "warm p99.9",
            ),
            (
                "histogram_quantile(0.5, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@node,verb=\"ADD\",\
              waited=\"true\"}[@rate])))",
                "waited p50",
            ),
            (
                "histogram_quantile(0.99, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@node,verb=\"ADD\",\
              waited=\"true\"}[@rate])))",
                "waited p99",
            ),
            (
                "histogram_quantile(0.999, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@node,verb=\"ADD\",\
              waited=\"true\"}[@rate])))",
                "waited p99.9",
            ),
        ],
    },
    Panel {
        title: "Time of a DEL",
        says: "From the request at the socket to its answer.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[
            (
                "histogram_quantile(0.5, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@node,verb=\"DEL\"}[@rate])))",
                "p50",
            ),
            (
                "histogram_quantile(0.99, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@node,verb=\"DEL\"}[@rate])))",
                "p99",
            ),
        ],
    },
    Panel {
        title: "Time that ADDs waited for a block",
        says: "Only the ADDs that had to wait.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[(
            "histogram_quantile(0.99, sum by (le) \
              (rate(leasehold_block_wait_duration_seconds_bucket{@both}[@rate])))",
            "p99",
        )],
    },
    Panel {
        title: "Notes of DELs",
        says: "DELs that a plugin left while the daemon was away.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[(
            "sum by (result) (rate(leasehold_del_notes_total{@node}[@rate]))",
            "{{result}}",
        )],
    },
];

const JOURNAL: &[Panel] = &[
    Panel {
        title: "Commits",
        says: "Group commits per second, and the entries in them.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[
            ("sum(rate(leasehold_journal_commits_total{@node}[@rate]))", "commits"),
            ("sum(rate(leasehold_journal_records_total{@node}[@rate]))", "entries"),
        ],
    },
    Panel {
        title: "Time of a commit",
        says: "With fsync, it is that of the disk.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[
            (
                "histogram_quantile(0.5, sum by (le) \
              (rate(leasehold_journal_commit_duration_seconds_bucket{@node}[@rate])))",
                "p50",
            ),
            (
                "histogram_quantile(0.99, sum by (le) \
              (rate(leasehold_journal_commit_duration_seconds_bucket{@node}[@rate])))",
                "p99",
            ),
        ],
    },
    Panel {
        title: "Size",
        says: "The file of the journal; and 1 if the journal failed.",
        unit: "bytes",
        shape: Shape::Lines,
        targets: &[
            ("leasehold_journal_size_bytes{@node}", "{{instance}}"),
            ("leasehold_journal_broken{@node}", "{{instance}} failed"),
        ],
    },
];

const LEAKS_AND_THE_PROCESS: &[Panel] = &[
    Panel {
        title: "Network namespaces",
        says: "Attachments by the state of their network namespace.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[("sum by (state) (leasehold_network_namespaces{@node})", "{{state}}")],
    },
    Panel {
        title: "Sweeps",
        says: "Attachments that the sweep handled.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[("sum by (result) (rate(leasehold_swept_total{@node}[@rate]))", "{{result}}")],
    },
    Panel {
        title: "CPU",
        says: "Processors in use.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[("rate(process_cpu_seconds_total{@node,@job}[@rate])", "{{instance}}")],
    },
    Panel {
        title: "Memory",
        says: "Resident memory of the daemon.",
        unit: "bytes",
        shape: Shape::Lines,
        targets: &[("process_resident_memory_bytes{@node,@job}", "{{instance}}")],
    },
    Panel {
        title: "Files and threads",
        says: "Open files and threads of the daemon.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[
            ("process_open_fds{@node,@job}", "{{instance}} files"),
            ("process_threads{@node,@job}", "{{instance}} threads"),
        ],
    },
    Panel {
        title: "Lines left out of the log",
        says: "They said the same as a line within the last minute. Many: look at the log.",
        unit: "cps",
        shape: Shape::Lines,
        targets: &[("rate(leasehold_log_lines_suppressed_total{@node}[@rate])", "{{instance}}")],
    },
    Panel {
        title: "Up since",
        says: "When the daemon started.",
        unit: "dateTimeAsIso",
        shape: Shape::Figure,
        targets: &[("process_start_time_seconds{@node,@job} * 1000", "{{instance}}")],
    },
];
