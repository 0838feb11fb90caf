//! The next step is with the ranks before the one that runs is done, and nobody is worse off.

use std::time::Duration;

use coordinator::{Member, MemberRequest, Patience};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use crate::fleet::{
    Fleet, Question, STEP_TIME, assert_undisturbed, fleet, limits, questions, read, start_with,
};
use crate::oracle::Oracle;

/// One way between coordinator and rank.
const WAY: Duration = Duration::from_millis(5);

/// The same member, at the end of a line on which every message takes a while.
fn far(member: Member) -> Member {
    let (requests, mut asked) = mpsc::channel(1);
    let there = member.requests;
    tokio::spawn(async move {
        while let Some(request) = asked.recv().await {
            let request = match request {
                MemberRequest::Step { request, reply } => {
                    let (back, answer) = oneshot::channel();
                    tokio::spawn(async move {
                        if let Ok(answer) = answer.await {
                            sleep(WAY).await;
                            drop(reply.send(answer));
                        }
                    });
                    sleep(WAY).await;
                    MemberRequest::Step { request, reply: back }
                }
                other => other,
            };
            there.send(request).await.unwrap();
        }
    });
    Member { requests, ..member }
}

async fn far_fleet(world: usize) -> Fleet {
    let oracles: Vec<_> = (0..world).map(|_| Oracle::new(STEP_TIME)).collect();
    let members = oracles.iter().enumerate().map(|(at, oracle)| far(oracle.member(at)));
    let members: Vec<_> = members.collect();
    let mut fleet = start_with(members, oracles, limits(1000), Patience::default());
    fleet.ready().await;
    fleet
}

/// Answers that go on for long.
fn long(count: usize) -> Vec<Question> {
    let asked = (0..400).map(|seed| Question { seed, ..Question::new(10, 120) });
    asked.filter(|question| question.undisturbed()[0].len() > 60).take(count).collect()
}

#[tokio::test(start_paused = true)]
async fn ranks_wait_for_no_step_while_answers_go_on() {
    let fleet = far_fleet(2).await;
    let questions = long(8);
    assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
    let steps = fleet.value("vllm:iteration_tokens_total_count");
    let ahead = fleet.value("arcmesh_steps_ahead_total");
    assert!(steps > 60.0 && ahead > 0.9 * steps, "{ahead} of {steps} steps were sent ahead");
    let waited = fleet.value("arcmesh_step_idle_seconds_sum");
    let counted = fleet.value("arcmesh_step_idle_seconds_count");
    assert!(counted > 0.9 * steps, "{counted} of {steps}");
    // Each step that is not sent ahead is a way there and a way back.
    assert!(waited < 0.1 * counted * 2.0 * WAY.as_secs_f64(), "{waited} s in {counted} steps");
    assert!(fleet.value("arcmesh_slices_void_total") > 0.5, "somebody ended before he had to");
    assert!(fleet.value("vllm:kv_cache_usage_perc") < 1e-9, "a block was not given back");
}

#[tokio::test(start_paused = true)]
async fn a_step_lasts_from_the_end_of_the_one_before_it() {
    let fleet = far_fleet(1).await;
    let question = long(1);
    assert_undisturbed(&question, &fleet.ask_all(&question).await);
    let phase = "{phase=\"decode\"}";
    let lasted = fleet.value(&format!("arcmesh_step_duration_seconds_sum{phase}"));
    let steps = fleet.value(&format!("arcmesh_step_duration_seconds_count{phase}"));
    let mean = lasted / steps;
    assert!((mean - STEP_TIME.as_secs_f64()).abs() < 0.001, "{mean} s");
}

#[tokio::test(start_paused = true)]
async fn who_comes_waits_for_the_step_that_runs_and_one_more() {
    let fleet = fleet(2, 1000).await;
    let running = long(3);
    let (told, waited) = tokio::join!(fleet.ask_all(&running), async {
        let mut waited = Vec::new();
        for ms in [105, 210, 331] {
            sleep(Duration::from_millis(ms)).await;
            let came = Instant::now();
            let mut answer = fleet.submit(&Question::new(7, 1)).await.unwrap();
            answer.next().await.unwrap();
            waited.push(came.elapsed());
            read(answer, 1).await;
        }
        waited
    });
    assert_undisturbed(&running, &told);
    for waited in waited {
        assert!(waited <= 3 * STEP_TIME + Duration::from_millis(1), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rank_that_is_lost_with_a_step_ahead_changes_no_answer() {
    for nth in 20..30 {
        let fleet = far_fleet(2).await;
        let steps = fleet.oracles[1].steps().0;
        fleet.oracles[1].faults(|faults| faults.dies_in = Some(steps + nth));
        let questions = [long(4), questions(6)].concat();
        assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
        let lost = fleet.value("arcmesh_group_reforms_total{cause=\"lost\"}");
        assert!((lost - 1.0).abs() < 1e-9, "{lost}");
        assert!(fleet.value("arcmesh_steps_ahead_total") > 10.5);
    }
}
