//! From the first group to the last answer.

use std::time::Duration;

use coordinator::{ConfigError, EngineError, EngineState, Patience, ServingLimits, SubmitError};
use scheduler::Refusal;
use tokio::time::{Instant, sleep};

use crate::fleet::{
    CONTEXT, Fleet, Question, assert_undisturbed, fleet, fleet_with, limits, questions,
};
use crate::oracle::WEIGHT_BYTES;

async fn end(fleet: Fleet) -> Result<(), EngineError> {
    fleet.task.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_accepted_before_every_rank_is_there() {
    let mut fleet = fleet_with(2, limits(100), Patience::default());
    fleet.oracles[1].faults(|faults| faults.away = true);
    sleep(Duration::from_secs(300)).await;
    let refused = fleet.submit(&Question::new(3, 3)).await.unwrap_err();
    assert!(matches!(refused, SubmitError::NotReady(_)));
    assert!(!fleet.state.borrow().is_ready());
    fleet.oracles[1].faults(|faults| faults.away = false);
    let capacity = fleet.ready().await;
    assert_eq!((capacity.world, capacity.blocks), (2, 100));
    assert_eq!(capacity.model_len_max, CONTEXT);
    assert_eq!(capacity.weight_bytes, 2 * WEIGHT_BYTES);
    let questions = questions(5);
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
}

#[tokio::test(start_paused = true)]
async fn loading_tells_how_far_all_ranks_are() {
    let mut fleet = fleet_with(3, limits(100), Patience::default());
    let loaded = 3 * WEIGHT_BYTES;
    let seen = fleet
        .state
        .wait_for(|state| {
            *state == EngineState::Loading { bytes_done: loaded, bytes_total: loaded }
        })
        .await;
    assert!(seen.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_rank_takes_what_its_memory_holds_and_too_little_in_all_is_refused_with_numbers() {
    let mut enough = fleet_with(2, limits(100), Patience::default());
    for (oracle, memory_bytes) in enough.oracles.iter().zip([1400, 900]) {
        oracle.faults(|faults| faults.memory_bytes = memory_bytes);
    }
    // Of one host: half of what each says that there is.
    enough.ready().await;
    assert_eq!(enough.oracles[0].shares(), [595, 405]);
    let short = fleet_with(2, limits(100), Patience::default());
    for oracle in &short.oracles {
        oracle.faults(|faults| faults.memory_bytes = 1000);
    }
    let error = end(short).await.unwrap_err().to_string();
    assert!(error.contains("take 1000 bytes, and 2 ranks have room for 900"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn another_version_is_named_with_its_rank() {
    let fleet = fleet_with(2, limits(100), Patience::default());
    fleet.oracles[1].faults(|faults| faults.version = Some("9.9.9".to_owned()));
    let error = end(fleet).await.unwrap_err().to_string();
    assert!(error.contains("rank 1 (oracle 1)") && error.contains("9.9.9"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn another_model_is_named_with_its_rank() {
    let fleet = fleet_with(3, limits(100), Patience::default());
    fleet.oracles[2].faults(|faults| faults.digest = Some(vec![8; 32]));
    let error = end(fleet).await.unwrap_err().to_string();
    assert!(error.contains("rank 2 (oracle 2)") && error.contains("0808080808080808"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn no_rank_at_all_is_an_error() {
    let fleet = fleet_with(0, limits(100), Patience::default());
    assert!(matches!(end(fleet).await, Err(EngineError::Cluster(_))));
}

#[tokio::test(start_paused = true)]
async fn the_longest_sequence_is_what_the_cache_holds_unless_more_was_asked_for() {
    let mut small = fleet_with(1, limits(10), Patience::default());
    assert_eq!(small.ready().await.model_len_max, 40);
    let refused = small.submit(&Question::new(40, 1)).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Refused(Refusal::TooLong { .. })), "{refused:?}");

    let asked = ServingLimits { model_len_max: Some(41), ..limits(10) };
    let error = end(fleet_with(1, asked, Patience::default())).await.unwrap_err();
    let expected = ConfigError::CacheTooSmall { wanted: 41, blocks: 10, capacity: 40 };
    assert_eq!(error, EngineError::Config(expected));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let limits = ServingLimits { queue_max: 3, sequences_max: 1, ..limits(100) };
    let mut fleet = fleet_with(1, limits, Patience::default());
    fleet.ready().await;
    let mut answers = Vec::new();
    let refused = loop {
        match fleet.submit(&Question::new(10, 100)).await {
            Ok(answer) => answers.push(answer),
            Err(refused) => break refused,
        }
        assert!(answers.len() < 10);
    };
    assert_eq!(refused, SubmitError::Refused(Refusal::QueueFull { waiting: 3 }));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_running_answers_end_and_takes_no_new_ones() {
    let fleet = fleet(2, 200).await;
    let questions = questions(20);
    let (told, refused) = tokio::join!(fleet.ask_all(&questions), async {
        sleep(Duration::from_millis(50)).await;
        fleet.shutdown.cancel();
        sleep(Duration::from_millis(50)).await;
        fleet.submit(&Question::new(3, 3)).await
    });
    assert_undisturbed(&questions, &told);
    assert!(matches!(refused, Err(SubmitError::NotReady(_))));
    let state = fleet.state.clone();
    assert_eq!(end(fleet).await, Ok(()));
    assert_eq!(*state.borrow(), EngineState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_ever() {
    let patience = Patience { drain_max: Duration::from_millis(200), ..Patience::default() };
    let mut fleet = fleet_with(1, limits(200), patience);
    fleet.ready().await;
    let before = Instant::now();
    let questions = questions(40);
    let (told, ()) = tokio::join!(fleet.ask_all(&questions), async {
        sleep(Duration::from_millis(50)).await;
        fleet.shutdown.cancel();
    });
    assert!(before.elapsed() < Duration::from_millis(300), "{:?}", before.elapsed());
    assert!(told.iter().any(|told| told.failed.is_some()));
    for (question, told) in questions.iter().zip(&told) {
        match &told.failed {
            Some(message) => assert!(message.contains("shutting down"), "{message}"),
            None => assert_eq!(told.texts, question.undisturbed()),
        }
    }
    assert_eq!(end(fleet).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_while_ranks_are_waited_for_ends_at_once() {
    let fleet = fleet_with(2, limits(100), Patience::default());
    fleet.oracles[0].faults(|faults| faults.away = true);
    sleep(Duration::from_secs(5)).await;
    fleet.shutdown.cancel();
    assert_eq!(end(fleet).await, Ok(()));
}
