//! Hundreds of mixed requests, and every figure against what their clients saw.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::iter;
use serde_json::{Value, json};

use crate::figures::{series, total};
use crate::site::Site;

/// Requests under way at once.
const AT_ONCE: usize = 8;
/// Requests in all, of each kind as many.
const REQUESTS: usize = 240;
/// Generated tokens that the operator allows.
const CEILING: u32 = 24;
/// Times that a page is read until it has what was written a moment before.
const PAGES_MAX: usize = 200;

/// What a client saw of one request.
#[derive(Debug, Default)]
struct Saw {
    status: u16,
    code: Option<String>,
    finishes: Vec<String>,
    prompt: u64,
    completion: u64,
    bytes: u64,
    first: Option<Duration>,
    all: Duration,
    choices: u64,
    limit: u64,
}

/// The kinds of requests. What their answers are like is known before.
fn request(at: usize) -> (&'static str, Value) {
    let message = format!("Say something about the number {at}.");
    let chat = json!({ "messages": [{ "role": "user", "content": message }], "temperature": 0 });
    let text = json!({ "prompt": message, "temperature": 0.7, "seed": at });
    let with = |mut body: Value, more: Value| {
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let stream = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let tokens = 1 + at % 7;
    let (chats, texts) = ("/v1/chat/completions", "/v1/completions");
    match at % 8 {
        0 => (chats, with(chat, json!({ "max_tokens": tokens }))),
        1 => (chats, with(with(chat, json!({ "max_tokens": tokens })), stream)),
        2 => (texts, with(text, json!({ "max_tokens": tokens, "n": 2 }))),
        3 => (texts, with(with(text, json!({ "max_tokens": tokens, "n": 3 })), stream)),
        // A limit of the operator's, not of the request's.
        4 => (texts, with(text, json!({ "max_tokens": 60, "ignore_eos": true }))),
        5 => (chats, json!({ "messages": [] })),
        6 => (texts, with(text, json!({ "prompt": "one two ".repeat(300), "max_tokens": 1 }))),
        _ => (texts, with(with(text, json!({ "max_tokens": tokens, "ignore_eos": true })), stream)),
    }
}

async fn ask(site: &Site, at: usize) -> Saw {
    let (path, body) = request(at);
    let begun = Instant::now();
    let response = site.post(path, &body).await;
    let mut saw = Saw { status: response.status().as_u16(), ..Saw::default() };
    saw.choices = body["n"].as_u64().unwrap_or(1);
    saw.limit = body["max_tokens"].as_u64().unwrap_or(0).min(u64::from(CEILING));
    let mut parts = response.bytes_stream();
    let mut bytes = Vec::new();
    while let Some(part) = parts.next().await {
        bytes.extend_from_slice(&part.unwrap());
        saw.first.get_or_insert_with(|| begun.elapsed());
    }
    saw.all = begun.elapsed();
    saw.bytes = u64::try_from(bytes.len()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    if body["stream"] == json!(true) {
        for event in text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
            if event != "[DONE]" {
                saw.take(&serde_json::from_str(event).unwrap());
            }
        }
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    } else {
        saw.first = None;
        saw.take(&serde_json::from_str(&text).unwrap());
    }
    saw
}

impl Saw {
    fn take(&mut self, answer: &Value) {
        self.code = self.code.take().or(answer["error"]["code"].as_str().map(str::to_owned));
        for choice in answer["choices"].as_array().into_iter().flatten() {
            self.finishes.extend(choice["finish_reason"].as_str().map(str::to_owned));
        }
        if let Some(usage) = answer["usage"].as_object() {
            self.prompt = usage["prompt_tokens"].as_u64().unwrap();
            self.completion = usage["completion_tokens"].as_u64().unwrap();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "sums of a test, far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

fn count(saw: &[Saw], which: impl Fn(&Saw) -> bool) -> f64 {
    number(saw.iter().filter(|saw| which(saw)).count() as u64)
}

/// Buckets of a histogram: bounds and cumulative counts, in order.
fn buckets(page: &BTreeMap<String, f64>, name: &str) -> Vec<(f64, f64)> {
    let bound = |key: &str| {
        let (_, bound) = key.split_once("le=\"")?;
        bound.split('"').next()?.replace("+Inf", "inf").parse::<f64>().ok()
    };
    let of_name = |key: &str| key.starts_with(&format!("{name}_bucket{{"));
    let found = page.iter().filter(|(key, _)| of_name(key));
    let mut found: Vec<_> = found.map(|(key, value)| (bound(key).unwrap(), *value)).collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found
}

/// The place of the bucket in which this share of all that was observed ends.
fn place(buckets: &[(f64, f64)], share: f64) -> usize {
    let all = buckets.last().unwrap().1;
    buckets.iter().position(|(_, count)| *count >= share * all).unwrap()
}

/// A histogram of what clients measured, in the same buckets.
fn measured(buckets: &[(f64, f64)], times: &[f64]) -> Vec<(f64, f64)> {
    let until = |bound: f64| times.iter().filter(|time| **time <= bound).count() as u64;
    buckets.iter().map(|(bound, _)| (*bound, number(until(*bound)))).collect()
}

#[expect(clippy::too_many_lines, reason = "one flat list of figures")]
#[tokio::test(flavor = "multi_thread")]
async fn every_figure_of_hundreds_of_mixed_requests_is_what_their_clients_saw() {
    let ceiling = CEILING.to_string();
    let limits = ["--max-model-len", "256", "--max-generation-tokens", &ceiling];
    let site = Site::group(2, &limits);
    let saw: Vec<Saw> =
        iter(0..REQUESTS).map(|at| ask(&site, at)).buffer_unordered(AT_ONCE).collect().await;
    let good: Vec<&Saw> = saw.iter().filter(|saw| saw.status == 200).collect();
    let sum = |of: &dyn Fn(&Saw) -> u64| number(good.iter().map(|saw| of(saw)).sum());
    let bytes = sum(&|saw| saw.bytes);

    // The last bytes are counted once they are written, which a client may notice first.
    let mut page = BTreeMap::new();
    for _ in 0..PAGES_MAX {
        page = series(&site.page("/metrics").await);
        let receipts = total(&page, "arcmesh_request_receipt_seconds_count", "");
        if receipts >= number(good.len() as u64) {
            break;
        }
    }
    let is = |name: &str, label: &str, expected: f64| {
        assert_eq!(total(&page, name, label), expected, "{name} with {label:?}");
    };

    // Every kind was answered as it should be.
    assert_eq!(count(&saw, |saw| saw.status == 200), number(REQUESTS as u64) * 6.0 / 8.0);
    let refused =
        |code: Option<&str>| count(&saw, |saw| saw.status == 400 && saw.code.as_deref() == code);
    let (invalid, overlong) = (refused(None), refused(Some("context_length_exceeded")));
    assert_eq!((invalid, overlong), (30.0, 30.0));

    // Requests and refusals.
    is("arcmesh_rejected_total", "code=\"invalid_request\"", invalid);
    is("arcmesh_rejected_total", "code=\"context_length_exceeded\"", overlong);
    is("arcmesh_errors_by_prompt_len_total", "kind=\"refused\"", overlong);
    is("arcmesh_errors_by_prompt_len_total", "kind=\"failed\"", 0.0);
    is("arcmesh_http_requests_total", "status=\"400\"", invalid + overlong);
    is("http_requests_total", "status=\"4xx\"", invalid + overlong);
    is("arcmesh_client_disconnects_total", "", 0.0);

    // Tokens.
    let prompt = sum(&|saw| saw.prompt);
    let completion = sum(&|saw| saw.completion);
    is("vllm:prompt_tokens_by_source_total", "", prompt);
    is("vllm:request_prompt_tokens_sum", "", prompt);
    is("vllm:generation_tokens_total", "", completion);
    is("vllm:request_generation_tokens_sum", "", completion);
    is("arcmesh_answer_tokens_total", "", completion);
    let inter = completion - sum(&|saw| saw.choices);
    is("vllm:inter_token_latency_seconds_count", "", inter);
    is("arcmesh_answer_bytes_total", "", bytes);

    // Sequences by why they ended.
    let ended =
        |reason: &str| sum(&|saw| saw.finishes.iter().filter(|f| *f == reason).count() as u64);
    for reason in ["stop", "length", "abort", "error"] {
        let label = format!("finished_reason=\"{reason}\"");
        is("vllm:request_success_total", &label, ended(reason));
    }
    let operator = count(&saw, |saw| saw.status == 200 && saw.limit == u64::from(CEILING));
    assert_eq!(operator, 30.0);
    is("arcmesh_length_finish_total", "limit=\"operator\"", operator);
    is("arcmesh_length_finish_total", "limit=\"request\"", ended("length") - operator);
    is("arcmesh_length_finish_total", "limit=\"context\"", 0.0);

    // Once for each request, once for each sequence.
    let requests = number(good.len() as u64);
    for name in [
        "vllm:time_to_first_token_seconds",
        "vllm:e2e_request_latency_seconds",
        "vllm:request_queue_time_seconds",
        "vllm:time_in_queue_requests",
        "vllm:request_inference_time_seconds",
        "vllm:request_prefill_time_seconds",
        "vllm:request_decode_time_seconds",
        "vllm:request_prompt_tokens",
        "vllm:request_max_num_generation_tokens",
        "vllm:request_params_n",
        "vllm:request_params_best_of",
        "vllm:request_params_max_tokens",
        "vllm:request_prefill_kv_computed_tokens",
        "vllm:request_num_preemptions",
        "vllm:model_forward_time_milliseconds",
        "vllm:model_execute_time_milliseconds",
        "arcmesh_ttft_by_prompt_len_seconds",
        "arcmesh_e2e_by_prompt_len_seconds",
        "arcmesh_e2e_by_output_len_seconds",
        "arcmesh_request_receipt_seconds",
        "arcmesh_http_write_lag_seconds",
    ] {
        is(&format!("{name}_count"), "", requests);
    }
    let sequences = sum(&|saw| saw.choices);
    is("vllm:request_generation_tokens_count", "", sequences);
    is("vllm:request_params_n_sum", "", sequences);
    is("vllm:request_params_max_tokens_sum", "", sum(&|saw| saw.limit));
    is("vllm:num_requests_running", "", 0.0);
    is("vllm:num_requests_waiting", "", 0.0);
    is("vllm:kv_cache_usage_perc", "", 0.0);

    // Times: a client sees the end after the server does, and not much after.
    let all: Vec<f64> = good.iter().map(|saw| saw.all.as_secs_f64()).collect();
    let server = total(&page, "vllm:e2e_request_latency_seconds_sum", "");
    assert!(server <= all.iter().sum(), "{server} s are more than the clients saw");
    let firsts: Vec<f64> = good.iter().filter_map(|s| s.first).map(|t| t.as_secs_f64()).collect();
    assert_eq!(firsts.len() * 2, good.len());
    let ends = buckets(&page, "vllm:e2e_request_latency_seconds");
    for share in [0.5, 0.9] {
        let (told, seen) = (place(&ends, share), place(&measured(&ends, &all), share));
        assert!(told <= seen && seen - told <= 1, "{share}: bucket {told} told, {seen} seen");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away_and_stop_strings_are_told_apart() {
    let site = Site::group(1, &[]);
    let body = |more: Value| {
        let mut body = json!({ "prompt": "Once upon a time", "max_tokens": 400, "temperature": 0, "ignore_eos": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    // A stop string ends the answer, and what was generated beyond it is not part of it.
    let stopped = site.post("/v1/completions", &body(json!({ "stop": [","] }))).await;
    let stopped: Value = serde_json::from_str(&stopped.text().await.unwrap()).unwrap();
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    let used = stopped["usage"]["completion_tokens"].as_f64().unwrap();
    // Ten clients read a little and go.
    for _ in 0..10 {
        let response = site.post("/v1/completions", &body(json!({ "stream": true }))).await;
        let mut parts = response.bytes_stream();
        parts.next().await.unwrap().unwrap();
    }
    let mut page = BTreeMap::new();
    for _ in 0..PAGES_MAX {
        page = series(&site.page("/metrics").await);
        if total(&page, "vllm:request_success_total", "") >= 11.0 {
            break;
        }
    }
    let is = |name: &str, label: &str, expected: f64| {
        assert_eq!(total(&page, name, label), expected, "{name} with {label:?}");
    };
    is("vllm:request_success_total", "finished_reason=\"stop\"", 1.0);
    is("vllm:request_success_total", "finished_reason=\"abort\"", 10.0);
    is("arcmesh_client_disconnects_total", "", 10.0);
    is("arcmesh_request_receipt_seconds_count", "", 1.0);
    is("vllm:e2e_request_latency_seconds_count", "", 11.0);
    let generated = total(&page, "vllm:generation_tokens_total", "");
    is("vllm:request_generation_tokens_sum", "", generated);
    let answered = total(&page, "arcmesh_answer_tokens_total", "");
    assert!(used < answered && answered <= generated, "{used} {answered} {generated}");
    is("arcmesh_errors_by_prompt_len_total", "", 0.0);
}
