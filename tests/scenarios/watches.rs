//! An etcd that answers, and of whose watches none lasts: nothing turns in circles, and nothing is missed.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::between::{Between, Mishap};
use crate::etcd::Etcd;
use crate::membership::{cluster, member, ranks};
use crate::process::Process;
use crate::site::{Site, address, question};

/// Watches after which somebody who has not said that they end turns in circles.
const WATCHES_MAX: usize = 64;

/// Waits until a standby at this etcd says `complaint`.
async fn says(between: &Between, complaint: &'static str) {
    let url = between.url();
    let mut standby = fixture::program(env!("CARGO_BIN_EXE_arcmesh"))
        .args(["coordinator", "--port", "0", "--etcd", &url, "--world", "2", "--standby"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(standby.stderr.take().unwrap()).lines();
    let said = tokio::task::spawn_blocking(move || {
        lines.map_while(Result::ok).any(|line| line.contains(complaint))
    });
    let said = tokio::select! {
        said = said => said.unwrap(),
        () = between.watched(WATCHES_MAX) => false,
    };
    standby.kill().unwrap();
    standby.wait().unwrap();
    assert!(said, "{WATCHES_MAX} watches, and no word of it");
}

#[tokio::test]
async fn watches_that_end_or_were_compacted_are_said_and_nothing_is_missed() {
    let Some(etcd) = Etcd::start() else { return };
    let mut site = cluster(&etcd, "2", 2);
    let body = question("Tell me a story about a lighthouse.", 40);
    let expected = site.chat(body.clone()).await;
    for (mishap, complaint) in
        [(Mishap::Ends, "ended the stream"), (Mishap::Compacted, "compacted")]
    {
        let between = Between::start(&etcd, mishap).await;
        says(&between, complaint).await;
        // The next to lead, who hears of no change by itself.
        let arguments = ["coordinator", "--port", "0", "--world", "2", "--standby", "--etcd"];
        let mut arguments = Vec::from(arguments.map(str::to_owned));
        arguments.push(between.url());
        site.front.signal("KILL");
        let next = tokio::task::spawn_blocking(move || {
            Process::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), "    -d")
        });
        site = Site::of(next.await.unwrap(), site.workers);
        assert_eq!(site.chat(body.clone()).await, expected);
        let (old, new) = (site.workers.remove(0), member(&etcd));
        let drain = ["drain", &address(&old), "--etcd", &between.url()].map(str::to_owned);
        let drained = tokio::task::spawn_blocking(move || {
            fixture::program(env!("CARGO_BIN_EXE_arcmesh")).args(drain).output().unwrap()
        });
        let drained = drained.await.unwrap();
        assert!(drained.status.success(), "{drained:?}");
        drop(old);
        site.workers.push(new);
        ranks(&site, 2).await;
        assert_eq!(site.chat(body.clone()).await, expected);
    }
}
