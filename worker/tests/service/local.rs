//! Ranks that share a process, without a socket.

use proto::worker::load_progress::State;
use worker::metrics::WorkerMetrics;
use worker::rank::{LoadFailure, Progress, Rank};

use crate::site::{Model, PROMPT, extend, heartbeat};

async fn loaded(mut progress: Progress) -> Result<(), LoadFailure> {
    while let Some(told) = progress.recv().await {
        if matches!(told?.state, Some(State::Loaded(_))) {
            return Ok(());
        }
    }
    panic!("the last message says how it ended");
}

async fn load_all(model: &Model, ranks: &[Rank], epoch: u64) {
    let loads = ranks.iter().zip(0..).map(|(rank, number)| {
        loaded(rank.load(&model.order(epoch, number, &[], ranks.len())).unwrap())
    });
    futures::future::try_join_all(loads).await.unwrap();
}

#[tokio::test]
async fn ranks_of_one_process_give_the_tokens_of_a_single_one() {
    let model = Model::toy();
    let mut answers = Vec::new();
    for world in 1..=3 {
        let metrics = WorkerMetrics::new();
        let ranks = Rank::start_local(&model.config(), &model.checkpoint, &metrics, world);
        for epoch in 1..=2 {
            load_all(&model, &ranks, epoch).await;
            let request = extend(epoch, 1, 0, &PROMPT);
            let steps = ranks.iter().map(|rank| rank.step(request.clone()));
            let replies = futures::future::join_all(steps).await;
            assert!(replies.iter().all(|reply| reply.failure.is_none()), "{replies:?}");
            answers.push((replies[0].tokens.clone(), replies[0].digest));
        }
        let text = metrics.render();
        let last = format!("outcome=\"done\",rank=\"{}\"}} 2", world - 1);
        let mut steps = text.lines().filter(|line| line.starts_with("arcmesh_worker_steps_total{"));
        assert!(steps.any(|line| line.ends_with(&last)), "{text}");
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn a_local_rank_that_is_alone_in_a_step_names_who_is_missing() {
    let model = Model::toy();
    let ranks = Rank::start_local(&model.config(), &model.checkpoint, &WorkerMetrics::new(), 2);
    load_all(&model, &ranks, 1).await;
    let mut request = heartbeat(1, 1);
    request.deadline_ms = 50;
    let failure = ranks[1].step(request).await.failure.unwrap();
    assert!(failure.message.contains("rank 0 was silent for 50 ms"), "{failure:?}");
    // The other notices at once that its peer has left.
    let failure = ranks[0].step(heartbeat(1, 1)).await.failure.unwrap();
    assert!(failure.message.contains("lost rank 1"), "{failure:?}");
    load_all(&model, &ranks, 2).await;
}
