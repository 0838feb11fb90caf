//! Below HTTP's surface: ids, pages of other origins, clients that send slowly or not at all.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::scripted::says;
use super::*;

/// What comes back for these bytes until the server closes the connection.
async fn exchange(served: &Served, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end too.
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_keeps_its_id_or_gets_one() {
    let served = served(says("x")).await;
    let id = |response: &Response| response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert!(id(&served.get("/health").await).starts_with("req-"));
    let ask =
        |given: String| served.client.get(served.url("/nowhere")).header("x-request-id", given);
    assert_eq!(id(&ask("abc-123".to_owned()).send().await.unwrap()), "abc-123");
    for odd in ["a b".to_owned(), "x".repeat(129), "<script>".to_owned(), String::new()] {
        assert!(id(&ask(odd).send().await.unwrap()).starts_with("req-"));
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_as_configured() {
    let keys = ApiKeys::new(&["key".to_owned()]).unwrap();
    let open = served_as(says("x"), |api| api.keys = keys).await;
    let preflight = |served: &Served, origin: &str| {
        let url = served.url("/v1/chat/completions");
        let request = served.client.request(reqwest::Method::OPTIONS, url);
        let request = request.header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "authorization,content-type").send()
    };
    let response = preflight(&open, "https://chat.example").await.unwrap();
    assert_eq!(response.status(), 200, "a preflight has no key");
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert_eq!(response.headers()["access-control-allow-headers"], "authorization,content-type");
    let request = open.client.get(open.url("/v1/models")).header("origin", "https://chat.example");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["access-control-allow-origin"], "*", "errors can be read too");
    assert!(
        response.headers()["access-control-expose-headers"]
            .to_str()
            .unwrap()
            .contains("x-request-id")
    );
    let origins = Origins::Only(vec!["https://mine.example".to_owned()]);
    let closed = served_as(says("x"), |api| api.origins = origins).await;
    let response = preflight(&closed, "https://mine.example").await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "https://mine.example");
    let response = preflight(&closed, "https://other.example").await.unwrap();
    assert!(response.headers().get("access-control-allow-origin").is_none());
}

#[tokio::test]
async fn who_sends_a_head_too_slowly_is_cut_off() {
    let served = served_as(says("x"), |api| {
        api.limits.head_wait_max = Duration::from_millis(50);
    })
    .await;
    for head in ["", "GET /health HTTP/1.1\r\nhost: a\r\n", "GET /hea"] {
        let answer = exchange(&served, head.as_bytes()).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    assert_eq!(served.get("/health").await.status(), 200);
}

#[tokio::test]
async fn who_sends_a_body_too_slowly_is_refused() {
    let served = served_as(says("x"), |api| {
        api.limits.body_wait_max = Duration::from_millis(50);
    })
    .await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{";
    let answer = exchange(&served, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("timeout_error"), "{answer}");
}

#[tokio::test]
async fn heads_without_end_are_refused() {
    let served = served(says("x")).await;
    let long = format!("GET /health HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("GET /health HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    for head in [long, many] {
        let answer = exchange(&served, head.as_bytes()).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn a_request_within_a_request_is_refused() {
    let served = served(says("x")).await;
    let inner = "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n";
    for head in [
        format!(
            "POST /tokenize HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
        ),
        format!(
            "POST /tokenize HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{inner}"
        ),
        format!("GET /health HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n{inner}"),
        "GARBAGE\r\n\r\n".to_owned(),
        "GET /health HTTP/9.9\r\n\r\n".to_owned(),
        "\0\0\0\0".repeat(10_000),
    ] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains("vllm:"), "{head} got {answer}");
    }
}

#[tokio::test]
async fn a_shutdown_lets_answers_finish() {
    let script = |_: &scheduler::NewGroup| {
        let mut acts = vec![Act::Token(0, 300 - 37), Act::Wait];
        let reason = scheduler::FinishReason::Length(scheduler::LengthLimit::Request);
        acts.push(Act::Finish(0, reason));
        acts
    };
    let Served { address, client, mut said, release, shutdown, .. } = served(script).await;
    let url = format!("http://{address}/v1/chat/completions");
    let body = with(chat_body("hello"), json!({"stream": true}));
    let response = client.post(&url).json(&body).send().await.unwrap();
    assert!(matches!(said.recv().await, Some(Said::Submitted(..))));
    drop(shutdown);
    release.notify_one();
    assert!(response.text().await.unwrap().ends_with("data: [DONE]\n\n"));
}
