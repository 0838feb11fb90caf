//! Who is served first: by urgency, and by turns.

use insta::assert_snapshot;

use crate::script::{trace, trace_after};

#[test]
fn the_more_urgent_goes_first() {
    assert_snapshot!(trace(
        "limits priority sequences=1; submit a prompt=2 max=1; submit b prompt=2 max=1 urgent=1; \
         submit c prompt=2 max=1 urgent=2; step 3"
    ), @"
    step 1, 1 blocks held
      c from 0: 1-2 in blocks 0, seed 7
    > c + 101
    > c ends: Length(Request), 1 tokens
    > group c ends, preempted 0
    step 2, 1 blocks held
      b from 0: 1-2 in blocks 0, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    step 3, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    ");
}

#[test]
fn waiting_is_worth_a_step_of_urgency() {
    assert_snapshot!(trace(
        "limits priority sequences=1 level=10; submit a prompt=2 max=1; wait 10; \
         submit b prompt=2 max=1 urgent=1; step 2"
    ), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    step 2, 1 blocks held
      b from 0: 1-2 in blocks 0, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    ");
}

#[test]
fn arrival_alone_counts_by_default() {
    assert_snapshot!(trace(
        "limits sequences=1; submit a prompt=2 max=1; submit b prompt=2 max=1 urgent=9; step 2"
    ), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    step 2, 1 blocks held
      b from 0: 1-2 in blocks 0, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    ");
}

#[test]
fn a_more_urgent_group_takes_the_place_of_less_urgent_ones() {
    assert_snapshot!(trace_after(
        "limits priority blocks=6; submit a prompt=6 max=9; submit b prompt=6 max=9; step",
        "submit c prompt=9 max=1 urgent=5; step; stats; step"
    ), @"
    step 2, 5 blocks held
      c from 0: 1-9 in blocks 2-4, seed 7
      a from 6: 101 in blocks 0-1, seed 7
    > c + 101
    > c ends: Length(Request), 1 tokens
    > group c ends, preempted 0
    > a + 102
    stats: 1 waiting, 1 running, 2 of 6 blocks, 1 preempted, 21 prompt tokens, 4 generated
    step 3, 4 blocks held
      a from 7: 102 in blocks 0-1, seed 7
      b from 0: 1-6 101 in blocks 2-3, seed 7
    > a + 103
    > b + 102
    ");
    assert_snapshot!(trace_after(
        "limits priority blocks=6 swap=6 sequences=2; submit a prompt=6 max=9; submit b prompt=6 max=9; step",
        "submit c prompt=2 max=1 urgent=5; step; queues; step"
    ), @"
    step 2, 3 blocks held
      swap out 2 to 0
      swap out 3 to 1
      c from 0: 1-2 in blocks 2, seed 7
      a from 6: 101 in blocks 0-1, seed 7
    > c + 101
    > c ends: Length(Request), 1 tokens
    > group c ends, preempted 0
    > a + 102
    queues: 0 waiting, 1 running, 1 swapped in 2 blocks
    step 3, 4 blocks held
      swap in 0 to 2
      swap in 1 to 3
      a from 7: 102 in blocks 0-1, seed 7
      b from 6: 101 in blocks 2-3, seed 7
    > a + 103
    > b + 102
    ");
}

/// What is expected of answers is learned from one of two tokens: `c` and `d` will each take a block more.
const BESIDE_EXPECTATIONS: &str = "limits expected priority blocks=7; submit a prompt=1 max=2; step 2; \
                                   submit c prompt=7 max=9; submit d prompt=7 max=9; step";

#[test]
fn a_more_urgent_group_takes_the_place_of_what_others_are_expected_to_say() {
    assert_snapshot!(trace_after(BESIDE_EXPECTATIONS, "submit e prompt=6 max=1 urgent=5; step"), @"
    step 4, 4 blocks held
      e from 0: 1-6 in blocks 2-3, seed 7
      c from 7: 101 in blocks 0-1, seed 7
    > e + 101
    > e ends: Length(Request), 1 tokens
    > group e ends, preempted 0
    > c + 102
    ");
}

#[test]
fn a_group_that_gives_way_gives_all_that_its_sequences_share() {
    assert_snapshot!(trace_after(
        "limits priority blocks=6; submit a prompt=13 n=2 max=9; step 2",
        "submit b prompt=13 max=1 urgent=5; step; stats"
    ), @"
    step 3, 4 blocks held
      b from 0: 1-13 in blocks 0-2 4, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    stats: 1 waiting, 0 running, 0 of 6 blocks, 1 preempted, 26 prompt tokens, 4 generated
    ");
}

#[test]
fn nobody_gives_way_in_vain() {
    assert_snapshot!(trace_after(
        "limits priority blocks=6; submit a prompt=6 max=9 urgent=9; submit b prompt=6 max=9; step",
        "submit c prompt=16 max=1 urgent=5; step"
    ), @"
    step 2, 4 blocks held
      a from 6: 101 in blocks 0-1, seed 7
      b from 6: 101 in blocks 2-3, seed 7
    > a + 102
    > b + 102
    ");
}

#[test]
fn keys_take_turns_by_the_tokens_they_were_served() {
    assert_snapshot!(trace(
        "limits fair sequences=1 waiting=9; submit a prompt=8 max=1 key=1; submit b prompt=8 max=1 key=1; \
         submit c prompt=8 max=1 key=1; submit d prompt=2 max=1 key=2; submit e prompt=2 max=1 key=2; \
         submit f prompt=2 max=1 key=2; step 6"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-8 in blocks 0-1, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    step 2, 1 blocks held
      d from 0: 1-2 in blocks 0, seed 7
    > d + 101
    > d ends: Length(Request), 1 tokens
    > group d ends, preempted 0
    step 3, 1 blocks held
      e from 0: 1-2 in blocks 0, seed 7
    > e + 101
    > e ends: Length(Request), 1 tokens
    > group e ends, preempted 0
    step 4, 1 blocks held
      f from 0: 1-2 in blocks 0, seed 7
    > f + 101
    > f ends: Length(Request), 1 tokens
    > group f ends, preempted 0
    step 5, 2 blocks held
      b from 0: 1-8 in blocks 0-1, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    step 6, 2 blocks held
      c from 0: 1-8 in blocks 0-1, seed 7
    > c + 101
    > c ends: Length(Request), 1 tokens
    > group c ends, preempted 0
    ");
}

#[test]
fn nobody_saves_up_turns() {
    assert_snapshot!(trace(
        "limits fair sequences=1 waiting=9; submit a prompt=9 max=1 key=1; submit b prompt=9 max=1 key=1; \
         submit c prompt=9 max=1 key=1; step 2; submit d prompt=2 max=1 key=2; \
         submit e prompt=2 max=1 key=2; step 3"
    ), @"
    step 1, 3 blocks held
      a from 0: 1-9 in blocks 0-2, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    step 2, 3 blocks held
      b from 0: 1-9 in blocks 0-2, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    step 3, 1 blocks held
      d from 0: 1-2 in blocks 0, seed 7
    > d + 101
    > d ends: Length(Request), 1 tokens
    > group d ends, preempted 0
    step 4, 1 blocks held
      e from 0: 1-2 in blocks 0, seed 7
    > e + 101
    > e ends: Length(Request), 1 tokens
    > group e ends, preempted 0
    step 5, 3 blocks held
      c from 0: 1-9 in blocks 0-2, seed 7
    > c + 101
    > c ends: Length(Request), 1 tokens
    > group c ends, preempted 0
    ");
}

const ONE_ANSWER: &str = "blocks=9; submit a prompt=1 max=2; step 2";
const THREE_MORE: &str =
    "submit c prompt=7 max=9; submit d prompt=7 max=9; submit e prompt=7 max=9; step";

#[test]
fn prompts_alone_are_made_room_for_if_so_wished() {
    assert_snapshot!(trace_after(&format!("limits {ONE_ANSWER}"), THREE_MORE), @"
    step 3, 6 blocks held
      c from 0: 1-7 in blocks 0-1, seed 7
      d from 0: 1-7 in blocks 2-3, seed 7
      e from 0: 1-2 in blocks 4
    > c + 101
    > d + 101
    ");
}

#[test]
fn room_is_left_for_what_answers_usually_become() {
    assert_snapshot!(trace_after(&format!("limits expected {ONE_ANSWER}"), THREE_MORE), @"
    step 3, 4 blocks held
      c from 0: 1-7 in blocks 0-1, seed 7
      d from 0: 1-7 in blocks 2-3, seed 7
    > c + 101
    > d + 101
    ");
}

#[test]
fn an_answer_that_a_stop_string_ends_is_learned_from_and_an_abandoned_one_is_not() {
    let known = "limits expected blocks=9; submit a prompt=1; step 2";
    assert_snapshot!(trace_after(known, &format!("cancel a stop; {THREE_MORE}")), @"
    cancel a
    > a ends: Stop(None), 2 tokens
    > group a ends, preempted 0
    step 3, 4 blocks held
      c from 0: 1-7 in blocks 0-1, seed 7
      d from 0: 1-7 in blocks 2-3, seed 7
    > c + 101
    > d + 101
    ");
    assert_snapshot!(trace_after(known, &format!("cancel a; {THREE_MORE}")), @"
    cancel a
    > a ends: Abort, 2 tokens
    > group a ends, preempted 0
    step 3, 6 blocks held
      c from 0: 1-7 in blocks 0-1, seed 7
      d from 0: 1-7 in blocks 2-3, seed 7
      e from 0: 1-2 in blocks 4
    > c + 101
    > d + 101
    ");
}
