//! The step after the one that runs, planned while it runs.

use insta::assert_snapshot;

use crate::script::trace;

#[test]
fn answers_go_on_with_tokens_that_nobody_knows_yet() {
    assert_snapshot!(trace(
        "submit a prompt=2; submit b prompt=3; plan; ahead; ahead; commit; ahead; commit; commit; commit"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-3 in blocks 1, seed 7
    ahead: step 2, 2 blocks held
      a from 2: token 0 of the step before in blocks 0, seed 7
      b from 3: token 1 of the step before in blocks 1, seed 7
    not ahead
    > a + 101
    > b + 101
    ahead: step 3, 3 blocks held
      a from 3: token 0 of the step before in blocks 0, seed 7
      b from 4: token 1 of the step before in blocks 1-2, seed 7
    > a + 102
    > b + 102
    > a + 103
    > b + 103
    ");
}

#[test]
fn a_block_is_taken_for_the_token_that_is_coming() {
    assert_snapshot!(trace("submit a prompt=4; plan; ahead; commit"), @"
    step 1, 1 blocks held
      a from 0: 1-4 in blocks 0, seed 7
    ahead: step 2, 2 blocks held
      a from 4: token 0 of the step before in blocks 0-1, seed 7
    > a + 101
    ");
}

#[test]
fn a_step_ahead_needs_the_blocks_that_it_takes() {
    assert_snapshot!(trace(
        "limits blocks=3; submit a prompt=3; submit b prompt=3; plan; ahead; commit; ahead; commit; plan"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-3 in blocks 0, seed 7
      b from 0: 1-3 in blocks 1, seed 7
    ahead: step 2, 2 blocks held
      a from 3: token 0 of the step before in blocks 0, seed 7
      b from 3: token 1 of the step before in blocks 1, seed 7
    > a + 101
    > b + 101
    not ahead
    > a + 102
    > b + 102
    step 3, 2 blocks held
      a from 4: 102 in blocks 0 2, seed 7
    ");
}

#[test]
fn who_ends_for_certain_is_left_out() {
    assert_snapshot!(trace(
        "submit a prompt=2 max=1; submit b prompt=2 max=2; plan; ahead; commit; ahead; commit"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
    ahead: step 2, 2 blocks held
      b from 2: token 1 of the step before in blocks 1, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    > b + 101
    not ahead
    > b + 102
    > b ends: Length(Request), 2 tokens
    > group b ends, preempted 0
    ");
}

#[test]
fn what_a_step_ahead_brings_for_one_that_has_ended_is_void() {
    assert_snapshot!(trace(
        "submit a prompt=2 answer=1; submit b prompt=2; plan; ahead; commit; ahead; stats; commit; commit"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
    ahead: step 2, 2 blocks held
      a from 2: token 0 of the step before in blocks 0, seed 7
      b from 2: token 1 of the step before in blocks 1, seed 7
    > a + 0
    > a ends: stop at 0, 1 tokens
    > group a ends, preempted 0
    > b + 101
    ahead: step 3, 1 blocks held
      b from 3: token 1 of the step before in blocks 1, seed 7
    stats: 0 waiting, 1 running, 1 of 16 blocks, 0 preempted, 4 prompt tokens, 2 generated
    > b + 102
    > b + 103
    ");
}

#[test]
fn a_step_ahead_may_turn_out_to_be_for_nobody() {
    assert_snapshot!(trace(
        "submit a prompt=2 answer=1; plan; ahead; commit; submit b prompt=2 from=7; ahead; commit; step"
    ), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    ahead: step 2, 1 blocks held
      a from 2: token 0 of the step before in blocks 0, seed 7
    > a + 0
    > a ends: stop at 0, 1 tokens
    > group a ends, preempted 0
    not ahead
    step 3, 1 blocks held
      b from 0: 7-8 in blocks 0, seed 7
    > b + 101
    ");
}

#[test]
fn a_sequence_of_a_group_ends_and_the_others_go_on() {
    assert_snapshot!(trace(
        "submit a prompt=3 n=2 max=9 answer=2; step; plan; ahead; commit; ahead; commit"
    ), @"
    step 1, 1 blocks held
      a from 0: 1-3 in blocks 0, seed 7
    > a + 101
    step 2, 2 blocks held
      copy 0 to 1
      a from 3: 101 in blocks 1, seed 7
      a.1 from 2: 3 in blocks 0, seed 8
    ahead: step 3, 3 blocks held
      a from 4: token 0 of the step before in blocks 1-2, seed 7
      a.1 from 3: token 1 of the step before in blocks 0, seed 8
    > a + 0
    > a ends: stop at 0, 2 tokens
    > a.1 + 201
    ahead: step 4, 2 blocks held
      a.1 from 4: token 1 of the step before in blocks 0-1, seed 8
    > a.1 + 0
    > a.1 ends: stop at 0, 2 tokens
    > group a ends, preempted 0
    ");
}

#[test]
fn a_group_that_forks_is_not_planned_ahead() {
    assert_snapshot!(trace("submit a prompt=6 n=2; plan; ahead; commit; plan; ahead"), @"
    step 1, 2 blocks held
      a from 0: 1-6 in blocks 0-1, seed 7
    not ahead
    > a + 101
    step 2, 3 blocks held
      copy 1 to 2
      a from 6: 101 in blocks 0 2, seed 7
      a.1 from 5: 6 in blocks 0-1, seed 8
    ahead: step 3, 3 blocks held
      a from 7: token 0 of the step before in blocks 0 2, seed 7
      a.1 from 6: token 1 of the step before in blocks 0-1, seed 8
    ");
}

#[test]
fn a_prompt_that_is_cut_is_not_planned_ahead() {
    assert_snapshot!(trace(
        "limits tokens=4; submit a prompt=6; plan; ahead; commit; plan; ahead"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-4 in blocks 0
    not ahead
    step 2, 2 blocks held
      a from 4: 5-6 in blocks 0-1, seed 7
    ahead: step 3, 2 blocks held
      a from 6: token 0 of the step before in blocks 0-1, seed 7
    ");
}

#[test]
fn who_comes_while_a_step_ahead_is_under_way_waits_for_it_and_no_longer() {
    assert_snapshot!(trace(
        "submit a prompt=2; plan; ahead; submit b prompt=2; commit; ahead; commit; plan; ahead"
    ), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    ahead: step 2, 1 blocks held
      a from 2: token 0 of the step before in blocks 0, seed 7
    > a + 101
    not ahead
    > a + 102
    step 3, 2 blocks held
      a from 3: 102 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
    ahead: step 4, 3 blocks held
      a from 4: token 0 of the step before in blocks 0 2, seed 7
      b from 2: token 1 of the step before in blocks 1, seed 7
    ");
}

#[test]
fn nobody_is_kept_waiting_by_those_for_whom_there_is_no_room() {
    assert_snapshot!(trace(
        "limits sequences=1; submit a prompt=2 max=3; submit b prompt=2; plan; ahead; commit; ahead; \
         commit; ahead; commit; plan"
    ), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    ahead: step 2, 1 blocks held
      a from 2: token 0 of the step before in blocks 0, seed 7
    > a + 101
    ahead: step 3, 1 blocks held
      a from 3: token 0 of the step before in blocks 0, seed 7
    > a + 102
    not ahead
    > a + 103
    > a ends: Length(Request), 3 tokens
    > group a ends, preempted 0
    step 4, 1 blocks held
      b from 0: 1-2 in blocks 0, seed 7
    ");
}

#[test]
fn one_that_is_more_urgent_takes_its_place_in_the_step_after() {
    assert_snapshot!(trace(
        "limits priority sequences=1; submit a prompt=2; plan; ahead; submit b prompt=2 urgent=9; commit; \
         ahead; commit; plan"
    ), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    ahead: step 2, 1 blocks held
      a from 2: token 0 of the step before in blocks 0, seed 7
    > a + 101
    not ahead
    > a + 102
    step 3, 1 blocks held
      b from 0: 1-2 in blocks 0, seed 7
    ");
}

#[test]
fn a_group_that_is_cancelled_leaves_two_void_slices_and_its_blocks_at_once() {
    assert_snapshot!(trace(
        "limits blocks=3; submit a prompt=3; submit b prompt=3; plan; cancel a; ahead; commit; ahead; commit; \
         commit"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-3 in blocks 0, seed 7
      b from 0: 1-3 in blocks 1, seed 7
    cancel a
    > a ends: Abort, 0 tokens
    > group a ends, preempted 0
    ahead: step 2, 1 blocks held
      b from 3: token 1 of the step before in blocks 1, seed 7
    > b + 101
    ahead: step 3, 2 blocks held
      b from 4: token 0 of the step before in blocks 1 0, seed 7
    > b + 102
    > b + 103
    ");
}

#[test]
fn a_loss_takes_the_step_ahead_with_it() {
    assert_snapshot!(trace("submit a prompt=2; plan; ahead; lost; ahead; plan; commit"), @"
    step 1, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    ahead: step 2, 1 blocks held
      a from 2: token 0 of the step before in blocks 0, seed 7
    lost
    not ahead
    step 3, 1 blocks held
      a from 0: 1-2 in blocks 0, seed 7
    > a + 101
    ");
}

#[test]
fn only_what_is_committed_is_found_by_others() {
    assert_snapshot!(trace(
        "limits cached; submit a prompt=7 answer=1; plan; ahead; commit; submit b prompt=9; commit; step; prefix"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-7 in blocks 0-1, seed 7
    ahead: step 2, 2 blocks held
      a from 7: token 0 of the step before in blocks 0-1, seed 7
    > a + 0
    > a ends: stop at 0, 1 tokens
    > group a ends, preempted 0
    step 3, 3 blocks held
      b from 4: 5-9 in blocks 0-2, seed 7
    > b + 101
    prefix: 4 of 16 tokens found
    ");
}
