//! What ends a sequence.

use std::time::Duration;

use insta::assert_snapshot;
use scheduler::{
    Admission, BlockCount, Event, GroupTimes, Limits, LimitsError, NewGroup, Outcome, Policy,
    Sampling, Scheduler, TenantId, Time, TokenCount, TokenId,
};

use crate::script::trace;

#[test]
fn the_request_limits_the_answer() {
    assert_snapshot!(trace("limits generation=9; submit a prompt=2 max=2; step 2"), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    > a + 101
    step 2, 1 blocks held
      a from 2: 101 in blocks 0, seed 7
    > a + 102
    > a ends: Length(Request), 2 tokens
    > group a ends, preempted 0
    ");
}

#[test]
fn the_operator_limits_the_answer() {
    assert_snapshot!(trace("limits generation=2; submit a prompt=2 max=9; step 2"), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    > a + 101
    step 2, 1 blocks held
      a from 2: 101 in blocks 0, seed 7
    > a + 102
    > a ends: Length(Operator), 2 tokens
    > group a ends, preempted 0
    ");
}

#[test]
fn the_context_limits_the_answer() {
    assert_snapshot!(trace("limits generation=9 length=4; submit a prompt=2 max=9; step 2"), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    > a + 101
    step 2, 1 blocks held
      a from 2: 101 in blocks 0, seed 7
    > a + 102
    > a ends: Length(Context), 2 tokens
    > group a ends, preempted 0
    ");
}

#[test]
fn a_sequence_alone_fills_a_cache_smaller_than_the_context() {
    assert_snapshot!(trace("limits blocks=2; submit a prompt=5; step 3; stats"), @"
    step 1, 2 blocks held
      a from 0: 1-5 in blocks 0-1, seed 7
    > a + 101
    step 2, 2 blocks held
      a from 5: 101 in blocks 0-1, seed 7
    > a + 102
    step 3, 2 blocks held
      a from 6: 102 in blocks 0-1, seed 7
    > a + 103
    > a ends: Length(Context), 3 tokens
    > group a ends, preempted 0
    stats: 0 waiting, 0 running, 0 of 2 blocks, 0 preempted, 5 prompt tokens, 3 generated
    ");
}

#[test]
fn the_limit_named_is_the_one_nearest_to_the_request() {
    assert_snapshot!(trace("limits generation=1; submit a prompt=2 max=1; step"), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    ");
}

#[test]
fn stop_tokens_and_end_tokens_end_a_sequence() {
    assert_snapshot!(trace(
        "submit a prompt=2 stop=102; submit b prompt=2 answer=2; \
         submit c prompt=2 answer=2 ignore-end max=3; step 3"
    ), @"
    step 1, 3 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
      c from 0: 1-2 in blocks 2, seed 7
    > a + 101
    > b + 101
    > c + 101
    step 2, 3 blocks held
      a from 2: 101 in blocks 0, seed 7
      b from 2: 101 in blocks 1, seed 7
      c from 2: 101 in blocks 2, seed 7
    > a + 102
    > a ends: stop at 102, 2 tokens
    > group a ends, preempted 0
    > b + 0
    > b ends: stop at 0, 2 tokens
    > group b ends, preempted 0
    > c + 0
    step 3, 1 blocks held
      c from 3: 0 in blocks 2, seed 7
    > c + 103
    > c ends: Length(Request), 3 tokens
    > group c ends, preempted 0
    ");
}

#[test]
fn an_end_token_in_the_last_place_is_a_stop() {
    assert_snapshot!(trace("submit a prompt=2 answer=2 max=2; step 2"), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    > a + 101
    step 2, 1 blocks held
      a from 2: 101 in blocks 0, seed 7
    > a + 0
    > a ends: stop at 0, 2 tokens
    > group a ends, preempted 0
    ");
}

#[test]
fn no_token_ends_a_sequence_before_its_least_length() {
    assert_snapshot!(trace(
        "submit a prompt=2 stop=102 min=3 max=4; submit b prompt=2 answer=2 min=2; step 4"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
    > a + 101
    > b + 101
    step 2, 2 blocks held
      a from 2: 101 in blocks 0, seed 7
      b from 2: 101 in blocks 1, seed 7
    > a + 102
    > b + 0
    > b ends: stop at 0, 2 tokens
    > group b ends, preempted 0
    step 3, 1 blocks held
      a from 3: 102 in blocks 0, seed 7
    > a + 103
    step 4, 2 blocks held
      a from 4: 103 in blocks 0-1, seed 7
    > a + 104
    > a ends: Length(Request), 4 tokens
    > group a ends, preempted 0
    ");
}

#[test]
fn a_group_is_cancelled_in_every_state() {
    assert_snapshot!(trace(
        "limits sequences=2; submit a prompt=2; submit b prompt=2; submit c prompt=2; \
         cancel c; step; cancel b stop; plan; cancel a error; stats; submit d prompt=1; commit; \
         cancel a; cancel nobody; step; stats"
    ), @"
    cancel c
    > c ends: Abort, 0 tokens
    > group c ends, preempted 0
    step 1, 2 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
    > a + 101
    > b + 101
    cancel b
    > b ends: Stop(None), 1 tokens
    > group b ends, preempted 0
    step 2, 1 blocks held
      a from 2: 101 in blocks 0, seed 7
    cancel a
    > a ends: Error, 1 tokens
    > group a ends, preempted 0
    stats: 0 waiting, 0 running, 0 of 16 blocks, 0 preempted, 4 prompt tokens, 2 generated
    cancel a
    cancel nobody
    step 3, 1 blocks held
      d from 0: 1 in blocks 0, seed 7
    > d + 101
    stats: 0 waiting, 1 running, 1 of 16 blocks, 0 preempted, 5 prompt tokens, 3 generated
    ");
}

/// Milliseconds.
fn at(time: u64) -> Time {
    Time(Duration::from_millis(time))
}

fn limits() -> Limits {
    Limits {
        block_size: TokenCount(4),
        blocks: BlockCount(8),
        swap_blocks: BlockCount(0),
        sequences_max: 1,
        step_tokens_max: TokenCount(8),
        model_len_max: TokenCount(64),
        generation_max: None,
        waiting_max: 8,
        policy: Policy::Fcfs,
        admission: Admission::Expected,
        prefix_cache: false,
        end_tokens: vec![],
    }
}

#[test]
fn a_group_tells_when_it_passed_what() {
    let mut scheduler = Scheduler::new(limits()).unwrap();
    let group = NewGroup {
        prompt: vec![TokenId(1); 12],
        sequences: 1,
        sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 },
        tokens_max: Some(TokenCount(2)),
        tokens_min: TokenCount(0),
        ignore_end: false,
        stop_tokens: vec![],
        whole_prompt: false,
        priority: 0,
        tenant: TenantId(0),
    };
    let id = scheduler.submit(group, at(1)).unwrap();
    assert_eq!(scheduler.stats().oldest_waiting, Some(at(1)));
    let mut events = Vec::new();
    for (planned, committed, tokens) in [(2, 3, 0), (4, 5, 1), (6, 7, 1)] {
        scheduler.plan(at(planned)).unwrap();
        let outcome = Outcome::Done(vec![TokenId(9); tokens]);
        events = scheduler.commit(outcome, at(committed));
    }
    let times = GroupTimes {
        arrival: at(1),
        first_scheduled: Some(at(2)),
        first_token: Some(at(5)),
        last_token: Some(at(7)),
        finished: at(7),
        preemptions: 0,
        cached_tokens: TokenCount(0),
    };
    assert_eq!(events.last(), Some(&Event::GroupFinished { group: id, times }));
    assert_eq!(scheduler.stats().oldest_waiting, None);
}

#[test]
fn limits_without_room_for_anything_are_refused() {
    let wrong = Limits { block_size: TokenCount(0), ..limits() };
    assert_eq!(Scheduler::new(wrong).unwrap_err(), LimitsError::Zero("block size"));
    let wrong = Limits { generation_max: Some(TokenCount(0)), ..limits() };
    assert_eq!(Scheduler::new(wrong).unwrap_err(), LimitsError::Zero("most generated tokens"));
}

#[test]
fn absurd_limits_cost_nothing() {
    let limits = Limits {
        block_size: TokenCount(u32::MAX),
        blocks: BlockCount(u32::MAX),
        sequences_max: u32::MAX,
        step_tokens_max: TokenCount(u32::MAX),
        model_len_max: TokenCount(u32::MAX),
        waiting_max: usize::MAX,
        ..limits()
    };
    let scheduler = Scheduler::new(limits).unwrap();
    assert_eq!(scheduler.stats().blocks_held, BlockCount(0));
}
