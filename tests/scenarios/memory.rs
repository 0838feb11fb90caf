//! KV memory that is short, and what it must not change: the answers.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::site::{Site, Streamed, address, question, read, streaming, until, worker};

/// Each of the six answers becomes 8 or 9 blocks long; all of them begin with 2 or 3.
const SHORT: [&str; 6] = ["--kv-blocks", "20", "--swap-space", "256MiB", "--admission", "prompt"];

/// The value of a series, its labels left out.
fn value(page: &str, name: &str) -> f64 {
    let found = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let values = found.filter_map(|line| line.rsplit_once(' ')).map(|(_, value)| value);
    values.map(|value| value.parse::<f64>().unwrap()).sum()
}

fn questions() -> Vec<Value> {
    let about = ["the sea", "a mountain", "old clocks", "winter", "bread", "a long road"];
    let questions = about.iter().map(|what| {
        let mut body = question(&format!("Tell me a story about {what}."), 90);
        body["ignore_eos"] = json!(true);
        body
    });
    questions.collect()
}

async fn one_by_one(site: &Site) -> Vec<String> {
    let mut texts = Vec::new();
    for body in questions() {
        texts.push(site.chat(body).await.text);
    }
    texts
}

/// Streams an answer, and looks at the metrics with every piece: the most groups that were swapped.
async fn watch(site: &Site, body: Value) -> (Streamed, f64) {
    let response = site.post("/v1/chat/completions", &streaming(body)).await;
    let (told, mut pieces) = tokio::sync::mpsc::channel(1);
    // A look that is under way sees this piece too.
    let reading = read(response, move |_| {
        let _ = told.try_send(());
    });
    let watching = async {
        let mut most = 0.0_f64;
        while pieces.recv().await.is_some() {
            let page = site.page("/metrics").await;
            most = most.max(value(&page, "vllm:num_requests_swapped"));
        }
        most
    };
    tokio::join!(reading, watching)
}

#[tokio::test]
async fn groups_that_do_not_fit_are_swapped_and_come_back_with_the_same_answers() {
    let ample = Site::serve(&["--threads", "1"]);
    let expected = one_by_one(&ample).await;
    drop(ample);
    let site = Site::group(2, &SHORT);
    let answers = join_all(questions().into_iter().map(|body| watch(&site, body))).await;
    for ((answer, _), expected) in answers.iter().zip(&expected) {
        assert_eq!(answer.text, *expected);
    }
    let most = answers.iter().map(|(_, most)| *most).fold(0.0, f64::max);
    let page = site.page("/metrics").await;
    assert!(most > 0.0, "nothing was swapped:\n{page}");
    assert_eq!(value(&page, "vllm:num_requests_swapped"), 0.0);
    assert_eq!(value(&page, "vllm:cpu_cache_usage_perc"), 0.0);
    assert!(page.contains("arcmesh_preemptions_total"), "{page}");
    let swapped = |direction: &str| {
        let label = format!("direction=\"{direction}\"");
        let line = page
            .lines()
            .find(|line| line.starts_with("arcmesh_swap_blocks_total") && line.contains(&label));
        line.and_then(|line| line.rsplit_once(' ')).unwrap().1.parse::<f64>().unwrap()
    };
    assert!(swapped("out") > 0.0);
    assert_eq!(swapped("out"), swapped("in"), "whatever goes out comes back");
}

#[tokio::test]
async fn a_worker_that_dies_while_groups_are_swapped_out_changes_no_answer() {
    let ample = Site::serve(&["--threads", "1"]);
    let expected = one_by_one(&ample).await;
    drop(ample);
    let mut site = Site::group(2, &SHORT);
    let mut lost = site.workers.pop().unwrap();
    let listen = address(&lost);
    let asking = join_all(questions().into_iter().map(|body| site.chat(body)));
    let dying = async {
        let swapped =
            async || value(&site.page("/metrics").await, "vllm:num_requests_swapped") > 0.0;
        until("a group is swapped out", swapped).await;
        // What it held in host memory is gone with it.
        lost.kill();
        tokio::task::spawn_blocking(move || worker(&listen, 1)).await.unwrap()
    };
    let (answers, back) = tokio::join!(asking, dying);
    for (answer, expected) in answers.iter().zip(&expected) {
        assert_eq!(answer.text, *expected);
    }
    site.workers.push(back);
    let page = site.page("/metrics").await;
    assert!(value(&page, "arcmesh_group_reforms_total") > 0.0, "nothing was lost:\n{page}");
    assert_eq!(value(&page, "vllm:num_requests_swapped"), 0.0);
    assert_eq!(value(&page, "vllm:cpu_cache_usage_perc"), 0.0);
}

#[tokio::test]
async fn what_prompts_begin_with_alike_is_computed_once_and_changes_no_answer() {
    let cold = Site::serve(&["--prefix-cache", "off"]);
    let expected = one_by_one(&cold).await;
    let page = cold.page("/metrics").await;
    assert_eq!(value(&page, "vllm:prefix_cache_queries_total"), 0.0);
    drop(cold);
    let warm = Site::serve(&[]);
    for round in 0..2 {
        for (body, expected) in questions().into_iter().zip(&expected) {
            let answer = warm.chat(body).await;
            assert_eq!(answer.text, *expected);
            let usage = answer.usage.unwrap();
            let (prompt, cached) = (usage["prompt_tokens"].as_u64().unwrap(), answer.cached);
            assert!(round == 0 || cached == (prompt - 1) / 16 * 16, "{cached} of {prompt}");
        }
    }
}
