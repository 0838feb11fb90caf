//! Lives of a cluster that a seed decides: machines crash, stand still, slow down and compute nonsense, lines
//! lose, delay, repeat and reorder, a second coordinator takes over from one that does not know it. The engine is
//! the real one; time is virtual. Whatever happens:
//!
//! - what was accepted ends, with its answer or with an error, and nothing hangs;
//! - text is exact, also the beginning of an answer that failed;
//! - a rank runs no step but of the newest epoch, for the coordinator that it was given to;
//! - once all is well again there is a group, which answers, and no block is missing.
//!
//! `SIM_SEEDS=COUNT` says how many lives there are, `SIM_SEED=SEED` lives one again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use coordinator::{Answer, EngineState, EpochAsked, Patience, Roster, ServingLimits};
use scheduler::FinishReason;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::fleet::{Fleet, Question, STEP_TIME, Told, limits, read, start_with};
use crate::network::{Condition, Machine, Random, Record};
use crate::oracle::Oracle;

/// Lives, unless `SIM_SEEDS` says otherwise.
const LIVES: u64 = 100;
/// Within this time of a life everything has ended.
const LIFE_MAX: Duration = Duration::from_secs(2 * 3600);
/// Within this time of the last fault there is a group.
const RECOVERY_MAX: Duration = Duration::from_secs(120);
/// Questions of a life.
const QUESTIONS: u32 = 14;

/// What came of a life, to be compared with the same life lived again.
#[derive(Debug, PartialEq)]
struct Life {
    lasted: Duration,
    told: Vec<(u32, Told)>,
    epochs: Vec<u64>,
    faults: Vec<String>,
    /// Steps that were sent ahead, by the coordinator that was there last.
    ahead: f64,
}

/// Who leads, as all see it.
#[derive(Debug, Clone)]
struct Throne {
    leader: watch::Sender<usize>,
    record: Arc<Mutex<Record>>,
}

impl Throne {
    /// Gives out epochs as etcd's leader does: none to a coordinator that does not lead.
    fn keeper(&self, coordinator: usize) -> mpsc::Sender<EpochAsked> {
        let (sender, mut asked) = mpsc::channel::<EpochAsked>(1);
        let throne = self.clone();
        tokio::spawn(async move {
            while let Some(EpochAsked { newest, ranks, reply }) = asked.recv().await {
                let leads = *throne.leader.borrow() == coordinator;
                let epoch = leads.then(|| {
                    let term = u64::try_from(coordinator).unwrap() + 1;
                    let epoch = newest.max(term << 32) + 1;
                    let mut record = throne.record.lock().unwrap();
                    let last = record.epochs.keys().next_back().copied().unwrap_or(0);
                    let epoch = epoch.max(last + 1);
                    record.epochs.insert(epoch, (coordinator, ranks));
                    epoch
                });
                // Whoever asked may have given up.
                drop(reply.send(epoch.ok_or_else(|| "another coordinator leads".to_owned())));
            }
        });
        sender
    }
}

/// What happens to a machine.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Crashes,
    StandsStill,
    IsSlow,
    /// From and to this coordinator.
    IsCutOff(usize),
    HearsNothing(usize),
    SaysNothing(usize),
    LosesItsPeers,
    /// In this step.
    ComputesOtherNumbers(u64),
}

impl Fault {
    fn draw(random: &mut Random, machine: &Machine) -> Self {
        let coordinator = usize::from(random.below(2) == 1);
        let step = machine.oracle.steps().0 + 1 + random.below(4);
        random.one_of(&[
            Self::Crashes,
            Self::Crashes,
            Self::StandsStill,
            Self::IsSlow,
            Self::IsCutOff(coordinator),
            Self::HearsNothing(coordinator),
            Self::SaysNothing(coordinator),
            Self::LosesItsPeers,
            Self::ComputesOtherNumbers(step),
        ])
    }

    /// It begins, or is over.
    fn set(self, machine: &Machine, on: bool) {
        match self {
            Self::Crashes if on => machine.crash(),
            Self::Crashes => machine.change(|it| it.down = false),
            Self::StandsStill => machine.change(|it| it.stopped = on),
            Self::IsSlow => machine.change(|it| it.slower = if on { 10 } else { 0 }),
            Self::IsCutOff(from) => machine.change(|it| (it.deaf[from], it.mute[from]) = (on, on)),
            Self::HearsNothing(of) => machine.change(|it| it.deaf[of] = on),
            Self::SaysNothing(to) => machine.change(|it| it.mute[to] = on),
            Self::LosesItsPeers => machine.change(|it| it.alone = on),
            Self::ComputesOtherNumbers(step) if on => {
                machine.oracle.faults(|faults| faults.differs_in = Some(step));
            }
            Self::ComputesOtherNumbers(_) => {}
        }
    }
}

