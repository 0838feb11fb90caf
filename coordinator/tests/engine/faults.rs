//! Whatever happens to a rank, an answer is what it would have been, or its reader is told.

use std::time::Duration;

use coordinator::{EngineState, EpochAsked, Patience, Roster, SubmitError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::fleet::{
    Fleet, Question, STEP_TIME, assert_undisturbed, fleet, fleet_with, limits, questions,
    start_with,
};
use crate::oracle::Oracle;

fn assert_count(fleet: &Fleet, series: &str, count: f64) {
    let found = fleet.value(series);
    assert!((found - count).abs() < 1e-9, "{series} is {found}, not {count}");
}

/// Who is left waits for the others.
fn never_smaller() -> Patience {
    Patience { shrink_after: Duration::from_secs(3600), ..Patience::default() }
}

#[tokio::test(start_paused = true)]
async fn who_is_left_goes_on_alone_until_the_lost_rank_is_back() {
    let mut fleet = fleet(2, 200).await;
    let questions = questions(20);
    let (told, ()) = tokio::join!(fleet.ask_all(&questions), async {
        sleep(Duration::from_millis(50)).await;
        fleet.oracles[0].faults(|faults| faults.away = true);
    });
    assert_undisturbed(&questions, &told);
    assert_eq!(fleet.ready().await.world, 1);
    fleet.oracles[0].faults(|faults| faults.away = false);
    let state = fleet.state.wait_for(|state| state.capacity().is_some_and(|c| c.world == 2));
    state.await.unwrap();
    fleet.ready().await;
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
    assert_count(&fleet, "arcmesh_group_reforms_total{cause=\"planned\"}", 1.0);
}

#[tokio::test(start_paused = true)]
async fn who_is_left_goes_on_within_seconds_of_a_rank_s_silence_and_takes_it_back() {
    let mut fleet = fleet(3, 200).await;
    let questions = questions(20);
    let (told, formed) = tokio::join!(fleet.ask_all(&questions), async {
        let mut state = fleet.state.clone();
        sleep(Duration::from_millis(50)).await;
        fleet.oracles[1].faults(|faults| faults.silent = true);
        state.wait_for(|state| !state.is_ready()).await.unwrap();
        let lost = Instant::now();
        state.wait_for(EngineState::is_ready).await.unwrap();
        lost.elapsed()
    });
    assert_undisturbed(&questions, &told);
    assert!(formed < Duration::from_secs(4), "who was left went on after {formed:?}");
    assert_eq!(fleet.ready().await.world, 2);
    fleet.oracles[1].faults(|faults| faults.silent = false);
    let state = fleet.state.wait_for(|state| state.capacity().is_some_and(|c| c.world == 3));
    state.await.unwrap();
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
}

#[tokio::test(start_paused = true)]
async fn a_spare_takes_the_place_of_a_lost_rank_at_once() {
    let oracles: Vec<_> = (0..3).map(|_| Oracle::new(STEP_TIME)).collect();
    let members: Vec<_> = oracles.iter().enumerate().map(|(at, o)| o.member(at)).collect();
    let roster = Roster { world: Some(2), ..Roster::fixed(members) };
    let mut fleet = start_with(roster, oracles, limits(60), Patience::default());
    fleet.ready().await;
    for lost in [1, 0] {
        let questions = questions(20);
        let (told, waited) = tokio::join!(fleet.ask_all(&questions), async {
            sleep(Duration::from_millis(50)).await;
            fleet.oracles[lost].faults(|faults| faults.away = true);
            Instant::now()
        });
        assert_undisturbed(&questions, &told);
        fleet.ready().await;
        assert!(waited.elapsed() < Patience::default().shrink_after);
        fleet.oracles[lost].faults(|faults| faults.away = false);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_was_slow_takes_less_when_the_group_forms_anew() {
    let fleet = fleet(3, 200).await;
    assert_eq!(fleet.oracles[0].shares(), [1, 1, 1]);
    for (oracle, milliseconds) in fleet.oracles.iter().zip([10, 10, 40]) {
        oracle.faults(|faults| faults.computes = Duration::from_millis(milliseconds));
    }
    let questions = questions(60);
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
    let steps = fleet.oracles[0].steps().0;
    assert!(steps > 100, "{steps} steps say nothing");
    fleet.oracles[1].faults(|faults| faults.dies_in = Some(steps + 3));
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
    // Four times as slow: a quarter of what the others take.
    for oracle in &fleet.oracles {
        assert_eq!(oracle.shares(), [444, 444, 111]);
    }
    let share = |rank| fleet.value(&format!("arcmesh_rank_share_ratio{{rank=\"{rank}\"}}"));
    assert!((share(0) - 444.0 / 999.0).abs() < 1e-9 && (share(2) - 111.0 / 999.0).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_was_away_for_many_steps_is_as_fast_as_one_that_ran_them() {
    let mut fleet = fleet(2, 200).await;
    for oracle in &fleet.oracles {
        oracle.faults(|faults| faults.computes = Duration::from_millis(10));
    }
    let questions = questions(60);
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
    fleet.oracles[1].faults(|faults| faults.away = true);
    for _ in 0..4 {
        assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
    }
    assert_eq!(fleet.oracles[0].shares(), [1]);
    fleet.oracles[1].faults(|faults| faults.away = false);
    let state = fleet.state.wait_for(|state| state.capacity().is_some_and(|c| c.world == 2));
    state.await.unwrap();
    assert_eq!(fleet.oracles[0].shares(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn epochs_are_given_out_by_whoever_keeps_them_until_another_leads() {
    let oracles: Vec<_> = (0..2).map(|_| Oracle::new(STEP_TIME)).collect();
    let members: Vec<_> = oracles.iter().enumerate().map(|(at, o)| o.member(at)).collect();
    let (epochs, mut asked) = mpsc::channel::<EpochAsked>(1);
    let roster = Roster { epochs: Some(epochs), open: true, ..Roster::fixed(members) };
    let mut fleet = start_with(roster, oracles, limits(60), Patience::default());
    let first = asked.recv().await.unwrap();
    assert_eq!(first.ranks, ["oracle 0", "oracle 1"]);
    first.reply.send(Ok(7 << 32)).unwrap();
    fleet.ready().await;
    assert_count(&fleet, "arcmesh_membership_epoch", (7_u64 << 32) as f64);
    fleet.oracles[1].faults(|faults| faults.dies_in = Some(fleet.oracles[0].steps().0 + 1));
    let second = asked.recv().await.unwrap();
    assert_eq!(second.newest, 7 << 32);
    second.reply.send(Err("another coordinator leads".to_owned())).unwrap();
    let error = fleet.task.await.unwrap().unwrap_err().to_string();
    assert_eq!(error, "another coordinator leads");
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_dies_in_any_step_and_comes_back_changes_no_answer() {
    for step in (2..30).step_by(4) {
        let fleet = fleet(3, 60).await;
        fleet.oracles[usize::try_from(step % 3).unwrap()].faults(|f| f.dies_in = Some(step));
        let questions = questions(30);
        let told = fleet.ask_all(&questions).await;
        assert_undisturbed(&questions, &told);
        assert_count(&fleet, "arcmesh_group_reforms_total{cause=\"lost\"}", 1.0);
        assert!(fleet.value("arcmesh_requests_replayed_total") > 0.5);
        assert_count(&fleet, "arcmesh_membership_epoch", 2.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_falls_silent_is_lost_after_the_deadline_and_changes_no_answer() {
    let fleet = fleet(2, 60).await;
    fleet.oracles[1].faults(|faults| faults.silent_in = Some(9));
    let questions = questions(30);
    let before = Instant::now();
    let told = fleet.ask_all(&questions).await;
    assert_undisturbed(&questions, &told);
    assert!(before.elapsed() < Duration::from_secs(60));
    assert_count(&fleet, "arcmesh_group_reforms_total{cause=\"deadline\"}", 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_dies_while_nobody_asks_is_noticed_and_replaced() {
    let mut fleet = fleet(2, 60).await;
    let (steps, _) = fleet.oracles[0].steps();
    fleet.oracles[0].faults(|faults| faults.dies_in = Some(steps + 1));
    fleet.state.wait_for(|state| !state.is_ready()).await.unwrap();
    fleet.ready().await;
    assert_count(&fleet, "arcmesh_group_reforms_total{cause=\"lost\"}", 1.0);
    assert_count(&fleet, "arcmesh_requests_replayed_total", 0.0);
    let (_, heartbeats) = fleet.oracles[0].steps();
    assert!(heartbeats >= 2, "an idle group has a heartbeat");
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_stays_away_fails_the_answers_in_time_and_is_welcome_later() {
    let mut fleet = fleet_with(2, limits(200), never_smaller());
    fleet.ready().await;
    let questions = questions(10);
    let before = Instant::now();
    let (told, ()) = tokio::join!(fleet.ask_all(&questions), async {
        sleep(Duration::from_millis(50)).await;
        fleet.oracles[1].faults(|faults| faults.away = true);
    });
    let waited = before.elapsed();
    assert!(waited > Duration::from_secs(29) && waited < Duration::from_secs(32), "{waited:?}");
    for (question, told) in questions.iter().zip(&told) {
        if told.texts != question.undisturbed() {
            let message = told.failed.clone().unwrap();
            assert!(message.contains("has not come back"), "{message}");
        }
    }
    let state = fleet.state.borrow_and_update().clone();
    let EngineState::Away { cause } = state else { panic!("{state:?}") };
    assert_eq!(cause, "rank 1 (oracle 1): connection refused");
    let refused = fleet.submit(&questions[0]).await.unwrap_err();
    assert!(matches!(refused, SubmitError::NotReady(_)), "{refused:?}");

    fleet.oracles[1].faults(|faults| faults.away = false);
    fleet.ready().await;
    let told = fleet.ask_all(&questions).await;
    assert_undisturbed(&questions, &told);
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_the_group_forms_anew_waits_for_it() {
    let mut fleet = fleet_with(2, limits(200), never_smaller());
    fleet.ready().await;
    fleet.oracles[1].faults(|faults| faults.away = true);
    fleet.state.wait_for(|state| !state.is_ready()).await.unwrap();
    let questions = questions(10);
    let (told, ()) = tokio::join!(fleet.ask_all(&questions), async {
        sleep(Duration::from_secs(10)).await;
        fleet.oracles[1].faults(|faults| faults.away = false);
    });
    assert_undisturbed(&questions, &told);
}

#[tokio::test(start_paused = true)]
async fn ranks_that_differ_once_compute_again() {
    let fleet = fleet(3, 60).await;
    fleet.oracles[2].faults(|faults| faults.differs_in = Some(12));
    let questions = questions(30);
    let told = fleet.ask_all(&questions).await;
    assert_undisturbed(&questions, &told);
    assert_count(&fleet, "arcmesh_group_reforms_total{cause=\"wrong\"}", 1.0);
    assert_count(&fleet, "vllm:corrupted_requests_total", 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_reply_of_the_wrong_shape_is_not_believed() {
    for rank in [0, 1] {
        let fleet = fleet(2, 60).await;
        fleet.oracles[rank].faults(|faults| faults.garbles_in = Some(12));
        let questions = questions(30);
        let told = fleet.ask_all(&questions).await;
        assert_undisturbed(&questions, &told);
        assert_count(&fleet, "arcmesh_group_reforms_total{cause=\"wrong\"}", 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rank_of_this_process_that_ends_fails_all_answers_and_ends_the_engine() {
    let fleet = fleet(2, 60).await;
    fleet.oracles[1].faults(|faults| faults.ends_in = Some(5));
    let told = fleet.ask_all(&questions(10)).await;
    assert!(told[9].failed.is_some());
    let error = fleet.task.await.unwrap().unwrap_err().to_string();
    assert_eq!(error, "rank 1 (oracle 1) has ended");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_always_comes_out_wrong_is_given_up_after_two_replays() {
    let fleet = fleet(2, 200).await;
    for oracle in &fleet.oracles {
        oracle.faults(|faults| faults.nan_of = Some(77));
    }
    let poison = Question { prompt: vec![1, 77], ..Question::new(2, 50) };
    let told = fleet.ask_all(&[poison]).await;
    assert!(told[0].failed.is_some());
    assert_count(&fleet, "arcmesh_group_reforms_total{cause=\"wrong\"}", 3.0);
    assert_count(&fleet, "vllm:corrupted_requests_total", 1.0);
    let questions = questions(10);
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_goes_wrong_twice_is_put_out_and_its_spare_gives_the_answer() {
    let oracles: Vec<_> = (0..3).map(|_| Oracle::new(STEP_TIME)).collect();
    let members: Vec<_> = oracles.iter().enumerate().map(|(at, o)| o.member(at)).collect();
    let roster = Roster { world: Some(2), ..Roster::fixed(members) };
    let mut fleet = start_with(roster, oracles, limits(60), Patience::default());
    fleet.ready().await;
    fleet.oracles[1].faults(|faults| faults.nan_of = Some(3));
    let questions = questions(20);
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
    assert_count(&fleet, "arcmesh_group_reforms_total{cause=\"wrong\"}", 2.0);
    assert_count(&fleet, "vllm:corrupted_requests_total", 0.0);
    assert_eq!(fleet.ready().await.world, 2);
    let before = fleet.oracles[1].steps();
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
    assert_eq!(fleet.oracles[1].steps(), before, "it takes part in nothing any more");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_kills_a_rank_every_time_is_given_up() {
    let fleet = fleet(2, 200).await;
    fleet.oracles[1].faults(|faults| faults.dies_of = Some(77));
    let poison = Question { prompt: vec![1, 77], ..Question::new(2, 50) };
    let told = fleet.ask_all(&[poison]).await;
    assert!(told[0].failed.is_some());
    assert_count(&fleet, "arcmesh_group_reforms_total{cause=\"lost\"}", 5.0);
    assert_count(&fleet, "arcmesh_requests_given_up_total", 1.0);
    let questions = questions(10);
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_dies_again_and_again_changes_no_answer() {
    let patience = Patience { reform_max: Duration::from_secs(300), ..Patience::default() };
    let mut fleet = fleet_with(2, limits(60), patience);
    fleet.ready().await;
    let questions = questions(12);
    let (told, ()) = tokio::join!(fleet.ask_all(&questions), async {
        for _ in 0..8 {
            sleep(Duration::from_millis(300)).await;
            fleet.oracles[0].faults(|faults| faults.away = true);
            sleep(Duration::from_secs(3)).await;
            fleet.oracles[0].faults(|faults| faults.away = false);
        }
    });
    assert_undisturbed(&questions, &told);
}
