//! Groups of more than one sequence.

use insta::assert_snapshot;

use crate::script::trace;

#[test]
fn sequences_share_the_prompt_and_copy_what_they_write_to() {
    assert_snapshot!(trace("submit a prompt=7 n=3 max=3; step 4; stats"), @"
    step 1, 2 blocks held
      a from 0: 1-7 in blocks 0-1, seed 7
    > a + 101
    step 2, 4 blocks held
      copy 1 to 2
      copy 1 to 3
      a from 7: 101 in blocks 0 2, seed 7
      a.1 from 6: 7 in blocks 0 3, seed 8
      a.2 from 6: 7 in blocks 0-1, seed 9
    > a + 102
    > a.1 + 201
    > a.2 + 301
    step 3, 5 blocks held
      a from 8: 102 in blocks 0 2 4, seed 7
      a.1 from 7: 201 in blocks 0 3, seed 8
      a.2 from 7: 301 in blocks 0-1, seed 9
    > a + 103
    > a ends: Length(Request), 3 tokens
    > a.1 + 202
    > a.2 + 302
    step 4, 5 blocks held
      a.1 from 8: 202 in blocks 0 3 2, seed 8
      a.2 from 8: 302 in blocks 0-1 4, seed 9
    > a.1 + 203
    > a.1 ends: Length(Request), 3 tokens
    > a.2 + 303
    > a.2 ends: Length(Request), 3 tokens
    > group a ends, preempted 0
    stats: 0 waiting, 0 running, 0 of 16 blocks, 0 preempted, 7 prompt tokens, 9 generated
    ");
}

#[test]
fn nothing_is_copied_when_the_prompt_but_its_last_token_fills_its_blocks() {
    assert_snapshot!(trace("submit a prompt=5 n=2 max=2; step 3; stats"), @"
    step 1, 2 blocks held
      a from 0: 1-5 in blocks 0-1, seed 7
    > a + 101
    step 2, 3 blocks held
      a from 5: 101 in blocks 0-1, seed 7
      a.1 from 4: 5 in blocks 0 2, seed 8
    > a + 102
    > a ends: Length(Request), 2 tokens
    > a.1 + 201
    step 3, 2 blocks held
      a.1 from 5: 201 in blocks 0 2, seed 8
    > a.1 + 202
    > a.1 ends: Length(Request), 2 tokens
    > group a ends, preempted 0
    stats: 0 waiting, 0 running, 0 of 16 blocks, 0 preempted, 5 prompt tokens, 4 generated
    ");
}

#[test]
fn a_prompt_of_one_token_is_computed_by_all() {
    assert_snapshot!(trace("submit a prompt=1 n=2 max=2; step 2; stats"), @"
    step 1, 2 blocks held
      a from 0: 1 in blocks 0, seed 7
      a.1 from 0: 1 in blocks 1, seed 8
    > a + 101
    > a.1 + 201
    step 2, 2 blocks held
      a from 1: 101 in blocks 0, seed 7
      a.1 from 1: 201 in blocks 1, seed 8
    > a + 102
    > a ends: Length(Request), 2 tokens
    > a.1 + 202
    > a.1 ends: Length(Request), 2 tokens
    > group a ends, preempted 0
    stats: 0 waiting, 0 running, 0 of 16 blocks, 0 preempted, 1 prompt tokens, 4 generated
    ");
}

#[test]
fn the_others_go_on_when_the_first_has_ended_at_once() {
    assert_snapshot!(trace("submit a prompt=3 n=2 answer=1; step 2; stats"), @"
    step 1, 1 blocks held
      a from 0: 1-3 in blocks 0, seed 7
    > a + 0
    > a ends: stop at 0, 1 tokens
    step 2, 1 blocks held
      a.1 from 2: 3 in blocks 0, seed 8
    > a.1 + 0
    > a.1 ends: stop at 0, 1 tokens
    > group a ends, preempted 0
    stats: 0 waiting, 0 running, 0 of 16 blocks, 0 preempted, 3 prompt tokens, 2 generated
    ");
}

#[test]
fn the_others_wait_while_the_prompt_is_cut() {
    assert_snapshot!(trace("limits tokens=4; submit a prompt=9 n=3 max=1; step 3; stats"), @"
    step 1, 3 blocks held
      a from 0: 1-4 in blocks 0
    step 2, 3 blocks held
      a from 4: 5-8 in blocks 0-1
    step 3, 5 blocks held
      a from 8: 9 in blocks 0-2, seed 7
      a.1 from 8: 9 in blocks 0-1 3, seed 8
      a.2 from 8: 9 in blocks 0-1 4, seed 9
    > a + 101
    > a ends: Length(Request), 1 tokens
    > a.1 + 201
    > a.1 ends: Length(Request), 1 tokens
    > a.2 + 301
    > a.2 ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    stats: 0 waiting, 0 running, 0 of 16 blocks, 0 preempted, 9 prompt tokens, 3 generated
    ");
}

#[test]
fn a_group_that_gave_way_shares_its_prompt_again() {
    assert_snapshot!(trace(
        "limits blocks=7; submit a prompt=6 max=8; submit b prompt=6 n=2 max=6; step 5; stats; \
         cancel a; step 3; stats"
    ), @"
    step 1, 4 blocks held
      a from 0: 1-6 in blocks 0-1, seed 7
      b from 0: 1-6 in blocks 2-3, seed 7
    > a + 101
    > b + 101
    step 2, 5 blocks held
      copy 3 to 4
      a from 6: 101 in blocks 0-1, seed 7
      b from 6: 101 in blocks 2 4, seed 7
      b.1 from 5: 6 in blocks 2-3, seed 8
    > a + 102
    > b + 102
    > b.1 + 201
    step 3, 5 blocks held
      a from 7: 102 in blocks 0-1, seed 7
      b from 7: 102 in blocks 2 4, seed 7
      b.1 from 6: 201 in blocks 2-3, seed 8
    > a + 103
    > b + 103
    > b.1 + 202
    step 4, 7 blocks held
      a from 8: 103 in blocks 0-1 5, seed 7
      b from 8: 103 in blocks 2 4 6, seed 7
      b.1 from 7: 202 in blocks 2-3, seed 8
    > a + 104
    > b + 104
    > b.1 + 203
    step 5, 3 blocks held
      a from 9: 104 in blocks 0-1 5, seed 7
    > a + 105
    stats: 1 waiting, 1 running, 3 of 7 blocks, 1 preempted, 12 prompt tokens, 12 generated
    cancel a
    > a ends: Abort, 5 tokens
    > group a ends, preempted 0
    step 6, 3 blocks held
      b from 0: 1-6 101-104 in blocks 0-1 5, seed 7
    > b + 105
    step 7, 5 blocks held
      copy 1 to 2
      b from 10: 105 in blocks 0-1 5, seed 7
      b.1 from 5: 6 201-203 in blocks 0 2-3, seed 8
    > b + 106
    > b ends: Length(Request), 6 tokens
    > b.1 + 204
    step 8, 3 blocks held
      b.1 from 9: 204 in blocks 0 2-3, seed 8
    > b.1 + 205
    stats: 0 waiting, 1 running, 3 of 7 blocks, 1 preempted, 18 prompt tokens, 16 generated
    ");
}

#[test]
fn the_blocks_behind_the_prompt_are_dealt_out_evenly() {
    assert_snapshot!(trace("limits blocks=4; submit a prompt=6 n=2; step 4; stats"), @"
    step 1, 2 blocks held
      a from 0: 1-6 in blocks 0-1, seed 7
    > a + 101
    step 2, 3 blocks held
      copy 1 to 2
      a from 6: 101 in blocks 0 2, seed 7
      a.1 from 5: 6 in blocks 0-1, seed 8
    > a + 102
    > a ends: Length(Context), 2 tokens
    > a.1 + 201
    step 3, 2 blocks held
      a.1 from 6: 201 in blocks 0-1, seed 8
    > a.1 + 202
    > a.1 ends: Length(Context), 2 tokens
    > group a ends, preempted 0
    nothing to run
    stats: 0 waiting, 0 running, 0 of 4 blocks, 0 preempted, 6 prompt tokens, 4 generated
    ");
}