struct Cluster {
    machines: Vec<Machine>,
    world: usize,
    limits: ServingLimits,
    throne: Throne,
}

impl Cluster {
    fn new(random: &mut Random) -> Self {
        let world = random.one_of(&[1, 2, 2, 3]);
        let spares = random.one_of(&[0, 1, 1]);
        let record = Arc::default();
        let machine = |at| Machine::new(at, Oracle::new(STEP_TIME), &record);
        let machines = (0..world + spares).map(machine).collect();
        let limits = ServingLimits {
            swap_bytes: Some(random.one_of(&[0, 4000])),
            prefix_cache: random.below(2) == 0,
            ..limits(random.one_of(&[60, 90, 250]))
        };
        let throne = Throne { leader: watch::Sender::new(0), record };
        Self { machines, world, limits, throne }
    }

    /// Starts a coordinator.
    fn coordinator(&self, at: usize, random: &mut Random) -> Fleet {
        let members: Vec<_> = self.machines.iter().map(|it| it.member(at, random)).collect();
        let epochs = Some(self.throne.keeper(at));
        let roster =
            Roster { world: Some(self.world), open: true, epochs, ..Roster::fixed(members) };
        let patience = Patience {
            load_silence_max: Duration::from_secs(10),
            step_max: Duration::from_secs(20),
            ..Patience::default()
        };
        start_with(roster, Vec::new(), self.limits.clone(), patience)
    }

    /// Something happens to somebody, for a while. Gives what it was.
    fn strike(&self, random: &mut Random) -> String {
        let machine = random.one_of(&self.machines.iter().collect::<Vec<_>>()).clone();
        let lasts_max = random.one_of(&[300, 5000, 12_000]);
        let lasts = random.milliseconds(lasts_max);
        let fault = Fault::draw(random, &machine);
        fault.set(&machine, true);
        let said = format!("{}: {fault:?} for {lasts:?}", machine.name);
        tokio::spawn(async move {
            sleep(lasts).await;
            fault.set(&machine, false);
        });
        said
    }

    /// Everything is as it should be from now on.
    fn heal(&self) {
        for machine in &self.machines {
            machine.change(|it| *it = Condition { life: it.life, ..Condition::default() });
            machine.oracle.faults(|faults| *faults = crate::oracle::Faults::default());
        }
    }
}

/// Asks questions as time goes by; each task ends with what was told.
fn ask(fleet: &Arc<Fleet>, from: u32, random: &mut Random) -> Vec<JoinHandle<Option<(u32, Told)>>> {
    let question = |n: u32, random: &mut Random| {
        let (after, leaves) = (random.milliseconds(9000), random.below(8) == 0);
        let fleet = Arc::clone(fleet);
        tokio::spawn(async move {
            sleep(after).await;
            let question = Question::nth(n);
            // Whoever is refused has been told so.
            let answer = fleet.submit(&question).await.ok()?;
            if leaves {
                leave(answer).await;
                return None;
            }
            Some((n, read(answer, question.sequences).await))
        })
    };
    (from..from + QUESTIONS).map(|n| question(n, random)).collect()
}

/// Reads the beginning, and goes away.
async fn leave(mut answer: Answer) {
    for _ in 0..3 {
        if answer.next().await.is_none() {
            return;
        }
    }
}

