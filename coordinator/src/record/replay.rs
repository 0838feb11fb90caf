//! A recording once more: the scheduler is told the same, and must plan the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use scheduler::{GroupId, Outcome, Rates, Scheduler, StepPlan, Time, TokenId};

use crate::record::line::{Ending, FORMAT, Header, KIND, Line, PlanLine, SliceLine, SubmitLine};

/// Longest line, in bytes: a prompt of millions of tokens.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// More sequences in a step than any machine runs: such a recording was made up.
const SEQUENCES_MAX: u32 = 1 << 16;
/// More end tokens than any model has.
const ENDS_MAX: u32 = 1 << 10;

/// A recording that was replayed, every plan the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Steps planned.
    pub steps: u64,
    /// Of those, planned while the one before ran.
    pub ahead: u64,
    /// Groups accepted.
    pub groups: u64,
    /// From the first thing to the last, by the recorded clock.
    pub lasted: Duration,
    /// Times that a group gave way and was computed again.
    pub recomputed: u64,
    /// Times that a group gave way and was carried to host memory.
    pub swapped: u64,
    /// Why the recording ends; none: it breaks off.
    pub ending: Option<Ending>,
}

/// Why a recording was not replayed to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is no recording of arcmesh's scheduler")]
    Foreign,
    /// It is of another time.
    #[error("it has format {0} of recordings, and this arcmesh reads format {FORMAT}")]
    Format(u32),
    /// It cannot have been written so.
    #[error("line {line}: {what}")]
    Damaged {
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The scheduler decides otherwise now.
    #[error("line {line}: step {step} differs: {how}")]
    Differs {
        /// Which line, from 1.
        line: u64,
        /// Which step.
        step: u64,
        /// What was recorded, and what it is now.
        how: String,
    },
}

/// Tells a scheduler what the recording says, and compares its plans.
///
/// # Errors
/// [`ReplayError`]: the first plan that differs, or what is wrong with the file.
pub fn replay(file: &Path) -> Result<Replayed, ReplayError> {
    let stops = stops(file)?;
    let mut lines = Lines::open(file)?;
    let header = lines.header()?;
    let mut again = Again::new(&header, stops)?;
    while let Some(line) = lines.next()? {
        if let Some(ending) = again.line(line, lines.number)? {
            again.replayed.ending = Some(ending);
            if lines.next()?.is_some() {
                return Err(lines.damaged("there is more behind the end"));
            }
        }
    }
    let stats = again.scheduler.stats();
    Ok(Replayed {
        recomputed: stats.preemptions_recompute,
        swapped: stats.preemptions_swap,
        ..again.replayed
    })
}

/// The tokens that were among their group's stop tokens, by group: a group is submitted with them.
fn stops(file: &Path) -> Result<BTreeMap<u64, BTreeSet<u32>>, ReplayError> {
    let mut lines = Lines::open(file)?;
    lines.header()?;
    let mut stops: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
    let mut in_flight: VecDeque<Vec<u64>> = VecDeque::new();
    while let Some(line) = lines.next()? {
        match line {
            Line::Plan(plan) | Line::Ahead(plan) => {
                let asked = plan.slices.iter().filter(|slice| slice.4);
                in_flight.push_back(asked.map(|slice| slice.0).collect());
            }
            Line::Lost { .. } => in_flight.clear(),
            Line::Commit { tokens, stops: places, .. } => {
                let sampled = in_flight.pop_front().unwrap_or_default();
                for place in places {
                    let group = sampled.get(place as usize);
                    let (Some(group), Some(token)) = (group, tokens.get(place as usize)) else {
                        return Err(lines.damaged(&format!("there is no token {place}")));
                    };
                    stops.entry(*group).or_default().insert(*token);
                }
            }
            _ => {}
        }
    }
    Ok(stops)
}

