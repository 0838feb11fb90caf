//! An engine over oracles, questions to it, and the answers that nothing may change.

use std::sync::Arc;
use std::time::Duration;

use coordinator::{
    Answer, AnswerEvent, Capacity, EngineError, EngineHandle, EngineSetup, EngineState, Failure,
    Metrics, ModelFacts, Patience, Recording, Roster, ServingLimits, Submission, SubmitError,
    Wishes, start,
};
use scheduler::{FinishReason, NewGroup, Sampling, TenantId, TokenCount, TokenId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::oracle::{Oracle, next_token};

/// Longest sequence of the oracles' model.
pub(crate) const CONTEXT: u32 = 200;
/// A step of the oracles.
pub(crate) const STEP_TIME: Duration = Duration::from_millis(20);

/// An engine, its ranks, and all that is needed to look at it.
pub(crate) struct Fleet {
    pub(crate) oracles: Vec<Oracle>,
    pub(crate) engine: EngineHandle,
    pub(crate) task: JoinHandle<Result<(), EngineError>>,
    pub(crate) state: watch::Receiver<EngineState>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: CancellationToken,
}

/// A question: prompt, seed, sequences, most tokens.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) prompt: Vec<u32>,
    pub(crate) seed: u64,
    pub(crate) sequences: u32,
    pub(crate) tokens_max: u32,
    pub(crate) stop_tokens: Vec<u32>,
    pub(crate) timeout: Option<Duration>,
}

/// What came back: a text for each sequence, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) texts: Vec<Vec<u32>>,
    pub(crate) reasons: Vec<Option<FinishReason>>,
    pub(crate) failed: Option<String>,
    pub(crate) failure: Option<Failure>,
}

pub(crate) fn limits(kv_blocks: u32) -> ServingLimits {
    ServingLimits {
        sequences_max: 16,
        step_tokens_max: 32,
        block_size: 4,
        kv_blocks: Some(kv_blocks),
        ..ServingLimits::default()
    }
}

pub(crate) fn start_with(
    roster: impl Into<Roster>,
    oracles: Vec<Oracle>,
    limits: ServingLimits,
    patience: Patience,
) -> Fleet {
    start_recorded(roster.into(), oracles, limits, patience, None)
}

pub(crate) fn start_recorded(
    roster: Roster,
    oracles: Vec<Oracle>,
    limits: ServingLimits,
    patience: Patience,
    recording: Option<Recording>,
) -> Fleet {
    let metrics = Arc::new(Metrics::new("oracle", CONTEXT));
    let setup = EngineSetup {
        limits: limits.validate().unwrap(),
        patience,
        model: ModelFacts {
            digest: vec![7; 32],
            layers: 2,
            weight_bytes: 1000,
            context: CONTEXT,
            end_tokens: vec![0],
        },
        roster,
        metrics: Arc::clone(&metrics),
        recording,
    };
    let (sender, state) = watch::channel(EngineState::Loading { bytes_done: 0, bytes_total: 0 });
    let shutdown = CancellationToken::new();
    let (engine, task) = start(setup, sender, shutdown.clone());
    Fleet { oracles, engine, task, state, metrics, shutdown }
}

/// `world` oracles in this process.
pub(crate) fn fleet_with(world: usize, limits: ServingLimits, patience: Patience) -> Fleet {
    let oracles: Vec<_> = (0..world).map(|_| Oracle::new(STEP_TIME)).collect();
    let members: Vec<_> =
        oracles.iter().enumerate().map(|(rank, oracle)| oracle.member(rank)).collect();
    start_with(members, oracles, limits, patience)
}

/// `world` oracles in this process, ready.
pub(crate) async fn fleet(world: usize, kv_blocks: u32) -> Fleet {
    let mut fleet = fleet_with(world, limits(kv_blocks), Patience::default());
    fleet.ready().await;
    fleet
}

impl Fleet {
    pub(crate) async fn ready(&mut self) -> Capacity {
        let state = self.state.wait_for(EngineState::is_ready).await.unwrap().clone();
        state.capacity().unwrap()
    }

    pub(crate) async fn submit(&self, question: &Question) -> Result<Answer, SubmitError> {
        let group = NewGroup {
            prompt: question.prompt.iter().copied().map(TokenId).collect(),
            sequences: question.sequences,
            sampling: Sampling {
                temperature: 1.0,
                top_p: 1.0,
                top_k: 0,
                min_p: 0.0,
                seed: question.seed,
            },
            tokens_max: Some(TokenCount(question.tokens_max)),
            tokens_min: TokenCount(0),
            ignore_end: false,
            stop_tokens: question.stop_tokens.iter().copied().map(TokenId).collect(),
            whole_prompt: false,
            priority: 0,
            tenant: TenantId(0),
        };
        let submission = Submission {
            group,
            wishes: Wishes::default(),
            timeout: question.timeout,
            arrival: Instant::now().into_std(),
            request_id: "a test".to_owned(),
            choices: question.sequences,
        };
        self.engine.submit(submission).await
    }

