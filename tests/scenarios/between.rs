//! Stands between a process and its etcd, and spoils what that is told of changes.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::etcd::Etcd;

/// How etcd's protocol calls a watch.
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// What happens to every watch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mishap {
    /// It ends at once, without an error.
    Ends,
    /// What it shall begin with has been compacted away.
    Compacted,
}

/// Between a process and an etcd; all but watches passes through.
#[derive(Debug)]
pub(crate) struct Between {
    address: SocketAddr,
    watches: watch::Sender<usize>,
    task: JoinHandle<()>,
}

impl Between {
    pub(crate) async fn start(etcd: &Etcd, mishap: Mishap) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let watches = watch::Sender::new(0);
        let passing = Passing { etcd: etcd.url(), mishap, watches: watches.clone() };
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(passing.clone().connection(stream));
            }
        });
        Self { address, watches, task }
    }

    /// What `--etcd` is given.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until this many watches were asked for.
    pub(crate) async fn watched(&self, times: usize) {
        self.watches.subscribe().wait_for(|watches| *watches >= times).await.unwrap();
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Passing {
    etcd: String,
    mishap: Mishap,
    watches: watch::Sender<usize>,
}

impl Passing {
    async fn connection(self, stream: TcpStream) {
        let address = self.etcd.strip_prefix("http://").unwrap();
        // An etcd that is away is what whoever connected finds.
        let Ok(onward) = TcpStream::connect(address).await else { return };
        let exec = TokioExecutor::new();
        let onward = hyper::client::conn::http2::handshake(exec, TokioIo::new(onward)).await;
        let (onward, driving) = onward.unwrap();
        tokio::spawn(driving);
        let answer = service_fn(move |request: Request<Incoming>| {
            let (passing, mut onward) = (self.clone(), onward.clone());
            async move {
                if request.uri().path() == WATCH {
                    passing.watches.send_modify(|watches| *watches += 1);
                    match passing.mishap {
                        Mishap::Ends => return Ok::<_, Infallible>(nothing("0")),
                        Mishap::Compacted => passing.compact().await,
                    }
                }
                let answer = onward.send_request(request).await;
                Ok(answer.map_or_else(|_| nothing("14"), |answer| answer.map(Either::Left)))
            }
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // Whoever connected may go when it wants to.
        drop(serving.serve_connection(TokioIo::new(stream), answer).await);
    }

    /// Two changes elsewhere, and everything before the second is forgotten.
    async fn compact(&self) {
        let client = reqwest::Client::new();
        let call =
            |path: &str, body| client.post(format!("{}{path}", self.etcd)).json(&body).send();
        let put = json!({ "key": "ZWxzZXdoZXJl", "value": "" });
        call("/v3/kv/put", put.clone()).await.unwrap();
        let put: serde_json::Value = call("/v3/kv/put", put).await.unwrap().json().await.unwrap();
        let all = json!({ "revision": put["header"]["revision"], "physical": true });
        call("/v3/kv/compaction", all).await.unwrap();
    }
}

/// An answer without messages, with gRPC's status.
fn nothing(status: &'static str) -> Response<Either<Incoming, Empty<Bytes>>> {
    let answer = Response::builder().header(CONTENT_TYPE, "application/grpc");
    answer.header("grpc-status", status).body(Either::Right(Empty::new())).unwrap()
}
