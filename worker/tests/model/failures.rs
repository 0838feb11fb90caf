//! Whatever a request says, there is a reply; and whatever a rank suffers, it names.

use std::sync::Arc;

use checkpoint::{Checkpoint, TensorName};
use fixture::{Architecture, Toy};
use proto::worker::step_failure::Kind;
use proto::worker::{BlockPair, KvDtype, LoadRequest, ShardPlan, StepReply, StepRequest};
use worker::collective::local;
use worker::shard::Shard;
use worker::{BackendChoice, LoadOrder, Runner};

use crate::group::{Group, greedy, open, order, prompt, slice, step_of};

fn toy() -> Toy {
    Toy::new(Architecture::Llama)
}

fn failure(reply: &StepReply) -> (Kind, &str) {
    let failure = reply.failure.as_ref().expect("the step failed");
    (failure.kind(), &failure.message)
}

/// A step of one token.
fn one_token(epoch: u64, step: u64) -> StepRequest {
    StepRequest { epoch, step, ..step_of(vec![slice(&[5], 0, &[0], Some(greedy()))]) }
}

fn load(order: &LoadOrder) -> String {
    let collective = local::group(order.shard.world()).swap_remove(order.shard.rank());
    let model = open(&toy());
    Runner::load(
        BackendChoice::Candle,
        1.into(),
        &model,
        order,
        Box::new(collective),
        &mut |_, _| {},
    )
    .unwrap_err()
    .to_string()
}

#[test]
fn a_step_that_was_refused_is_still_due() {
    let mut group = Group::solo(BackendChoice::Candle, &open(&toy()));
    let runner = &mut group.runners[0];
    for (request, message) in [
        (one_token(2, 1), "rank 0: the step is of epoch 2, this rank is in epoch 3"),
        (one_token(3, 2), "rank 0: step 2 came where step 1 was due"),
        (one_token(3, 0), "rank 0: step 0 came where step 1 was due"),
        (
            StepRequest { epoch: 3, step: 1, ..step_of(vec![slice(&[9999], 0, &[0], None)]) },
            "rank 0: slice 0 has token 9999, and the vocabulary has 320",
        ),
        (
            StepRequest {
                epoch: 3,
                step: 1,
                swap_in: vec![BlockPair { from: 6, to: 0 }],
                ..Default::default()
            },
            "rank 0: a swap-in refers to block 6, and there are 6",
        ),
    ] {
        assert_eq!(failure(&runner.step(&request)), (Kind::Refused, message));
    }
    assert_eq!(runner.step(&one_token(3, 1)).failure, None);
    assert_eq!(failure(&runner.step(&one_token(3, 1))).0, Kind::Refused, "it has been done");
}

#[test]
fn a_heartbeat_goes_through_every_rank() {
    let mut group = Group::new(BackendChoice::Candle, &open(&toy()), &[1, 1, 1]);
    let reply = group.step(StepRequest::default());
    assert!(reply.tokens.is_empty());
    group.runners.pop();
    for reply in group.replies(StepRequest::default()) {
        let (kind, message) = failure(&reply);
        assert_eq!(kind, Kind::PeerLost);
        assert!(message.contains(": heartbeat: lost rank"), "{message}");
    }
}

#[test]
fn a_lost_rank_is_named_with_the_layer_and_ends_the_group() {
    let mut group = Group::new(BackendChoice::Candle, &open(&toy()), &[1, 1]);
    group.runners.pop();
    let request = step_of(vec![slice(&prompt(9, 1), 0, &[0, 1], Some(greedy()))]);
    let replies = group.replies(request);
    let (kind, message) = failure(&replies[0]);
    assert_eq!(kind, Kind::PeerLost);
    assert!(message.starts_with("rank 0: attention of layer 0: lost rank 1"), "{message}");
    let replies = group.replies(StepRequest::default());
    let ended = "rank 0: this group ended at step 1; it has to be formed anew";
    assert_eq!(failure(&replies[0]), (Kind::Refused, ended));
}

#[test]
fn a_nan_is_never_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = fixture::gguf(folder.path(), &toy());
    let bytes_of = |numbers: &[f32]| -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    };
    let norm = Checkpoint::open(&path).unwrap().vector(TensorName::OutputNorm).unwrap();
    let mut file = std::fs::read(&path).unwrap();
    let norm = bytes_of(&norm);
    let at = file.windows(norm.len()).position(|bytes| bytes == norm).unwrap();
    file[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, file).unwrap();

    let broken = Arc::new(Checkpoint::open(&path).unwrap());
    let mut group = Group::new(BackendChoice::Candle, &broken, &[1, 1]);
    let prefill = step_of(vec![slice(&prompt(9, 1), 0, &[0, 1], None)]);
    assert_eq!(group.replies(prefill)[0].failure, None, "nothing was sampled");
    let decode = step_of(vec![slice(&[3], 9, &[0, 1], Some(greedy()))]);
    for (rank, reply) in group.replies(decode).iter().enumerate() {
        let (kind, message) = failure(reply);
        assert_eq!(kind, Kind::Numeric);
        let said = "logits: a NaN or an infinity in row 0 of the step";
        assert_eq!(message, format!("rank {rank}: {said}"));
        assert!(reply.tokens.is_empty());
    }
    let reply = &group.replies(StepRequest::default())[0];
    assert_eq!(reply.failure, None, "the group goes on");
}

