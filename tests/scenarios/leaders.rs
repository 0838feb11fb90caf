//! Coordinators that come and go over the same workers.

use crate::etcd::Etcd;
use crate::membership::{cluster, member, ranks};
use crate::process::Process;
use crate::site::{Site, address, question, read, streaming};

#[tokio::test]
async fn a_standby_takes_the_workers_over_and_the_one_before_it_steps_down() {
    let Some(etcd) = Etcd::start() else { return };
    let mut site = cluster(&etcd, "2", 2);
    let body = question("Tell me a story about a lighthouse.", 60);
    let undisturbed = site.chat(body.clone()).await;
    // Who leads does not give its place to a second one that was not told to wait.
    let url = etcd.url();
    let arguments = ["coordinator", "--port", "0", "--etcd", &url, "--world", "2"];
    let second = fixture::program(env!("CARGO_BIN_EXE_arcmesh")).args(arguments).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("--standby"), "{said}");
    // Stopped, it loses its place; what it says once it goes on counts no more.
    site.front.signal("STOP");
    let standby = [&arguments[..], &["--standby"]].concat();
    let took_over = std::time::Instant::now();
    let next = Site::of(Process::start(&standby, "    -d"), Vec::new());
    println!("ready {:.1} s after it was started", took_over.elapsed().as_secs_f64());
    assert_eq!(next.chat(body.clone()).await, undisturbed);
    site.front.signal("CONT");
    assert!(!site.front.end_by_itself(), "it was deposed");
    assert_eq!(next.chat(body).await, undisturbed);
}

#[tokio::test]
async fn workers_are_replaced_one_by_one_and_no_request_is_lost() {
    let Some(etcd) = Etcd::start() else { return };
    let mut site = cluster(&etcd, "2", 2);
    let body = question("Tell me a story about a lighthouse.", 120);
    let undisturbed = site.chat(body.clone()).await;
    for _ in 0..2 {
        let new = member(&etcd);
        let mut old = site.workers.remove(0);
        let response = site.post("/v1/chat/completions", &streaming(body.clone())).await;
        let told = read(response, |pieces| {
            if pieces == 8 {
                let drained = fixture::program(env!("CARGO_BIN_EXE_arcmesh"))
                    .args(["drain", &address(&old), "--etcd", &etcd.url()])
                    .output()
                    .unwrap();
                assert!(drained.status.success(), "{drained:?}");
            }
        });
        assert_eq!(told.await, undisturbed);
        assert!(old.end());
        site.workers.push(new);
        ranks(&site, 2).await;
    }
    let unknown = fixture::program(env!("CARGO_BIN_EXE_arcmesh"))
        .args(["drain", "nobody", "--etcd", &etcd.url()])
        .output()
        .unwrap();
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("no worker nobody is announced"));
}
