//! From the wire to a [`Step`]: the only place of the worker that reads a step's protobuf. A step is read
//! into the memory of the one before, so that steps alike allocate nothing.

use std::time::Duration;

use proto::worker::{BlockPair, Slice, StepRequest};

use crate::batch::choice::check_tokens;
use crate::batch::{Batch, BatchSlice, Fed, Place, Refusal, Step, StepLimits};

/// How long a step waits for a peer where the request names no deadline.
pub const PATIENCE_DEFAULT: Duration = Duration::from_secs(30);

impl Step {
    /// Becomes what a request asks, once that is checked against what was agreed at load and against the
    /// batch before, whose tokens it may follow. Epoch and number are the runner's to check.
    ///
    /// # Errors
    /// The first thing that is wrong with it; this step is then none.
    pub fn read(
        &mut self,
        request: &StepRequest,
        limits: &StepLimits,
        before: &Batch,
    ) -> Result<(), Refusal> {
        let (device, host) = (limits.blocks, limits.swap_blocks);
        self.id = request.step;
        self.batch.read(&request.slices, limits, before)?;
        self.check_slots()?;
        pairs(&request.swap_out, Place::SwapOut, (device, host), &mut self.swap_out)?;
        pairs(&request.swap_in, Place::SwapIn, (host, device), &mut self.swap_in)?;
        pairs(&request.copies, Place::Copy, (device, device), &mut self.copies)?;
        self.patience = match request.deadline_ms {
            0 => PATIENCE_DEFAULT,
            ms => Duration::from_millis(u64::from(ms)),
        };
        Ok(())
    }

    /// A backend may write rows in parallel, so no two may go to the same place.
    fn check_slots(&mut self) -> Result<(), Refusal> {
        let Self { batch, slots, .. } = self;
        slots.clear();
        slots.extend_from_slice(&batch.slots);
        slots.sort_unstable();
        match slots.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Refusal::Collision {
                block: pair[0] as usize / batch.block_size,
                offset: pair[0] as usize % batch.block_size,
            }),
            None => Ok(()),
        }
    }
}

impl Batch {
    /// Flattens slices.
    fn read(
        &mut self,
        slices: &[Slice],
        limits: &StepLimits,
        before: &Self,
    ) -> Result<(), Refusal> {
        self.clear();
        if slices.len() > limits.step_sequences_max {
            let max = limits.step_sequences_max;
            return Err(Refusal::Sequences { slices: slices.len(), max });
        }
        let tokens = slices.iter().map(Slice::count).sum();
        if tokens > limits.step_tokens_max {
            return Err(Refusal::Tokens { tokens, max: limits.step_tokens_max });
        }
        self.block_size = limits.block_size;
        for (index, slice) in slices.iter().enumerate() {
            check_slice(index, slice, limits)?;
            if let Some(place) = slice.follows {
                self.follow(index, slice, place, before)?;
            }
            self.push(slice);
            self.choose(index, slice, limits.vocabulary)?;
        }
        let scored = self.scores.iter().map(|score| score.row);
        self.wanted.extend(self.samples.iter().map(|sample| sample.row).chain(scored));
        self.wanted.sort_unstable();
        self.wanted.dedup();
        Ok(())
    }

    /// Forgets all but its memory.
    fn clear(&mut self) {
        let Self {
            tokens,
            positions,
            slots,
            slices,
            blocks,
            samples,
            scores,
            fed,
            wanted,
            block_size: _,
        } = self;
        for numbers in [tokens, positions, slots, blocks] {
            numbers.clear();
        }
        slices.clear();
        fed.clear();
        samples.clear();
        scores.clear();
        wanted.clear();
    }

    /// The next slice follows a token of the batch before: of the same sequence, which is the one whose
    /// last row went to where this one finds it.
    fn follow(
        &mut self,
        slice: usize,
        wire: &Slice,
        place: u32,
        before: &Self,
    ) -> Result<(), Refusal> {
        if !wire.tokens.is_empty() {
            return Err(Refusal::FollowsAndBrings { slice, place });
        }
        let Some(sample) = before.samples.get(place as usize) else {
            return Err(Refusal::FollowsNothing { slice, place, sampled: before.samples.len() });
        };
        let last = wire.start.checked_sub(1).map(|position| position as usize);
        let slot = last.map(|position| slot(&wire.blocks, position, self.block_size));
        if sample.position != wire.start || slot != Some(before.slots[sample.row] as usize) {
            return Err(Refusal::FollowsAnother { slice, place });
        }
        self.fed.push(Fed { row: self.tokens.len(), place: place as usize });
        Ok(())
    }