    /// Asks all at once, and reads all answers to their ends.
    pub(crate) async fn ask_all(&self, questions: &[Question]) -> Vec<Told> {
        let reading = questions.iter().map(|question| async {
            let answer = self.submit(question).await.unwrap();
            read(answer, question.sequences).await
        });
        futures::future::join_all(reading).await
    }

    /// The value of a series, as a scrape shows it.
    pub(crate) fn value(&self, series: &str) -> f64 {
        value(&self.metrics.render(), series)
    }
}

/// The value of a series in a scrape. `name{label="…"}` matches if the labels that are given occur.
pub(crate) fn value(scrape: &str, series: &str) -> f64 {
    let (name, wanted) = series.split_once('{').unwrap_or((series, ""));
    let wanted: Vec<&str> = wanted.trim_end_matches('}').split(',').collect();
    let mut found = scrape.lines().filter(|line| {
        line.starts_with(name)
            && line[name.len()..].starts_with(['{', ' '])
            && wanted.iter().all(|label| line.contains(label))
    });
    let line = found.next().unwrap_or_else(|| panic!("no series {series} in\n{scrape}"));
    assert_eq!(found.next(), None, "{series} is more than one series");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Reads an answer to its end.
pub(crate) async fn read(mut answer: Answer, sequences: u32) -> Told {
    let count = usize::try_from(sequences).unwrap();
    let mut told = Told {
        texts: vec![Vec::new(); count],
        reasons: vec![None; count],
        failed: None,
        failure: None,
    };
    while let Some(event) = answer.next().await {
        match event {
            AnswerEvent::Token { index, token, .. } => {
                told.texts[usize::try_from(index).unwrap()].push(token.0);
            }
            AnswerEvent::SequenceFinished { index, reason } => {
                told.reasons[usize::try_from(index).unwrap()] = Some(reason);
            }
            AnswerEvent::Finished { .. } | AnswerEvent::Prompt { .. } => {}
            AnswerEvent::Failed { failure, message } => {
                told.failed = Some(message);
                told.failure = Some(failure);
            }
        }
    }
    told
}

impl Question {
    /// The `n`th of many that differ in everything.
    pub(crate) fn nth(n: u32) -> Self {
        let length = 1 + n * 7 % 40;
        Self {
            prompt: (0..length).map(|i| 1 + (i * 13 + n * 5) % 39).collect(),
            seed: u64::from(n) * 1000,
            sequences: 1 + u32::from(n % 5 == 4),
            tokens_max: 1 + n * 11 % 60,
            stop_tokens: Vec::new(),
            timeout: None,
        }
    }

    pub(crate) fn new(length: u32, tokens_max: u32) -> Self {
        Self {
            prompt: (0..length).map(|i| 1 + i % 39).collect(),
            seed: 5,
            sequences: 1,
            tokens_max,
            stop_tokens: Vec::new(),
            timeout: None,
        }
    }

    /// What an undisturbed run answers: computed here, without an engine.
    pub(crate) fn undisturbed(&self) -> Vec<Vec<u32>> {
        (0..self.sequences)
            .map(|sequence| {
                let mut tokens = self.prompt.clone();
                let mut text = Vec::new();
                while text.len() < usize::try_from(self.tokens_max).unwrap()
                    && tokens.len() < usize::try_from(CONTEXT).unwrap()
                    && text.last() != Some(&0)
                    && !text.last().is_some_and(|last| self.stop_tokens.contains(last))
                {
                    let token = next_token(&tokens, self.seed + u64::from(sequence));
                    tokens.push(token);
                    text.push(token);
                }
                text
            })
            .collect()
    }
}

pub(crate) fn questions(count: u32) -> Vec<Question> {
    (0..count).map(Question::nth).collect()
}

/// Every answer is what it would have been alone.
pub(crate) fn assert_undisturbed(questions: &[Question], told: &[Told]) {
    assert_eq!(questions.len(), told.len());
    for (question, told) in questions.iter().zip(told) {
        assert_eq!(told.failed, None, "{question:?}");
        assert_eq!(told.texts, question.undisturbed(), "{question:?}");
        assert!(told.reasons.iter().all(Option::is_some), "{question:?}");
    }
}
