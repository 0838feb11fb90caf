//! Nothing that happens beside an answer changes it.

use coordinator::AnswerEvent;
use scheduler::{CancelReason, FinishReason, LengthLimit};

use crate::fleet::{Question, assert_undisturbed, fleet, questions, read};

#[tokio::test(start_paused = true)]
async fn many_answers_at_once_are_what_each_would_be_alone() {
    let fleet = fleet(2, 1000).await;
    let questions = questions(60);
    let told = fleet.ask_all(&questions).await;
    assert_undisturbed(&questions, &told);
    assert!(fleet.value("vllm:num_preemptions_total") < 0.5);
}

#[tokio::test(start_paused = true)]
async fn preemption_changes_no_answer() {
    let fleet = fleet(3, 60).await;
    let questions = questions(60);
    let told = fleet.ask_all(&questions).await;
    assert_undisturbed(&questions, &told);
    assert!(fleet.value("vllm:num_preemptions_total") > 0.5, "the cache was not small enough");
    assert!(fleet.value("vllm:kv_cache_usage_perc") < 1e-9, "a block was not given back");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_answer_ends_with_the_reason_and_leaves_the_others_alone() {
    let fleet = fleet(2, 80).await;
    let others = questions(20);
    let cancelled = Question::new(10, 150);
    let mut answer = fleet.submit(&cancelled).await.unwrap();
    let (told, reason) = tokio::join!(fleet.ask_all(&others), async {
        assert!(matches!(answer.next().await, Some(AnswerEvent::Token { .. })));
        answer.cancel(CancelReason::Stop).await;
        read(answer, 1).await.reasons[0]
    });
    assert_eq!(reason, Some(FinishReason::Stop(None)));
    assert_undisturbed(&others, &told);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_holds_any_more_frees_its_blocks() {
    let fleet = fleet(1, 80).await;
    let mut answer = fleet.submit(&Question::new(10, 150)).await.unwrap();
    answer.next().await.unwrap();
    drop(answer);
    let told = fleet.ask_all(&[Question::new(3, 5)]).await;
    assert_undisturbed(&[Question::new(3, 5)], &told);
    assert!(fleet.value("vllm:kv_cache_usage_perc") < 1e-9);
    let aborted = fleet.value("vllm:request_success_total{finished_reason=\"abort\"}");
    assert!((aborted - 1.0).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_was_withdrawn_before_it_was_answered_leaves_nothing() {
    let fleet = fleet(1, 80).await;
    let question = Question::new(10, 150);
    {
        let submitting = fleet.submit(&question);
        tokio::pin!(submitting);
        // Polled once: it is in the engine's queue, and its asker is gone before the engine looks.
        assert!(futures::poll!(submitting.as_mut()).is_pending());
    }
    let told = fleet.ask_all(&[Question::new(3, 5)]).await;
    assert_undisturbed(&[Question::new(3, 5)], &told);
    assert!(fleet.value("vllm:num_requests_running") < 1e-9);
    assert!(fleet.value("vllm:kv_cache_usage_perc") < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_costs_only_itself() {
    let mut limits = crate::fleet::limits(200);
    limits.unread_max = 8;
    let mut fleet = crate::fleet::fleet_with(2, limits, coordinator::Patience::default());
    fleet.ready().await;
    let long = (0..200)
        .map(|seed| Question { seed, ..Question::new(10, 150) })
        .find(|question| question.undisturbed()[0].len() > 40)
        .unwrap();
    let slow = fleet.submit(&long).await.unwrap();
    let other = questions(8);
    // All others are read as they come; this one only once they have ended.
    let told = fleet.ask_all(&other).await;
    assert_undisturbed(&other, &told);
    let mut waited = fleet.state.clone();
    tokio::select! {
        // Nothing changes the state: time passes until the answer was cut off.
        _ = waited.changed() => unreachable!("the engine stays ready"),
        () = tokio::time::sleep(std::time::Duration::from_secs(60)) => {}
    }
    let told = read(slow, 1).await;
    assert!(told.failed.unwrap().contains("not read fast enough"));
    assert_eq!(told.texts[0], long.undisturbed()[0][..8]);
    assert!((fleet.value("arcmesh_slow_readers_total") - 1.0).abs() < 1e-9);
    let failed = fleet.value("vllm:request_success_total{finished_reason=\"error\"}");
    assert!((failed - 1.0).abs() < 1e-9);
    assert!(fleet.value("vllm:kv_cache_usage_perc") < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn the_limit_that_ended_a_sequence_is_told() {
    let fleet = fleet(1, 200).await;
    let endless = (0..200)
        .map(|seed| Question { seed, ..Question::new(190, 150) })
        .find(|question| question.undisturbed()[0].len() == 10 && question.undisturbed()[0][9] != 0)
        .unwrap();
    let short = Question { tokens_max: 3, ..endless.clone() };
    let told = fleet.ask_all(&[endless, short]).await;
    assert_eq!(told[0].reasons[0], Some(FinishReason::Length(LengthLimit::Context)));
    assert_eq!(told[1].reasons[0], Some(FinishReason::Length(LengthLimit::Request)));
    for limit in ["context", "request"] {
        let series = format!("arcmesh_length_finish_total{{limit=\"{limit}\"}}");
        assert!((fleet.value(&series) - 1.0).abs() < 1e-9);
    }
}