    /// Appends a slice that was checked.
    fn push(&mut self, slice: &Slice) {
        let start = slice.start as usize;
        let first_row = self.tokens.len();
        let first_block = self.blocks.len();
        let end = start + slice.count();
        let table = &slice.blocks[..end.div_ceil(self.block_size)];
        self.tokens.extend_from_slice(&slice.tokens);
        self.tokens.resize(first_row + slice.count(), 0);
        self.blocks.extend_from_slice(table);
        for position in start..end {
            let slot = slot(table, position, self.block_size);
            self.positions.push(u32::try_from(position).expect("within the longest sequence"));
            self.slots.push(u32::try_from(slot).expect("the cache has fewer slots than 2³²"));
        }
        self.slices.push(BatchSlice {
            rows: first_row..self.tokens.len(),
            start,
            blocks: first_block..self.blocks.len(),
        });
    }
}

/// Where a position's keys and values are.
fn slot(table: &[u32], position: usize, block_size: usize) -> usize {
    table[position / block_size] as usize * block_size + position % block_size
}

fn check_slice(index: usize, slice: &Slice, limits: &StepLimits) -> Result<(), Refusal> {
    if slice.count() == 0 {
        return Err(Refusal::Empty { slice: index });
    }
    let end = (slice.start as usize).saturating_add(slice.count());
    if end > limits.model_len_max {
        return Err(Refusal::Length { slice: index, end, max: limits.model_len_max });
    }
    let needed = end.div_ceil(limits.block_size);
    if slice.blocks.len() < needed {
        return Err(Refusal::Table { slice: index, blocks: slice.blocks.len(), needed });
    }
    check_tokens(index, &slice.tokens, limits.vocabulary)?;
    for &block in &slice.blocks {
        check_block(block, Place::Slice(index), limits.blocks)?;
    }
    Ok(())
}

fn check_block(block: u32, place: Place, blocks: usize) -> Result<(), Refusal> {
    if block as usize >= blocks { Err(Refusal::Block { place, block, blocks }) } else { Ok(()) }
}

