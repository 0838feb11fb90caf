//! The real scheduler over the real model, in schedules that chance makes: what a sequence says is what it says
//! alone, to the token, whatever runs beside it, however prompts are cut, who gives way and how, what the
//! prefix cache had, and when everything in the caches was lost. `SCHEDULES=COUNT` says how many there are.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fixture::random::Random;
use proto::worker::{
    BlockPair as WirePair, KvDtype, Sampling as WireSampling, Slice as WireSlice, StepRequest,
};
use scheduler::{
    Admission, BlockCount, BlockPair, Event, GroupId, Limits, NewGroup, Outcome, Policy, Rates,
    Sampling, Scheduler, SequenceId, StepPlan, TenantId, Time, TokenCount, TokenId,
};
use worker::collective::local;
use worker::shard::Shard;
use worker::{BackendChoice, LoadOrder, Runner};

/// Unless `SCHEDULES` says otherwise: as many as take about a minute.
const SCHEDULES: u64 = 100;
/// Small, so that short sequences have many.
const BLOCK: u32 = 4;
const BLOCKS: u32 = 64;
const SWAP_BLOCKS: u32 = 24;
const STEP_TOKENS: u32 = 64;
const ANSWER: u32 = 8;
const SEQUENCES: u32 = 8;

/// One rank, whose cache keeps what earlier schedules left.
struct Rank {
    runner: Runner,
    steps: u64,
}

/// What was asked, and what it says alone.
struct Question {
    group: NewGroup,
    answers: Vec<Vec<u32>>,
}

/// How often it came to what the test is about.
#[derive(Debug, Default)]
struct Met {
    recomputed: u64,
    swapped: u64,
    found: u64,
    cut: usize,
    lost: usize,
    copied: usize,
    ahead: usize,
    void: u64,
}

impl Rank {
    fn load() -> Self {
        let path = fixture::real::model("smollm2-135m-instruct");
        let checkpoint = std::sync::Arc::new(checkpoint::Checkpoint::open(&path).unwrap());
        let order = LoadOrder {
            epoch: 1,
            shard: Shard::new(0, vec![1]).unwrap(),
            block_size: BLOCK as usize,
            kv_blocks: BLOCKS as usize,
            kv_cache_bytes: 0,
            kv_dtype: KvDtype::F16,
            swap_blocks: SWAP_BLOCKS as usize,
            swap_bytes: Some(0),
            model_len_max: 128,
            step_tokens_max: STEP_TOKENS as usize,
            step_sequences_max: SEQUENCES as usize,
            place_here: 0,
            ranks_here: 1,
        };
        let alone = Box::new(local::group(1).remove(0));
        let choice = BackendChoice::Cpu;
        let runner =
            Runner::load(choice, 1.into(), &checkpoint, &order, alone, &mut |_, _| {}).unwrap();
        Self { runner, steps: 0 }
    }

    fn run(&mut self, plan: &StepPlan) -> Vec<TokenId> {
        self.steps += 1;
        let pairs = |pairs: &[BlockPair]| -> Vec<WirePair> {
            pairs.iter().map(|pair| WirePair { from: pair.from.0, to: pair.to.0 }).collect()
        };
        let slices = plan.slices.iter().map(|slice| WireSlice {
            tokens: slice.tokens.iter().map(|token| token.0).collect(),
            follows: slice.follows,
            start: slice.start.0,
            blocks: slice.blocks.iter().map(|block| block.0).collect(),
            sampling: slice.sampling.map(|sampling| WireSampling {
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                top_k: sampling.top_k,
                min_p: sampling.min_p,
                seed: sampling.seed,
            }),
            ..WireSlice::default()
        });
        let request = StepRequest {
            epoch: 1,
            step: self.steps,
            slices: slices.collect(),
            swap_out: pairs(&plan.swap_out),
            swap_in: pairs(&plan.swap_in),
            copies: pairs(&plan.copies),
            blocks_held: plan.blocks_held.0,
            swap_blocks_held: plan.swap_blocks_held.0,
            deadline_ms: 120_000,
        };
        let reply = self.runner.step(&request);
        assert_eq!(reply.failure, None);
        reply.tokens.into_iter().map(TokenId).collect()
    }
}

/// Prompts of which many begin alike, with one sequence or more.
fn questions(rank: &mut Rank) -> Vec<Question> {
    let beginnings = [vec![], (500..509).collect::<Vec<u32>>(), (700..714).collect()];
    let mut random = Random::new(3);
    let mut made = Vec::new();
    for nth in 0..12_u32 {
        let beginning = &beginnings[nth as usize % beginnings.len()];
        let rest = (0..1 + random.below(12)).map(|_| 1000 + random.below(20_000));
        let prompt = beginning.iter().copied().chain(rest).map(TokenId);
        let sampling = Sampling {
            temperature: if nth % 4 == 0 { 0.0 } else { 0.9 },
            top_p: 0.95,
            top_k: 0,
            min_p: 0.0,
            seed: u64::from(nth) << 20,
        };
        let group = NewGroup {
            prompt: prompt.collect(),
            sequences: 1 + u32::from(nth % 5 == 2) * 2,
            sampling,
            tokens_max: Some(TokenCount(ANSWER)),
            tokens_min: TokenCount(0),
            ignore_end: true,
            // Some end before their length says so.
            stop_tokens: (0..6000).map(|it| TokenId(it * 8)).filter(|_| nth % 6 == 1).collect(),
            whole_prompt: false,
            priority: i32::try_from(random.below(3)).unwrap() - 1,
            tenant: TenantId(nth % 2),
        };
        let mut answers = Vec::new();
        for index in 0..group.sequences {
            // One sequence, with its own seed, in steps that nothing else is in.
            let seed = group.sampling.seed + u64::from(index);
            let sampling = Sampling { seed, ..group.sampling };
            let single = NewGroup { sequences: 1, sampling, ..group.clone() };
            let wide = Limits { prefix_cache: false, ..limits(&mut Random::new(0)) };
            let asked = [Question { group: single, answers: vec![] }];
            let said = schedule(rank, wide, &asked, &mut Random::new(0), &mut Met::default());
            answers.push(said[0][0].clone());
        }
        made.push(Question { group, answers });
    }
    made
}

