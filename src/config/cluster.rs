//! What is meant where parts run on several machines: the ranks, and how they find each other.

use std::path::PathBuf;

use registry::{EtcdConfig, Secret};
use tls::Files;
use worker::collective::LaneChoice;

use crate::config::cards::{self, TelemetryConfig};
use crate::config::given::{Environment, Given, UsageError};
use crate::config::meant::{self, DeviceConfig, EngineConfig, HttpConfig, ModelConfig, RANKS_MAX};
use crate::config::record;
use crate::config::values::{self, Address};

/// `arcmesh coordinator`.
#[derive(Debug, Clone)]
pub(crate) struct CoordinatorConfig {
    /// What is served.
    pub(crate) model: ModelConfig,
    /// To whom.
    pub(crate) http: HttpConfig,
    /// Within which bounds.
    pub(crate) engine: EngineConfig,
    /// Where the ranks are.
    pub(crate) ranks: Ranks,
    /// Ranks that are wanted; none: as many as there are workers.
    pub(crate) world: Option<usize>,
    /// Waits for the place of the coordinator that leads.
    pub(crate) standby: bool,
    /// How it proves to be of the cluster; none: nobody asks.
    pub(crate) certificates: Option<Files>,
}

/// Where the ranks of a coordinator are.
#[derive(Debug, Clone)]
pub(crate) enum Ranks {
    /// At these addresses, in order of rank.
    At(Vec<Address>),
    /// Announced in etcd.
    Etcd(EtcdConfig),
}

/// `arcmesh worker`.
#[derive(Debug, Clone)]
pub(crate) struct WorkerConfig {
    /// The model it holds a part of.
    pub(crate) model: ModelConfig,
    /// Who has it; none: it is fetched as its name says.
    pub(crate) model_from: Option<ModelFrom>,
    /// With what it computes.
    pub(crate) device: DeviceConfig,
    /// Which cards are on `/metrics`.
    pub(crate) telemetry: TelemetryConfig,
    /// What carries its sums to the peers.
    pub(crate) lane: LaneChoice,
    /// Where the coordinator and the peers reach it; none: where etcd is reached from.
    pub(crate) listen: Option<Address>,
    /// Where its metrics are; none: any port of the same address.
    pub(crate) metrics: Option<Address>,
    /// Where it is announced.
    pub(crate) etcd: Option<EtcdConfig>,
    /// The address that is announced, if another than it listens at.
    pub(crate) advertise: Option<Address>,
    /// How it proves to be of the cluster; none: nobody asks.
    pub(crate) certificates: Option<Files>,
    /// Who cannot prove anything may call from other machines, too.
    pub(crate) insecure: bool,
}

/// Another worker that has the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelFrom {
    /// This one.
    Worker(Address),
    /// Whichever is announced.
    Cluster,
}

/// `arcmesh certs`.
#[derive(Debug, Clone)]
pub(crate) struct CertsConfig {
    /// Where they lie.
    pub(crate) folder: PathBuf,
    /// Whom they are for.
    pub(crate) nodes: Vec<String>,
}

/// `arcmesh drain`.
#[derive(Debug, Clone)]
pub(crate) struct DrainConfig {
    /// Address or node of the worker.
    pub(crate) node: String,
    /// Where it is announced.
    pub(crate) etcd: EtcdConfig,
}

/// What `arcmesh coordinator` is to do.
pub(crate) fn coordinator(
    given: &mut Given,
    environment: &Environment,
) -> Result<CoordinatorConfig, UsageError> {
    given.exclude("worker", "etcd")?;
    let workers = given.many("worker", values::peer)?;
    let world = given.one("world", values::number(1, RANKS_MAX))?;
    let world = world.map(|world| usize::try_from(world).unwrap_or(usize::MAX));
    let ranks = match etcd(given)? {
        Some(etcd) => Ranks::Etcd(etcd),
        None => Ranks::At(workers_given(workers)?),
    };
    if let (Some(world), Ranks::At(workers)) = (world, &ranks)
        && world > workers.len()
    {
        return Err(UsageError::new(format!(
            "--world: {world} ranks need as many workers, and --worker names {}",
            workers.len()
        )));
    }
    let standby = given.one("standby", values::switch)?.unwrap_or(false);
    if standby && matches!(ranks, Ranks::At(_)) {
        return Err(UsageError::new("--standby: who leads is found out by --etcd"));
    }
    let model = meant::model(given, environment)?;
    Ok(CoordinatorConfig {
        http: meant::http(given, &model)?,
        engine: EngineConfig { record: record::record(given)?, ..meant::engine(given)? },
        certificates: certificates(given)?,
        model,
        ranks,
        world,
        standby,
    })
}

