//! What an all-reduce of two ranks costs, beside what its transport allows.
//!
//! The limit of `grpc` is a bare tonic stream: one message of the same bytes there and one back, each end
//! a thread with a runtime to itself and nothing else to do. An all-reduce sends both ways at once, so
//! half of that would be possible; but the bytes also have to get from the rank's thread to the
//! stream's and back. Must: at most 1.5 × the bare round trip at 4608 bytes, a token of a model with 576
//! columns; goal: 1.15 ×. The limit of `local` is a copy of the bytes and waking a thread. The limit of `shared`,
//! the lane of two processes on one host, is what two processors take to see each other's cache lines there and
//! back: 0.5 µs for 64 bytes, 2 for 2304, 3.9 for 8 KiB and 26 for 64 KiB, and it may take no longer. Both
//! ways at once, it can be faster than that.
//!
//! `cargo bench -p worker --bench collective`. Rounds of all kinds alternate, and medians are compared,
//! so that a busy machine disturbs all alike.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints and may panic")]

use std::pin::Pin;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::{Duration, Instant};

use futures::stream::{Stream, StreamExt};
use proto::collective::Frame;
use proto::collective::peer_client::PeerClient;
use proto::collective::peer_server::{Peer, PeerServer};
use tls::Guard;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use worker::collective::grpc::{Switchboard, tuned_endpoint, tuned_server};
use worker::collective::{Collective, LaneChoice, local};

const PATIENCE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 15;

/// Bytes of a message, and how many are timed together.
const SIZES: [(usize, u32); 7] = [
    (64, 1000),
    (2_304, 1000),
    (4_608, 400),
    (8 << 10, 400),
    (64 << 10, 200),
    (1 << 20, 30),
    (8 << 20, 6),
];

fn main() {
    let mut bare = Bare::start();
    let mut grpc = Pair::new(group(&LaneChoice::Grpc));
    let mut shared = Pair::new(group(&LaneChoice::default()));
    let mut local = Pair::new(local::group(2).into_iter().map(boxed).collect());
    println!("    bytes   bare µs   grpc µs  ratio  shared µs   local µs");
    for (bytes, times) in SIZES {
        let mut taken: [Vec<f64>; 4] = Default::default();
        // A message of the bare stream is no longer than a part of a collective.
        let is_one_frame = bytes <= 1 << 20;
        for _ in 0..ROUNDS {
            if is_one_frame {
                taken[0].push(bare.round_trips(bytes, times));
            }
            taken[1].push(grpc.all_reduces(bytes, times));
            taken[2].push(shared.all_reduces(bytes, times));
            taken[3].push(local.all_reduces(bytes, times));
        }
        let [bare, grpc, shared, local] = taken.map(median);
        let ratio = grpc / bare;
        println!("{bytes:>9} {bare:>9.1} {grpc:>9.1} {ratio:>6.2} {shared:>10.2} {local:>10.2}");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn boxed(end: impl Collective + 'static) -> Box<dyn Collective> {
    Box::new(end)
}

/// Microseconds for each of `times`.
fn each(begun: Instant, times: u32) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(times)
}

/// Two ranks, each on a thread of its own, of which one is timed.
struct Pair {
    timed: Box<dyn Collective>,
    other: std_mpsc::Sender<(usize, u32)>,
}

impl Pair {
    fn new(mut ends: Vec<Box<dyn Collective>>) -> Self {
        let (other, orders) = std_mpsc::channel();
        let mut end = ends.pop().unwrap();
        thread::spawn(move || {
            for (bytes, times) in orders {
                run(end.as_mut(), bytes, times);
            }
        });
        Self { timed: ends.pop().unwrap(), other }
    }

    fn all_reduces(&mut self, bytes: usize, times: u32) -> f64 {
        self.other.send((bytes, times)).unwrap();
        run(self.timed.as_mut(), bytes, times)
    }
}

fn run(end: &mut dyn Collective, bytes: usize, times: u32) -> f64 {
    let mut values = vec![0.0; bytes / size_of::<f64>()];
    end.begin(1, PATIENCE);
    end.all_reduce(&mut values).unwrap();
    let begun = Instant::now();
    for _ in 0..times {
        end.all_reduce(&mut values).unwrap();
    }
    each(begun, times)
}

/// Two ranks as two workers would have them: each with a thread that drives its streams.
fn group(lane: &LaneChoice) -> Vec<Box<dyn Collective>> {
    let boards = [0, 1].map(|_| Switchboard::guarded(Guard::Open, lane.clone()).unwrap());
    let peers = boards.each_ref().map(|board| {
        listen(board.driver().handle(), tuned_server().add_service(board.desk().service()))
    });
    let [lower, higher] = &boards;
    let (lower, higher) = single().block_on(async {
        tokio::join!(lower.form(1, 0, &peers, PATIENCE), higher.form(1, 1, &peers, PATIENCE))
    });
    vec![lower.unwrap(), higher.unwrap()]
}

/// A stream to somebody who sends back what it gets.
struct Bare {
    runtime: Runtime,
    outgoing: mpsc::Sender<Frame>,
    incoming: Streaming<Frame>,
}

impl Bare {
    fn start() -> Self {
        let server = single();
        let address = listen(server.handle(), tuned_server().add_service(PeerServer::new(Echo)));
        thread::spawn(move || server.block_on(std::future::pending::<()>()));
        let runtime = single();
        let (outgoing, frames) = mpsc::channel(1);
        let incoming = runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let channel = tuned_endpoint(endpoint).connect().await.unwrap();
            let stream = PeerClient::new(channel).exchange(ReceiverStream::new(frames)).await;
            stream.unwrap().into_inner()
        });
        Self { runtime, outgoing, incoming }
    }

    fn round_trips(&mut self, bytes: usize, times: u32) -> f64 {
        let payload = bytes::Bytes::from(vec![0; bytes]);
        let begun = Instant::now();
        self.runtime.block_on(async {
            for _ in 0..times {
                let frame = Frame { payload: payload.clone(), ..Frame::default() };
                self.outgoing.send(frame).await.unwrap();
                assert_eq!(self.incoming.message().await.unwrap().unwrap().payload.len(), bytes);
            }
        });
        each(begun, times)
    }
}

struct Echo;

#[tonic::async_trait]
impl Peer for Echo {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        Ok(Response::new(request.into_inner().boxed()))
    }
}

fn single() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Serves on loopback once the runtime is driven.
fn listen(runtime: &Handle, router: tonic::transport::server::Router) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    listener.set_nonblocking(true).unwrap();
    let _context = runtime.enter();
    let listener = TcpListener::from_std(listener).unwrap();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    runtime.spawn(router.serve_with_incoming(incoming));
    address
}