fn pairs(
    wire: &[BlockPair],
    place: Place,
    (from_blocks, to_blocks): (usize, usize),
    pairs: &mut Vec<(u32, u32)>,
) -> Result<(), Refusal> {
    pairs.clear();
    for pair in wire {
        check_block(pair.from, place, from_blocks)?;
        check_block(pair.to, place, to_blocks)?;
        pairs.push((pair.from, pair.to));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proto::worker::Sampling;

    use super::*;

    const LIMITS: StepLimits = StepLimits {
        vocabulary: 100,
        block_size: 4,
        blocks: 8,
        swap_blocks: 2,
        model_len_max: 20,
        step_tokens_max: 12,
        step_sequences_max: 2,
    };

    fn greedy() -> Sampling {
        Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 }
    }

    fn slice(tokens: &[u32], start: u32, blocks: &[u32]) -> Slice {
        Slice {
            tokens: tokens.to_vec(),
            start,
            blocks: blocks.to_vec(),
            sampling: Some(greedy()),
            ..Slice::default()
        }
    }

    fn step(slices: Vec<Slice>) -> StepRequest {
        StepRequest { epoch: 1, step: 1, slices, deadline_ms: 5, ..StepRequest::default() }
    }

    fn read(request: &StepRequest) -> Result<Step, Refusal> {
        let mut step = Step::default();
        step.read(request, &LIMITS, &Batch::default()).map(|()| step)
    }

    fn refusal(slices: Vec<Slice>) -> String {
        read(&step(slices)).unwrap_err().to_string()
    }

    #[test]
    fn slices_come_out_flat() {
        let request = step(vec![slice(&[5, 6, 7], 3, &[2, 0, 1]), slice(&[9], 0, &[7])]);
        let step = read(&request).unwrap();
        assert_eq!(step.batch.tokens, [5, 6, 7, 9]);
        assert_eq!(step.batch.positions, [3, 4, 5, 0]);
        assert_eq!(step.batch.slots, [11, 0, 1, 28]);
        assert_eq!(step.batch.blocks, [2, 0, 7], "a table is cut to what is needed");
        assert_eq!(step.batch.slices[1], BatchSlice { rows: 3..4, start: 0, blocks: 2..3 });
        let sampled: Vec<_> = step.batch.samples.iter().map(|s| (s.row, s.position)).collect();
        assert_eq!(sampled, [(2, 6), (3, 1)]);
        assert_eq!(step.patience, Duration::from_millis(5));
    }

    #[test]
    fn nothing_is_left_of_the_step_before() {
        let moved = vec![BlockPair { from: 0, to: 1 }];
        let full = step(vec![slice(&[5, 6, 7], 3, &[2, 0, 1]), slice(&[9], 0, &[7])]);
        let full = StepRequest { swap_out: moved.clone(), copies: moved, ..full };
        let wrong = step(vec![slice(&[1], 0, &[0]), slice(&[100], 0, &[1])]);
        let small = step(vec![slice(&[3], 4, &[1, 2])]);
        let mut reused = Step::default();
        for request in [&full, &wrong, &small, &step(vec![])] {
            match reused.read(request, &LIMITS, &Batch::default()) {
                Ok(()) => assert_eq!(reused, read(request).unwrap()),
                Err(refusal) => assert_eq!(Err(refusal), read(request)),
            }
        }
    }

    #[test]
    fn a_step_that_leads_outside_is_refused_with_a_sentence() {
        assert_eq!(refusal(vec![slice(&[], 0, &[])]), "slice 0 has no tokens");
        assert_eq!(
            refusal(vec![slice(&[1], 0, &[0]), slice(&[100], 0, &[1])]),
            "slice 1 has token 100, and the vocabulary has 100"
        );
        assert_eq!(
            refusal(vec![slice(&[1], 0, &[8])]),
            "the block table of slice 0 refers to block 8, and there are 8"
        );
        assert_eq!(
            refusal(vec![slice(&[1], 4, &[0])]),
            "slice 0 has 1 blocks where its tokens need 2"
        );
        assert_eq!(
            refusal(vec![slice(&[1], u32::MAX, &[0; 6])]),
            "slice 0 ends at position 4294967296, past the longest sequence of 20 tokens"
        );
        assert_eq!(
            refusal(vec![slice(&[1; 13], 0, &[0; 4])]),
            "13 tokens in a step that may have 12"
        );
        assert_eq!(refusal(vec![slice(&[1], 0, &[0]); 3]), "3 slices in a step that may have 2");
        assert_eq!(
            refusal(vec![slice(&[1], 1, &[3]), slice(&[2], 1, &[3])]),
            "two tokens of the step go to offset 1 of block 3"
        );
    }

    fn following(place: u32, start: u32, blocks: &[u32]) -> Slice {
        Slice { follows: Some(place), ..slice(&[], start, blocks) }
    }

    #[test]
    fn a_slice_follows_its_own_sequence_or_is_refused() {
        let before = read(&step(vec![slice(&[5, 6, 7], 3, &[2, 0, 1]), slice(&[9], 3, &[7])]));
        let before = before.unwrap().batch;
        let read = |slices: Vec<Slice>| {
            let mut after = Step::default();
            after.read(&step(slices), &LIMITS, &before).map(|()| after.batch)
        };
        let batch = read(vec![following(1, 4, &[7, 6]), following(0, 6, &[2, 0])]).unwrap();
        assert_eq!(batch.fed, [Fed { row: 0, place: 1 }, Fed { row: 1, place: 0 }]);
        assert_eq!((batch.positions, batch.slots), (vec![4, 6], vec![24, 2]));
        assert_eq!(batch.samples[0].position, 5);
        let refused = |slice: Slice| read(vec![slice]).unwrap_err().to_string();
        let another = "slice 0 follows token 0 of the step before, which is another sequence's";
        for wrong in [
            following(0, 5, &[2, 0]),
            following(0, 7, &[2, 0]),
            following(0, 6, &[2, 1]),
            following(0, 4, &[7, 6]),
            following(0, 0, &[2]),
        ] {
            assert_eq!(refused(wrong), another);
        }
        for place in [2, u32::MAX] {
            assert_eq!(
                refused(following(place, 4, &[7, 6])),
                format!("slice 0 follows token {place} of the step before, which gives 2")
            );
        }
        assert_eq!(
            refused(Slice { tokens: vec![4], ..following(1, 4, &[7, 6]) }),
            "slice 0 follows token 1 of the step before and brings tokens of its own"
        );
        assert_eq!(refused(following(1, 4, &[7])), "slice 0 has 1 blocks where its tokens need 2");
        assert!(read(vec![following(1, u32::MAX, &[7])]).is_err());
    }

    #[test]
    fn moves_are_checked_at_both_ends() {
        let pair = |from, to| vec![BlockPair { from, to }];
        let check = |request: StepRequest| read(&request);
        let fine = StepRequest { swap_out: pair(7, 1), swap_in: pair(1, 7), ..step(vec![]) };
        assert_eq!(check(fine).unwrap().swap_in, [(1, 7)]);
        for wrong in [
            StepRequest { swap_out: pair(7, 2), ..step(vec![]) },
            StepRequest { swap_in: pair(2, 7), ..step(vec![]) },
            StepRequest { copies: pair(0, 8), ..step(vec![]) },
            StepRequest { copies: pair(8, 0), ..step(vec![]) },
        ] {
            assert!(matches!(check(wrong), Err(Refusal::Block { .. })));
        }
    }
}