#[test]
fn an_order_that_cannot_be_met_says_why() {
    let fine = order(Shard::solo());
    let none = LoadOrder { kv_blocks: 0, kv_cache_bytes: 100, ..fine.clone() };
    assert_eq!(
        load(&none),
        "not one KV block of 8192 bytes fits in the 100 bytes there are for the cache"
    );
    let many = LoadOrder { kv_blocks: 500_000_000, ..fine.clone() };
    assert!(load(&many).starts_with("500000000 KV blocks and 6 swap blocks need "));
    let long = LoadOrder { model_len_max: 257, ..fine.clone() };
    assert_eq!(load(&long), "the longest sequence is 257; it may be 0 to 256");
    assert_eq!(
        load(&LoadOrder { block_size: 0, ..fine.clone() }),
        "the block size is 0; it may be 1 to 1024"
    );
    assert_eq!(load(&LoadOrder { epoch: 0, ..fine }).split(';').next(), Some("the epoch is 0"));
}

#[test]
fn a_request_to_load_becomes_an_order_or_a_sentence() {
    let model = open(&toy());
    let plan = ShardPlan { rank: 1, shares: vec![2, 1], first_layer: 0, layer_count: 2 };
    let address = |host: &str| format!("{host}:7000");
    let request = LoadRequest {
        epoch: 1,
        shard: Some(plan.clone()),
        peers: vec![address("a"), address("b")],
        block_size: 16,
        step_tokens_max: 100,
        step_sequences_max: 10,
        ..Default::default()
    };
    let read = |request: &LoadRequest| LoadOrder::from_wire(request, model.config());
    let refusal = |request| read(&request).unwrap_err().to_string();
    let order = read(&request).unwrap();
    assert_eq!((order.shard.rank(), order.shard.world()), (1, 2));
    assert_eq!((order.place_here, order.ranks_here), (0, 1));
    let same_host =
        LoadRequest { peers: vec!["[::1]:7".into(), "[::1]:8".into()], ..request.clone() };
    let place = |request| read(request).map(|order| (order.place_here, order.ranks_here));
    assert_eq!(place(&same_host), Ok((1, 2)));
    let in_process = LoadRequest { peers: vec![], ..request.clone() };
    assert_eq!(place(&in_process), Ok((1, 2)));

    assert_eq!(refusal(LoadRequest { shard: None, ..request.clone() }), "the order names no shard");
    assert_eq!(
        refusal(LoadRequest { peers: vec![address("a")], ..request.clone() }),
        "1 peers for a world of 2"
    );
    let stage = ShardPlan { first_layer: 1, layer_count: 1, ..plan.clone() };
    assert_eq!(
        refusal(LoadRequest { shard: Some(stage), ..request.clone() }),
        "layers 1 to 2 of 2 were asked for; a rank holds them all"
    );
    let stranger = ShardPlan { rank: 2, ..plan };
    assert_eq!(refusal(LoadRequest { shard: Some(stranger), ..request }), "rank 2 is not one of 2");
}

#[test]
fn a_cache_that_a_backend_does_not_keep_is_refused_before_anything_is_loaded() {
    let order = LoadOrder { kv_dtype: KvDtype::Q8, ..order(Shard::solo()) };
    let collective = Box::new(worker::collective::solo::SoloCollective);
    let mut progress = |_, _| panic!("something was loaded");
    let choice = BackendChoice::Candle;
    let refused = Runner::load(choice, 1.into(), &open(&toy()), &order, collective, &mut progress);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the candle backend has no KV cache of type q8_0; cpu and opencl have"
    );
}

#[test]
fn loading_tells_how_far_it_is() {
    let model = open(&toy());
    let mut heard = Vec::new();
    let collective = Box::new(worker::collective::solo::SoloCollective);
    let order = order(Shard::solo());
    let mut progress = |done, total| heard.push((done, total));
    let choice = BackendChoice::Candle;
    let runner = Runner::load(choice, 1.into(), &model, &order, collective, &mut progress).unwrap();
    let total = runner.loaded().weight_bytes;
    assert_eq!(heard.last(), Some(&(total, total)));
    assert!(heard.is_sorted() && heard.iter().all(|&(_, of)| of == total));
}
