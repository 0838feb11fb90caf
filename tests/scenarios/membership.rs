//! Workers that find their coordinator through etcd.

use crate::etcd::Etcd;
use crate::process::Process;
use crate::site::{Site, question, read, streaming, until};

pub(crate) fn member(etcd: &Etcd) -> Process {
    Process::start(&["worker", "--etcd", &etcd.url(), "--threads", "1"], "worker on ")
}

/// A coordinator of a group of `world`, with `workers` announced.
pub(crate) fn cluster(etcd: &Etcd, world: &str, workers: usize) -> Site {
    let workers: Vec<_> = (0..workers).map(|_| member(etcd)).collect();
    let arguments = ["coordinator", "--port", "0", "--etcd", &etcd.url(), "--world", world];
    Site::of(Process::start(&arguments, "    -d"), workers)
}

/// Waits until the group has this many ranks.
pub(crate) async fn ranks(site: &Site, count: usize) {
    let wanted = format!(" {count}");
    let has = async || {
        let metrics = site.page("/metrics").await;
        let is_ready =
            |line: &&str| line.starts_with("arcmesh_members") && line.contains("\"ready\"");
        metrics.lines().find(is_ready).unwrap().ends_with(&wanted)
    };
    until(&format!("the group has {count} ranks"), has).await;
}

#[tokio::test]
async fn spares_take_the_places_of_ranks_that_die_and_no_text_changes() {
    let Some(etcd) = Etcd::start() else { return };
    let mut site = cluster(&etcd, "2", 3);
    let body = question("Tell me a story about a lighthouse.", 120);
    let undisturbed = site.chat(body.clone()).await;
    for lost in [0, 1] {
        let response = site.post("/v1/chat/completions", &streaming(body.clone())).await;
        let mut workers = std::mem::take(&mut site.workers);
        let disturbed = read(response, |pieces| {
            if pieces == 8 {
                workers[lost].kill();
            }
        });
        assert_eq!(disturbed.await, undisturbed);
        // Whoever is left serves alone; who comes then joins.
        site.workers = workers;
    }
    let joined = member(&etcd);
    ranks(&site, 2).await;
    assert_eq!(site.chat(body).await, undisturbed);
    drop(joined);
}

#[tokio::test]
async fn an_etcd_that_is_away_stops_nothing_and_is_told_again_when_it_is_back_empty() {
    let Some(mut etcd) = Etcd::start() else { return };
    let mut site = cluster(&etcd, "2", 2);
    let body = question("Tell me a story about a lighthouse.", 120);
    let undisturbed = site.chat(body.clone()).await;
    let response = site.post("/v1/chat/completions", &streaming(body.clone())).await;
    let read_on = read(response, |pieces| {
        if pieces == 8 {
            etcd.kill();
        }
    });
    assert_eq!(read_on.await, undisturbed);
    // A rank is lost while etcd is away: who is left goes on alone.
    let response = site.post("/v1/chat/completions", &streaming(body.clone())).await;
    let mut lost = site.workers.remove(1);
    let read_on = read(response, |pieces| {
        if pieces == 8 {
            lost.kill();
        }
    });
    assert_eq!(read_on.await, undisturbed);
    etcd.restart_empty();
    site.workers.push(member(&etcd));
    ranks(&site, 2).await;
    assert_eq!(site.chat(body).await, undisturbed);
}
