//! `arcmesh bench serve` against a running server: what it measures, and whether the server agrees.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::site::Site;

pub(crate) fn bench(url: &str, words: &[&str]) -> Output {
    let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
    command.args(["bench", "serve", "--url", url]).args(words);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The figures of a load after which the server must agree on each.
fn reconciled(site: &Site, words: &[&str]) -> Value {
    let output = bench(&site.base, &[words, &["--reconcile", "--json", "-"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines = found["reconciliation"]["lines"].as_array().unwrap();
    assert!(lines.len() >= 15, "{lines:?}");
    assert!(lines.iter().all(|line| line["verdict"] != "absent"), "{lines:?}");
    found
}

#[tokio::test]
async fn every_shape_of_load_is_what_the_server_counted() {
    let site = Site::group(2, &[]);
    let steady = ["--requests", "12", "--concurrency", "4", "--answer-tokens", "uniform:2..9"];
    let found = reconciled(&site, &[&steady[..], &["--prompt-tokens", "60"]].concat());
    assert_eq!((&found["requests"], &found["answered"]), (&12.into(), &12.into()));
    // Words were measured: prompts are as long as they were asked for.
    assert!((55.0..65.0).contains(&found["prompt_tokens"]["mean"].as_f64().unwrap()), "{found}");
    for name in ["ttft_seconds", "tpot_seconds", "itl_seconds", "e2e_seconds"] {
        assert!(found[name]["p99"].as_f64().unwrap() >= found[name]["p50"].as_f64().unwrap());
    }
    let random = ["--requests", "6", "--rate", "20", "--endpoint", "completions", "--ignore-eos"];
    let found = reconciled(&site, &[&random[..], &["--answer-tokens", "7"]].concat());
    assert_eq!(found["output_tokens_total"], 42, "{found}");
    assert_eq!(found["finish_reasons"]["length"], 6);
    let wave = ["--requests", "8", "--wave", "1", "--concurrency", "3", "--answer-tokens", "3"];
    assert_eq!(reconciled(&site, &wave)["answered"], 8);
}

#[tokio::test]
async fn what_another_client_did_meanwhile_is_named() {
    let site = Site::serve(&["--threads", "1"]);
    let load = ["--requests", "8", "--concurrency", "1", "--answer-tokens", "2", "--reconcile"];
    let (url, words) = (site.base.clone(), load.map(str::to_owned));
    let ours = tokio::task::spawn_blocking(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        bench(&url, &words)
    });
    // Until the load has ended there is always another answer under way.
    let mut others = 0;
    while !ours.is_finished() {
        site.chat(crate::site::question("Who is there?", 3)).await;
        others += 1;
    }
    let output = ours.await.unwrap();
    assert!(others > 0);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let said = text(&output.stdout);
    assert!(said.contains("vllm:request_prompt_tokens_sum"), "{said}");
    assert!(text(&output.stderr).contains("are not what was measured"));
}

#[tokio::test]
async fn prompts_come_from_conversations_and_a_report_is_one_page() {
    let site = Site::serve(&["--api-key", "open-sesame"]);
    let folder = tempfile::tempdir().unwrap();
    let prompts = folder.path().join("conversations.json");
    let page = folder.path().join("report.html");
    let said =
        r#"[{"conversations": [{"from": "human", "value": "What is the capital of France?"}]}]"#;
    std::fs::write(&prompts, said).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (prompts, html) = (path(&prompts), path(&page));
    let words = ["--prompts", &prompts, "--html", &html, "--requests", "3", "--answer-tokens", "8"];
    let output = bench(&site.base, &[&words[..], &["--api-key", "open-sesame"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.contains("TTFT") && table.contains("3 answered"), "{table}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.matches("<svg class=\"chart\"").count() >= 9, "{page}");
    let linked = page.contains("src=") || page.contains("href=") || page.contains("<script");
    assert!(!linked, "the page needs nothing else");

    let output = bench(&site.base, &["--requests", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("401"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn requests_that_are_turned_away_are_errors() {
    let site = Site::serve(&["--max-model-len", "64", "--threads", "1"]);
    let words =
        ["--requests", "4", "--prompt-tokens", "500", "--answer-tokens", "2", "--json", "-"];
    let output = bench(&site.base, &words);
    // The prompts that show what a word costs are too long already.
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.contains("400") && said.contains("maximum context length"), "{said}");
}
