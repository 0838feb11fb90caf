//! A server to ask: one process, or a coordinator with workers.

use futures::StreamExt;
use reqwest::Response;
use serde_json::{Value, json};

use crate::process::Process;

/// A server and how to reach it.
#[derive(Debug)]
pub(crate) struct Site {
    /// The coordinator, or all in one.
    pub(crate) front: Process,
    /// The workers, in order of rank; none when all is in one process.
    pub(crate) workers: Vec<Process>,
    /// `http://host:port`
    pub(crate) base: String,
    client: reqwest::Client,
}

/// What came of a streamed answer. Two are equal when the same was said: what the prefix cache had of a
/// prompt changes with what was asked before.
#[derive(Debug, Default, Clone)]
pub(crate) struct Streamed {
    pub(crate) text: String,
    pub(crate) pieces: usize,
    pub(crate) finish: Option<String>,
    /// Without what the prefix cache had.
    pub(crate) usage: Option<Value>,
    /// Tokens of the prompt that the prefix cache had.
    pub(crate) cached: u64,
    pub(crate) error: Option<Value>,
    pub(crate) done: bool,
}

impl PartialEq for Streamed {
    fn eq(&self, other: &Self) -> bool {
        let Self { text, pieces, finish, usage, cached: _, error, done } = self;
        (text, finish, usage, error) == (&other.text, &other.finish, &other.usage, &other.error)
            && (*pieces, *done) == (other.pieces, other.done)
    }
}

impl Site {
    /// `arcmesh serve`, listening at any free port.
    pub(crate) fn serve(more: &[&str]) -> Self {
        let front = Process::start(&[&["serve", "--port", "0"], more].concat(), "    -d");
        Self::of(front, Vec::new())
    }

    /// A coordinator over `world` workers with a thread each, all processes of their own.
    pub(crate) fn group(world: usize, more: &[&str]) -> Self {
        Self::over((0..world).map(|_| worker("127.0.0.1:0", 1)).collect(), more)
    }

    /// A coordinator over these workers.
    pub(crate) fn over(workers: Vec<Process>, more: &[&str]) -> Self {
        let members: Vec<_> =
            workers.iter().flat_map(|worker| ["--worker".to_owned(), address(worker)]).collect();
        let members: Vec<_> = members.iter().map(String::as_str).collect();
        let arguments = [&["coordinator", "--port", "0"], members.as_slice(), more].concat();
        Self::of(Process::start(&arguments, "    -d"), workers)
    }

    pub(crate) fn of(front: Process, workers: Vec<Process>) -> Self {
        let base = format!("http://{}", front.told("http://"));
        Self { front, workers, base, client: reqwest::Client::new() }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.client.post(format!("{}{path}", self.base)).json(body).send().await.unwrap()
    }

    /// Text of one page.
    pub(crate) async fn page(&self, path: &str) -> String {
        self.get(path).await.text().await.unwrap()
    }

    /// Metrics of the worker of this rank.
    pub(crate) async fn worker_metrics(&self, rank: usize) -> String {
        let address = self.workers[rank].told("http://");
        reqwest::get(format!("http://{address}")).await.unwrap().text().await.unwrap()
    }

    /// Streams a chat to its end.
    pub(crate) async fn chat(&self, body: Value) -> Streamed {
        let response = self.post("/v1/chat/completions", &streaming(body)).await;
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        read(response, |_| {}).await
    }
}

/// Looks after which something that does not happen never will.
const LOOKS_MAX: usize = 100_000;

/// Looks until it holds. Each look is a round trip, so this is bounded by the other side's own pace.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..LOOKS_MAX {
        if holds().await {
            return;
        }
    }
    panic!("never: {what}");
}

/// The address at which a worker was told to listen.
pub(crate) fn address(worker: &Process) -> String {
    worker.told("worker on ")
}

/// A worker with so many threads.
pub(crate) fn worker(listen: &str, threads: usize) -> Process {
    worker_on("auto", listen, threads)
}

/// A worker that takes a lane as it is told.
pub(crate) fn worker_on(lane: &str, listen: &str, threads: usize) -> Process {
    let threads = threads.to_string();
    let place = ["worker", "--listen", listen, "--metrics", "127.0.0.1:0"];
    Process::start(&[&place[..], &["--threads", &threads, "--lane", lane]].concat(), "worker on ")
}

/// One question, answered with the likeliest tokens.
pub(crate) fn question(text: &str, tokens: u32) -> Value {
    json!({
        "messages": [{ "role": "user", "content": text }],
        "temperature": 0,
        "max_tokens": tokens,
    })
}

/// The same, as a stream that ends with its usage.
pub(crate) fn streaming(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    body
}

/// Reads a stream of chat chunks; `each` sees how many pieces there are so far.
pub(crate) async fn read(response: Response, mut each: impl FnMut(usize)) -> Streamed {
    let mut bytes = response.bytes_stream();
    let mut buffer = Vec::new();
    let mut all = Streamed::default();
    while let Some(piece) = bytes.next().await {
        buffer.extend_from_slice(&piece.unwrap());
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            apply(&mut all, std::str::from_utf8(&event).unwrap().trim_end());
            each(all.pieces);
        }
    }
    assert!(buffer.is_empty(), "the stream ended within an event");
    all
}

fn apply(all: &mut Streamed, event: &str) {
    if event.starts_with(':') {
        return; // a keep-alive
    }
    assert!(!all.done, "something follows [DONE]: {event}");
    let data = event.strip_prefix("data: ").unwrap();
    if data == "[DONE]" {
        all.done = true;
        return;
    }
    let chunk: Value = serde_json::from_str(data).unwrap();
    if let Some(error) = chunk.get("error") {
        all.error = Some(error.clone());
        return;
    }
    if let Some(usage) = chunk["usage"].as_object() {
        let mut usage = usage.clone();
        let details = usage.remove("prompt_tokens_details").unwrap();
        all.cached = details["cached_tokens"].as_u64().unwrap();
        all.usage = Some(Value::Object(usage));
    }
    for choice in chunk["choices"].as_array().unwrap() {
        let text = choice["delta"]["content"].as_str().unwrap_or_default();
        all.pieces += usize::from(!text.is_empty());
        all.text.push_str(text);
        if let Some(finish) = choice["finish_reason"].as_str() {
            all.finish = Some(finish.to_owned());
        }
    }
}
