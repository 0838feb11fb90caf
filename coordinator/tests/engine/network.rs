//! Machines that fail and lines that lose, late by a seed: what stands between coordinators and ranks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coordinator::{Member, MemberError, MemberRequest};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use proto::worker::step_failure::Kind;
use proto::worker::{Loading, StepFailure, StepReply, StepRequest};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use crate::oracle::{Oracle, WEIGHT_BYTES};

/// A connection without a sign of life is given up after this.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// Longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);
/// Coordinators there may be.
pub(crate) const COORDINATORS: usize = 2;

/// Numbers by a seed: `SplitMix64`.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % count
    }

    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    pub(crate) fn milliseconds(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most + 1))
    }
}

/// How a machine and its lines are just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Condition {
    /// Counts its starts.
    pub(crate) life: u32,
    /// Nothing runs on it.
    pub(crate) down: bool,
    /// All on it stands still, and goes on later as if nothing had been.
    pub(crate) stopped: bool,
    /// A step takes so many times longer.
    pub(crate) slower: u32,
    /// What a coordinator says does not arrive.
    pub(crate) deaf: [bool; COORDINATORS],
    /// What is said to a coordinator does not arrive.
    pub(crate) mute: [bool; COORDINATORS],
    /// The other ranks are out of its reach.
    pub(crate) alone: bool,
}

/// What was given out and what was done with it, by all.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Epochs: to which coordinator they were given, for which ranks.
    pub(crate) epochs: BTreeMap<u64, (usize, Vec<String>)>,
    /// What must never be, and was.
    pub(crate) violations: Vec<String>,
}

/// A rank on its machine; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) oracle: Oracle,
    pub(crate) condition: watch::Sender<Condition>,
    record: Arc<Mutex<Record>>,
    /// Steps run as they arrive.
    steps: Turns,
}

/// Who comes after whom.
#[derive(Debug, Clone, Default)]
struct Turns(Arc<Mutex<Option<oneshot::Receiver<()>>>>);

/// A place in an order: it is over when dropped.
struct Turn {
    before: Option<oneshot::Receiver<()>>,
    _over: oneshot::Sender<()>,
}

impl Turns {
    fn next(&self) -> Turn {
        let (over, after) = oneshot::channel();
        Turn { before: self.0.lock().unwrap().replace(after), _over: over }
    }
}

impl Turn {
    /// Ends when those before are over.
    async fn comes(&mut self) {
        if let Some(before) = self.before.take() {
            // Said by its end.
            drop(before.await);
        }
    }
}

/// A coordinator's line to a machine.
#[derive(Debug, Clone)]
struct Line {
    machine: Machine,
    coordinator: usize,
    random: Arc<Mutex<Random>>,
    /// Messages arrive as they were sent.
    sent: Turns,
    /// Of a thousand messages, so many are lost without a word, and so many come twice.
    lost: u64,
    doubled: u64,
    delay_ms_max: u64,
}

impl Machine {
    pub(crate) fn new(at: usize, oracle: Oracle, record: &Arc<Mutex<Record>>) -> Self {
        let condition = watch::Sender::new(Condition::default());
        Self {
            name: format!("machine {at}"),
            oracle,
            condition,
            record: Arc::clone(record),
            steps: Turns::default(),
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Condition)) {
        self.condition.send_modify(change);
    }

    /// Its process ends, and with it all that it knew.
    pub(crate) fn crash(&self) {
        self.oracle.forget();
        self.change(|condition| {
            condition.life += 1;
            condition.down = true;
        });
    }

    /// This machine as a coordinator's member.
    pub(crate) fn member(&self, coordinator: usize, random: &mut Random) -> Member {
        let (requests, asked) = mpsc::channel(1);
        let line = Line {
            machine: self.clone(),
            coordinator,
            lost: random.one_of(&[0, 0, 2, 10]),
            doubled: random.one_of(&[0, 20, 100]),
            delay_ms_max: random.one_of(&[1, 10, 50]),
            random: Arc::new(Mutex::new(Random(random.below(u64::MAX)))),
            sent: Turns::default(),
        };
        tokio::spawn(line.serve(asked));
        Member { name: self.name.clone(), address: Some(self.name.clone()), requests }
    }
}

/// What is done at the other end; none: silence.
type Work<T> = dyn Fn(Line) -> BoxFuture<'static, Option<Result<T, MemberError>>> + Send + Sync;

impl Line {
    async fn serve(self, mut asked: mpsc::Receiver<MemberRequest>) {
        while let Some(request) = asked.recv().await {
            match request {
                MemberRequest::Describe { reply } => {
                    let work =
                        |line: Self| async move { Some(line.machine.oracle.describe()) }.boxed();
                    self.ask(reply, Arc::new(work), false).await;
                }
                MemberRequest::Load { request, progress, reply } => {
                    let (bytes_done, bytes_total) = (WEIGHT_BYTES, WEIGHT_BYTES);
                    // Progress that finds no room is left out.
                    let _ = progress.try_send(Loading { bytes_done, bytes_total });
                    let work = move |line: Self| {
                        let loaded = line.machine.oracle.load(&request);
                        async move { Some(loaded) }.boxed()
                    };
                    self.ask(reply, Arc::new(work), false).await;
                }
                MemberRequest::Step { request, reply } => {
                    // The next may be on its way before this one is answered; it arrives behind it.
                    let work = move |line: Self| {
                        let request = Arc::clone(&request);
                        async move { line.step(&request).await }.boxed()
                    };
                    let line = self.clone();
                    tokio::spawn(async move { line.ask(reply, Arc::new(work), true).await });
                }
            }
        }
    }

