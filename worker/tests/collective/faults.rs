//! What a group says when someone does not come.

use std::thread;

use worker::collective::{Collective, CollectiveError, local};

use crate::groups::{HASTY, PATIENT, blamed, local_group, on_every_rank, with_all};

#[test]
fn a_silent_rank_hits_the_deadline_and_is_named() {
    with_all(3, |mut ends| {
        let silent = ends.remove(1);
        let errors = on_every_rank(ends, |end| {
            end.begin(9, HASTY);
            end.all_reduce(&mut [1.0]).unwrap_err()
        });
        for error in errors {
            assert!(matches!(
                error,
                CollectiveError::Deadline { peer: 1, step: 9, index: 0, waited_ms: 100 }
            ));
            assert!(error.to_string().starts_with("rank 1 was silent for 100 ms in collective 0"));
        }
        drop(silent);
    });
}

#[test]
fn rank_zero_names_who_is_silent_in_a_gather() {
    with_all(3, |mut ends| {
        let silent = ends.pop();
        let results = on_every_rank(ends, |end| {
            end.begin(1, HASTY);
            end.gather(&[1.0], &mut Vec::new())
        });
        let error = results[0].as_ref().unwrap_err();
        assert!(matches!(error, CollectiveError::Deadline { peer: 2, .. }), "{error}");
        assert!(results[1].is_ok());
        drop(silent);
    });
}

#[test]
fn a_rank_that_is_gone_is_lost_and_nobody_waits_for_it() {
    with_all(3, |mut ends| {
        drop(ends.remove(1));
        let errors = on_every_rank(ends, |end| {
            end.begin(2, PATIENT);
            end.all_reduce(&mut [1.0]).unwrap_err()
        });
        // Whoever notices first leaves too, and may be the first that the other misses.
        assert!(errors.iter().all(|error| matches!(error, CollectiveError::PeerLost { .. })));
        assert!(errors.iter().any(|error| blamed(error) == 1));
    });
}

#[test]
fn a_rank_that_leaves_in_the_middle_of_a_step_is_lost() {
    with_all(2, |mut ends| {
        let mut leaver = ends.pop().unwrap();
        let leaver = thread::spawn(move || {
            leaver.begin(1, PATIENT);
            leaver.all_reduce(&mut [1.0]).unwrap();
        });
        on_every_rank(ends, |end| {
            end.begin(1, PATIENT);
            // Over gRPC a rank that leaves may take what it sent last with it.
            let error = (0..2).find_map(|_| end.all_reduce(&mut [1.0]).err()).unwrap();
            assert!(matches!(error, CollectiveError::PeerLost { peer: 1, step: 1, .. }));
        });
        leaver.join().ok();
    });
}

#[test]
fn a_rank_whose_thread_panics_is_lost() {
    let mut ends = local::group(2);
    let mut doomed = ends.pop().unwrap();
    let panicked = thread::spawn(move || {
        doomed.begin(1, PATIENT);
        doomed.all_reduce(&mut [1.0]).unwrap();
        panic!("on purpose");
    });
    ends[0].begin(1, PATIENT);
    ends[0].all_reduce(&mut [1.0]).unwrap();
    let error = ends[0].all_reduce(&mut [1.0]).unwrap_err();
    assert!(matches!(error, CollectiveError::PeerLost { peer: 1, .. }));
    assert!(panicked.join().is_err());
}

#[test]
fn ranks_in_different_steps_do_not_add_up() {
    with_all(2, |ends| {
        let errors = on_every_rank(ends, |end| {
            end.begin(4 + end.rank() as u64, PATIENT);
            end.all_reduce(&mut [1.0]).unwrap_err()
        });
        // One of them may leave before the other has looked.
        let mismatch = errors.iter().find(|e| matches!(e, CollectiveError::Mismatch { .. }));
        let text = mismatch.unwrap().to_string();
        assert!(text.contains("step 4") && text.contains("step 5"), "{text}");
    });
}

#[test]
fn vectors_of_different_lengths_do_not_add_up() {
    with_all(2, |ends| {
        let errors = on_every_rank(ends, |end| {
            end.begin(1, PATIENT);
            end.all_reduce(&mut vec![1.0; 3 + end.rank()]).unwrap_err()
        });
        assert!(errors.iter().any(|e| matches!(e, CollectiveError::Mismatch { .. })));
    });
}

#[test]
fn a_group_that_failed_stays_failed() {
    with_all(2, |mut ends| {
        let silent = ends.pop();
        on_every_rank(ends, |end| {
            end.begin(1, HASTY);
            let first = end.all_reduce(&mut [1.0]).unwrap_err().to_string();
            end.begin(2, PATIENT);
            assert_eq!(end.all_reduce(&mut [1.0]).unwrap_err().to_string(), first);
            assert_eq!(end.gather(&[], &mut Vec::new()).unwrap_err().to_string(), first);
        });
        drop(silent);
    });
}

#[test]
fn what_a_rank_posted_before_it_left_still_counts() {
    let mut ends = local_group(2);
    let mut leaver = ends.pop().unwrap();
    leaver.begin(1, PATIENT);
    leaver.gather(&[5.0], &mut Vec::new()).unwrap();
    drop(leaver);
    ends[0].begin(1, PATIENT);
    let mut out = Vec::new();
    ends[0].gather(&[4.0], &mut out).unwrap();
    assert_eq!(out, [[4.0], [5.0]]);
}