fn limits(random: &mut Random) -> Limits {
    let level = Duration::from_millis(2);
    Limits {
        block_size: TokenCount(BLOCK),
        // The largest group has three sequences of 26 + 8 tokens.
        blocks: BlockCount([16, 22, BLOCKS][random.below(3) as usize]),
        swap_blocks: BlockCount([SWAP_BLOCKS, SWAP_BLOCKS, 0][random.below(3) as usize]),
        sequences_max: 4 + random.below(SEQUENCES - 3),
        step_tokens_max: TokenCount(8 + random.below(STEP_TOKENS - 7)),
        model_len_max: TokenCount(128),
        generation_max: None,
        waiting_max: 100,
        policy: [Policy::Fcfs, Policy::Priority { level }, Policy::Fair { level }]
            [random.below(3) as usize],
        admission: [Admission::Prompt, Admission::Expected][random.below(2) as usize],
        prefix_cache: random.below(3) > 0,
        end_tokens: vec![TokenId(0)],
    }
}

/// Asks all in an order and at times that chance makes. What each sequence of each question said.
fn schedule(
    rank: &mut Rank,
    limits: Limits,
    questions: &[Question],
    random: &mut Random,
    met: &mut Met,
) -> Vec<Vec<Vec<u32>>> {
    let mut scheduler = Scheduler::new(limits).unwrap();
    let mut said: Vec<Vec<Vec<u32>>> =
        questions.iter().map(|it| vec![vec![]; it.group.sequences as usize]).collect();
    let mut waiting: Vec<usize> = (0..questions.len()).collect();
    let mut asked: BTreeMap<GroupId, usize> = BTreeMap::new();
    let mut now = Time(Duration::ZERO);
    loop {
        now.0 += Duration::from_millis(1);
        for _ in 0..random.below(4) {
            if waiting.is_empty() {
                break;
            }
            let left = u32::try_from(waiting.len()).unwrap();
            let nth = waiting.swap_remove(random.below(left) as usize);
            let id = scheduler.submit(questions[nth].group.clone(), now).unwrap();
            asked.insert(id, nth);
        }
        if random.below(8) == 0 {
            let block = Duration::from_micros(random.below(4).into());
            scheduler.measured(Rates { token: Duration::from_micros(1), block });
        }
        let Some(plan) = scheduler.plan(now) else {
            if waiting.is_empty() {
                break;
            }
            continue;
        };
        met.cut += plan.slices.iter().filter(|slice| slice.sampling.is_none()).count();
        met.copied += plan.copies.len();
        if questions.len() > 1 && random.below(40) == 0 {
            met.lost += 1;
            scheduler.commit(Outcome::Lost, now);
            continue;
        }
        // Steps are run as they are planned, each before the one before it is committed where it can be.
        let mut plans = VecDeque::from([plan]);
        while let Some(plan) = plans.pop_front() {
            if questions.len() > 1 && random.below(4) > 0 {
                plans.extend(scheduler.ahead());
                met.ahead += plans.len();
            }
            let tokens = rank.run(&plan);
            now.0 += Duration::from_millis(1);
            for event in scheduler.commit(Outcome::Done(tokens), now) {
                if let Event::Token { sequence: SequenceId { group, index }, token } = event {
                    said[asked[&group]][index as usize].push(token.0);
                }
            }
        }
    }
    let stats = scheduler.stats();
    met.recomputed += stats.preemptions_recompute;
    met.swapped += stats.preemptions_swap;
    met.found += stats.prefix_hits;
    met.void += stats.slices_void;
    said
}

#[test]
fn whatever_the_schedule_the_real_model_says_the_same() {
    let mut rank = Rank::load();
    let questions = questions(&mut rank);
    let mut met = Met::default();
    let count = std::env::var_os("SCHEDULES");
    let count = count.map_or(SCHEDULES, |count| count.to_str().unwrap().parse().unwrap());
    for seed in 1..=count {
        let mut random = Random::new(seed << 32);
        let limits = limits(&mut random);
        let said = schedule(&mut rank, limits.clone(), &questions, &mut random, &mut met);
        for (nth, (said, question)) in said.iter().zip(&questions).enumerate() {
            assert_eq!(*said, question.answers, "question {nth}, schedule {seed}: {limits:?}");
        }
    }
    let least = [met.recomputed, met.swapped, met.found].into_iter().min();
    let least = least.map(|least| usize::try_from(least).unwrap());
    let others = [met.cut, met.lost, met.copied, met.ahead].into_iter().min();
    assert!(met.void > 20, "nothing that was planned ahead ended before: {met:?}");
    assert!(least.min(others) > Some(20), "these schedules are too tame: {met:?}");
    println!("{count} schedules: {met:?}");
}
