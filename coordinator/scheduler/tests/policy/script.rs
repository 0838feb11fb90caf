//! A script in, what the scheduler did out.
//!
//! `trace("limits blocks=8; submit a prompt=10 answer=2; step; step")`: commands with `;` between.
//! The prompt of a group is 1, 2, 3 … (or from=n on); its sequences generate 101, 102 … (the second one 201, 202 …)
//! and, as their token number `answer`, the end token 0.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use scheduler::{
    Admission, BlockCount, CancelReason, Event, FinishReason, GroupId, Limits, NewGroup, Outcome,
    Policy, Rates, Sampling, Scheduler, SequenceId, StepPlan, TenantId, Time, TokenCount, TokenId,
};

const END: TokenId = TokenId(0);

/// Runs a script.
pub(crate) fn trace(script: &str) -> String {
    trace_after("", script)
}

/// Runs a script after another, of whose trace there is another test.
pub(crate) fn trace_after(known: &str, script: &str) -> String {
    let parse = |script: &str| -> Vec<Command> {
        script.split(';').map(Command::parse).filter(|command| !command.verb.is_empty()).collect()
    };
    let (mut before, mut after) = (parse(known), parse(script));
    let first = if before.is_empty() { &mut after } else { &mut before };
    let has_limits = first.first().is_some_and(|command| command.verb == "limits");
    let limits = if has_limits { first.remove(0) } else { Command::default() };
    let mut run = Run::new(&limits);
    for command in &before {
        run.apply(command);
    }
    run.lines.clear();
    for command in &after {
        run.apply(command);
    }
    run.lines
}

/// `verb word … key=number …`.
#[derive(Default)]
struct Command {
    verb: String,
    words: Vec<String>,
    numbers: BTreeMap<String, u32>,
}

struct Run {
    scheduler: Scheduler,
    names: BTreeMap<GroupId, String>,
    /// After how many tokens the sequences of a group end by themselves.
    answers: BTreeMap<GroupId, u32>,
    generated: BTreeMap<SequenceId, u32>,
    in_flight: VecDeque<StepPlan>,
    now: Time,
    lines: String,
}

impl Command {
    fn parse(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let mut command =
            Self { verb: words.next().unwrap_or_default().to_owned(), ..Self::default() };
        for word in words {
            match word.split_once('=') {
                Some((key, number)) => {
                    command.numbers.insert(key.to_owned(), number.parse().unwrap());
                }
                None => command.words.push(word.to_owned()),
            }
        }
        command
    }

    fn number(&self, key: &str) -> Option<u32> {
        self.numbers.get(key).copied()
    }
}

impl Run {
    fn new(limits: &Command) -> Self {
        let number = |key, otherwise| limits.number(key).unwrap_or(otherwise);
        let level = Duration::from_millis(number("level", 10).into());
        let policy = match limits
            .words
            .iter()
            .map(String::as_str)
            .find(|word| !["cached", "expected"].contains(word))
        {
            None => Policy::Fcfs,
            Some("priority") => Policy::Priority { level },
            Some("fair") => Policy::Fair { level },
            Some(other) => panic!("no policy {other:?}"),
        };
        let limits = Limits {
            policy,
            admission: match limits.words.contains(&"expected".to_owned()) {
                true => Admission::Expected,
                false => Admission::Prompt,
            },
            prefix_cache: limits.words.contains(&"cached".to_owned()),
            block_size: TokenCount(number("size", 4)),
            blocks: BlockCount(number("blocks", 16)),
            swap_blocks: BlockCount(number("swap", 0)),
            sequences_max: number("sequences", 4),
            step_tokens_max: TokenCount(number("tokens", 16)),
            model_len_max: TokenCount(number("length", 64)),
            generation_max: limits.number("generation").map(TokenCount),
            waiting_max: number("waiting", 8) as usize,
            end_tokens: vec![END],
        };
        Self {
            scheduler: Scheduler::new(limits).unwrap(),
            names: BTreeMap::new(),
            answers: BTreeMap::new(),
            generated: BTreeMap::new(),
            in_flight: VecDeque::new(),
            now: Time::default(),
            lines: String::new(),
        }
    }

    fn apply(&mut self, command: &Command) {
        self.now.0 += Duration::from_millis(1);
        match command.verb.as_str() {
            "submit" => self.submit(command),
            "cancel" => self.cancel(command),
            "plan" => self.plan(),
            "ahead" => self.ahead(),
            "commit" => self.commit(),
            "step" => {
                for _ in 0..command.words.first().map_or(1, |count| count.parse().unwrap()) {
                    self.plan();
                    self.commit();
                }
            }
            "lost" => {
                self.in_flight.clear();
                let events = self.scheduler.commit(Outcome::Lost, self.now);
                assert!(events.is_empty());
                self.line("lost".to_owned());
            }
            "wait" => {
                let ms = command.words[0].parse().unwrap();
                self.now.0 += Duration::from_millis(ms);
            }
            "rates" => {
                let micros =
                    |key| Duration::from_micros(command.number(key).unwrap_or_default().into());
                self.scheduler.measured(Rates { token: micros("token"), block: micros("block") });
            }
            "queues" => {
                let stats = self.scheduler.stats();
                let (waiting, running) = (stats.waiting, stats.running);
                let (swapped, held) = (stats.swapped, stats.swap_blocks_held.0);
                self.line(format!(
                    "queues: {waiting} waiting, {running} running, {swapped} swapped in {held} blocks"
                ));
            }
            "prefix" => {
                let stats = self.scheduler.stats();
                let (hits, queries) = (stats.prefix_hits, stats.prefix_queries);
                self.line(format!("prefix: {hits} of {queries} tokens found"));
            }
            "stats" => {
                let stats = self.scheduler.stats();
                let (waiting, running) = (stats.waiting, stats.running);
                let (held, blocks) = (stats.blocks_held.0, stats.blocks.0);
                let (preempted, prompt) = (stats.preemptions_recompute, stats.prompt_tokens);
                let generated = stats.generation_tokens;
                self.line(format!(
                    "stats: {waiting} waiting, {running} running, {held} of {blocks} blocks, \
                     {preempted} preempted, {prompt} prompt tokens, {generated} generated"
                ));
            }
            other => panic!("no command {other:?}"),
        }
    }

