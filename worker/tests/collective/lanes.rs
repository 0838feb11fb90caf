//! Which lane a group takes, and that nothing is left of how it was agreed on.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use proto::collective::Frame;
use worker::collective::grpc::FormError;
use worker::collective::{Collective, CollectiveError, Lane, LaneChoice, local};

use crate::groups::{PATIENT, Site, on_every_rank};
use crate::strangers::{call, greeting};

/// The group takes this lane, works, and has left nothing in the folder.
fn takes(site: &Site, epoch: u64, lane: Lane) {
    let ends = site.form(epoch);
    assert!(fs::read_dir(site.folder.path()).unwrap().next().is_none(), "a name is left");
    let world = ends.len() as f64;
    on_every_rank(ends, |end| {
        assert_eq!(end.lane(), lane);
        end.begin(1, PATIENT);
        let mut values = vec![1.0; 10_000];
        end.all_reduce(&mut values).unwrap();
        assert!(values.iter().all(|value| *value == world));
    });
}

#[test]
fn ranks_of_one_host_share_memory() {
    takes(&Site::sharing(2), 1, Lane::Shared);
    let site = Site::sharing(4);
    takes(&site, 1, Lane::Shared);
    takes(&site, 2, Lane::Shared);
}

#[test]
fn one_rank_that_is_told_to_use_grpc_takes_all_with_it() {
    for told in 0..3 {
        let site = Site::with(3, |rank, folder| {
            if rank == told { LaneChoice::Grpc } else { LaneChoice::Auto(folder.to_owned()) }
        });
        takes(&site, 1, Lane::Grpc);
    }
}

#[test]
fn a_rank_on_another_host_takes_all_with_it() {
    let elsewhere = tempfile::tempdir().unwrap();
    for away in 0..3 {
        let site = Site::with(3, |rank, folder| {
            let folder = if rank == away { elsewhere.path() } else { folder };
            LaneChoice::Auto(folder.to_owned())
        });
        takes(&site, 1, Lane::Grpc);
    }
    assert!(fs::read_dir(elsewhere.path()).unwrap().next().is_none(), "a name is left");
}

#[test]
fn a_system_without_shared_memory_uses_grpc() {
    let site = Site::with(2, |_, _| LaneChoice::Auto(Path::new("/nowhere/at/all").to_owned()));
    takes(&site, 1, Lane::Grpc);
}

#[test]
fn a_newer_group_ends_the_waits_of_the_one_before() {
    let site = Site::sharing(2);
    let mut old = site.form(1);
    let mut end = old.remove(0);
    let waiting = std::thread::spawn(move || {
        end.begin(1, PATIENT);
        end.all_reduce(&mut [1.0]).unwrap_err()
    });
    takes(&site, 2, Lane::Shared);
    let error = waiting.join().unwrap();
    assert!(error.to_string().ends_with("a newer group forms"), "{error}");
    drop(old);
}

#[test]
fn an_end_of_an_old_group_does_not_reach_the_new_one() {
    let site = Site::sharing(2);
    let old = site.form(1);
    let new = site.form(2);
    let late = std::thread::spawn(move || {
        on_every_rank(old, |end| {
            end.begin(1, PATIENT);
            // It may still come together by itself: nobody has told it yet.
            drop(end.all_reduce(&mut [1e9; 100]));
        });
    });
    on_every_rank(new, |end| {
        for step in 1..=100 {
            end.begin(step, PATIENT);
            let mut values = [1.0; 100];
            end.all_reduce(&mut values).unwrap();
            assert_eq!(values, [2.0; 100]);
        }
    });
    late.join().unwrap();
}

/// A rank 1 that greets rank 0 of a sharing group, and then sends these frames.
fn meets(frames: &[Frame], then: impl FnOnce(Result<Box<dyn Collective>, FormError>)) {
    let site = Site::sharing(2);
    let (board, peers) = (site.boards[0].clone(), site.peers.clone());
    let end = site.runtime.spawn(async move { board.form(7, 0, &peers, PATIENT).await });
    let frames = [&[greeting(7, 1)], frames].concat();
    let streams = loop {
        if let Ok(streams) = call(&site, 0, frames.clone()) {
            break streams;
        }
    };
    let formed = site.runtime.block_on(end).unwrap();
    assert!(fs::read_dir(site.folder.path()).unwrap().next().is_none(), "a name is left");
    then(formed);
    drop(streams);
}

#[test]
fn a_peer_that_does_not_keep_to_the_agreement_is_named() {
    let answer = Frame { index: 2, ..greeting(7, 1) };
    let wrong = [
        Frame { index: 1, ..answer.clone() },
        Frame { step: 1, ..answer.clone() },
        Frame { epoch: 6, ..answer.clone() },
        Frame { payload: Bytes::from_static(&[0xff; 9]), ..answer.clone() },
    ];
    for frame in wrong {
        meets(&[frame], |formed| {
            let error = formed.err().unwrap();
            assert!(matches!(error, FormError::Left { peer: 1, .. }), "{error}");
        });
    }
    // It says that it has the memory, and sends frames all the same.
    meets(&[answer, Frame { step: 1, ..greeting(7, 1) }], |formed| {
        let mut end = formed.unwrap();
        assert_eq!(end.lane(), Lane::Shared);
        end.begin(1, PATIENT);
        let error = end.all_reduce(&mut [1.0]).unwrap_err();
        assert!(matches!(error, CollectiveError::PeerLost { peer: 1, .. }), "{error}");
        assert!(error.to_string().ends_with("it sent what was not asked for"), "{error}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Every lane gives the same bits, whatever lengths follow one another.
    #[test]
    fn every_lane_gives_the_same_bits(
        world in 2_usize..5,
        lengths in proptest::collection::vec(0_usize..70_000, 1..6),
    ) {
        let run = |ends: Vec<Box<dyn Collective>>| {
            on_every_rank(ends, |end| {
                end.begin(1, PATIENT);
                let sums = lengths.iter().map(|length| {
                    let mut values: Vec<f64> =
                        (0..*length).map(|at| (at * 31 + end.rank() * 7) as f64 / 1024.0).collect();
                    end.all_reduce(&mut values).unwrap();
                    let mut out = Vec::new();
                    end.gather(&vec![1.5; length / 2], &mut out).unwrap();
                    (values.into_iter().map(f64::to_bits).collect::<Vec<_>>(), out)
                });
                sums.collect::<Vec<_>>()
            })
        };
        let locals = local::group(world).into_iter().map(|end| Box::new(end) as Box<dyn Collective>);
        let local = run(locals.collect());
        prop_assert_eq!(&local, &run(Site::sharing(world).form(1)));
        prop_assert_eq!(&local, &run(Site::new(world).form(1)));
    }
}
