//! What workers do when something goes wrong.

use proto::worker::step_failure::Kind;
use tonic::Code;

use crate::site::{Group, Model, PROMPT, Worker, generate, heartbeat};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_peer_is_named_and_a_new_group_says_the_same() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 3).await;
    let mut group = Group::form(&model, &mut workers, 1).await;
    let answer = generate(&mut group, 1, &PROMPT, 6).await;

    let mut group = Group::form(&model, &mut workers, 2).await;
    assert_eq!(generate(&mut group, 2, &PROMPT, 3).await, answer[..3]);
    let lost = workers.remove(1);
    drop(group.steps.remove(1));
    lost.stop().await.unwrap();
    let replies = group.step(&heartbeat(2, 4)).await;
    for reply in &replies {
        let failure = reply.failure.as_ref().unwrap();
        assert_eq!(failure.kind(), Kind::PeerLost, "{failure:?}");
    }
    let messages = replies.iter().map(|reply| &reply.failure.as_ref().unwrap().message);
    assert!(messages.clone().any(|text| text.contains("lost rank 1")), "{replies:?}");
    let refused = group.steps[0].step(&heartbeat(2, 5)).await;
    let text = &refused.failure.unwrap().message;
    assert!(text.starts_with("epoch 2 is over: rank 0: "), "{text}");

    workers.push(Worker::start(&model).await);
    let mut group = Group::form(&model, &mut workers, 3).await;
    assert_eq!(generate(&mut group, 3, &PROMPT, 6).await, answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_gets_no_step_is_named_when_the_deadline_passes() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 2).await;
    let mut group = Group::form(&model, &mut workers, 1).await;
    let mut request = heartbeat(1, 1);
    request.deadline_ms = 100;
    let failure = group.steps[0].step(&request).await.failure.unwrap();
    assert_eq!(failure.kind(), Kind::PeerLost);
    assert!(failure.message.contains("rank 1 was silent for 100 ms"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_still_forming_gives_way_to_a_newer_one() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 2).await;
    let peers: Vec<String> = workers.iter().map(|worker| worker.address.clone()).collect();
    let mut client = workers[0].client.clone();
    // Rank 1 is never told.
    let mut waiting = client.load(model.order(1, 0, &peers, 2)).await.unwrap().into_inner();
    let mut group = Group::form(&model, &mut workers, 2).await;
    let gave_way = waiting.message().await.unwrap_err();
    assert_eq!(gave_way.code(), Code::Aborted, "{gave_way}");
    assert_eq!(gave_way.message(), "epoch 1 is over: this worker has seen epoch 2");
    assert_eq!(generate(&mut group, 2, &PROMPT, 2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stream_of_steps_takes_over() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 1).await;
    let mut group = Group::form(&model, &mut workers, 1).await;
    assert_eq!(group.step(&heartbeat(1, 1)).await[0].failure, None);
    let mut second = workers[0].open_steps().await;
    let ended = group.steps[0].replies.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted);
    assert_eq!(ended.message(), "another stream of steps took over");
    assert_eq!(second.step(&heartbeat(1, 2)).await.failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_hangs_up_in_the_middle_of_a_step_does_no_harm() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 2).await;
    let group = Group::form(&model, &mut workers, 1).await;
    group.steps[0].send(&heartbeat(1, 1)).await;
    group.steps[1].send(&heartbeat(1, 1)).await;
    drop(group);
    let mut group = Group::form(&model, &mut workers, 2).await;
    assert_eq!(generate(&mut group, 2, &PROMPT, 2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_does_so_with_streams_open() {
    let model = Model::toy();
    let mut workers = Worker::start_all(&model, 2).await;
    let mut group = Group::form(&model, &mut workers, 1).await;
    assert_eq!(group.step(&heartbeat(1, 1)).await[0].failure, None);
    workers.pop().unwrap().stop().await.unwrap();
    let ended = group.steps[1].replies.message().await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "the worker is stopping"));
}
