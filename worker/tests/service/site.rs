//! A toy model, workers that serve it, and a small coordinator to call them.

use std::path::Path;
use std::sync::Arc;

use checkpoint::Checkpoint;
use fixture::{Architecture, Toy};
use proto::worker::load_progress::State;
use proto::worker::worker_client::WorkerClient;
use proto::worker::{
    DescribeRequest, Description, LoadRequest, Loaded, Sampling, ShardPlan, Slice, StepReply,
    StepRequest,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use worker::BackendChoice;
use worker::collective::LaneChoice;
use worker::config::WorkerConfig;
use worker::metrics::WorkerMetrics;
use worker::rank::Rank;
use worker::service::{ServeError, serve};

/// A toy in a folder of its own.
pub(crate) struct Model {
    pub(crate) checkpoint: Arc<Checkpoint>,
    _folder: TempDir,
}

impl Model {
    pub(crate) fn toy() -> Self {
        Self::of(&Toy::new(Architecture::Llama))
    }

    pub(crate) fn of(toy: &Toy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = fixture::gguf(folder.path(), toy);
        Self { checkpoint: Arc::new(Checkpoint::open(Path::new(&path)).unwrap()), _folder: folder }
    }

    pub(crate) fn config(&self) -> WorkerConfig {
        WorkerConfig {
            model: "toy".to_owned(),
            backend: BackendChoice::Candle,
            threads: 1.into(),
            node: "here".to_owned(),
            guard: tls::Guard::Open,
            lane: LaneChoice::default(),
            metrics: String::new(),
        }
    }

    /// An order for a rank of a group.
    pub(crate) fn order(
        &self,
        epoch: u64,
        rank: u32,
        peers: &[String],
        world: usize,
    ) -> LoadRequest {
        LoadRequest {
            epoch,
            shard: Some(ShardPlan { rank, shares: vec![1; world], first_layer: 0, layer_count: 2 }),
            peers: peers.to_vec(),
            model_digest: self.checkpoint.digest().to_vec(),
            block_size: 16,
            kv_blocks: 10,
            swap_blocks: 2,
            step_tokens_max: 64,
            step_sequences_max: 8,
            ..LoadRequest::default()
        }
    }
}

/// A worker that serves on loopback, and a connection to it.
pub(crate) struct Worker {
    pub(crate) client: WorkerClient<Channel>,
    pub(crate) address: String,
    pub(crate) probes: String,
    pub(crate) serving: JoinHandle<Result<(), ServeError>>,
    stop: CancellationToken,
}

impl Worker {
    pub(crate) async fn start(model: &Model) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probes = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let probes_address = probes.local_addr().unwrap().to_string();
        let metrics = WorkerMetrics::new();
        let rank = Rank::start(model.config(), Arc::clone(&model.checkpoint), &metrics).unwrap();
        let stop = CancellationToken::new();
        let shutdown = stop.clone().cancelled_owned();
        let serving = tokio::spawn(serve(listener, probes, rank, shutdown));
        let client = WorkerClient::connect(format!("http://{address}")).await.unwrap();
        Self { client, address, probes: probes_address, serving, stop }
    }

    pub(crate) async fn start_all(model: &Model, world: usize) -> Vec<Self> {
        let mut workers = Vec::new();
        for _ in 0..world {
            workers.push(Self::start(model).await);
        }
        workers
    }

    pub(crate) async fn describe(&mut self) -> Description {
        self.client.describe(DescribeRequest {}).await.unwrap().into_inner()
    }

    /// Loads to the end.
    pub(crate) async fn load(&mut self, order: LoadRequest) -> Result<Loaded, Status> {
        let mut progress = self.client.load(order).await?.into_inner();
        loop {
            match progress.message().await?.expect("the last message says how it ended").state {
                Some(State::Loaded(loaded)) => return Ok(loaded),
                Some(State::Loading(loading)) => assert!(loading.bytes_done <= loading.bytes_total),
                None => panic!("progress without a state"),
            }
        }
    }

    pub(crate) async fn open_steps(&mut self) -> Steps {
        let (requests, outgoing) = mpsc::channel(4);
        let replies = self.client.steps(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Steps { requests, replies }
    }

    /// Tells it to stop, as a signal would.
    pub(crate) async fn stop(self) -> Result<(), ServeError> {
        self.stop.cancel();
        self.serving.await.unwrap()
    }
}

/// A stream of steps.
pub(crate) struct Steps {
    requests: mpsc::Sender<StepRequest>,
    pub(crate) replies: Streaming<StepReply>,
}

impl Steps {
    pub(crate) async fn send(&self, request: &StepRequest) {
        self.requests.send(request.clone()).await.unwrap();
    }

    pub(crate) async fn step(&mut self, request: &StepRequest) -> StepReply {
        self.send(request).await;
        self.replies.message().await.unwrap().unwrap()
    }
}

/// A group of workers whose every rank is loaded.
pub(crate) struct Group {
    pub(crate) steps: Vec<Steps>,
}

impl Group {
    pub(crate) async fn form(model: &Model, workers: &mut [Worker], epoch: u64) -> Self {
        let peers: Vec<String> = workers.iter().map(|worker| worker.address.clone()).collect();
        let world = workers.len();
        let loads = workers.iter_mut().zip(0..).map(|(worker, rank)| {
            let order = model.order(epoch, rank, &peers, world);
            async { worker.load(order).await.map(|_| ()) }
        });
        futures::future::try_join_all(loads).await.unwrap();
        let mut steps = Vec::new();
        for worker in workers {
            steps.push(worker.open_steps().await);
        }
        Self { steps }
    }

    /// One step on every rank.
    pub(crate) async fn step(&mut self, request: &StepRequest) -> Vec<StepReply> {
        futures::future::join_all(self.steps.iter_mut().map(|steps| steps.step(request))).await
    }
}

/// A step without slices.
pub(crate) fn heartbeat(epoch: u64, step: u64) -> StepRequest {
    StepRequest { epoch, step, deadline_ms: 60_000, ..StepRequest::default() }
}

/// A step that extends one sequence, whose blocks are 0, 1, 2 …, and samples greedily.
pub(crate) fn extend(epoch: u64, step: u64, start: u32, tokens: &[u32]) -> StepRequest {
    let end = start as usize + tokens.len();
    let blocks = end.div_ceil(16);
    let slice = Slice {
        tokens: tokens.to_vec(),
        start,
        blocks: (0..u32::try_from(blocks).unwrap()).collect(),
        sampling: Some(Sampling { top_p: 1.0, ..Sampling::default() }),
        ..Slice::default()
    };
    let blocks_held = slice.blocks.len().try_into().unwrap();
    StepRequest { slices: vec![slice], blocks_held, ..heartbeat(epoch, step) }
}

/// The greedy continuation of a prompt by a group at a new epoch: the step is asked as a coordinator
/// would, every rank must agree, and rank 0 gives the tokens.
pub(crate) async fn generate(
    group: &mut Group,
    epoch: u64,
    prompt: &[u32],
    count: usize,
) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    let mut fed = 0;
    for step in 1..=count as u64 {
        let start = u32::try_from(fed).unwrap();
        let request = extend(epoch, step, start, &tokens[fed..]);
        fed = tokens.len();
        let replies = group.step(&request).await;
        for reply in &replies {
            assert_eq!(reply.failure, None);
            assert_eq!((reply.epoch, reply.step), (epoch, step));
            assert_eq!(reply.digest, replies[0].digest, "ranks hold the same bits");
        }
        assert!(replies[1..].iter().all(|reply| reply.tokens.is_empty()));
        assert_eq!(replies[0].tokens.len(), 1);
        tokens.extend(&replies[0].tokens);
    }
    tokens.split_off(prompt.len())
}

/// What every group must say, whatever it is made of.
pub(crate) const PROMPT: [u32; 20] =
    [1, 7, 200, 33, 45, 300, 12, 99, 5, 6, 250, 3, 80, 81, 82, 160, 161, 9, 10, 11];
