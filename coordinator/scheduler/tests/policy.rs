//! What the scheduler decides, one trace a rule.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod script;

use insta::assert_snapshot;

use crate::script::trace;

#[test]
fn a_group_is_prefilled_then_decoded_then_gone() {
    assert_snapshot!(trace("submit a prompt=10 answer=3; step; step; stats; step; step; stats"), @"
    step 1, 3 blocks held
      a from 0: 1-10 in blocks 0-2, seed 7
    done
      a + 101
    step 2, 3 blocks held
      a from 10: 101 in blocks 0-2, seed 7
    done
      a + 102
    stats: 0 waiting, 1 running, 3 of 16 blocks, 0 preempted, 10 prompt tokens, 2 generated
    step 3, 3 blocks held
      a from 11: 102 in blocks 0-2, seed 7
    done
      a + 0
      a ends: stop at 0, 3 tokens
      group a ends, preempted 0
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
    done
      a + 101
    step 2, 6 blocks held
      a from 3: 101 in blocks 0, seed 7
      b from 0: 1-7 in blocks 1-2
    done
      a + 102
    step 3, 7 blocks held
      a from 4: 102 in blocks 0 6, seed 7
      b from 7: 8-14 in blocks 1-4
    done
      a + 103
    step 4, 7 blocks held
      a from 5: 103 in blocks 0 6, seed 7
      b from 14: 15-17 in blocks 1-5, seed 7
    done
      a + 104
      b + 101
    step 5, 7 blocks held
      a from 6: 104 in blocks 0 6, seed 7
      b from 17: 101 in blocks 1-5, seed 7
    done
      a + 105
      b + 102
    ");
}

#[test]
fn groups_are_admitted_in_order_and_nobody_overtakes() {
    assert_snapshot!(trace(
        "limits blocks=8; submit a prompt=14; submit b prompt=20; submit c prompt=1; step; stats; \
         cancel a; step; step; stats"
    ), @"
    step 1, 4 blocks held
      a from 0: 1-14 in blocks 0-3, seed 7
    done
      a + 101
    stats: 2 waiting, 1 running, 4 of 8 blocks, 0 preempted, 14 prompt tokens, 1 generated
    cancel a
      a ends: Abort, 1 tokens
      group a ends, preempted 0
    step 2, 5 blocks held
      b from 0: 1-16 in blocks 3 2 1 0
    done
    step 3, 6 blocks held
      b from 16: 17-20 in blocks 3 2 1 0 4, seed 7
      c from 0: 1 in blocks 5, seed 7
    done
      b + 101
      c + 101
    stats: 0 waiting, 2 running, 6 of 8 blocks, 0 preempted, 35 prompt tokens, 3 generated
    ");
}

#[test]
fn the_youngest_gives_way_when_blocks_run_out_and_is_computed_again_with_its_tokens() {
    assert_snapshot!(trace(
        "limits blocks=5; submit a prompt=7 max=4; submit b prompt=7 max=3; \
         step 3; stats; step 4; stats"
    ), @"
    step 1, 4 blocks held
      a from 0: 1-7 in blocks 0-1, seed 7
      b from 0: 1-7 in blocks 2-3, seed 7
    done
      a + 101
      b + 101
    step 2, 4 blocks held
      a from 7: 101 in blocks 0-1, seed 7
      b from 7: 101 in blocks 2-3, seed 7
    done
      a + 102
      b + 102
    step 3, 3 blocks held
      a from 8: 102 in blocks 0-1 4, seed 7
    done
      a + 103
    stats: 1 waiting, 1 running, 3 of 5 blocks, 1 preempted, 14 prompt tokens, 5 generated
    step 4, 3 blocks held
      a from 9: 103 in blocks 0-1 4, seed 7
    done
      a + 104
      a ends: Length(Request), 4 tokens
      group a ends, preempted 0
    step 5, 3 blocks held
      b from 0: 1-7 101-102 in blocks 4 1 0, seed 7
    done
      b + 103
      b ends: Length(Request), 3 tokens
      group b ends, preempted 1
    nothing to run
    nothing to run
    stats: 0 waiting, 0 running, 0 of 5 blocks, 1 preempted, 21 prompt tokens, 7 generated
    ");
}

#[test]
fn a_step_holds_no_more_sequences_than_its_limit() {
    assert_snapshot!(trace(
        "limits sequences=2; submit a prompt=2; submit b prompt=2; submit c prompt=2; step; cancel a; step"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
    done
      a + 101
      b + 101
    cancel a
      a ends: Abort, 1 tokens
      group a ends, preempted 0
    step 2, 2 blocks held
      b from 2: 101 in blocks 1, seed 7
      c from 0: 1-2 in blocks 0, seed 7
    done
      b + 102
      c + 101
    ");
}

#[test]
fn a_sequence_runs_in_every_step_even_if_a_step_has_one_token() {
    assert_snapshot!(trace(
        "limits tokens=1; submit a prompt=2 max=2; submit b prompt=1 max=1; step 4"
    ), @"
    step 1, 1 blocks held
      a from 0: 1 in blocks 0
    done
    step 2, 1 blocks held
      a from 1: 2 in blocks 0, seed 7
    done
      a + 101
    step 3, 1 blocks held
      a from 2: 101 in blocks 0, seed 7
    done
      a + 102
      a ends: Length(Request), 2 tokens
      group a ends, preempted 0
    step 4, 1 blocks held
      b from 0: 1 in blocks 0, seed 7
    done
      b + 101
      b ends: Length(Request), 1 tokens
      group b ends, preempted 0
    ");
}

#[test]
fn the_request_limits_the_answer() {
    assert_snapshot!(trace(
        "limits generation=9; submit a prompt=2 max=2; step 2"
    ), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    done
      a + 101
    step 2, 1 blocks held
      a from 2: 101 in blocks 0, seed 7
    done
      a + 102
      a ends: Length(Request), 2 tokens
      group a ends, preempted 0
    ");
}

#[test]
fn the_operator_limits_the_answer() {
    assert_snapshot!(trace("limits generation=2; submit a prompt=2 max=9; step 2"), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    done
      a + 101
    step 2, 1 blocks held
      a from 2: 101 in blocks 0, seed 7
    done
      a + 102
      a ends: Length(Operator), 2 tokens
      group a ends, preempted 0
    ");
}

#[test]
fn the_context_limits_the_answer() {
    assert_snapshot!(trace(
        "limits generation=9 length=4; submit a prompt=2 max=9; step 2"
    ), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    done
      a + 101
    step 2, 1 blocks held
      a from 2: 101 in blocks 0, seed 7
    done
      a + 102
      a ends: Length(Context), 2 tokens
      group a ends, preempted 0
    ");
}

#[test]
fn a_sequence_alone_fills_a_cache_smaller_than_the_context() {
    assert_snapshot!(trace("limits blocks=2; submit a prompt=5; step 3; stats"), @"
    step 1, 2 blocks held
      a from 0: 1-5 in blocks 0-1, seed 7
    done
      a + 101
    step 2, 2 blocks held
      a from 5: 101 in blocks 0-1, seed 7
    done
      a + 102
    step 3, 2 blocks held
      a from 6: 102 in blocks 0-1, seed 7
    done
      a + 103
      a ends: Length(Context), 3 tokens
      group a ends, preempted 0
    stats: 0 waiting, 0 running, 0 of 2 blocks, 0 preempted, 5 prompt tokens, 3 generated
    ");
}

#[test]
fn what_can_never_run_is_refused() {
    assert_snapshot!(trace(
        "limits length=16 blocks=3 sequences=2 waiting=1; submit empty prompt=0; submit long prompt=12; \
         submit many prompt=2 n=3; submit a prompt=11; submit b prompt=1; stats"
    ), @"
    submit empty: the prompt is empty
    submit long: the prompt has 12 tokens, and at most 11 can be served with one token of answer
    submit many: 3 sequences were asked for, and at most 2 can run
    submit b: 1 requests are waiting already
    stats: 1 waiting, 0 running, 0 of 3 blocks, 0 preempted, 0 prompt tokens, 0 generated
    ");
    assert_snapshot!(trace("limits length=8; submit long prompt=8; submit wide prompt=7 n=3; stats"), @"
    submit long: the prompt has 8 tokens, and at most 7 can be served with one token of answer
    stats: 1 waiting, 0 running, 0 of 16 blocks, 0 preempted, 0 prompt tokens, 0 generated
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
      c ends: Abort, 0 tokens
      group c ends, preempted 0
    step 1, 2 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
    done
      a + 101
      b + 101
    cancel b
      b ends: Stop(None), 1 tokens
      group b ends, preempted 0
    step 2, 1 blocks held
      a from 2: 101 in blocks 0, seed 7
    cancel a
      a ends: Error, 1 tokens
      group a ends, preempted 0
    stats: 0 waiting, 0 running, 0 of 16 blocks, 0 preempted, 4 prompt tokens, 2 generated
    done
    cancel a
    cancel nobody
    step 3, 1 blocks held
      d from 0: 1 in blocks 0, seed 7
    done
      d + 101
    stats: 0 waiting, 1 running, 1 of 16 blocks, 0 preempted, 5 prompt tokens, 3 generated
    ");
}

#[test]
fn after_a_loss_everything_waits_again_in_order_of_arrival() {
    assert_snapshot!(trace(
        "limits sequences=2; submit a prompt=2 max=3; submit b prompt=2 max=3; submit c prompt=2 max=3; \
         step; plan; lost; stats; step 2; lost; stats; step 2"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
    done
      a + 101
      b + 101
    step 2, 2 blocks held
      a from 2: 101 in blocks 0, seed 7
      b from 2: 101 in blocks 1, seed 7
    lost
    stats: 3 waiting, 0 running, 0 of 16 blocks, 0 preempted, 4 prompt tokens, 2 generated
    step 3, 2 blocks held
      a from 0: 1-2 101 in blocks 0, seed 7
      b from 0: 1-2 101 in blocks 1, seed 7
    done
      a + 102
      b + 102
    step 4, 2 blocks held
      a from 3: 102 in blocks 0, seed 7
      b from 3: 102 in blocks 1, seed 7
    done
      a + 103
      a ends: Length(Request), 3 tokens
      group a ends, preempted 1
      b + 103
      b ends: Length(Request), 3 tokens
      group b ends, preempted 1
    lost
    stats: 1 waiting, 0 running, 0 of 16 blocks, 0 preempted, 8 prompt tokens, 6 generated
    step 5, 1 blocks held
      c from 0: 1-2 in blocks 1, seed 7
    done
      c + 101
    step 6, 1 blocks held
      c from 2: 101 in blocks 1, seed 7
    done
      c + 102
    ");
}

#[test]
fn stop_tokens_and_end_tokens_end_a_sequence() {
    assert_snapshot!(trace(
        "submit a prompt=2 stop=102; submit b prompt=2 answer=2; submit c prompt=2 answer=2 ignore-end max=3; step 3"
    ), @"
    step 1, 3 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
      c from 0: 1-2 in blocks 2, seed 7
    done
      a + 101
      b + 101
      c + 101
    step 2, 3 blocks held
      a from 2: 101 in blocks 0, seed 7
      b from 2: 101 in blocks 1, seed 7
      c from 2: 101 in blocks 2, seed 7
    done
      a + 102
      a ends: stop at 102, 2 tokens
      group a ends, preempted 0
      b + 0
      b ends: stop at 0, 2 tokens
      group b ends, preempted 0
      c + 0
    step 3, 1 blocks held
      c from 3: 0 in blocks 2, seed 7
    done
      c + 103
      c ends: Length(Request), 3 tokens
      group c ends, preempted 0
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
    done
      a + 101
      b + 101
    step 2, 2 blocks held
      a from 2: 101 in blocks 0, seed 7
      b from 2: 101 in blocks 1, seed 7
    done
      a + 102
      b + 0
      b ends: stop at 0, 2 tokens
      group b ends, preempted 0
    step 3, 1 blocks held
      a from 3: 102 in blocks 0, seed 7
    done
      a + 103
    step 4, 2 blocks held
      a from 4: 103 in blocks 0-1, seed 7
    done
      a + 104
      a ends: Length(Request), 4 tokens
      group a ends, preempted 0
    ");
}

#[test]
fn sequences_of_a_group_share_the_prompt_and_copy_what_they_write_to() {
    assert_snapshot!(trace("submit a prompt=7 n=3 max=3; step 4; stats"), @"
    step 1, 2 blocks held
      a from 0: 1-7 in blocks 0-1, seed 7
    done
      a + 101
    step 2, 4 blocks held
      copy 1 to 2
      copy 1 to 3
      a from 7: 101 in blocks 0 2, seed 7
      a.1 from 6: 7 in blocks 0 3, seed 8
      a.2 from 6: 7 in blocks 0-1, seed 9
    done
      a + 102
      a.1 + 201
      a.2 + 301
    step 3, 5 blocks held
      a from 8: 102 in blocks 0 2 4, seed 7
      a.1 from 7: 201 in blocks 0 3, seed 8
      a.2 from 7: 301 in blocks 0-1, seed 9
    done
      a + 103
      a ends: Length(Request), 3 tokens
      a.1 + 202
      a.2 + 302
    step 4, 5 blocks held
      a.1 from 8: 202 in blocks 0 3-4, seed 8
      a.2 from 8: 302 in blocks 0-2, seed 9
    done
      a.1 + 203
      a.1 ends: Length(Request), 3 tokens
      a.2 + 303
      a.2 ends: Length(Request), 3 tokens
      group a ends, preempted 0
    stats: 0 waiting, 0 running, 0 of 16 blocks, 0 preempted, 7 prompt tokens, 9 generated
    ");
}
