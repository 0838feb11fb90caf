//! Flags of what runs on several machines: who the ranks are, where they listen, how they find each other.

use crate::cli::{Group, flag, many};

/// The ranks of a coordinator.
pub(super) const WORKERS: Group = Group {
    title: "Ranks",
    flags: &[
        many(
            "worker",
            "HOST:PORT",
            "A worker's address; repeat it for each rank, in order of rank [required without --etcd]",
        ),
        flag(
            "world",
            "RANKS",
            "Ranks that the model is split over; further workers are spares [default: all workers]",
        ),
    ],
};

/// Where a worker listens.
pub(super) const LISTEN: Group = Group {
    title: "Addresses",
    flags: &[
        flag(
            "listen",
            "HOST:PORT",
            "Where the coordinator and the other ranks reach this one [default: 127.0.0.1:7001; with --etcd any free port of the address that reaches etcd]",
        ),
        flag(
            "advertise",
            "HOST:PORT",
            "The address that is announced in etcd, if another than --listen [default: where it listens]",
        ),
        flag(
            "metrics",
            "HOST:PORT",
            "Where Prometheus finds /metrics of this rank [default: 127.0.0.1:9101; with --etcd any free port]",
        ),
    ],
};

/// How the parts of a cluster find each other.
pub(super) const ETCD: Group = Group {
    title: "Membership",
    flags: &[
        many(
            "etcd",
            "URL",
            "An etcd that workers announce themselves in, as http://10.0.0.1:2379; repeat it for further endpoints [default: none]",
        ),
        flag(
            "etcd-user",
            "NAME:PASSWORD",
            "Who we are to etcd; better as ARCMESH_ETCD_USER or in the file [default: etcd asks for nobody]",
        ),
        flag(
            "cluster",
            "NAME",
            "Which cluster this is: several may share one etcd [default: default]",
        ),
    ],
};
