//! What `/metrics` says is what the clients saw.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::site::{Site, question};

/// Series of a page: the name with its labels, and the value.
pub(crate) fn series(page: &str) -> BTreeMap<String, f64> {
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// The sum of all series of a name whose labels contain `label`.
pub(crate) fn total(series: &BTreeMap<String, f64>, name: &str, label: &str) -> f64 {
    let of_name = |key: &str| key.split('{').next() == Some(name);
    let found: Vec<f64> = series
        .iter()
        .filter(|(key, _)| of_name(key) && key.contains(label))
        .map(|(_, value)| *value)
        .collect();
    assert!(!found.is_empty(), "there is no series {name} with {label:?}");
    found.iter().sum()
}

#[tokio::test]
async fn counters_equal_what_the_clients_counted() {
    let site = Site::group(2, &["--served-model-name", "small"]);
    let before = series(&site.page("/metrics").await);
    let answers = join_all((0..12_u32).map(|at| {
        let mut body = question(&format!("Say something about {at}."), 3 + at);
        body["ignore_eos"] = json!(at % 3 == 0);
        site.chat(body)
    }))
    .await;
    let refused = site.post("/v1/chat/completions", &json!({ "messages": [] })).await;
    assert_eq!(refused.status(), 400);
    let after = series(&site.page("/metrics").await);
    let moved = |name: &str, label: &str| total(&after, name, label) - total(&before, name, label);
    let used = |what: &str| -> f64 {
        answers.iter().map(|answer| answer.usage.as_ref().unwrap()[what].as_f64().unwrap()).sum()
    };

    assert_eq!(moved("vllm:generation_tokens_total", ""), used("completion_tokens"));
    let found = moved("vllm:prefix_cache_hits_total", "");
    assert!(found > 0.0, "all begin with the same system prompt");
    assert_eq!(moved("vllm:prompt_tokens_total", "") + found, used("prompt_tokens"));
    assert_eq!(moved("vllm:request_generation_tokens_sum", ""), used("completion_tokens"));
    assert_eq!(moved("vllm:request_prompt_tokens_sum", ""), used("prompt_tokens"));
    for reason in ["stop", "length", "abort", "error"] {
        let seen = answers.iter().filter(|answer| answer.finish.as_deref() == Some(reason)).count();
        let label = format!("finished_reason=\"{reason}\"");
        #[expect(clippy::cast_precision_loss, reason = "a dozen")]
        let seen = seen as f64;
        assert_eq!(moved("vllm:request_success_total", &label), seen, "{reason}");
    }
    for histogram in [
        "vllm:time_to_first_token_seconds",
        "vllm:e2e_request_latency_seconds",
        "vllm:request_queue_time_seconds",
        "vllm:request_prefill_time_seconds",
        "vllm:request_decode_time_seconds",
        "vllm:request_max_num_generation_tokens",
    ] {
        assert_eq!(moved(&format!("{histogram}_count"), ""), 12.0, "{histogram}");
    }
    assert_eq!(
        moved("vllm:time_per_output_token_seconds_count", ""),
        used("completion_tokens") - 12.0
    );
    assert!(after.keys().any(|key| key.contains("model_name=\"small\"")));
}

#[tokio::test]
async fn every_worker_shows_its_own_device() {
    let site = Site::group(2, &[]);
    site.chat(question("What is the capital of France?", 16)).await;
    let listed: Value = serde_json::from_str(&site.page("/sd/prometheus").await).unwrap();
    let addresses = site.workers.iter().map(|worker| worker.told("http://"));
    let addresses: Vec<_> =
        addresses.map(|at| at.trim_end_matches("/metrics").to_owned()).collect();
    assert_eq!(listed[0]["targets"], json!(addresses));
    for rank in 0..2 {
        let page = series(&site.worker_metrics(rank).await);
        let label = format!("rank=\"{rank}\"");
        for moved in [
            "arcmesh_worker_step_seconds_count",
            "arcmesh_worker_collective_bytes_total",
            "arcmesh_worker_collective_seconds",
            "arcmesh_worker_memory_bytes",
        ] {
            let found: f64 = page
                .iter()
                .filter(|(key, _)| key.starts_with(moved) && key.contains(&label))
                .map(|(_, value)| *value)
                .sum();
            assert!(found > 0.0, "{moved} of rank {rank} did not move: {page:#?}");
        }
        assert!(page.keys().any(|key| key.starts_with("arcmesh_worker_kv_cache_usage_ratio")));
    }
}