/// A file, line by line.
struct Lines {
    file: BufReader<File>,
    /// Of the line that was read last, from 1.
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufReader::new(File::open(path)?), number: 0 })
    }

    fn header(&mut self) -> Result<Header, ReplayError> {
        let line = self.text()?.ok_or(ReplayError::Foreign)?;
        let known: serde_json::Value =
            serde_json::from_slice(&line).map_err(|_| ReplayError::Foreign)?;
        let known = &known["recording"];
        if known["kind"] != KIND {
            return Err(ReplayError::Foreign);
        }
        match known["format"].as_u64().and_then(|format| u32::try_from(format).ok()) {
            Some(FORMAT) => {}
            Some(format) => return Err(ReplayError::Format(format)),
            None => return Err(ReplayError::Foreign),
        }
        match self.parse(&line)? {
            Line::Recording(header) => Ok(header),
            _ => Err(ReplayError::Foreign),
        }
    }

    /// The next line; none at the end, and where the file breaks off within a line.
    fn next(&mut self) -> Result<Option<Line>, ReplayError> {
        let Some(line) = self.text()? else { return Ok(None) };
        self.parse(&line).map(Some)
    }

    fn text(&mut self) -> Result<Option<Vec<u8>>, ReplayError> {
        self.number += 1;
        let mut line = Vec::new();
        (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.len() as u64 == LINE_BYTES_MAX {
            return Err(self.damaged("it is too long"));
        }
        Ok((line.last() == Some(&b'\n')).then_some(line))
    }

    fn parse(&self, line: &[u8]) -> Result<Line, ReplayError> {
        serde_json::from_slice(line).map_err(|error| self.damaged(&error.to_string()))
    }

    fn damaged(&self, what: &str) -> ReplayError {
        ReplayError::Damaged { line: self.number, what: what.to_owned() }
    }
}

/// The scheduler that is told the same.
struct Again {
    scheduler: Scheduler,
    stops: BTreeMap<u64, BTreeSet<u32>>,
    /// Slices of the steps in flight that ask for a token.
    in_flight: VecDeque<usize>,
    began: Option<Time>,
    now: Time,
    replayed: Replayed,
}

impl Again {
    fn new(header: &Header, stops: BTreeMap<u64, BTreeSet<u32>>) -> Result<Self, ReplayError> {
        let damaged = |what: String| ReplayError::Damaged { line: 1, what };
        if header.sequences_max() > SEQUENCES_MAX || header.ends() > ENDS_MAX {
            return Err(damaged("no machine has such limits".to_owned()));
        }
        let scheduler =
            Scheduler::new(header.limits()).map_err(|error| damaged(error.to_string()))?;
        let (began, now) = (None, Time::default());
        let replayed = Replayed::default();
        Ok(Self { scheduler, stops, in_flight: VecDeque::new(), began, now, replayed })
    }

    /// Does what a line says; why the recording ends, if it does.
    fn line(&mut self, line: Line, number: u64) -> Result<Option<Ending>, ReplayError> {
        let damaged = |what: &str| ReplayError::Damaged { line: number, what: what.to_owned() };
        match line {
            Line::Recording(_) => return Err(damaged("a recording begins within another")),
            Line::Submit(submit) => {
                self.pass(submit.at, number)?;
                self.submit(&submit).map_err(|what| damaged(&what))?;
            }
            Line::Cancel { at, group, reason } => {
                self.pass(at, number)?;
                self.scheduler.cancel(GroupId(group), reason.into(), self.now);
            }
            Line::Rates { token, block } => {
                let (token, block) = (Duration::from_nanos(token), Duration::from_nanos(block));
                self.scheduler.measured(Rates { token, block });
            }
            Line::Plan(plan) => {
                self.pass(plan.at, number)?;
                if !self.in_flight.is_empty() {
                    return Err(damaged("a step is planned while another runs"));
                }
                let planned = self.scheduler.plan(self.now);
                self.planned(&plan, planned.as_ref(), number)?;
            }
            Line::Ahead(plan) => {
                self.pass(plan.at, number)?;
                if self.in_flight.len() != 1 {
                    return Err(damaged("a step is planned ahead of none, or of two"));
                }
                let planned = self.scheduler.ahead();
                self.planned(&plan, planned.as_ref(), number)?;
                self.replayed.ahead += 1;
            }
            Line::Commit { at, tokens, .. } => {
                self.pass(at, number)?;
                let asked = self.in_flight.pop_front();
                let asked = asked.ok_or_else(|| damaged("a step is done that was not planned"))?;
                if asked != tokens.len() {
                    return Err(damaged(&format!(
                        "{} tokens come of a step that asked for {asked}",
                        tokens.len()
                    )));
                }
                let tokens = tokens.into_iter().map(TokenId).collect();
                self.scheduler.commit(Outcome::Done(tokens), self.now);
            }
            Line::Lost { at } => {
                self.pass(at, number)?;
                self.in_flight.clear();
                self.scheduler.commit(Outcome::Lost, self.now);
            }
            Line::End(ending) => return Ok(Some(ending)),
        }
        Ok(None)
    }

