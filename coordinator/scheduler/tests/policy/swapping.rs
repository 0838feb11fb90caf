//! Who is carried to host memory, and how they come back.

use insta::assert_snapshot;

use crate::script::{trace, trace_after};

/// Two groups fill five blocks: with its next token the first has no room beside the second.
const FULL: &str = "submit a prompt=7 max=4; submit b prompt=7 max=3; step 2";

#[test]
fn who_gives_way_is_carried_to_host_memory_and_goes_on_where_it_was() {
    assert_snapshot!(trace(
        "limits blocks=5 swap=4; submit a prompt=7 max=4; submit b prompt=7 max=3; step 2; step; \
         queues; step; queues; step; queues; step"
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
      swap out 2 to 0
      swap out 3 to 1
      a from 8: 102 in blocks 0-1 4, seed 7
    > a + 103
    queues: 0 waiting, 1 running, 1 swapped in 2 blocks
    step 4, 3 blocks held
      a from 9: 103 in blocks 0-1 4, seed 7
    > a + 104
    > a ends: Length(Request), 4 tokens
    > group a ends, preempted 0
    queues: 0 waiting, 0 running, 1 swapped in 2 blocks
    step 5, 3 blocks held
      swap in 0 to 0
      swap in 1 to 1
      b from 8: 102 in blocks 0-1 4, seed 7
    > b + 103
    > b ends: Length(Request), 3 tokens
    > group b ends, preempted 1
    queues: 0 waiting, 0 running, 0 swapped in 0 blocks
    nothing to run
    ");
}

#[test]
fn a_step_that_carries_out_carries_nothing_in_and_lets_nobody_in() {
    assert_snapshot!(trace_after(
        "limits blocks=5 swap=4; submit a prompt=7 max=4; submit b prompt=7 max=4; step 2",
        "submit c prompt=1 max=1; step; queues; step 3"
    ), @"
    step 3, 3 blocks held
      swap out 2 to 0
      swap out 3 to 1
      a from 8: 102 in blocks 0-1 4, seed 7
    > a + 103
    queues: 1 waiting, 1 running, 1 swapped in 2 blocks
    step 4, 3 blocks held
      a from 9: 103 in blocks 0-1 4, seed 7
    > a + 104
    > a ends: Length(Request), 4 tokens
    > group a ends, preempted 0
    step 5, 4 blocks held
      swap in 0 to 0
      swap in 1 to 1
      b from 8: 102 in blocks 0-1 4, seed 7
      c from 0: 1 in blocks 2, seed 7
    > b + 103
    > c + 101
    > c ends: Length(Request), 1 tokens
    > group c ends, preempted 0
    step 6, 3 blocks held
      b from 9: 103 in blocks 0-1 4, seed 7
    > b + 104
    > b ends: Length(Request), 4 tokens
    > group b ends, preempted 1
    ");
}

#[test]
fn without_room_in_host_memory_it_is_computed_again() {
    assert_snapshot!(trace_after(
        &format!("limits blocks=5 swap=1; {FULL}"),
        "step; queues; stats; step 2"
    ), @"
    step 3, 3 blocks held
      a from 8: 102 in blocks 0-1 4, seed 7
    > a + 103
    queues: 1 waiting, 1 running, 0 swapped in 0 blocks
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
    ");
}

#[test]
fn the_cheaper_way_is_taken() {
    let known = format!("limits blocks=5 swap=4; {FULL}");
    assert_snapshot!(trace_after(&known, "rates token=1 block=2; step; queues"), @"
    step 3, 3 blocks held
      swap out 2 to 0
      swap out 3 to 1
      a from 8: 102 in blocks 0-1 4, seed 7
    > a + 103
    queues: 0 waiting, 1 running, 1 swapped in 2 blocks
    ");
    assert_snapshot!(trace_after(&known, "rates token=1 block=3; step; queues"), @"
    step 3, 3 blocks held
      a from 8: 102 in blocks 0-1 4, seed 7
    > a + 103
    queues: 1 waiting, 1 running, 0 swapped in 0 blocks
    ");
}

#[test]
fn a_group_that_shares_blocks_carries_each_once() {
    assert_snapshot!(trace(
        "limits blocks=6 swap=9; submit a prompt=7 max=4; submit b prompt=7 n=2 max=3; step 3; \
         queues; step 4"
    ), @"
    step 1, 4 blocks held
      a from 0: 1-7 in blocks 0-1, seed 7
      b from 0: 1-7 in blocks 2-3, seed 7
    > a + 101
    > b + 101
    step 2, 5 blocks held
      copy 3 to 4
      a from 7: 101 in blocks 0-1, seed 7
      b from 7: 101 in blocks 2 4, seed 7
      b.1 from 6: 7 in blocks 2-3, seed 8
    > a + 102
    > b + 102
    > b.1 + 201
    step 3, 3 blocks held
      swap out 2 to 0
      swap out 4 to 1
      swap out 3 to 2
      a from 8: 102 in blocks 0-1 5, seed 7
    > a + 103
    queues: 0 waiting, 1 running, 1 swapped in 3 blocks
    step 4, 3 blocks held
      a from 9: 103 in blocks 0-1 5, seed 7
    > a + 104
    > a ends: Length(Request), 4 tokens
    > group a ends, preempted 0
    step 5, 4 blocks held
      swap in 0 to 0
      swap in 1 to 1
      swap in 2 to 5
      b from 8: 102 in blocks 0-2, seed 7
      b.1 from 7: 201 in blocks 0 5, seed 8
    > b + 103
    > b ends: Length(Request), 3 tokens
    > b.1 + 202
    step 6, 3 blocks held
      b.1 from 8: 202 in blocks 0 5 1, seed 8
    > b.1 + 203
    > b.1 ends: Length(Request), 3 tokens
    > group b ends, preempted 1
    nothing to run
    ");
}

#[test]
fn who_is_swapped_can_be_cancelled_and_lost() {
    let known = format!("limits blocks=5 swap=4; {FULL}; step");
    assert_snapshot!(trace_after(&known, "queues; cancel b; queues"), @"
    queues: 0 waiting, 1 running, 1 swapped in 2 blocks
    cancel b
    > b ends: Abort, 2 tokens
    > group b ends, preempted 1
    queues: 0 waiting, 1 running, 0 swapped in 0 blocks
    ");
    assert_snapshot!(trace_after(&known, "queues; lost; queues; step 1"), @"
    queues: 0 waiting, 1 running, 1 swapped in 2 blocks
    lost
    queues: 2 waiting, 0 running, 0 swapped in 0 blocks
    step 4, 3 blocks held
      a from 0: 1-7 101-103 in blocks 0-1 4, seed 7
    > a + 104
    > a ends: Length(Request), 4 tokens
    > group a ends, preempted 1
    ");
}
