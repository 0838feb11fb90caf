//! Flags of what runs on several machines: who the ranks are, where they listen, how they find each other.

use crate::cli::{Argument, Group, PROCESS, Part, flag, many, switch};

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
        switch(
            "standby",
            "With --etcd: wait for the place of the coordinator that leads, and take its workers over when it is gone",
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

/// How a worker's sums reach its peers.
pub(super) const PEERS: Group = Group {
    title: "Peers",
    flags: &[flag(
        "lane",
        "LANE",
        "What carries sums to the other ranks: auto (memory that they share, where all are on this host; else gRPC) or grpc [default: auto]",
    )],
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

/// How nodes prove to be of the cluster.
pub(super) const SECURITY: Group = Group {
    title: "Security",
    flags: &[
        flag(
            "tls-ca",
            "FILE",
            "PEM: the authorities that are trusted, by nodes and etcd alike; see certs init [default: nobody proves anything]",
        ),
        flag("tls-cert", "FILE", "PEM: this node's certificate; read again when it changes"),
        flag("tls-key", "FILE", "PEM: the key of --tls-cert"),
    ],
};

/// The way out of it.
pub(super) const INSECURE: Group = Group {
    title: "Security",
    flags: &[switch(
        "insecure",
        "Let other machines call this worker though nobody proves anything: only on a network that you trust",
    )],
};

/// What certificates are made.
const CERTS: Group = Group {
    title: "Certificates",
    flags: &[
        flag("certs-folder", "FOLDER", "Where they lie, and the authority's key [default: certs]"),
        many("node-name", "NAME", "A node that gets NAME.pem and NAME.key; repeat it for each"),
    ],
};

/// `arcmesh certs`.
pub(super) const CERTS_PART: Part = Part {
    name: "certs",
    about: "Make an authority and certificates, by which nodes know each other",
    argument: Some(Argument {
        name: "what",
        value: "WHAT",
        help: "init: make what is missing, and the nodes' certificates anew",
        required: true,
    }),
    groups: &[CERTS, PROCESS],
};

/// `arcmesh drain`.
pub(super) const DRAIN_PART: Part = Part {
    name: "drain",
    about: "Let a worker go: its rank moves to another one between two steps",
    argument: Some(Argument {
        name: "node",
        value: "NODE",
        help: "The worker's address as announced, or the name of its machine if it has only one",
        required: true,
    }),
    groups: &[ETCD, SECURITY, PROCESS],
};
