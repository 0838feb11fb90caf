//! What Prometheus sees.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::site::{Group, Model, PROMPT, Worker, generate, heartbeat};

/// A page: its head and its body.
async fn get(worker: &Worker, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(&worker.probes).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The value of the one series of this name that has the labels that are given.
fn value(text: &str, series: &str) -> f64 {
    let (name, labels) = series.split_once('{').unwrap();
    let labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
    let mut found = text.lines().filter(|line| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
    });
    let line = found.next().unwrap_or_else(|| panic!("{series} is not in\n{text}"));
    assert_eq!(found.next(), None, "{series} is more than one series");
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_healthy_and_exports_before_it_is_in_a_group() {
    let worker = Worker::start(&Model::toy()).await;
    let (head, body) = get(&worker, "/health").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, "ok\n");
    let (head, body) = get(&worker, "/metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(value(&body, "arcmesh_worker_ready{rank=\"none\"}").abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn series_are_moved_by_what_happens() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 2).await;
    let mut group = Group::form(&model, &mut workers, 4).await;
    generate(&mut group, 4, &PROMPT, 3).await;
    group.step(&heartbeat(4, 4)).await;
    let refused = group.step(&heartbeat(4, 9)).await;
    assert!(refused.iter().all(|reply| reply.failure.is_some()));
    let (_, text) = get(&workers[1], "/metrics").await;
    let exactly = [
        ("arcmesh_worker_up{rank=\"1\"}", 1.0),
        ("arcmesh_worker_ready{rank=\"1\"}", 1.0),
        ("arcmesh_worker_epoch{rank=\"1\"}", 4.0),
        ("arcmesh_worker_kv_blocks_capacity{rank=\"1\",tier=\"device\"}", 10.0),
        ("arcmesh_worker_kv_blocks_capacity{rank=\"1\",tier=\"host\"}", 2.0),
        ("arcmesh_worker_step_seconds_count{phase=\"prefill\",rank=\"1\"}", 1.0),
        ("arcmesh_worker_step_seconds_count{phase=\"decode\",rank=\"1\"}", 2.0),
        ("arcmesh_worker_step_seconds_count{phase=\"heartbeat\",rank=\"1\"}", 1.0),
        ("arcmesh_worker_steps_total{outcome=\"done\",rank=\"1\"}", 4.0),
        ("arcmesh_worker_steps_total{outcome=\"refused\",rank=\"1\"}", 1.0),
        ("arcmesh_worker_collective_seconds_count{part=\"wait\",rank=\"1\"}", 4.0),
        ("arcmesh_worker_loads_total{outcome=\"done\",rank=\"1\"}", 1.0),
        ("arcmesh_worker_collectives_total{op=\"gather\",rank=\"1\"}", 4.0),
        ("arcmesh_worker_step_tokens_total{rank=\"1\"}", 22.0),
        ("arcmesh_worker_nan_logits_total{rank=\"1\"}", 0.0),
        ("arcmesh_worker_rpcs_total{method=\"load\",outcome=\"ok\"}", 1.0),
    ];
    for (series, expected) in exactly {
        assert!((value(&text, series) - expected).abs() < 1e-9, "{series}\n{text}");
    }
    let some = [
        "arcmesh_worker_collective_bytes_total{direction=\"sent\",op=\"all_reduce\",rank=\"1\"}",
        "arcmesh_worker_collective_bytes_total{direction=\"received\",op=\"all_reduce\",rank=\"1\"}",
        "arcmesh_worker_memory_bytes{kind=\"weights\",rank=\"1\"}",
        "arcmesh_worker_memory_bytes{kind=\"kv\",rank=\"1\"}",
        "arcmesh_worker_memory_bytes{kind=\"resident\",rank=\"\"}",
        "arcmesh_worker_compute_seconds_total{rank=\"1\"}",
        "arcmesh_worker_weights_load_seconds{rank=\"1\"}",
    ];
    for series in some {
        assert!(value(&text, series) > 0.0, "{series}");
    }
    assert!(text.contains("device="), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_part_of_the_cache_that_is_held_is_exported() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 1).await;
    let mut group = Group::form(&model, &mut workers, 1).await;
    let mut request = heartbeat(1, 1);
    (request.blocks_held, request.swap_blocks_held) = (4, 1);
    group.step(&request).await;
    let (_, text) = get(&workers[0], "/metrics").await;
    let ratio = value(&text, "arcmesh_worker_kv_cache_usage_ratio{rank=\"0\"}");
    assert!((ratio - 0.4).abs() < 1e-9, "{ratio}");
    let used = value(&text, "arcmesh_worker_kv_blocks_used{rank=\"0\",tier=\"host\"}");
    assert!((used - 1.0).abs() < 1e-9);
}
