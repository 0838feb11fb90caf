//! Clients that wait too long, or do not wait.

use serde_json::{Value, json};

use crate::site::{Site, question, read, streaming};

fn endless() -> Value {
    let mut body = question("Tell me a very long story.", 6000);
    body["ignore_eos"] = json!(true);
    body
}

/// Waits until a gauge has this value; each look is a round trip, which bounds it by the server's pace.
async fn until(site: &Site, gauge: &str, value: u32) {
    for _ in 0..20_000 {
        let metrics = site.page("/metrics").await;
        let line = metrics.lines().find(|line| line.starts_with(&format!("{gauge}{{")));
        if line.is_some_and(|line| line.ends_with(&format!(" {value}"))) {
            return;
        }
    }
    panic!("{gauge} does not become {value}");
}

#[tokio::test]
async fn time_in_the_queue_and_of_a_request_is_bounded() {
    let site = Site::serve(&["--max-num-seqs", "1", "--max-queue-time", "1"]);
    let running = site.post("/v1/chat/completions", &streaming(endless())).await;
    for body in [question("Hello.", 5), streaming(question("Hello.", 5))] {
        let busy = site.post("/v1/chat/completions", &body).await;
        assert_eq!(busy.status(), 503);
        assert!(busy.headers().contains_key("retry-after"));
        let error: Value = busy.json().await.unwrap();
        assert_eq!(error["error"]["code"], json!("queue_timeout"));
    }
    let mut body = question("Hello.", 5);
    body["timeout"] = json!(0.2);
    let late = site.post("/v1/chat/completions", &body).await;
    assert_eq!(
        (late.status().as_u16(), &late.headers()["x-should-retry"]),
        (504, &"false".parse().unwrap())
    );
    let error: Value = late.json().await.unwrap();
    assert_eq!(error["error"]["type"], json!("timeout_error"));
    drop(running);
    until(&site, "vllm:num_requests_running", 0).await;

    let mut body = streaming(endless());
    // Long enough for a first token on a machine that does much else.
    body["timeout"] = json!(5);
    let response = site.post("/v1/chat/completions", &body).await;
    assert_eq!(response.status(), 200);
    let answer = read(response, |_| {}).await;
    assert!(answer.pieces > 0 && !answer.done, "{answer:?}");
    assert_eq!(answer.error.unwrap()["code"], json!("timeout"));
    until(&site, "vllm:num_requests_running", 0).await;
}

/// Queued, with a prompt that is being computed, or with an answer that nobody has seen a word of.
#[tokio::test]
async fn a_client_that_goes_away_frees_everything_in_every_state() {
    let site = Site::serve(&["--max-num-seqs", "1", "--max-num-batched-tokens", "16"]);
    let long = json!({ "prompt": "word ".repeat(7000), "max_tokens": 1000, "ignore_eos": true });
    let prefill = tokio::spawn(post(&site, "/v1/completions", &long));
    until(&site, "vllm:num_requests_running", 1).await;
    let queued = tokio::spawn(post(&site, "/v1/chat/completions", &endless()));
    until(&site, "vllm:num_requests_waiting", 1).await;
    queued.abort();
    until(&site, "vllm:num_requests_waiting", 0).await;
    assert!(!prefill.is_finished(), "the prompt is too short for this test");
    prefill.abort();
    until(&site, "vllm:num_requests_running", 0).await;
    until(&site, "vllm:kv_cache_usage_perc", 0).await;
    let decode = tokio::spawn(post(&site, "/v1/chat/completions", &endless()));
    until(&site, "vllm:num_requests_running", 1).await;
    decode.abort();
    until(&site, "vllm:num_requests_running", 0).await;
    until(&site, "vllm:kv_cache_usage_perc", 0).await;
    assert_eq!(site.chat(question("Hello.", 3)).await.pieces, 3, "others are served");
}

fn post(
    site: &Site,
    path: &str,
    body: &Value,
) -> impl Future<Output = reqwest::Result<reqwest::Response>> + Send + use<> {
    reqwest::Client::new().post(format!("{}{path}", site.base)).json(body).send()
}
