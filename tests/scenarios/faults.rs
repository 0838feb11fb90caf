//! Processes that die, stay away or should never have come.

use serde_json::json;

use crate::figures::{series, total};
use crate::process::Process;
use crate::site::{Site, address, question, read, streaming, worker_on};

const STORY: &str = "Tell me a story about a lighthouse.";

/// What a worker is, as its metrics say.
fn info(page: &str) -> String {
    page.lines().find(|line| line.starts_with("arcmesh_worker_info{")).unwrap().to_owned()
}

#[tokio::test]
async fn a_worker_that_dies_and_comes_back_changes_no_answer_over_grpc() {
    dies_and_comes_back(["grpc", "auto"], "grpc").await;
}

#[tokio::test]
async fn a_worker_that_dies_and_comes_back_changes_no_answer_in_shared_memory() {
    dies_and_comes_back(["auto", "auto"], "shared").await;
}

async fn dies_and_comes_back(told: [&str; 2], lane: &str) {
    let workers = told.map(|told| worker_on(told, "127.0.0.1:0", 1));
    let mut site = Site::over(workers.into(), &[]);
    for rank in 0..2 {
        let info = info(&site.worker_metrics(rank).await);
        assert!(info.contains(&format!("lane=\"{lane}\"")), "{info}");
    }
    let body = question(STORY, 160);
    let undisturbed = site.chat(body.clone()).await;
    let response = site.post("/v1/chat/completions", &streaming(body)).await;
    let mut lost = Some(site.workers.remove(1));
    let listen = address(lost.as_ref().unwrap());
    let mut back = None;
    let disturbed = read(response, |pieces| {
        if pieces == 8 {
            lost.take().unwrap().kill();
            back = Some(worker_on(told[1], &listen, 1));
        }
    });
    assert_eq!(disturbed.await, undisturbed);
    let alone = Site::serve(&[]);
    assert_eq!(alone.chat(question(STORY, 160)).await.text, undisturbed.text);
    assert!(back.is_some(), "nothing was disturbed");
    let metrics = site.page("/metrics").await;
    let ahead = total(&series(&metrics), "arcmesh_steps_ahead_total", "");
    assert!(ahead > 100.0, "it died with a step ahead, as {ahead} were");
    let reforms = metrics.lines().filter(|line| line.starts_with("arcmesh_group_reforms_total"));
    assert!(reforms.map(|line| line.rsplit(' ').next().unwrap()).any(|count| count != "0"));
}

#[tokio::test]
async fn a_client_that_goes_away_frees_everything() {
    let site = Site::serve(&[]);
    let mut body = question("Tell me a very long story.", 4000);
    body["ignore_eos"] = json!(true);
    let response = site.post("/v1/chat/completions", &streaming(body)).await;
    assert!(site.page("/metrics").await.contains("vllm:num_requests_running"));
    drop(response);
    // Each look is a round trip, so this is bounded by the server's own pace.
    for _ in 0..20_000 {
        let metrics = site.page("/metrics").await;
        let idle =
            |name: &str| metrics.lines().any(|line| line.starts_with(name) && line.ends_with(" 0"));
        if idle("vllm:num_requests_running") && idle("vllm:gpu_cache_usage_perc") {
            return;
        }
    }
    panic!("the answer goes on for nobody");
}

#[test]
fn a_worker_with_another_model_is_refused_by_name() {
    let other = Process::start(
        &["worker", "--model", "gemma-3-270m", "--listen", "127.0.0.1:0"]
            .into_iter()
            .chain(["--metrics", "127.0.0.1:0"])
            .collect::<Vec<_>>(),
        "worker on ",
    );
    let refused = fixture::program(env!("CARGO_BIN_EXE_arcmesh"))
        .args(["coordinator", "--port", "0", "--worker", &address(&other)])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("arcmesh: ") && last.contains(&address(&other)), "{said}");
}

#[test]
fn a_server_that_is_asked_to_end_ends_well() {
    let mut site = Site::group(2, &[]);
    assert!(site.front.end());
    for worker in &mut site.workers {
        assert!(worker.end());
    }
}
