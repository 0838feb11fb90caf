//! Who gives way when blocks run out, and what becomes of them.

use insta::assert_snapshot;

use crate::script::trace;

#[test]
fn the_youngest_gives_way_when_blocks_run_out() {
    assert_snapshot!(trace(
        "limits blocks=5; submit a prompt=7 max=4; submit b prompt=7 max=3; step 3; stats; step 2; \
         stats"
    ), @"
    step 1, 4 blocks held
      a from 0: 1-7 in blocks 0-1, seed 7
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
    stats: 1 waiting, 1 running, 3 of 5 blocks, 1 preempted, 14 prompt tokens, 5 generated
    step 4, 3 blocks held
      a from 9: 103 in blocks 0-1 4, seed 7
    > a + 104
    > a ends: Length(Request), 4 tokens
    > group a ends, preempted 0
    step 5, 3 blocks held
      b from 0: 1-7 101-102 in blocks 0-1 4, seed 7
    > b + 103
    > b ends: Length(Request), 3 tokens
    > group b ends, preempted 1
    stats: 0 waiting, 0 running, 0 of 5 blocks, 1 preempted, 21 prompt tokens, 7 generated
    ");
}

#[test]
fn who_gave_way_goes_on_after_its_last_token_and_before_who_came_later() {
    assert_snapshot!(trace(
        "limits blocks=5 tokens=6; submit a prompt=7 max=6; submit b prompt=7 max=9; step 2; \
         submit c prompt=1 max=1; step 3; stats; step 4"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-6 in blocks 0-1
    step 2, 4 blocks held
      a from 6: 7 in blocks 0-1, seed 7
      b from 0: 1-5 in blocks 2-3
    > a + 101
    step 3, 4 blocks held
      a from 7: 101 in blocks 0-1, seed 7
      b from 5: 6-7 in blocks 2-3, seed 7
    > a + 102
    > b + 101
    step 4, 5 blocks held
      a from 8: 102 in blocks 0-1 4, seed 7
      b from 7: 101 in blocks 2-3, seed 7
    > a + 103
    > b + 102
    step 5, 3 blocks held
      a from 9: 103 in blocks 0-1 4, seed 7
    > a + 104
    stats: 2 waiting, 1 running, 3 of 5 blocks, 1 preempted, 14 prompt tokens, 6 generated
    step 6, 3 blocks held
      a from 10: 104 in blocks 0-1 4, seed 7
    > a + 105
    step 7, 3 blocks held
      a from 11: 105 in blocks 0-1 4, seed 7
    > a + 106
    > a ends: Length(Request), 6 tokens
    > group a ends, preempted 0
    step 8, 3 blocks held
      b from 0: 1-6 in blocks 0-1
    step 9, 4 blocks held
      b from 6: 7 101-102 in blocks 0-1 4, seed 7
      c from 0: 1 in blocks 2, seed 7
    > b + 103
    > c + 101
    > c ends: Length(Request), 1 tokens
    > group c ends, preempted 0
    ");
}

#[test]
fn after_a_loss_everything_waits_again_in_order_of_arrival() {
    assert_snapshot!(trace(
        "limits sequences=2; submit a prompt=2 max=3; submit b prompt=2 max=3; \
         submit c prompt=2 max=3; step; plan; lost; stats; step 2; lost; stats; step"
    ), @"
    step 1, 2 blocks held
      a from 0: 1-2 in blocks 0, seed 7
      b from 0: 1-2 in blocks 1, seed 7
    > a + 101
    > b + 101
    step 2, 2 blocks held
      a from 2: 101 in blocks 0, seed 7
      b from 2: 101 in blocks 1, seed 7
    lost
    stats: 3 waiting, 0 running, 0 of 16 blocks, 0 preempted, 4 prompt tokens, 2 generated
    step 3, 2 blocks held
      a from 0: 1-2 101 in blocks 1, seed 7
      b from 0: 1-2 101 in blocks 0, seed 7
    > a + 102
    > b + 102
    step 4, 2 blocks held
      a from 3: 102 in blocks 1, seed 7
      b from 3: 102 in blocks 0, seed 7
    > a + 103
    > a ends: Length(Request), 3 tokens
    > group a ends, preempted 1
    > b + 103
    > b ends: Length(Request), 3 tokens
    > group b ends, preempted 1
    lost
    stats: 1 waiting, 0 running, 0 of 16 blocks, 0 preempted, 8 prompt tokens, 6 generated
    step 5, 1 blocks held
      c from 0: 1-2 in blocks 0, seed 7
    > c + 101
    ");
}
