//! Faults at every stage of a worker's and a coordinator's life; docs/faults.md says which test is for which.
//! Four answers run each time, none may change, and how long the longest pause was is printed.

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::etcd::{Etcd, free_port};
use crate::heal::{disturbed, undisturbed};
use crate::line::Line;
use crate::membership::{cluster, member, ranks};
use crate::process::Process;
use crate::site::{Site, Streamed, address, question, read, streaming, until, worker};

#[tokio::test]
async fn a_worker_that_dies_while_it_loads_is_waited_for() {
    let (first, mut second) = (worker("127.0.0.1:0", 1), worker("127.0.0.1:0", 1));
    let (at, port) = ([address(&first), address(&second)], free_port().to_string());
    let arguments = ["coordinator", "--port", &port, "--worker", &at[0], "--worker", &at[1]];
    let arguments = arguments.map(str::to_owned);
    let started = tokio::task::spawn_blocking(move || {
        Process::start(&arguments.each_ref().map(String::as_str), "    -d")
    });
    // It says how much of the model is loaded: so it is being loaded.
    let loading = async || {
        let Ok(ready) = reqwest::get(format!("http://127.0.0.1:{port}/ready")).await else {
            return false;
        };
        let said = ready.text().await.unwrap_or_default();
        said.contains("loading") || said.contains("\"ready\"")
    };
    until("the model is being loaded", loading).await;
    second.kill();
    let back = tokio::task::spawn_blocking(move || worker(&at[1], 1)).await.unwrap();
    let site = Site::of(started.await.unwrap(), vec![first, back]);
    ranks(&site, 2).await;
    let alone = Site::serve(&[]);
    assert_eq!(undisturbed(&site).await, undisturbed(&alone).await);
}

fn long() -> impl Iterator<Item = Value> {
    let about = ["sea", "fox", "train", "clock"];
    about.into_iter().map(|about| {
        let text = format!("Once there was a {about}. ").repeat(20);
        question(&format!("{text} What was there?"), 12)
    })
}

async fn all(site: &Site) -> Vec<Streamed> {
    futures::future::join_all(long().map(|body| site.chat(body))).await
}

#[tokio::test]
async fn a_worker_that_dies_in_a_prompt_changes_no_answer() {
    let small = ["--max-num-batched-tokens", "16", "--max-num-seqs", "16", "--prefix-cache", "off"];
    let mut site = Site::group(2, &small);
    let expected = all(&site).await;
    let streams: Vec<_> = futures::future::join_all(
        long().map(async |body| site.post("/v1/chat/completions", &streaming(body)).await),
    )
    .await;
    let mut lost = site.workers.pop().unwrap();
    lost.kill();
    let listen = address(&lost);
    let back = tokio::task::spawn_blocking(move || worker(&listen, 1));
    let began = std::time::Instant::now();
    let first = watch::Sender::new(None);
    let told = futures::future::join_all(streams.into_iter().map(|stream| {
        let told = |pieces| {
            if pieces > 0 {
                first.send_if_modified(|first| first.replace(began.elapsed()).is_none());
            }
        };
        read(stream, told)
    }));
    assert_eq!(told.await, expected);
    let first = first.borrow().unwrap();
    println!("killed in a prompt: first words after {:.2} s", first.as_secs_f64());
    site.workers.push(back.await.unwrap());
}

#[tokio::test]
async fn a_worker_that_dies_while_the_other_waits_for_its_sum_changes_no_answer() {
    let mut site = Site::group(2, &[]);
    let expected = undisturbed(&site).await;
    let lost = site.workers.pop().unwrap();
    let listen = address(&lost);
    let mut lost = Some(lost);
    let mut back = None;
    let fault = || {
        let mut lost = lost.take().unwrap();
        // It stands still within a step: the other waits for it in an all-reduce. Then it is gone.
        lost.signal("STOP");
        lost.kill();
        back = Some(worker(&listen, 1));
    };
    let told = disturbed(&site, "killed in an all-reduce", fault).await;
    assert_eq!(told, expected);
    site.workers.extend(back);
}

#[tokio::test]
async fn lines_that_are_cut_without_a_word_change_no_answer() {
    let workers = [worker("127.0.0.1:0", 1), worker("127.0.0.1:0", 1)];
    let lines = [Line::to(address(&workers[0])).await, Line::to(address(&workers[1])).await];
    let at = lines.each_ref().map(|line| line.address.to_string());
    let arguments = ["coordinator", "--port", "0", "--worker", &at[0], "--worker", &at[1]];
    let arguments = arguments.map(str::to_owned);
    let front = tokio::task::spawn_blocking(move || {
        Process::start(&arguments.each_ref().map(String::as_str), "    -d")
    });
    let site = Site::of(front.await.unwrap(), Vec::from(workers));
    let expected = undisturbed(&site).await;
    for (what, there, back) in [
        ("cut off", false, false),
        ("nothing reaches it", false, true),
        ("nothing comes from it", true, false),
    ] {
        let told = disturbed(&site, what, || lines[1].set(there, back)).await;
        assert_eq!(told, expected, "{what}");
        // Those who are left go on; it is welcome when its line is mended.
        lines[1].set(true, true);
        ranks(&site, 2).await;
    }
    assert_eq!(undisturbed(&site).await, expected);
}

#[tokio::test]
async fn an_etcd_that_stands_still_or_starts_again_stops_nothing() {
    let Some(mut etcd) = Etcd::start() else { return };
    let mut site = cluster(&etcd, "2", 2);
    let expected = undisturbed(&site).await;
    assert_eq!(disturbed(&site, "etcd stopped", || etcd.signal("STOP")).await, expected);
    // A rank is lost meanwhile: who is left goes on without etcd's word.
    let mut lost = site.workers.pop().unwrap();
    let told = disturbed(&site, "etcd stopped, a rank killed", || lost.kill()).await;
    assert_eq!(told, expected);
    etcd.signal("CONT");
    site.workers.push(member(&etcd));
    ranks(&site, 2).await;
    etcd.kill();
    etcd.restart();
    assert_eq!(undisturbed(&site).await, expected);
    let mut lost = site.workers.pop().unwrap();
    site.workers.push(member(&etcd));
    let told = disturbed(&site, "etcd started again, a rank killed", || lost.kill()).await;
    assert_eq!(told, expected);
    ranks(&site, 2).await;
}

#[tokio::test]
async fn a_coordinator_that_dies_is_started_again_over_workers_that_stay() {
    let mut site = Site::group(2, &[]);
    let expected = undisturbed(&site).await;
    let mut body = streaming(question("Tell me a very long story.", 4000));
    body["ignore_eos"] = json!(true);
    let running = site.post("/v1/chat/completions", &body).await;
    site.front.kill();
    // Who was being answered hears that it is over.
    assert!(running.bytes().await.is_err(), "the answer ended as if it were whole");
    let began = std::time::Instant::now();
    let workers = std::mem::take(&mut site.workers);
    let again = Site::over(workers, &[]);
    println!(
        "killed coordinator: ready {:.2} s after it was started",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(undisturbed(&again).await, expected);
}
