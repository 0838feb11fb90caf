//! The right text, whoever else is served and however many ranks compute it.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::site::{Site, question, streaming, worker};

const FRANCE: &str = "What is the capital of France?";

#[tokio::test]
async fn the_printed_curl_line_streams_an_answer() {
    let site = Site::serve(&[]);
    let said = site.front.said().join("\n");
    assert!(said.contains(&format!("curl -N {}/v1/chat/completions", site.base)), "{said}");
    let body = said.split("-d '").nth(1).unwrap().split('\'').next().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let answer = site.chat(body).await;
    assert!(answer.done, "{answer:?}");
    assert!(answer.pieces > 3, "{answer:?}");
    assert!(answer.finish.is_some(), "{answer:?}");
}

#[tokio::test]
async fn a_stream_and_a_whole_answer_say_the_same() {
    let site = Site::serve(&[]);
    let streamed = site.chat(question(FRANCE, 24)).await;
    let whole = site.post("/v1/chat/completions", &question(FRANCE, 24)).await;
    assert!(whole.headers().contains_key("x-request-id"));
    let mut whole: Value = whole.json().await.unwrap();
    let found = whole["usage"].as_object_mut().unwrap().remove("prompt_tokens_details");
    assert_eq!(found, Some(json!({ "cached_tokens": 32 })), "two blocks of the same prompt");
    assert_eq!(whole["choices"][0]["message"]["content"], json!(streamed.text));
    assert_eq!(whole["choices"][0]["finish_reason"], json!(streamed.finish));
    assert_eq!(Some(&whole["usage"]), streamed.usage.as_ref());
    let tokens = whole["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(tokens, 37, "the template and one question");
}

#[tokio::test]
async fn worker_processes_say_what_one_process_says() {
    let one = Site::serve(&["--threads", "1"]);
    let asks = || {
        let texts = [FRANCE, "Write a haiku about rust.", "Count from one to twenty."];
        texts.map(|text| question(text, 32))
    };
    let mut alone = Vec::new();
    for ask in asks() {
        alone.push(one.chat(ask).await);
    }
    let three_threads = Site::serve(&["--world", "3", "--threads", "1"]);
    assert_eq!(alone, join_all(asks().map(|ask| three_threads.chat(ask))).await);
    for world in [2, 3, 4] {
        let group = Site::group(world, &[]);
        assert_eq!(alone, join_all(asks().map(|ask| group.chat(ask))).await, "world {world}");
    }
    // Three times the threads, three times the share.
    let unequal = [1, 3].map(|threads| worker("127.0.0.1:0", threads));
    let unequal = Site::over(unequal.into(), &[]);
    assert_eq!(alone, join_all(asks().map(|ask| unequal.chat(ask))).await);
    let page = unequal.page("/metrics").await;
    let shares: Vec<_> =
        page.lines().filter(|line| line.starts_with("arcmesh_rank_share_ratio{")).collect();
    assert!(shares[0].ends_with(" 0.25") && shares[1].ends_with(" 0.75"), "{shares:?}");
}

#[tokio::test]
async fn sixteen_users_at_once_get_the_text_they_get_alone() {
    let site = Site::serve(&[]);
    let asks = |at: u32| {
        let mut body = question(&format!("Tell me about the number {at}."), 24 + at);
        if at % 2 == 1 {
            body["temperature"] = json!(0.9);
            body["top_p"] = json!(0.95);
            body["seed"] = json!(at);
        }
        body
    };
    let mut alone = Vec::new();
    for at in 0..16 {
        alone.push(site.chat(asks(at)).await);
    }
    let together = join_all((0..16).map(|at| site.chat(asks(at)))).await;
    assert_eq!(alone, together);
    assert_ne!(alone[1].text, alone[2].text);
}

/// Blocks for about two of six answers: they take turns, and none of them changes.
#[tokio::test]
async fn a_short_cache_changes_no_answer() {
    let roomy = Site::serve(&["--threads", "1"]);
    let short = ["--kv-blocks", "16", "--prefix-cache", "off", "--admission", "prompt"];
    let short = Site::serve(&[&["--threads", "1"], short.as_slice()].concat());
    let asks = |at: u32| question(&format!("Tell me a story about {at} ducks."), 100);
    let wanted = join_all((0..6).map(|at| roomy.chat(asks(at)))).await;
    let got = join_all((0..6).map(|at| short.chat(asks(at)))).await;
    assert_eq!(wanted, got);
    let metrics = short.page("/metrics").await;
    let preempted = metrics.lines().find(|line| line.starts_with("vllm:num_preemptions_total"));
    let preempted = preempted.unwrap().rsplit(' ').next().unwrap();
    assert_ne!(preempted, "0", "nothing was preempted: the test proves nothing");
}

#[tokio::test]
async fn completions_take_text_and_tokens() {
    let site = Site::serve(&[]);
    let text = "The capital of France is";
    let tokens: Value =
        site.post("/tokenize", &json!({ "prompt": text })).await.json().await.unwrap();
    assert_eq!(tokens["tokens"], json!([504, 3575, 282, 4649, 314]));
    let ask = |prompt: Value| json!({ "prompt": prompt, "max_tokens": 8, "temperature": 0 });
    let by_text: Value =
        site.post("/v1/completions", &ask(json!(text))).await.json().await.unwrap();
    let by_tokens: Value =
        site.post("/v1/completions", &ask(tokens["tokens"].clone())).await.json().await.unwrap();
    assert_eq!(by_text["choices"], by_tokens["choices"]);
    assert!(!by_text["choices"][0]["text"].as_str().unwrap().is_empty());
    let back: Value = site
        .post("/detokenize", &json!({ "tokens": tokens["tokens"] }))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(back["prompt"], json!(text));
}

#[tokio::test]
async fn a_stop_string_ends_an_answer_before_it() {
    let site = Site::serve(&[]);
    let whole = site.chat(question("Count from one to twenty.", 40)).await;
    let middle = whole.text.len() / 2;
    let middle = (middle..).find(|&at| whole.text.is_char_boundary(at)).unwrap();
    let stop: String = whole.text[middle..].chars().take(5).collect();
    let mut body = streaming(question("Count from one to twenty.", 40));
    body["stop"] = json!([stop]);
    let stopped = site.chat(body).await;
    assert_eq!(stopped.finish.as_deref(), Some("stop"));
    assert_eq!(Some(stopped.text.as_str()), whole.text.split(&stop).next());
}