    /// It is so late now.
    fn pass(&mut self, at: u64, line: u64) -> Result<(), ReplayError> {
        let now = Time(Duration::from_nanos(at));
        if now < self.now {
            return Err(ReplayError::Damaged { line, what: "time runs backwards".to_owned() });
        }
        self.replayed.lasted = now.since(*self.began.get_or_insert(now));
        self.now = now;
        Ok(())
    }

    fn submit(&mut self, submit: &SubmitLine) -> Result<(), String> {
        let stops = self.stops.remove(&submit.group).unwrap_or_default();
        let stops = stops.into_iter().map(TokenId).collect();
        let id = self.scheduler.submit(submit.group(stops), self.now);
        let id = id.map_err(|refusal| format!("group {} is refused: {refusal}", submit.group))?;
        if id.0 != submit.group {
            return Err(format!("group {} comes where group {} would", submit.group, id.0));
        }
        self.replayed.groups += 1;
        Ok(())
    }

    fn planned(
        &mut self,
        recorded: &PlanLine,
        plan: Option<&StepPlan>,
        line: u64,
    ) -> Result<(), ReplayError> {
        let planned = plan.map(|plan| PlanLine::new(plan, self.now));
        if planned.as_ref() != Some(recorded) {
            let how = difference(recorded, planned.as_ref());
            return Err(ReplayError::Differs { line, step: recorded.step, how });
        }
        self.in_flight.push_back(recorded.slices.iter().filter(|slice| slice.4).count());
        self.replayed.steps += 1;
        Ok(())
    }
}

/// What two plans do not have in common, the plainest first.
fn difference(recorded: &PlanLine, planned: Option<&PlanLine>) -> String {
    let Some(planned) = planned else {
        return format!("{}, and nothing now", shown(recorded));
    };
    if shown(recorded) != shown(planned) {
        return format!("{}, and {} now", shown(recorded), shown(planned));
    }
    let pairs = recorded.slices.iter().zip(&planned.slices);
    let differs = pairs.clone().find(|(recorded, planned)| recorded != planned);
    if let Some((recorded, planned)) = differs {
        return format!("{}, and {} now", slice(recorded), slice(planned));
    }
    if recorded.step == planned.step {
        "the slices are the same, and their blocks are not".to_owned()
    } else {
        format!("it is step {} now", planned.step)
    }
}

fn shown(plan: &PlanLine) -> String {
    let PlanLine { swap_out, swap_in, copies, blocks_held, swap_blocks_held, .. } = plan;
    let (slices, tokens) = (plan.slices.len(), plan.tokens());
    format!(
        "{slices} slices of {tokens} tokens with {blocks_held} blocks held, {swap_blocks_held} of the \
         host, {swap_out} swapped out, {swap_in} in, {copies} copied"
    )
}

fn slice(slice: &SliceLine) -> String {
    let SliceLine(group, index, start, count, _) = slice;
    format!("group {group} sequence {index} from {start} by {count} tokens")
}