fn workers_given(workers: Vec<Address>) -> Result<Vec<Address>, UsageError> {
    if workers.is_empty() {
        return Err(UsageError::new(
            "--worker: give the address of at least one worker, or an --etcd that knows them",
        ));
    }
    let twice = workers.iter().enumerate().find(|(at, worker)| workers[..*at].contains(worker));
    if let Some((_, worker)) = twice {
        return Err(UsageError::new(format!("--worker: {worker} is given twice")));
    }
    Ok(workers)
}

/// What `arcmesh worker` is to do.
pub(crate) fn worker(
    given: &mut Given,
    environment: &Environment,
) -> Result<WorkerConfig, UsageError> {
    let etcd = etcd(given)?;
    let advertise = given.one("advertise", values::peer)?;
    if advertise.is_some() && etcd.is_none() {
        return Err(UsageError::new("--advertise: without --etcd nothing is announced"));
    }
    given.exclude("model", "model-from")?;
    let model_from = given.one("model-from", |text| match text {
        "cluster" => Ok(ModelFrom::Cluster),
        _ => values::peer(text).map(ModelFrom::Worker),
    })?;
    if model_from == Some(ModelFrom::Cluster) && etcd.is_none() {
        return Err(UsageError::new("--model-from cluster: without --etcd there is nobody to ask"));
    }
    let local = |port| etcd.is_none().then(|| Address { host: "127.0.0.1".to_owned(), port });
    Ok(WorkerConfig {
        model: meant::model(given, environment)?,
        model_from,
        device: meant::device(given, environment, 1)?,
        telemetry: cards::telemetry(given)?,
        lane: given.one("lane", values::lane)?.unwrap_or_default(),
        listen: given.one("listen", values::address)?.or_else(|| local(7001)),
        metrics: given.one("metrics", values::address)?.or_else(|| local(9101)),
        etcd,
        advertise,
        certificates: certificates(given)?,
        insecure: given.one("insecure", values::switch)?.unwrap_or(false),
    })
}

/// What `arcmesh drain` is to do.
pub(crate) fn drain(given: &Given) -> Result<DrainConfig, UsageError> {
    let node = given.one("node", |text| Ok(text.to_owned()))?;
    Ok(DrainConfig {
        node: node.ok_or_else(|| UsageError::new("NODE: which worker shall be drained?"))?,
        etcd: etcd(given)?
            .ok_or_else(|| UsageError::new("--etcd: where are the workers announced?"))?,
    })
}

/// What `arcmesh certs` is to do.
pub(crate) fn certs(given: &Given) -> Result<CertsConfig, UsageError> {
    let what = given.one("what", |text| Ok(text.to_owned()))?;
    if what.as_deref() != Some("init") {
        return Err(UsageError::new("WHAT: certs can do one thing: init"));
    }
    let folder = given.one("certs-folder", |text| Ok(PathBuf::from(text)))?;
    let nodes = given.many("node-name", |text| Ok(text.to_owned()))?;
    if nodes.is_empty() {
        return Err(UsageError::new("--node-name: whom are the certificates for?"));
    }
    Ok(CertsConfig { folder: folder.unwrap_or_else(|| PathBuf::from("certs")), nodes })
}

/// The three files, or none.
fn certificates(given: &Given) -> Result<Option<Files>, UsageError> {
    let path = |name| given.one(name, |text| Ok(PathBuf::from(text)));
    match (path("tls-ca")?, path("tls-cert")?, path("tls-key")?) {
        (Some(ca), Some(certificate), Some(key)) => Ok(Some(Files { ca, certificate, key })),
        (None, None, None) => Ok(None),
        _ => Err(UsageError::new(
            "--tls-ca, --tls-cert and --tls-key belong together: give all three",
        )),
    }
}

/// The etcd that was given, if one was.
fn etcd(given: &Given) -> Result<Option<EtcdConfig>, UsageError> {
    let endpoints = given.many("etcd", values::url)?;
    let user = given.one("etcd-user", values::user)?;
    let cluster = given.one("cluster", values::cluster)?;
    if endpoints.is_empty() {
        return Ok(None);
    }
    Ok(Some(EtcdConfig {
        endpoints,
        user: user.map(|(name, password)| (name, Secret(password.0))),
        cluster: cluster.unwrap_or_else(|| "default".to_owned()),
        certificates: certificates(given)?,
    }))
}
