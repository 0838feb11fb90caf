//! Four answers at once, and something happens to a worker: no text changes. How long the longest pause
//! was is printed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::etcd::Etcd;
use crate::membership::{cluster, member, ranks};
use crate::process::Process;
use crate::site::{Site, Streamed, question, read, streaming};

const SUBJECTS: [&str; 4] = ["a lighthouse", "a fox", "the first train", "a clock that is late"];
/// Pieces, over all answers, after which it happens.
const PIECES: usize = 24;

fn bodies() -> Vec<Value> {
    SUBJECTS.iter().map(|about| question(&format!("Tell me a story about {about}."), 90)).collect()
}

/// Streams all answers at once; `fault` strikes once they are on their way.
#[expect(clippy::print_stdout, reason = "how long it took is worth knowing")]
pub(crate) async fn disturbed(site: &Site, what: &str, fault: impl FnOnce()) -> Vec<Streamed> {
    let pieces = AtomicUsize::new(0);
    let fault = std::sync::Mutex::new(Some(fault));
    let last = std::sync::Mutex::new((Instant::now(), Duration::ZERO));
    let streams = bodies().into_iter().map(|body| async {
        let response = site.post("/v1/chat/completions", &streaming(body)).await;
        let told = |_| {
            let seen = pieces.fetch_add(1, Ordering::Relaxed);
            let mut last = last.lock().unwrap();
            if seen > PIECES {
                last.1 = last.1.max(last.0.elapsed());
            }
            last.0 = Instant::now();
            if seen == PIECES {
                (fault.lock().unwrap().take().unwrap())();
            }
        };
        read(response, told).await
    });
    let told = futures::future::join_all(streams).await;
    assert!(fault.lock().unwrap().is_none(), "nothing was disturbed");
    println!("{what}: longest pause {:.2} s", last.lock().unwrap().1.as_secs_f64());
    told
}

pub(crate) async fn undisturbed(site: &Site) -> Vec<Streamed> {
    futures::future::join_all(bodies().into_iter().map(|body| site.chat(body))).await
}

/// How often the group has formed anew.
async fn reforms(site: &Site) -> u64 {
    let metrics = site.page("/metrics").await;
    let counts = metrics.lines().filter(|line| line.starts_with("arcmesh_group_reforms_total"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_worker_that_is_killed_stopped_or_asked_to_end_is_replaced_by_a_spare() {
    let Some(etcd) = Etcd::start() else { return };
    let mut site = cluster(&etcd, "2", 3);
    let expected = undisturbed(&site).await;
    let workers = std::mem::take(&mut site.workers);
    // The first two are the ranks: they were there first. The third takes the place of whoever goes.
    let [mut first, second, third] = <[Process; 3]>::try_from(workers).unwrap();
    assert_eq!(disturbed(&site, "killed", || first.kill()).await, expected);
    let fourth = member(&etcd);
    ranks(&site, 2).await;
    assert_eq!(disturbed(&site, "stopped", || second.signal("STOP")).await, expected);
    ranks(&site, 2).await;
    // It goes on as if nothing had been, and is told that its epoch is over.
    second.signal("CONT");
    assert_eq!(undisturbed(&site).await, expected);
    let before = reforms(&site).await;
    assert_eq!(disturbed(&site, "asked to end", || third.signal("TERM")).await, expected);
    assert!(reforms(&site).await > before);
    drop(fourth);
}

#[tokio::test]
async fn a_worker_that_is_ten_times_slower_stays_and_changes_no_text() {
    let site = Site::group(2, &[]);
    let expected = undisturbed(&site).await;
    let pid = site.workers[1].id();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let told = disturbed(&site, "ten times slower", || {
        // A tenth of the time it may run.
        std::thread::spawn(move || {
            let send = |signal: &str| {
                let pid = pid.to_string();
                drop(std::process::Command::new("kill").args([signal, &pid]).status());
            };
            let wait = |ms| stopped.recv_timeout(Duration::from_millis(ms));
            for _ in 0..40 {
                send("-STOP");
                let ended = wait(90).is_ok();
                send("-CONT");
                if ended || wait(10).is_ok() {
                    return;
                }
            }
        });
    });
    assert_eq!(told.await, expected);
    drop(stop);
    assert_eq!(undisturbed(&site).await, expected);
}

#[tokio::test]
async fn a_worker_whose_memory_goes_bad_is_found_out_before_anybody_sees_a_word_of_it() {
    let site = Site::group(2, &[]);
    let expected = undisturbed(&site).await;
    let pid = site.workers[1].id();
    let mut spoilt = Ok(());
    let told = disturbed(&site, "bad memory", || spoilt = spoil(pid)).await;
    if let Err(error) = spoilt {
        eprintln!("skipped: the memory of a child cannot be written to here: {error}");
        return;
    }
    assert_eq!(told, expected);
    let metrics = site.page("/metrics").await;
    let wrong =
        |line: &&str| line.starts_with("arcmesh_group_reforms_total") && line.contains("wrong");
    let found = metrics.lines().find(wrong).expect("it was not found out");
    assert!(!found.ends_with(" 0"), "{found}");
}

/// Overwrites the middle of the largest part of a child's memory with what is no number in any format.
fn spoil(pid: u32) -> std::io::Result<()> {
    let mut maps = String::new();
    File::open(format!("/proc/{pid}/smaps")).unwrap().read_to_string(&mut maps).unwrap();
    let mut largest = (0_u64, 0_u64, 0_u64);
    let mut range = None;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let word = words.next().unwrap_or_default();
        if let Some((from, to)) = word.split_once('-') {
            let private = words.next().is_some_and(|rights| rights.starts_with("rw-p"));
            let hex = |text: &str| u64::from_str_radix(text, 16).ok();
            // Memory that is no file's.
            let own = private && words.nth(2) == Some("0");
            range = hex(from).zip(hex(to)).filter(|_| own);
        } else if word == "Rss:" {
            let resident: u64 = words.next().unwrap().parse().unwrap();
            if let Some((from, to)) = range.filter(|_| resident > largest.0) {
                largest = (resident, from, to);
            }
        }
    }
    let (_, from, to) = largest;
    let mut memory = OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"))?;
    let quarter = (to - from) / 4;
    memory.seek(SeekFrom::Start(from + quarter))?;
    memory.write_all(&vec![0xff; usize::try_from(2 * quarter).unwrap().min(16 << 20)])
}
