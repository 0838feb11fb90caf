//! What workers do when all is well, and what they refuse.

use proto::worker::step_failure::Kind;
use proto::worker::{Slice, StepFailure, StepReply, StepRequest};
use tonic::Code;

use crate::site::{Group, Model, PROMPT, Steps, Worker, extend, generate, heartbeat};

fn refusal(reply: &StepReply) -> &str {
    let StepFailure { message, .. } = reply.failure.as_ref().unwrap();
    assert_eq!(reply.failure.as_ref().unwrap().kind(), Kind::Refused, "{message}");
    message
}

/// The step after one that samples one sequence, which goes on at `start`.
fn follow(epoch: u64, step: u64, start: u32) -> StepRequest {
    let mut request = extend(epoch, step, start, &[0]);
    request.slices[0] = Slice { tokens: vec![], follows: Some(0), ..request.slices[0].clone() };
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_every_size_give_the_same_tokens() {
    let model = Model::toy();
    let mut answers = Vec::new();
    for world in 1..=3 {
        let mut workers = Worker::start_all(&model, world).await;
        let mut group = Group::form(&model, &mut workers, 1).await;
        answers.push(generate(&mut group, 1, &PROMPT, 12).await);
    }
    assert_eq!(answers[0].len(), 12);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_what_it_is_and_which_epoch_it_is_in() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 2).await;
    let fresh = workers[0].describe().await;
    assert_eq!(fresh.version, env!("CARGO_PKG_VERSION"));
    assert_eq!((fresh.model.as_str(), fresh.node.as_str(), fresh.epoch), ("toy", "here", 0));
    assert_eq!(fresh.model_digest, model.checkpoint.digest());
    assert_eq!(fresh.backend, "candle");
    assert!(fresh.memory_bytes > 0);
    let _group = Group::form(&model, &mut workers, 7).await;
    assert_eq!(workers[1].describe().await.epoch, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rank_reserved_is_in_the_last_progress() {
    let model = Model::toy();
    let mut worker = Worker::start(&model).await;
    let loaded = worker.load(model.order(1, 0, &[], 1)).await.unwrap();
    assert_eq!((loaded.kv_blocks, loaded.swap_blocks), (10, 2));
    assert!(loaded.weight_bytes > 0 && loaded.kv_cache_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_next_step_of_the_epoch_is_done() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 1).await;
    let mut steps = workers[0].open_steps().await;
    let early = steps.step(&heartbeat(1, 1)).await;
    assert_eq!(refusal(&early), "a step of epoch 1 at epoch 0");

    drop(Group::form(&model, &mut workers, 3).await);
    let mut steps = workers[0].open_steps().await;
    assert_eq!(steps.step(&heartbeat(3, 1)).await.failure, None);
    refusal(&steps.step(&heartbeat(3, 1)).await);
    refusal(&steps.step(&heartbeat(3, 3)).await);
    assert_eq!(refusal(&steps.step(&heartbeat(2, 2)).await), "a step of epoch 2 at epoch 3");
    refusal(&steps.step(&extend(3, 2, 0, &[99_999])).await);
    // None of that did any harm.
    assert_eq!(steps.step(&heartbeat(3, 2)).await.failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_step_may_be_sent_while_one_runs_and_follows_it() {
    let model = Model::toy();
    for world in [1, 2] {
        let mut workers = Worker::start_all(&model, world).await;
        let mut group = Group::form(&model, &mut workers, 1).await;
        let expected = generate(&mut group, 1, &PROMPT, 8).await;
        let mut group = Group::form(&model, &mut workers, 2).await;
        let start = u32::try_from(PROMPT.len()).unwrap();
        let send = async |steps: &[Steps], request: StepRequest| {
            for rank in steps {
                rank.send(&request).await;
            }
        };
        send(&group.steps, extend(2, 1, 0, &PROMPT)).await;
        let mut tokens = Vec::new();
        for step in 1..=8 {
            send(&group.steps, follow(2, step + 1, start + u32::try_from(step).unwrap() - 1)).await;
            for (rank, steps) in group.steps.iter_mut().enumerate() {
                let reply = steps.replies.message().await.unwrap().unwrap();
                assert_eq!((reply.step, &reply.failure), (step, &None), "rank {rank}");
                tokens.extend(reply.tokens);
            }
        }
        assert_eq!(tokens, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_was_sent_ahead_fails_with_the_one_before_it() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 1).await;
    let mut group = Group::form(&model, &mut workers, 1).await;
    let steps = &mut group.steps[0];
    steps.send(&extend(1, 1, 0, &[99_999])).await;
    steps.send(&follow(1, 2, 1)).await;
    let message = steps.replies.message().await.unwrap().unwrap();
    assert!(refusal(&message).contains("has token 99999"));
    let message = steps.replies.message().await.unwrap().unwrap();
    assert_eq!(refusal(&message), "rank 0: step 2 came where step 1 was due");
    // Nothing to follow, and no harm done.
    let alone = steps.step(&follow(1, 1, 1)).await;
    assert!(refusal(&alone).ends_with("follows token 0 of the step before, which gives 0"));
    assert_eq!(steps.step(&heartbeat(1, 1)).await.failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_not_newer_is_refused() {
    let model = Model::toy();
    let mut worker = Worker::start(&model).await;
    worker.load(model.order(5, 0, &[], 1)).await.unwrap();
    for epoch in [0, 4, 5] {
        let refused = worker.load(model.order(epoch, 0, &[], 1)).await.unwrap_err();
        assert!(matches!(refused.code(), Code::FailedPrecondition | Code::InvalidArgument));
    }
    let mut steps = worker.open_steps().await;
    assert_eq!(steps.step(&heartbeat(5, 1)).await.failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_is_refused_and_both_are_named() {
    let model = Model::toy();
    let mut worker = Worker::start(&model).await;
    let mut order = model.order(1, 0, &[], 1);
    order.model_digest = vec![0xab; 32];
    let refused = worker.load(order).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let text = refused.message();
    assert!(text.starts_with("this worker has toy, whose files are "), "{text}");
    assert!(text.ends_with("the group is for files abababababababab"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_makes_no_sense_is_refused() {
    let model = Model::toy();
    let mut worker = Worker::start(&model).await;
    let peers = [worker.address.clone()];
    let mut no_shard = model.order(1, 0, &[], 1);
    no_shard.shard = None;
    let orders = [no_shard, model.order(1, 2, &[], 2), model.order(1, 0, &peers, 2)];
    for order in orders {
        assert_eq!(worker.load(order).await.unwrap_err().code(), Code::InvalidArgument);
    }
    // Addresses are missing: it cannot meet anybody.
    let refused = worker.load(model.order(1, 0, &[], 2)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_is_said_with_numbers() {
    let model = Model::toy();
    let mut worker = Worker::start(&model).await;
    let mut order = model.order(1, 0, &[], 1);
    order.kv_blocks = 200_000_000;
    let refused = worker.load(order).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let mut steps = worker.open_steps().await;
    let reply = steps.step(&heartbeat(1, 1)).await;
    assert!(refusal(&reply).starts_with("epoch 1 is over: "), "{reply:?}");
    // It can still be loaded.
    worker.load(model.order(2, 0, &[], 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_load_ends_the_epoch_and_the_rank_may_change() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 2).await;
    let mut old = Group::form(&model, &mut workers, 1).await;
    let before = generate(&mut old, 1, &PROMPT, 5).await;
    workers.reverse();
    let mut new = Group::form(&model, &mut workers, 2).await;
    assert_eq!(generate(&mut new, 2, &PROMPT, 5).await, before);
}
