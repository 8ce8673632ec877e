//! The cluster: how full each network is, calls of all nodes, nodes and blocks.

use super::{Dashboard, Panel, Shape};

/// The dashboard.
pub(crate) const CLUSTER: Dashboard = Dashboard {
    file: "dashboards/cluster.json",
    uid: "leasehold-cluster",
    title: "Leasehold: cluster",
    rows: &[("Capacity", CAPACITY), ("Calls", CALLS), ("Nodes and blocks", NODES_AND_BLOCKS)],
};

const CAPACITY: &[Panel] = &[
    Panel {
        title: "Fill",
        says: "Held addresses of each network, as a part of all that can go out.",
        unit: "percentunit",
        shape: Shape::Lines,
        targets: &[("network:leasehold_fill:ratio{@network}", "{{network}} {{range_set}}")],
    },
    Panel {
        title: "Time to exhaustion",
        says: "When the last free address of a network goes out, at the pace of the last hour. \
               Nothing is shown while free addresses do not become fewer.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[("network:leasehold_exhaustion:seconds{@network}", "{{network}} {{range_set}}")],
    },
    Panel {
        title: "Free addresses",
        says: "Addresses of a network that some node can hand out, or lease first.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[(
            "network:leasehold_available_addresses:sum{@network}",
            "{{network}} {{range_set}}",
        )],
    },
    Panel {
        title: "Addresses by state",
        says: "All addresses in blocks of nodes.",
        unit: "short",
        shape: Shape::Stacked,
        targets: &[("sum by (state) (network:leasehold_addresses:sum{@network})", "{{state}}")],
    },
    Panel {
        title: "Headroom in blocks",
        says: "Whole blocks that can still be leased.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[(
            "floor(network:leasehold_pool_unclaimed_addresses:max{@network} / on (cluster, \
              network, family, range_set) max by (cluster, network, family, range_set) \
              (leasehold_block_size_addresses{@network}))",
            "{{network}} {{range_set}}",
        )],
    },
    Panel {
        title: "Headroom in nodes",
        says: "More nodes that the network has room for, if each takes as many addresses as \
               those of now on average.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[(
            "floor(network:leasehold_pool_unclaimed_addresses:max{@network} / on (cluster, \
              network, family, range_set) avg by (cluster, network, family, range_set) (sum \
              by (cluster, instance, network, family, range_set) \
              (leasehold_addresses{@network}) > 0))",
            "{{network}} {{range_set}}",
        )],
    },
    Panel {
        title: "Cooling share",
        says: "Addresses that cool, as a part of all that can go out. A large share means that \
               the cooldown is long for this churn.",
        unit: "percentunit",
        shape: Shape::Lines,
        targets: &[(
            "sum by (cluster, network, family, range_set) \
              (leasehold_addresses{@network,state=\"cooling\"}) / on (cluster, \
              network, family, range_set) network:leasehold_pool_addresses:max{@network}",
            "{{network}} {{range_set}}",
        )],
    },
    Panel {
        title: "Skew between nodes",
        says: "The largest share that one node has of the held addresses of a network.",
        unit: "percentunit",
        shape: Shape::Lines,
        targets: &[(
            "max by (cluster, network, family, range_set) (sum by (cluster, instance, network, \
              family, range_set) \
              (leasehold_addresses{@network,state=\"allocated\"})) / (sum by (cluster, network, \
              family, range_set) (leasehold_addresses{@network,state=\"allocated\"}) > 0)",
            "{{network}} {{range_set}}",
        )],
    },
    Panel {
        title: "Size",
        says: "Addresses of each network that can ever go out.",
        unit: "short",
        shape: Shape::Figure,
        targets: &[("network:leasehold_pool_addresses:max{@network}", "{{network}} {{range_set}}")],
    },
];

