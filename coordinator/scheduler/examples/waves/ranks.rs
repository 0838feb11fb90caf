//! Ranks that take as long as is given, and the loop around the scheduler.

use std::collections::BTreeMap;
use std::time::Duration;

use scheduler::{
    Event, GroupId, Limits, NewGroup, Outcome, Rates, Sampling, Scheduler, SequenceId, StepPlan,
    TenantId, Time, TokenCount, TokenId,
};

use crate::load::{ANSWER_MAX, Load, Request};
use crate::told::Told;

/// How long things take, in microseconds.
#[derive(Debug)]
pub(crate) struct Ranks {
    /// A step, whatever is in it.
    pub(crate) step_us: u64,
    /// Each of its tokens.
    pub(crate) token_us: u64,
    /// Each 1024 tokens that its sequences look back on.
    pub(crate) context_us: u64,
    /// A block that is carried, one way.
    pub(crate) block_us: u64,
}

impl Ranks {
    fn step(&self, plan: &StepPlan) -> Duration {
        let tokens: u64 = plan.slices.iter().map(|slice| slice.tokens.len() as u64).sum();
        let back: u64 = plan.slices.iter().map(|slice| u64::from(slice.start.0)).sum();
        let blocks = (plan.swap_out.len() + plan.swap_in.len()) as u64;
        let us = self.step_us
            + self.token_us * tokens
            + self.context_us * back / 1024
            + self.block_us * blocks;
        Duration::from_micros(us)
    }
}

/// Serves a load to its end.
pub(crate) fn run(limits: Limits, ranks: &Ranks, load: &Load) -> Told {
    let mut scheduler = Scheduler::new(limits).expect("the limits make sense");
    scheduler.measured(Rates {
        token: Duration::from_micros(ranks.token_us),
        block: Duration::from_micros(ranks.block_us),
    });
    let mut told = Told::default();
    let mut requests: BTreeMap<GroupId, Request> = BTreeMap::new();
    let mut coming = load.0.iter().enumerate().peekable();
    let mut now = Time(Duration::ZERO);
    loop {
        while let Some((nth, request)) =
            coming.next_if(|(_, request)| request.at.map_or(requests.is_empty(), |at| at <= now.0))
        {
            let group = group(nth, request);
            let id = scheduler.submit(group, now).expect("it fits, and there is room to wait");
            requests.insert(id, *request);
            told.asked(id, *request, now);
        }
        let Some(plan) = scheduler.plan(now) else {
            let Some((_, next)) = coming.peek() else { break };
            now = Time(next.at.unwrap_or(now.0).max(now.0));
            continue;
        };
        let took = ranks.step(&plan);
        now = Time(now.0 + took);
        told.step(&plan, scheduler.limits().block_size, took);
        let tokens = answer(&plan, &requests);
        for event in scheduler.commit(Outcome::Done(tokens), now) {
            match event {
                Event::Token { sequence, .. } => told.token(sequence, now),
                Event::GroupFinished { group, .. } => {
                    requests.remove(&group);
                    told.ended(group, now);
                }
                Event::SequenceFinished { .. } => {}
            }
        }
    }
    let stats = scheduler.stats();
    told.preemptions = stats.preemptions_recompute + stats.preemptions_swap;
    told.finish(now)
}

fn group(nth: usize, request: &Request) -> NewGroup {
    // No two begin alike.
    let first = u32::try_from(nth).unwrap_or(0) + 10;
    let prompt = std::iter::once(first).chain((1..request.prompt).map(|_| 2));
    NewGroup {
        prompt: prompt.map(TokenId).collect(),
        sequences: request.sequences,
        sampling: Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 },
        tokens_max: Some(TokenCount(ANSWER_MAX)),
        tokens_min: TokenCount(0),
        ignore_end: false,
        stop_tokens: vec![],
        whole_prompt: false,
        priority: request.priority,
        tenant: TenantId(request.tenant),
    }
}

/// The end token where an answer is long enough.
fn answer(plan: &StepPlan, requests: &BTreeMap<GroupId, Request>) -> Vec<TokenId> {
    let sampled = plan.slices.iter().filter(|slice| slice.sampling.is_some());
    let token = |slice: &scheduler::Slice| {
        let SequenceId { group, index } = slice.sequence;
        let request = &requests[&group];
        let length = slice.start.0 + TokenCount::of(&slice.tokens).0;
        let ends = length + 1 - request.prompt >= request.answer;
        // Sequences of one group part with their first token.
        TokenId(if ends { 0 } else { 1000 + index })
    };
    sampled.map(token).collect()
}