async fn live(seed: u64) -> Life {
    let began = Instant::now();
    let mut random = Random(seed);
    let cluster = Cluster::new(&mut random);
    let mut first = cluster.coordinator(0, &mut random);
    first.ready().await;
    let mut first = Arc::new(first);
    let mut asked = ask(&first, 0, &mut random);
    let takes_over = random.below(4) == 0;
    let mut faults = Vec::new();
    for _ in 0..1 + random.below(6) {
        sleep(random.milliseconds(3000)).await;
        faults.push(cluster.strike(&mut random));
    }
    if takes_over {
        // The first does not know it before it asks for an epoch.
        faults.push("another coordinator takes over".to_owned());
        cluster.throne.leader.send_replace(1);
        let second = Arc::new(cluster.coordinator(1, &mut random));
        sleep(random.milliseconds(6000)).await;
        cluster.heal();
        within(RECOVERY_MAX, second.state.clone().wait_for(EngineState::is_ready)).await.unwrap();
        asked.extend(ask(&second, QUESTIONS, &mut random));
        let told = told(asked).await;
        let ahead = finish(&cluster, Arc::into_inner(second).unwrap()).await;
        // If a rank of its own became the other's, it has ended and says why; else it ends when it is told to.
        let first = Arc::into_inner(first).unwrap();
        first.shutdown.cancel();
        if let Err(ended) = within(RECOVERY_MAX, first.task).await.unwrap() {
            assert_eq!(ended.to_string(), "another coordinator leads");
        }
        return Life { ahead, ..life(&cluster, began, told, faults) };
    }
    sleep(random.milliseconds(12_000)).await;
    cluster.heal();
    let told = told(asked).await;
    let fleet = Arc::get_mut(&mut first).unwrap();
    within(RECOVERY_MAX, fleet.ready()).await;
    let ahead = finish(&cluster, Arc::into_inner(first).unwrap()).await;
    Life { ahead, ..life(&cluster, began, told, faults) }
}

async fn told(asked: Vec<JoinHandle<Option<(u32, Told)>>>) -> Vec<(u32, Told)> {
    let mut told = Vec::new();
    for answer in asked {
        told.extend(answer.await.unwrap());
    }
    told
}

/// All is well: it answers, has every block, and ends when it is told to. Gives how many steps were sent ahead.
async fn finish(cluster: &Cluster, mut fleet: Fleet) -> f64 {
    within(RECOVERY_MAX, fleet.ready()).await;
    let questions: Vec<_> = (100..104).map(Question::nth).collect();
    crate::fleet::assert_undisturbed(&questions, &fleet.ask_all(&questions).await);
    for series in
        ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"]
    {
        assert!(fleet.value(series) < 1e-9, "{series} is {}", fleet.value(series));
    }
    assert!(cluster.machines.iter().all(|machine| !machine.condition.borrow().down));
    let ahead = fleet.value("arcmesh_steps_ahead_total");
    fleet.shutdown.cancel();
    within(RECOVERY_MAX, fleet.task).await.unwrap().unwrap();
    ahead
}

fn life(cluster: &Cluster, began: Instant, told: Vec<(u32, Told)>, faults: Vec<String>) -> Life {
    for (n, told) in &told {
        let expected = Question::nth(*n).undisturbed();
        if told.failed.is_none() {
            assert_eq!(told.texts, expected, "question {n}");
            let ended = |reason: &Option<FinishReason>| reason.is_some();
            assert!(told.reasons.iter().all(ended), "question {n} does not end: {told:?}");
        }
        for (text, expected) in told.texts.iter().zip(&expected) {
            assert!(expected.starts_with(text), "question {n}: {text:?} instead of {expected:?}");
        }
    }
    let record = cluster.throne.record.lock().unwrap();
    assert_eq!(record.violations, Vec::<String>::new());
    let epochs = record.epochs.keys().copied().collect();
    Life { lasted: began.elapsed(), told, epochs, faults, ahead: 0.0 }
}

async fn within<T>(most: Duration, what: impl Future<Output = T>) -> T {
    timeout(most, what).await.expect("it is still not so")
}

/// A life from its beginning to its end, on a clock of its own.
fn lived(seed: u64) -> Life {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { timeout(LIFE_MAX, live(seed)).await.expect("something hangs") })
}

/// Says, should this life fail, which one it was.
struct Said(u64);

impl Drop for Said {
    #[expect(clippy::print_stderr, reason = "whoever reads a test's output lives it again")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this life is lived again by SIM_SEED={}", self.0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var_os(name).map(|value| value.to_str().unwrap().parse().unwrap())
}

#[test]
fn whatever_happens_what_was_accepted_ends_and_is_exact() {
    let seeds = number("SIM_SEED").map_or(0..number("SIM_SEEDS").unwrap_or(LIVES), |s| s..s + 1);
    let (mut failed, mut all) = (0, 0);
    for seed in seeds {
        let _said = Said(seed);
        let life = lived(seed);
        failed += life.told.iter().filter(|(_, told)| told.failed.is_some()).count();
        all += life.told.len();
        assert!(life.ahead > 0.5, "no step was sent ahead");
    }
    println!("{all} answers, {failed} of them with an error");
}

#[test]
fn a_seed_is_a_life() {
    for seed in 0..5 {
        assert_eq!(lived(seed), lived(seed), "seed {seed}");
    }
    assert_ne!(lived(1), lived(2));
}
