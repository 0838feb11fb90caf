//! A worker without the model takes it over from one that has it.

use std::path::Path;

use crate::etcd::Etcd;
use crate::process::Process;
use crate::site::{Site, address, question, worker};

/// A worker with an empty cache at `cache`.
fn bare(cache: &Path, more: &[&str]) -> Process {
    let cache = cache.display().to_string();
    let arguments = ["worker", "--threads", "1", "--cache", cache.as_str()];
    Process::start(&[&arguments, more].concat(), "worker on ")
}

/// How much of a model came to the worker, or went from it.
async fn bytes(site: &Site, rank: usize, direction: &str) -> u64 {
    let page = site.worker_metrics(rank).await;
    let series = format!("arcmesh_worker_model_bytes_total{{direction=\"{direction}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_worker_that_lacks_the_model_takes_it_over_and_keeps_it() {
    let cache = tempfile::tempdir().unwrap();
    let first = worker("127.0.0.1:0", 1);
    let from = address(&first);
    let any = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--model-from", &from];
    let site = Site::over(vec![first, bare(cache.path(), &any)], &[]);
    let answer = site.chat(question("Why is the sky blue?", 16)).await;
    assert!(answer.done && !answer.text.is_empty(), "{answer:?}");
    let received = bytes(&site, 1, "received").await;
    assert!(received > 10_000_000, "{received} bytes");
    assert_eq!(bytes(&site, 0, "sent").await, received);
    // What is here comes no second time.
    let again = Site::over(vec![worker("127.0.0.1:0", 1), bare(cache.path(), &any)], &[]);
    assert_eq!(again.chat(question("Why is the sky blue?", 16)).await, answer);
    assert_eq!(bytes(&again, 1, "received").await, 0);
}

#[tokio::test]
async fn what_came_damaged_is_thrown_away_and_comes_again() {
    let cache = tempfile::tempdir().unwrap();
    let first = worker("127.0.0.1:0", 1);
    let from = address(&first);
    let any = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--model-from", &from];
    drop(bare(cache.path(), &any));
    let folder = std::fs::read_dir(cache.path().join("handed-over")).unwrap().next().unwrap();
    let file = std::fs::read_dir(folder.unwrap().path()).unwrap().next().unwrap().unwrap().path();
    // The header says something else now, and the length is the same.
    let mut damaged = std::fs::read(&file).unwrap();
    damaged[100] ^= 1;
    let length = damaged.len() as u64;
    std::fs::write(&file, damaged).unwrap();
    let site = Site::over(vec![first, bare(cache.path(), &any)], &[]);
    assert_eq!(bytes(&site, 1, "received").await, length);
}

#[tokio::test]
async fn in_a_cluster_nobody_says_who_has_the_model() {
    let Some(etcd) = Etcd::start() else { return };
    let cache = tempfile::tempdir().unwrap();
    let url = etcd.url();
    let first = Process::start(&["worker", "--etcd", &url, "--threads", "1"], "worker on ");
    let second = bare(cache.path(), &["--etcd", &url, "--model-from", "cluster"]);
    let arguments = ["coordinator", "--port", "0", "--etcd", &url, "--world", "2"];
    let site = Site::of(Process::start(&arguments, "    -d"), vec![first, second]);
    assert!(site.chat(question("Why is the sky blue?", 8)).await.done);
    assert!(bytes(&site, 1, "received").await > 10_000_000);
}