const CALLS: &[Panel] = &[
    Panel {
        title: "Calls",
        says: "ADDs and DELs of all nodes per second.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[(
            "sum by (verb) (rate(leasehold_requests_total{@network,verb=~\"ADD|DEL\"}[@rate]))",
            "{{verb}}",
        )],
    },
    Panel {
        title: "Refused ADDs by cause",
        says: "The runbook explains each cause under LeaseholdAddFailing.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[(
            "sum by (network, cause) (rate(leasehold_add_failures_total{@network}[@rate]))",
            "{{network}} {{cause}}",
        )],
    },
    Panel {
        title: "Time of an ADD, warm and waiting",
        says: "From the request at the socket to its answer, on all nodes: of ADDs that \
               found a free address in a block of their node, and of those that waited for a \
               block.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[
            (
                "histogram_quantile(0.5, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@cluster,verb=\"ADD\",\
              waited=\"false\"}[@rate])))",
                "warm p50",
            ),
            (
                "histogram_quantile(0.99, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@cluster,verb=\"ADD\",\
              waited=\"false\"}[@rate])))",
                "warm p99",
            ),
            (
                "histogram_quantile(0.999, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@cluster,verb=\"ADD\",\
              waited=\"false\"}[@rate])))",
                "warm p99.9",
            ),
            (
                "histogram_quantile(0.5, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@cluster,verb=\"ADD\",\
              waited=\"true\"}[@rate])))",
                "waited p50",
            ),
            (
                "histogram_quantile(0.99, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@cluster,verb=\"ADD\",\
              waited=\"true\"}[@rate])))",
                "waited p99",
            ),
            (
                "histogram_quantile(0.999, sum by (le) \
              (rate(leasehold_request_duration_seconds_bucket{@cluster,verb=\"ADD\",\
              waited=\"true\"}[@rate])))",
                "waited p99.9",
            ),
        ],
    },
    Panel {
        title: "ADDs that waited for a block",
        says: "ADDs per second that found no free address in a block of their node.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[(
            "sum by (network) \
              (rate(leasehold_block_wait_duration_seconds_count{@network}[@rate]))",
            "{{network}}",
        )],
    },
    Panel {
        title: "Time that they waited",
        says: "Only the ADDs that had to wait.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[
            (
                "histogram_quantile(0.5, sum by (le) \
              (rate(leasehold_block_wait_duration_seconds_bucket{@network}[@rate])))",
                "p50",
            ),
            (
                "histogram_quantile(0.99, sum by (le) \
              (rate(leasehold_block_wait_duration_seconds_bucket{@network}[@rate])))",
                "p99",
            ),
        ],
    },
    Panel {
        title: "Searches of other nodes",
        says: "Searches for an address outside of a node's blocks, by how they ended.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[(
            "sum by (result) (rate(leasehold_finds_total{@cluster}[@rate]))",
            "{{result}}",
        )],
    },
];

const NODES_AND_BLOCKS: &[Panel] = &[
    Panel {
        title: "Nodes",
        says: "With a session, drained, and gone with blocks.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[("max by (cluster, state) (leasehold_nodes{@cluster})", "{{state}}")],
    },
    Panel {
        title: "Addresses of nodes that are gone",
        says: "Nobody can use them until the node comes back or is removed.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[(
            "network:leasehold_pool_gone_addresses:max{@network}",
            "{{network}} {{range_set}}",
        )],
    },
    Panel {
        title: "Quarantined addresses",
        says: "Addresses of removed nodes.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[(
            "network:leasehold_pool_quarantined_addresses:max{@network}",
            "{{network}} {{range_set}}",
        )],
    },
    Panel {
        title: "Blocks",
        says: "Blocks of all nodes.",
        unit: "short",
        shape: Shape::Stacked,
        targets: &[("sum by (state) (leasehold_blocks{@network})", "{{state}}")],
    },
    Panel {
        title: "Block churn",
        says: "Blocks that come and go. Both at once, for long, means that blocks flap.",
        unit: "ops",
        shape: Shape::Lines,
        targets: &[
            (
                "sum by (result) (rate(leasehold_block_leases_total{@network}[@rate]))",
                "leased: {{result}}",
            ),
            ("sum(rate(leasehold_blocks_given_back_total{@network}[@rate]))", "given back"),
            ("sum(rate(leasehold_blocks_given_total{@network}[@rate]))", "given to others"),
        ],
    },
    Panel {
        title: "Largest record lag",
        says: "The oldest record that is not in the cluster's store, on the slowest node.",
        unit: "s",
        shape: Shape::Lines,
        targets: &[("max by (cluster) (leasehold_record_lag_seconds{@cluster})", "lag")],
    },
    Panel {
        title: "Leaks",
        says: "Attachments without a network namespace, and what the last checks found.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[
            (
                "sum by (state) (leasehold_network_namespaces{@cluster,state!=\"there\"})",
                "namespace {{state}}",
            ),
            ("max by (kind) (leasehold_check_findings{@cluster})", "{{kind}}"),
        ],
    },
    Panel {
        title: "Networks that overlap",
        says: "Pairs of networks with addresses in common: by their ranges, as one node knows \
               them, and by their blocks, in the whole cluster.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[
            ("max by (cluster) (leasehold_network_overlaps{@cluster})", "by ranges"),
            ("max by (cluster) (leasehold_cluster_network_overlaps{@cluster})", "by blocks"),
        ],
    },
    Panel {
        title: "Nodes that serve",
        says: "Nodes that serve ADD, and those that can be scraped.",
        unit: "short",
        shape: Shape::Lines,
        targets: &[
            ("sum(leasehold_ready{@cluster})", "ready"),
            ("count(leasehold_build_info{@cluster})", "scraped"),
        ],
    },
];
