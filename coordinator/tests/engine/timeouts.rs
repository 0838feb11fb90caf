//! Who waits too long is told so, in every state, and nobody else notices.

use std::time::Duration;

use coordinator::{Failure, Patience, ServingLimits};

use crate::fleet::{Fleet, Question, assert_undisturbed, fleet_with, limits, questions, read};

/// A question whose answer takes 100 steps of 20 ms at least.
fn long() -> Question {
    let questions = (0..).map(|seed| Question { seed, ..Question::new(3, 150) });
    let mut long = questions.filter(|question| question.undisturbed()[0].len() >= 100);
    long.next().unwrap()
}

/// One sequence at a time, and a second's patience in the queue.
async fn narrow() -> Fleet {
    let limits = ServingLimits { sequences_max: 1, ..limits(80) };
    let patience = Patience { queue_max: Duration::from_secs(1), ..Patience::default() };
    let mut fleet = fleet_with(2, limits, patience);
    fleet.ready().await;
    fleet
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_a_turn_is_told_and_who_runs_goes_on() {
    let fleet = narrow().await;
    let asked = [long(), Question::new(5, 5), Question::new(7, 5)];
    let told = fleet.ask_all(&asked).await;
    assert_undisturbed(&asked[..1], &told[..1]);
    for told in &told[1..] {
        assert_eq!(told.failure, Some(Failure::Queue));
        assert!(told.texts[0].is_empty());
    }
    assert!((fleet.value("arcmesh_timeouts_total{bound=\"queue\"}") - 2.0).abs() < 1e-9);
    assert!(fleet.value("vllm:num_requests_waiting") < 1e-9);
    assert!(fleet.value("vllm:kv_cache_usage_perc") < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn the_requests_own_bound_holds_in_the_queue_and_while_it_runs() {
    let fleet = narrow().await;
    let timeout = |millis| Some(Duration::from_millis(millis));
    let running = Question { timeout: timeout(500), ..long() };
    let queued = Question { timeout: timeout(300), ..Question::new(5, 5) };
    let patient = Question { timeout: timeout(60_000), ..Question::new(9, 12) };
    let told = fleet.ask_all(&[running.clone(), queued, patient.clone()]).await;
    assert_eq!(told[0].failure, Some(Failure::Timeout));
    assert!(!told[0].texts[0].is_empty(), "it ran");
    assert!(running.undisturbed()[0].starts_with(&told[0].texts[0]));
    assert_eq!((told[1].failure, told[1].texts[0].len()), (Some(Failure::Timeout), 0));
    assert_undisturbed(&[patient], &told[2..]);
    assert!((fleet.value("arcmesh_timeouts_total{bound=\"request\"}") - 2.0).abs() < 1e-9);
    assert!(fleet.value("vllm:kv_cache_usage_perc") < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn bounds_that_come_in_the_middle_of_a_crowd_change_no_other_answer() {
    let mut fleet = fleet_with(2, limits(60), Patience::default());
    fleet.ready().await;
    let mut questions = questions(40);
    for (at, question) in (0..).zip(&mut questions) {
        question.timeout = (at % 3 == 0).then(|| Duration::from_millis(100 + at * 20));
    }
    let told = fleet.ask_all(&questions).await;
    let given_up = told.iter().filter(|told| told.failure.is_some()).count();
    assert!(given_up > 0, "nobody was given up: the test proves nothing");
    for (question, told) in questions.iter().zip(told) {
        match told.failure {
            None => assert_undisturbed(std::slice::from_ref(question), &[told]),
            failure => {
                assert_eq!((failure, question.timeout.is_some()), (Some(Failure::Timeout), true));
            }
        }
    }
    assert!(fleet.value("vllm:kv_cache_usage_perc") < 1e-9, "a block was not given back");
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_from_the_queue_leaves_nothing_there() {
    let fleet = narrow().await;
    let running = fleet.submit(&long()).await.unwrap();
    let queued = fleet.submit(&Question::new(5, 5)).await.unwrap();
    drop(queued);
    let told = read(running, 1).await;
    assert_undisturbed(&[long()], &[told]);
    assert!(fleet.value("arcmesh_timeouts_total{bound=\"queue\"}") < 1e-9);
}