    /// Sends a question off, and waits for its answer, for a sign that there will be none, or until nobody
    /// waits any more. What is on its way stays on its way.
    async fn ask<T: Send + 'static>(
        &self,
        mut reply: oneshot::Sender<Result<T, MemberError>>,
        work: Arc<Work<T>>,
        is_step: bool,
    ) {
        let (answer, answered) = oneshot::channel();
        let way = self.clone();
        tokio::spawn(async move {
            match way.travel(work, is_step).await {
                // The asker may have given up.
                Some(result) => drop(answer.send(result)),
                // Nobody says that it was lost.
                None => sleep(FOR_EVER).await,
            }
        });
        let answer = tokio::select! {
            biased;
            Ok(result) = answered => result,
            () = self.silence() => Err(MemberError::Lost("no sign of life".to_owned())),
            () = reply.closed() => return,
        };
        drop(reply.send(answer));
    }

    /// There and back. None: it was lost on the way.
    async fn travel<T>(&self, work: Arc<Work<T>>, is_step: bool) -> Option<Result<T, MemberError>>
    where
        T: Send + 'static,
    {
        let mut sent = self.sent.next();
        let (there, back, again, lost, doubled) = {
            let mut random = self.random.lock().unwrap();
            let mut delay = || random.milliseconds(self.delay_ms_max);
            let (there, back, again) = (delay(), delay(), 10 * delay());
            let (lost, doubled) = (random.below(1000), random.below(1000));
            (there, back, again, lost < self.lost, doubled < self.doubled)
        };
        sleep(there).await;
        sent.comes().await;
        let mut turn = is_step.then(|| self.machine.steps.next());
        drop(sent);
        if lost || self.condition().deaf[self.coordinator] {
            return None;
        }
        if self.condition().down {
            return Some(Err(MemberError::Lost("connection refused".to_owned())));
        }
        let life = self.condition().life;
        let (mut seen, mut stopped) =
            (self.machine.condition.subscribe(), self.machine.condition.subscribe());
        let done = async {
            // Whatever else is asked does not wait for steps.
            if let Some(turn) = &mut turn {
                turn.comes().await;
            }
            stopped.wait_for(|condition| !condition.stopped).await.unwrap();
            work(self.clone()).await
        };
        let result = tokio::select! {
            biased;
            _ = seen.wait_for(|condition| condition.life != life) => {
                Some(Err(MemberError::Lost("connection reset".to_owned())))
            }
            result = done => result,
        };
        drop(turn);
        if doubled {
            // The same message once more: whatever it is told, nobody hears it.
            let line = self.clone();
            tokio::spawn(async move {
                sleep(again).await;
                drop(work(line).await);
            });
        }
        sleep(back).await;
        if self.condition().mute[self.coordinator] {
            return None;
        }
        result
    }

    /// Ends once the other end has not been heard for a while.
    async fn silence(&self) {
        let mut seen = self.machine.condition.subscribe();
        let at = self.coordinator;
        let is_silent = |c: &Condition| c.stopped || c.deaf[at] || c.mute[at];
        loop {
            seen.wait_for(is_silent).await.unwrap();
            tokio::select! {
                biased;
                _ = seen.wait_for(|condition| !is_silent(condition)) => {}
                () = sleep(SILENCE_MAX) => return,
            }
        }
    }

    fn condition(&self) -> Condition {
        *self.machine.condition.borrow()
    }

    /// A step, if it is one of the newest epoch: and then of the coordinator that the epoch was given to.
    async fn step(&self, request: &StepRequest) -> Option<Result<StepReply, MemberError>> {
        let Condition { slower, alone, .. } = self.condition();
        sleep(crate::fleet::STEP_TIME * slower).await;
        let mut answer = self.machine.oracle.step(request).await;
        if let Some(Ok(reply)) = &mut answer
            && reply.failure.is_none()
        {
            let mut record = self.machine.record.lock().unwrap();
            let name = &self.machine.name;
            let newest = self.machine.oracle.epoch();
            let wrong = match record.epochs.get(&request.epoch) {
                _ if newest != request.epoch => Some("that was over"),
                None => Some("that nobody gave out"),
                Some((owner, _)) if *owner != self.coordinator => Some("of another coordinator"),
                Some((_, ranks)) if !ranks.contains(name) => Some("without this rank"),
                Some(_) => None,
            };
            if let Some(wrong) = wrong {
                let epoch = request.epoch;
                record.violations.push(format!("{name} ran a step of epoch {epoch}, {wrong}"));
            }
            let world = record.epochs.get(&request.epoch).map_or(1, |(_, ranks)| ranks.len());
            if alone && world > 1 {
                let message = "a peer is out of reach".to_owned();
                reply.failure = Some(StepFailure { kind: Kind::PeerLost.into(), message });
            }
        }
        answer
    }
}
