//! Who is let in, and how prompts are cut.

use insta::assert_snapshot;

use crate::script::trace;

#[test]
fn a_group_is_prefilled_then_decoded_then_gone() {
    assert_snapshot!(trace("submit a prompt=10 answer=3; step 2; stats; step 2; stats"), @"
    step 1, 3 blocks held
      a from 0: 1-10 in blocks 0-2, seed 7
    > a + 101
    step 2, 3 blocks held
      a from 10: 101 in blocks 0-2, seed 7
    > a + 102
    stats: 0 waiting, 1 running, 3 of 16 blocks, 0 preempted, 10 prompt tokens, 2 generated
    step 3, 3 blocks held
      a from 11: 102 in blocks 0-2, seed 7
    > a + 0
    > a ends: stop at 0, 3 tokens
    > group a ends, preempted 0
    nothing to run
    stats: 0 waiting, 0 running, 0 of 16 blocks, 0 preempted, 10 prompt tokens, 3 generated
    ");
}

#[test]
fn a_long_prompt_is_cut_beside_the_decoding_of_others() {
    assert_snapshot!(trace(
        "limits tokens=8; submit a prompt=3; step; submit b prompt=17; step 4"
    ), @"
    step 1, 1 blocks held
      a from 0: 1-3 in blocks 0, seed 7
    > a + 101
    step 2, 6 blocks held
      a from 3: 101 in blocks 0, seed 7
      b from 0: 1-7 in blocks 1-2
    > a + 102
    step 3, 7 blocks held
      a from 4: 102 in blocks 0 6, seed 7
      b from 7: 8-14 in blocks 1-4
    > a + 103
    step 4, 7 blocks held
      a from 5: 103 in blocks 0 6, seed 7
      b from 14: 15-17 in blocks 1-5, seed 7
    > a + 104
    > b + 101
    step 5, 7 blocks held
      a from 6: 104 in blocks 0 6, seed 7
      b from 17: 101 in blocks 1-5, seed 7
    > a + 105
    > b + 102
    ");
}

#[test]
fn groups_are_admitted_in_order_and_nobody_overtakes() {
    assert_snapshot!(trace(
        "limits blocks=8; submit a prompt=14; submit b prompt=20; submit c prompt=1; step; stats; \
         cancel a; step 2; stats"
    ), @"
    step 1, 4 blocks held
      a from 0: 1-14 in blocks 0-3, seed 7
    > a + 101
    stats: 2 waiting, 1 running, 4 of 8 blocks, 0 preempted, 14 prompt tokens, 1 generated
    cancel a
    > a ends: Abort, 1 tokens
    > group a ends, preempted 0
    step 2, 5 blocks held
      b from 0: 1-16 in blocks 0-3
    step 3, 6 blocks held
      b from 16: 17-20 in blocks 0-4, seed 7
      c from 0: 1 in blocks 5, seed 7
    > b + 101
    > c + 101
    stats: 0 waiting, 2 running, 6 of 8 blocks, 0 preempted, 35 prompt tokens, 3 generated
    ");
}

#[test]
fn a_block_stays_free_when_a_group_is_admitted_beside_others() {
    assert_snapshot!(trace(
        "limits blocks=4; submit a prompt=6; submit b prompt=6; step; cancel a; step"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-6 in blocks 0-1, seed 7
    > a + 101
    cancel a
    > a ends: Abort, 1 tokens
    > group a ends, preempted 0
    step 2, 2 blocks held
      b from 0: 1-6 in blocks 0-1, seed 7
    > b + 101
    ");
}

#[test]
fn a_step_holds_no_more_sequences_than_its_limit() {
    assert_snapshot!(trace(
        "limits sequences=2; submit a prompt=2; submit b prompt=2; submit c prompt=2; step; \
         cancel a; step"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
    > a + 101
    > b + 101
    cancel a
    > a ends: Abort, 1 tokens
    > group a ends, preempted 0
    step 2, 2 blocks held
      b from 2: 101 in blocks 1, seed 7
      c from 0: 1-2 in blocks 0, seed 7
    > b + 102
    > c + 101
    ");
}

#[test]
fn who_runs_has_a_token_in_every_step_even_if_a_step_has_one_token() {
    assert_snapshot!(trace(
        "limits tokens=1; submit a prompt=2 max=2; submit b prompt=1 max=1; step 4"
    ), @"
    step 1, 1 blocks held
      a from 0: 1 in blocks 0
    step 2, 1 blocks held
      a from 1: 2 in blocks 0, seed 7
    > a + 101
    step 3, 1 blocks held
      a from 2: 101 in blocks 0, seed 7
    > a + 102
    > a ends: Length(Request), 2 tokens
    > group a ends, preempted 0
    step 4, 1 blocks held
      b from 0: 1 in blocks 0, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    ");
}

#[test]
fn what_can_never_run_is_refused() {
    assert_snapshot!(trace(
        "limits length=16 blocks=3 sequences=2; submit empty prompt=0; submit long prompt=12; \
         submit many prompt=2 n=3; submit wide prompt=8 n=2; stats"
    ), @"
    submit empty: the prompt is empty
    submit long: the prompt has 12 tokens, and at most 11 can be served with one token of answer
    submit many: 3 sequences were asked for, and at most 2 can run
    submit wide: 2 sequences were asked for, and at most 1 can run
    stats: 0 waiting, 0 running, 0 of 3 blocks, 0 preempted, 0 prompt tokens, 0 generated
    ");
    assert_snapshot!(trace("limits length=8; submit long prompt=8"), @"
    submit long: the prompt has 8 tokens, and at most 7 can be served with one token of answer
    ");
    assert_snapshot!(trace("limits blocks=1 size=1; submit long prompt=1"), @"
    submit long: the prompt has 1 tokens, and at most 0 can be served with one token of answer
    ");
}

#[test]
fn the_queue_is_bounded() {
    assert_snapshot!(trace(
        "limits waiting=1; submit a prompt=2; submit b prompt=2; step; submit c prompt=2; stats"
    ), @"
    submit b: 1 requests are waiting already
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    > a + 101
    stats: 1 waiting, 1 running, 1 of 16 blocks, 0 preempted, 2 prompt tokens, 1 generated
    ");
}
