//! What begins alike is computed once.

use insta::assert_snapshot;

use crate::script::trace;

#[test]
fn a_prompt_that_was_computed_is_found_but_for_its_last_token() {
    assert_snapshot!(trace(
        "limits cached; submit a prompt=8 max=1; step; submit b prompt=8 max=1; \
         submit c prompt=9 max=1; step; prefix"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-8 in blocks 0-1, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    step 2, 4 blocks held
      b from 4: 5-8 in blocks 0 2, seed 7
      c from 8: 9 in blocks 0-1 3, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    > c + 101
    > c ends: Length(Request), 1 tokens
    > group c ends, preempted 0
    prefix: 12 of 25 tokens found
    ");
}

#[test]
fn an_answer_is_found_by_the_prompt_that_repeats_it() {
    assert_snapshot!(trace(
        "limits cached; submit a prompt=3 from=98 max=6; step 6; submit b prompt=9 from=98 max=1; \
         step; prefix"
    ), @"
    step 1, 1 blocks held
      a from 0: 98-100 in blocks 0, seed 7
    > a + 101
    step 2, 1 blocks held
      a from 3: 101 in blocks 0, seed 7
    > a + 102
    step 3, 2 blocks held
      a from 4: 102 in blocks 0-1, seed 7
    > a + 103
    step 4, 2 blocks held
      a from 5: 103 in blocks 0-1, seed 7
    > a + 104
    step 5, 2 blocks held
      a from 6: 104 in blocks 0-1, seed 7
    > a + 105
    step 6, 2 blocks held
      a from 7: 105 in blocks 0-1, seed 7
    > a + 106
    > a ends: Length(Request), 6 tokens
    > group a ends, preempted 0
    step 7, 3 blocks held
      b from 8: 106 in blocks 0-2, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    prefix: 8 of 12 tokens found
    ");
}

#[test]
fn nothing_is_found_before_its_step_is_committed() {
    assert_snapshot!(trace(
        "limits cached; submit a prompt=9 max=2; plan; submit b prompt=9 max=2; commit; step; prefix"
    ), @"
    step 1, 3 blocks held
      a from 0: 1-9 in blocks 0-2, seed 7
    > a + 101
    step 2, 4 blocks held
      a from 9: 101 in blocks 0-2, seed 7
      b from 8: 9 in blocks 0-1 3, seed 7
    > a + 102
    > a ends: Length(Request), 2 tokens
    > group a ends, preempted 0
    > b + 101
    prefix: 8 of 18 tokens found
    ");
    assert_snapshot!(trace(
        "limits cached; submit a prompt=9 max=2; submit b prompt=9 max=2; step; stats; step; prefix"
    ), @"
    step 1, 6 blocks held
      a from 0: 1-9 in blocks 0-2, seed 7
      b from 0: 1-7 in blocks 3-4
    > a + 101
    stats: 0 waiting, 2 running, 5 of 16 blocks, 0 preempted, 16 prompt tokens, 1 generated
    step 2, 5 blocks held
      a from 9: 101 in blocks 0-2, seed 7
      b from 7: 8-9 in blocks 0 4-5, seed 7
    > a + 102
    > a ends: Length(Request), 2 tokens
    > group a ends, preempted 0
    > b + 101
    prefix: 0 of 18 tokens found
    ");
}

#[test]
fn a_cancelled_step_leaves_nothing_to_be_found() {
    assert_snapshot!(trace(
        "limits cached; submit a prompt=9; plan; cancel a; commit; submit b prompt=9 max=1; step; \
         prefix"
    ), @"
    step 1, 3 blocks held
      a from 0: 1-9 in blocks 0-2, seed 7
    cancel a
    > a ends: Abort, 0 tokens
    > group a ends, preempted 0
    step 2, 3 blocks held
      b from 0: 1-9 in blocks 0-2, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    prefix: 0 of 18 tokens found
    ");
}

#[test]
fn the_longest_unused_goes_first_and_an_end_before_its_beginning() {
    assert_snapshot!(trace(
        "limits cached blocks=4; submit a prompt=8 max=1; step; submit b prompt=5 from=50 max=1; step; \
         submit c prompt=5 from=70 max=1; step; submit d prompt=8 max=1; step; prefix"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-8 in blocks 0-1, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    step 2, 2 blocks held
      b from 0: 50-54 in blocks 2-3, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    step 3, 2 blocks held
      c from 0: 70-74 in blocks 3 1, seed 7
    > c + 101
    > c ends: Length(Request), 1 tokens
    > group c ends, preempted 0
    step 4, 2 blocks held
      d from 4: 5-8 in blocks 0-1, seed 7
    > d + 101
    > d ends: Length(Request), 1 tokens
    > group d ends, preempted 0
    prefix: 4 of 26 tokens found
    ");
}

#[test]
fn a_lost_rank_takes_the_cache_with_it() {
    assert_snapshot!(trace(
        "limits cached; submit a prompt=9 max=1; step; lost; submit b prompt=9 max=1; step; prefix"
    ), @"
    step 1, 3 blocks held
      a from 0: 1-9 in blocks 0-2, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    lost
    step 2, 3 blocks held
      b from 0: 1-9 in blocks 0-2, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    prefix: 0 of 18 tokens found
    ");
}

#[test]
fn who_gave_way_finds_what_is_left_of_it() {
    assert_snapshot!(trace(
        "limits cached blocks=5; submit a prompt=7 from=50 max=4; submit b prompt=7 max=3; step 5; \
         prefix"
    ), @"
    step 1, 4 blocks held
      a from 0: 50-56 in blocks 0-1, seed 7
      b from 0: 1-7 in blocks 2-3, seed 7
    > a + 101
    > b + 101
    step 2, 4 blocks held
      a from 7: 101 in blocks 0-1, seed 7
      b from 7: 101 in blocks 2-3, seed 7
    > a + 102
    > b + 102
    step 3, 3 blocks held
      a from 8: 102 in blocks 0-1 4, seed 7
    > a + 103
    step 4, 3 blocks held
      a from 9: 103 in blocks 0-1 4, seed 7
    > a + 104
    > a ends: Length(Request), 4 tokens
    > group a ends, preempted 0
    step 5, 3 blocks held
      b from 8: 102 in blocks 2-4, seed 7
    > b + 103
    > b ends: Length(Request), 3 tokens
    > group b ends, preempted 1
    prefix: 8 of 23 tokens found
    ");
}

#[test]
fn sequences_that_fork_start_from_what_was_found() {
    assert_snapshot!(trace(
        "limits cached; submit a prompt=9 max=1; step; submit b prompt=9 n=3 max=2; step 2; prefix"
    ), @"
    step 1, 3 blocks held
      a from 0: 1-9 in blocks 0-2, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    step 2, 5 blocks held
      b from 8: 9 in blocks 0-2, seed 7
      b.1 from 8: 9 in blocks 0-1 3, seed 8
      b.2 from 8: 9 in blocks 0-1 4, seed 9
    > b + 101
    > b.1 + 201
    > b.2 + 301
    step 3, 5 blocks held
      b from 9: 101 in blocks 0-2, seed 7
      b.1 from 9: 201 in blocks 0-1 3, seed 8
      b.2 from 9: 301 in blocks 0-1 4, seed 9
    > b + 102
    > b ends: Length(Request), 2 tokens
    > b.1 + 202
    > b.1 ends: Length(Request), 2 tokens
    > b.2 + 302
    > b.2 ends: Length(Request), 2 tokens
    > group b ends, preempted 0
    prefix: 8 of 18 tokens found
    ");
}

#[test]
fn a_prompt_whose_likelihoods_are_wanted_is_computed_as_a_whole() {
    assert_snapshot!(trace(
        "limits cached; submit a prompt=8 max=1; step; submit b prompt=8 max=1 whole; step; prefix"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-8 in blocks 0-1, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    step 2, 2 blocks held
      b from 0: 1-8 in blocks 2-3, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    prefix: 0 of 8 tokens found
    ");
}

#[test]
fn it_can_be_turned_off() {
    assert_snapshot!(trace(
        "limits; submit a prompt=8 max=1; step; submit b prompt=8 max=1; step; prefix"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-8 in blocks 0-1, seed 7
    > a + 101
    > a ends: Length(Request), 1 tokens
    > group a ends, preempted 0
    step 2, 2 blocks held
      b from 0: 1-8 in blocks 0-1, seed 7
    > b + 101
    > b ends: Length(Request), 1 tokens
    > group b ends, preempted 0
    prefix: 0 of 0 tokens found
    ");
}