    fn submit(&mut self, command: &Command) {
        let name = command.words[0].clone();
        let from = command.number("from").unwrap_or(1);
        let urgent = i32::try_from(command.number("urgent").unwrap_or(0)).unwrap();
        let group = NewGroup {
            prompt: (from..from + command.number("prompt").unwrap()).map(TokenId).collect(),
            sequences: command.number("n").unwrap_or(1),
            sampling: Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 7 },
            tokens_max: command.number("max").map(TokenCount),
            tokens_min: TokenCount(command.number("min").unwrap_or(0)),
            ignore_end: command.words.contains(&"ignore-end".to_owned()),
            stop_tokens: command.number("stop").map(TokenId).into_iter().collect(),
            whole_prompt: command.words.contains(&"whole".to_owned()),
            priority: -urgent,
            tenant: TenantId(command.number("key").unwrap_or(0)),
        };
        match self.scheduler.submit(group, self.now) {
            Ok(id) => {
                self.answers.insert(id, command.number("answer").unwrap_or(u32::MAX));
                self.names.insert(id, name);
            }
            Err(refusal) => self.line(format!("submit {name}: {refusal}")),
        }
    }

    fn cancel(&mut self, command: &Command) {
        let name = &command.words[0];
        let found = self.names.iter().find(|(_, known)| *known == name);
        let group = found.map_or(GroupId(999), |(id, _)| *id);
        let reason = match command.words.get(1).map(String::as_str) {
            None => CancelReason::Abort,
            Some("stop") => CancelReason::Stop,
            Some("error") => CancelReason::Error,
            Some(other) => panic!("no reason {other:?}"),
        };
        self.line(format!("cancel {name}"));
        let events = self.scheduler.cancel(group, reason, self.now);
        self.events(&events);
    }

    fn plan(&mut self) {
        let Some(plan) = self.scheduler.plan(self.now) else {
            return self.line("nothing to run".to_owned());
        };
        self.planned("step", plan);
    }

    fn ahead(&mut self) {
        let Some(plan) = self.scheduler.ahead() else {
            return self.line("not ahead".to_owned());
        };
        self.planned("ahead: step", plan);
    }

    fn planned(&mut self, what: &str, plan: StepPlan) {
        self.line(format!("{what} {}, {} blocks held", plan.id.0, plan.blocks_held.0));
        let moves = [("swap out", &plan.swap_out), ("swap in", &plan.swap_in)];
        for (verb, pairs) in moves.into_iter().chain([("copy", &plan.copies)]) {
            for pair in pairs {
                self.line(format!("  {verb} {} to {}", pair.from.0, pair.to.0));
            }
        }
        for slice in &plan.slices {
            let name = self.name(slice.sequence);
            let tokens = match slice.follows {
                Some(place) => format!("token {place} of the step before"),
                None => ranges(slice.tokens.iter().map(|token| token.0)),
            };
            let blocks = ranges(slice.blocks.iter().map(|block| block.0));
            let sampled = slice.sampling.map(|sampling| format!(", seed {}", sampling.seed));
            let sampled = sampled.unwrap_or_default();
            let start = slice.start.0;
            self.line(format!("  {name} from {start}: {tokens} in blocks {blocks}{sampled}"));
        }
        self.in_flight.push_back(plan);
    }

    fn commit(&mut self) {
        let Some(plan) = self.in_flight.pop_front() else { return };
        let mut tokens = Vec::new();
        for slice in plan.slices.iter().filter(|slice| slice.sampling.is_some()) {
            let SequenceId { group, index } = slice.sequence;
            let count = self.generated.get(&slice.sequence).copied().unwrap_or(0) + 1;
            let ends = count == self.answers[&group];
            tokens.push(if ends { END } else { TokenId(100 * (index + 1) + count) });
        }
        let events = self.scheduler.commit(Outcome::Done(tokens), self.now);
        self.events(&events);
    }

    fn events(&mut self, events: &[Event]) {
        for event in events {
            let line = match event {
                Event::Token { sequence, token } => {
                    *self.generated.entry(*sequence).or_insert(0) += 1;
                    format!("> {} + {}", self.name(*sequence), token.0)
                }
                Event::SequenceFinished { sequence, reason, generated } => {
                    let reason = match reason {
                        FinishReason::Stop(Some(token)) => format!("stop at {}", token.0),
                        other => format!("{other:?}"),
                    };
                    format!("> {} ends: {reason}, {} tokens", self.name(*sequence), generated.0)
                }
                Event::GroupFinished { group, times } => {
                    format!("> group {} ends, preempted {}", self.names[group], times.preemptions)
                }
            };
            self.line(line);
        }
    }

    fn name(&self, sequence: SequenceId) -> String {
        let name = &self.names[&sequence.group];
        if sequence.index == 0 { name.clone() } else { format!("{name}.{}", sequence.index) }
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is always made for this")]
    fn line(&mut self, line: String) {
        writeln!(self.lines, "{line}").unwrap();
    }
}

/// `1-4 7`.
fn ranges(numbers: impl Iterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let range = |(first, last)| {
        if first == last { format!("{first}") } else { format!("{first}-{last}") }
    };
    ranges.into_iter().map(range).collect::<Vec<_>>().join(" ")
}
