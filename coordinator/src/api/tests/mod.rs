//! The API over real HTTP, in front of an engine that says what a test tells it to.

mod errors;
mod life;
mod live;
mod logits;
mod parameters;
mod scripted;
mod shape;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use checkpoint::TemplateTokens;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::engine::{Capacity, EngineState, Wishes};
use crate::metrics::Metrics;
use crate::prompt::toy::toy;

use scripted::{Act, Said, engine};

/// Longest sequence of the test's model.
const CONTEXT: u32 = 100;

/// A server and what it can be watched by.
struct Served {
    address: SocketAddr,
    client: Client,
    /// What the engine was told, in order.
    said: mpsc::Receiver<Said>,
    metrics: Arc<Metrics>,
    state: watch::Sender<EngineState>,
    /// Lets a script go on after `Act::Wait`.
    release: Arc<Notify>,
    /// Dropped, it shuts the server down.
    shutdown: DropGuard,
}

fn capacity() -> Capacity {
    Capacity {
        world: 1,
        model_len_max: CONTEXT,
        blocks: 64,
        swap_blocks: 0,
        block_size: 16,
        weight_bytes: 1,
    }
}

/// A server whose engine follows a script for each group.
async fn served(
    script: impl Fn(&scheduler::NewGroup) -> Vec<Act> + Send + Sync + 'static,
) -> Served {
    served_as(script, |_| {}).await
}

/// The same, set up otherwise.
async fn served_as(
    script: impl Fn(&scheduler::NewGroup) -> Vec<Act> + Send + Sync + 'static,
    change: impl FnOnce(&mut Api),
) -> Served {
    let (state, watched) = watch::channel(EngineState::Ready(capacity()));
    let release = Arc::new(Notify::new());
    let (handle, said) = engine(script, watched, Arc::clone(&release));
    let tokenizer = Arc::new(toy());
    let metrics = Arc::new(Metrics::new("toy", CONTEXT));
    let template = ChatTemplate::for_model(None, TemplateTokens::default(), &tokenizer).unwrap();
    let mut api = Api {
        engine: handle,
        tokenizer,
        template: Arc::new(template),
        model: ServedModel {
            names: vec!["toy".to_owned(), "org/alias".to_owned()],
            created: 7,
            fingerprint: "fp_toy".to_owned(),
        },
        limits: ApiLimits::default(),
        keys: ApiKeys::default(),
        origins: Origins::Any,
        metrics: Arc::clone(&metrics),
        more_metrics: MoreMetrics::default(),
    };
    change(&mut api);
    let limits = api.limits.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let router = router(api);
    tokio::spawn(async move { serve(listener, router, &limits, None, stop).await });
    let shutdown = shutdown.drop_guard();
    Served { address, client: Client::new(), said, metrics, state, release, shutdown }
}

impl Served {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> Response {
        self.client.post(self.url(path)).json(body).send().await.unwrap()
    }

    async fn post_text(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(self.url(path)).header("content-type", "application/json");
        request.body(body).send().await.unwrap()
    }

    /// A chat with one message and these fields.
    async fn chat(&self, fields: Value) -> Response {
        self.post("/v1/chat/completions", &with(chat_body("hello"), fields)).await
    }

    /// A completion of a text with these fields.
    async fn complete(&self, fields: Value) -> Response {
        self.post("/v1/completions", &with(json!({"prompt": "hello"}), fields)).await
    }

    /// The value of a series that has no labels but the model's.
    fn series(&self, name: &str) -> f64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// The next thing that the engine was told.
    async fn heard(&mut self) -> Said {
        self.said.recv().await.unwrap()
    }

    /// The group that was submitted next.
    async fn group(&mut self) -> scheduler::NewGroup {
        self.submitted().await.0
    }

    /// The same, with what is wanted of its logits.
    async fn submitted(&mut self) -> (scheduler::NewGroup, Wishes) {
        match self.heard().await {
            Said::Submitted(group, wishes) => (group, wishes),
            Said::Cancelled(reason) => panic!("cancelled for {reason:?}"),
        }
    }
}

fn chat_body(content: &str) -> Value {
    json!({"model": "toy", "messages": [{"role": "user", "content": content}]})
}

fn with(mut body: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().unwrap().extend(fields);
    body
}

/// Status and error object of a response.
async fn failure(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, "application/json", "{status}");
    let mut body: Value = response.json().await.unwrap();
    let error = body["error"].take();
    assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
    assert!(error.get("param").is_some() && error.get("code").is_some(), "{error}");
    (status, error)
}

/// The JSON of an answer that succeeded.
async fn success(response: Response) -> Value {
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}
