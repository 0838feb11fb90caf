//! The same over real gRPC: oracles behind the worker's service, on sockets of this machine.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use coordinator::{MemberError, Patience, connect};
use futures::{Stream, StreamExt};
use proto::worker::load_progress::State;
use proto::worker::worker_server::{Worker, WorkerServer};
use proto::worker::{
    DescribeRequest, Description, LoadProgress, LoadRequest, Loading, StepReply, StepRequest,
};
use tls::Guard;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::fleet::{Fleet, assert_undisturbed, limits, questions, start_with};
use crate::oracle::{Oracle, WEIGHT_BYTES};

struct Service(Oracle);

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn status(error: MemberError) -> Status {
    match error {
        MemberError::Lost(what) => Status::unavailable(what),
        MemberError::Refused(what) => Status::failed_precondition(what),
    }
}

#[tonic::async_trait]
impl Worker for Service {
    type LoadStream = Replies<LoadProgress>;
    type StepsStream = Replies<StepReply>;

    async fn describe(
        &self,
        _request: Request<DescribeRequest>,
    ) -> Result<Response<Description>, Status> {
        self.0.describe().map(Response::new).map_err(status)
    }

    async fn load(
        &self,
        request: Request<LoadRequest>,
    ) -> Result<Response<Self::LoadStream>, Status> {
        let loaded = self.0.load(request.get_ref()).map_err(status)?;
        let loading = Loading { bytes_done: WEIGHT_BYTES, bytes_total: WEIGHT_BYTES };
        let states = [State::Loading(loading), State::Loaded(loaded)];
        let progress = states.map(|state| Ok(LoadProgress { state: Some(state) }));
        Ok(Response::new(Box::pin(futures::stream::iter(progress))))
    }

    async fn steps(
        &self,
        request: Request<Streaming<StepRequest>>,
    ) -> Result<Response<Self::StepsStream>, Status> {
        let oracle = self.0.clone();
        let replies = request.into_inner().then(move |step| {
            let oracle = oracle.clone();
            async move {
                match oracle.step(&step?).await {
                    Some(reply) => reply.map_err(status),
                    None => futures::future::pending().await,
                }
            }
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

/// A worker process: a runtime of its own, which ends with all its connections when it is dropped.
struct Process {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Process {
    async fn start(oracle: Oracle, address: SocketAddr) -> Self {
        let listener = loop {
            match std::net::TcpListener::bind(address) {
                Ok(listener) => break listener,
                // The process before has not quite ended.
                Err(error) if error.kind() == ErrorKind::AddrInUse => yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let incoming = TcpIncoming::from(TcpListener::from_std(listener).unwrap());
        let incoming = incoming.with_nodelay(Some(true));
        drop(entered);
        let server = Server::builder().add_service(WorkerServer::new(Service(oracle)));
        runtime.spawn(server.serve_with_incoming(incoming));
        Self { address, runtime: Some(runtime) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn remote_fleet(world: usize) -> (Fleet, Vec<Process>) {
    let oracles: Vec<_> = (0..world).map(|_| Oracle::new(Duration::from_millis(1))).collect();
    let mut processes = Vec::new();
    for oracle in &oracles {
        processes.push(Process::start(oracle.clone(), any_port()).await);
    }
    let members = processes
        .iter()
        .map(|process| connect(&process.address.to_string(), &Guard::Open).unwrap());
    let patience = Patience { reform_max: Duration::from_secs(60), ..Patience::default() };
    let mut fleet = start_with(members.collect::<Vec<_>>(), oracles, limits(80), patience);
    fleet.ready().await;
    (fleet, processes)
}

#[tokio::test]
async fn answers_over_grpc_are_those_of_one_process() {
    let (fleet, _processes) = remote_fleet(3).await;
    let questions = questions(30);
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
}

#[tokio::test]
async fn a_worker_that_dies_in_a_step_changes_no_answer_over_grpc() {
    let (fleet, _processes) = remote_fleet(2).await;
    fleet.oracles[1].faults(|faults| faults.dies_in = Some(10));
    let questions = questions(30);
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
    let lost = fleet.value("arcmesh_group_reforms_total{cause=\"lost\"}");
    assert!((lost - 1.0).abs() < 1e-9, "{lost}");
}

#[tokio::test]
async fn a_worker_that_is_restarted_at_its_address_takes_part_again() {
    let (mut fleet, mut processes) = remote_fleet(2).await;
    let process = processes.pop().unwrap();
    let address = process.address;
    drop(process);
    fleet.state.wait_for(|state| !state.is_ready()).await.unwrap();
    let _process = Process::start(Oracle::new(Duration::from_millis(1)), address).await;
    fleet.ready().await;
    let questions = questions(10);
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    assert!(matches!(connect("not an address", &Guard::Open), Err(MemberError::Refused(_))));
}
