//! What policies, admission and chunking do to waiting times: the scheduler itself, over ranks that take as
//! long as is given for a step and compute nothing. Deterministic: the same flags print the same tables.
//!
//! ```sh
//! cargo run --release -p scheduler --example waves
//! cargo run --release -p scheduler --example waves -- --step-us 9000 --token-us 700 --context-us 60
//! ```
//!
//! A step takes `--step-us`, `--token-us` for each of its tokens, and `--context-us` for each 1024 tokens that
//! its sequences look back on. Without flags these are what `docs/roofline.md` predicts for a 32B model over
//! four cards that share memory: 25.7 ms with one sequence of 1024 tokens, 106.8 ms with 32.

#![expect(clippy::print_stdout, reason = "tables are what it is for")]

mod load;
mod ranks;
mod told;

use std::time::Duration;

use scheduler::{Admission, BlockCount, Limits, Policy, TokenCount, TokenId};

use crate::load::{Load, Request};
use crate::ranks::{Ranks, run};
use crate::told::{Told, percentile};

/// As in `arcmesh serve`.
const LEVEL: Duration = Duration::from_secs(10);

/// What can be said on the command line.
struct Flags {
    ranks: Ranks,
    requests: u32,
    running: u32,
    waves: u32,
    blocks: u32,
    swap_blocks: u32,
    step_tokens: u32,
}

fn main() -> Result<(), String> {
    let flags = Flags::parse(std::env::args().skip(1))?;
    policies(&flags);
    chunking(&flags);
    many_of_one(&flags);
    Ok(())
}

/// Waves of requests, of which one in eight is urgent, and of whose two keys one asks for a tenth.
fn policies(flags: &Flags) {
    println!(
        "{} waves of {} requests, {} running, {} blocks, steps of {} tokens; seconds\n",
        flags.waves, flags.requests, flags.running, flags.blocks, flags.step_tokens
    );
    println!(
        "| policy | admission | swap | TTFT p50, p95 | of the urgent | of the small key | ITL p50, p95, p99 | \
         E2E p50, p95 | tokens/s | gave way | most swapped | KV waste |\n|---|---|---|---|---|---|---|---|--:|--:|--:|--:|"
    );
    let load = Load::waves(flags.waves, flags.requests);
    let priority = Policy::Priority { level: LEVEL };
    let fair = Policy::Fair { level: LEVEL };
    for (name, policy) in [("fcfs", Policy::Fcfs), ("priority", priority), ("fair", fair)] {
        for (admitted, admission, swap_blocks) in [
            ("prompt", Admission::Prompt, 0),
            ("prompt", Admission::Prompt, flags.swap_blocks),
            ("expected", Admission::Expected, 0),
        ] {
            let swap = BlockCount(swap_blocks);
            let limits = Limits { policy, admission, swap_blocks: swap, ..flags.limits() };
            let told = run(limits, &flags.ranks, &load);
            println!("| {name} | {admitted} | {swap_blocks} | {}", row(&told));
        }
    }
    println!();
}

fn row(told: &Told) -> String {
    let first = |wanted: fn(&Request) -> bool| seconds(&told.first_tokens(wanted), &[50, 95], 0);
    format!(
        "{} | {} | {} | {} | {} | {:.1} | {} | {} | {:.1} % |",
        first(|_| true),
        first(|request| request.priority < 0),
        first(|request| request.tenant == 1),
        seconds(&told.gaps, &[50, 95, 99], 2),
        seconds(&told.whole, &[50, 95], 0),
        told.throughput(),
        told.preemptions,
        told.swapped_max,
        100.0 * told.waste(),
    )
}

/// Answers that stream while long prompts arrive, cut into smaller and smaller chunks.
fn chunking(flags: &Flags) {
    println!("64 streams, and a prompt of 4096 tokens every 30 s; seconds\n");
    println!(
        "| tokens of a step | ITL p50 | p95 | p95 ÷ p50 | longest | TTFT of the long, p50 |\n\
         |--:|--:|--:|--:|--:|--:|"
    );
    let load = Load::streams(64, 4096, Duration::from_secs(30));
    for step_tokens in [8192, 512, 256, 128, 96, 72] {
        let limits = Limits {
            step_tokens_max: TokenCount(step_tokens),
            sequences_max: 72,
            blocks: BlockCount(1 << 16),
            ..flags.limits()
        };
        let told = run(limits, &flags.ranks, &load);
        let at = |share| percentile(&told.gaps, share).as_secs_f64();
        let long = told.first_tokens(|request| request.prompt > 1000);
        println!(
            "| {step_tokens} | {:.2} | {:.2} | {:.1} | {:.2} | {} |",
            at(50),
            at(95),
            at(95) / at(50),
            at(100),
            seconds(&long, &[50], 0)
        );
    }
    println!();
}

/// One prompt, a hundred answers.
fn many_of_one(flags: &Flags) {
    let load = Load::one(500, 512, 128);
    let limits = Limits { sequences_max: 256, blocks: BlockCount(1 << 16), ..flags.limits() };
    let told = run(limits, &flags.ranks, &load);
    println!(
        "128 answers of 512 tokens to one prompt of 500: {} blocks copied in {} step, {:.1} % KV waste",
        told.copies,
        told.copying_steps,
        100.0 * told.waste()
    );
}

/// Several percentiles, in seconds with so many decimals.
fn seconds(times: &[Duration], shares: &[usize], decimals: usize) -> String {
    let one = |share: &usize| format!("{:.decimals$}", percentile(times, *share).as_secs_f64());
    shares.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl Flags {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut flags = Self {
            ranks: Ranks { step_us: 23_060, token_us: 2453, context_us: 164, block_us: 90 },
            requests: 800,
            running: 256,
            waves: 3,
            blocks: 3000,
            swap_blocks: 4096,
            step_tokens: 512,
        };
        while let Some(flag) = words.next() {
            let value = words.next().and_then(|value| value.parse::<u32>().ok());
            let value = value.filter(|value| *value > 0 || flag.ends_with("-us"));
            let value = value.ok_or_else(|| format!("{flag} needs a whole number"))?;
            match flag.as_str() {
                "--step-us" => flags.ranks.step_us = value.into(),
                "--token-us" => flags.ranks.token_us = value.into(),
                "--context-us" => flags.ranks.context_us = value.into(),
                "--block-us" => flags.ranks.block_us = value.into(),
                "--requests" => flags.requests = value,
                "--running" => flags.running = value,
                "--waves" => flags.waves = value,
                "--blocks" => flags.blocks = value,
                "--swap-blocks" => flags.swap_blocks = value,
                "--step-tokens" => flags.step_tokens = value,
                _ => return Err(format!("there is no flag {flag}")),
            }
        }
        Ok(flags)
    }

    fn limits(&self) -> Limits {
        Limits {
            block_size: TokenCount(16),
            blocks: BlockCount(self.blocks),
            swap_blocks: BlockCount(0),
            sequences_max: self.running,
            step_tokens_max: TokenCount(self.step_tokens),
            model_len_max: TokenCount(8192),
            generation_max: None,
            waiting_max: 1 << 20,
            policy: Policy::Fcfs,
            admission: Admission::Expected,
            prefix_cache: true,
            end_tokens: vec![TokenId(0)],
        }
    }
}
