//! Which CPU each compute thread stays on.
//!
//! A thread that stays finds what it wrote in the caches of its core, and never shares a core while
//! another is idle. One that may not leave a core which somebody else wants waits there, and the others
//! wait for it: what is won on a quiet machine is lost many times over on a crowded one, so threads are free
//! to move unless somebody who knows the machine says otherwise.

#![expect(unsafe_code, reason = "the system is asked which CPUs a thread may use, and told")]

use std::mem::MaybeUninit;
use std::path::Path;
use std::thread::ThreadId;
use std::{fmt, fs};

/// Where the system says how CPUs lie.
const CPUS: &str = "/sys/devices/system/cpu";

/// Whether compute threads stay on one CPU each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pinning {
    /// Nowhere.
    #[default]
    Off,
    /// Where the ranks of this machine have as many threads as it has cores, or as it has CPUs: nobody is then
    /// idle while another is crowded.
    Auto,
    /// Wherever there are as many CPUs as threads.
    On,
}

/// Threads that compute for a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// How many, that of the rank among them.
    pub count: usize,
    /// Whether they stay on one CPU each.
    pub pinning: Pinning,
}

impl From<usize> for Threads {
    /// So many, free to move.
    fn from(count: usize) -> Self {
        Self { count, pinning: Pinning::Off }
    }
}

/// A rank's place among those of its group on this machine: which of how many.
pub(crate) type PlaceHere = (usize, usize);

/// The CPUs on which the threads of a rank stay, that of the rank first; none: all are free to move.
pub(crate) fn cpus(threads: Threads, place: PlaceHere) -> Vec<usize> {
    if threads.pinning == Pinning::Off {
        return Vec::new();
    }
    // A machine of more CPUs than the set holds does not tell: threads are then free to move.
    let allowed = Allowed::now().map_or_else(Vec::new, |allowed| allowed.cpus());
    choose(&topology(Path::new(CPUS), &allowed), threads, place)
}

/// A CPU: what the system schedules a thread on. Several may share a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cpu {
    package: usize,
    /// The first CPU of its core.
    core: usize,
    id: usize,
}

/// Where the CPUs `ids` lie, in order; each a core of its own where nothing is said.
fn topology(root: &Path, ids: &[usize]) -> Vec<Cpu> {
    let place = |&id: &usize| {
        let folder = root.join(format!("cpu{id}/topology"));
        let number = |file: &str| first_number(&fs::read_to_string(folder.join(file)).ok()?);
        let core = number("core_cpus_list").or_else(|| number("thread_siblings_list"));
        let package = number("physical_package_id").unwrap_or(0);
        Cpu { package, core: core.unwrap_or(id), id }
    };
    let mut cpus: Vec<Cpu> = ids.iter().map(place).collect();
    cpus.sort_unstable();
    cpus
}

/// The first number of a list such as `0-1` or `3,67`.
fn first_number(list: &str) -> Option<usize> {
    list.trim().split([',', '-']).next()?.parse().ok()
}

/// [`cpus`], once it is known which `cpus` there are, in order.
fn choose(cpus: &[Cpu], threads: Threads, (rank, ranks): PlaceHere) -> Vec<usize> {
    let wanted = threads.count.saturating_mul(ranks);
    let core_of = |cpu: &Cpu| (cpu.package, cpu.core);
    let cores: Vec<&[Cpu]> = cpus.chunk_by(|a, b| core_of(a) == core_of(b)).collect();
    let fits = match threads.pinning {
        Pinning::Auto => wanted == cores.len() || wanted == cpus.len(),
        Pinning::On => wanted <= cpus.len(),
        Pinning::Off => false,
    };
    if !fits || rank >= ranks {
        return Vec::new();
    }
    // One on each core, then a second one on each; neighbours among ranks are neighbours on the machine.
    let mut taken: Vec<(usize, Cpu)> =
        cores.iter().flat_map(|core| core.iter().copied().enumerate()).collect();
    taken.sort_unstable();
    taken.truncate(wanted);
    taken.sort_unstable_by_key(|&(_, cpu)| cpu);
    taken[rank * threads.count..][..threads.count].iter().map(|(_, cpu)| cpu.id).collect()
}

/// The CPUs that a thread may use.
#[derive(Clone, Copy)]
struct Allowed(libc::cpu_set_t);

impl Allowed {
    /// Those of the thread that calls.
    fn now() -> Option<Self> {
        let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
        // SAFETY: the set is ours, and as large as is said.
        let failed = unsafe { libc::sched_getaffinity(0, size_of_val(&set), set.as_mut_ptr()) };
        // SAFETY: bits, of which any are a set.
        (failed == 0).then(|| Self(unsafe { set.assume_init() }))
    }

    fn only(cpu: usize) -> Self {
        // SAFETY: bits, of which none are the empty set.
        let mut set = unsafe { MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init() };
        // SAFETY: looks at nothing but the set, and at its length first.
        unsafe { libc::CPU_SET(cpu, &mut set) };
        Self(set)
    }

    fn cpus(&self) -> Vec<usize> {
        // SAFETY: looks at nothing but the set, of `CPU_SETSIZE` bits.
        let has = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &self.0) };
        (0..8 * size_of_val(&self.0)).filter(has).collect()
    }

    /// Makes these the CPUs of the thread that calls; whether the system lets it.
    fn apply(&self) -> bool {
        // SAFETY: the set is as large as is said, and only read.
        unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &raw const self.0) == 0 }
    }
}

/// Keeps the thread that calls on one CPU, until it drops this.
pub(crate) struct Pinned {
    thread: ThreadId,
    before: Allowed,
}

impl Pinned {
    /// None where the system does not let it: it then stays free to move.
    pub(crate) fn on(cpu: usize) -> Option<Self> {
        let before = Allowed::now()?;
        let thread = std::thread::current().id();
        Allowed::only(cpu).apply().then_some(Self { thread, before })
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if std::thread::current().id() == self.thread {
            // Where all of them were taken away meanwhile, the system has chosen others.
            self.before.apply();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cores of two CPUs in packages of `cores`, numbered as Linux does: first all first ones.
    fn machine(packages: usize, cores: usize) -> Vec<Cpu> {
        let all = packages * cores;
        let mut cpus: Vec<Cpu> =
            (0..2 * all).map(|id| Cpu { package: id % all / cores, core: id % all, id }).collect();
        cpus.sort_unstable();
        cpus
    }

    fn chosen(cpus: &[Cpu], pinning: Pinning, count: usize, ranks: usize) -> Vec<Vec<usize>> {
        (0..ranks).map(|rank| choose(cpus, Threads { count, pinning }, (rank, ranks))).collect()
    }

    const FREE: [usize; 0] = [];

    #[test]
    fn auto_keeps_threads_in_place_only_where_they_fill_the_machine() {
        let cpus = machine(1, 4);
        let auto = |count, ranks| chosen(&cpus, Pinning::Auto, count, ranks);
        assert_eq!(auto(4, 1), [[0, 1, 2, 3]], "one on each core");
        assert_eq!(auto(8, 1), [[0, 4, 1, 5, 2, 6, 3, 7]], "one on each CPU");
        assert_eq!(auto(2, 2), [[0, 1], [2, 3]]);
        assert_eq!(auto(4, 2), [[0, 4, 1, 5], [2, 6, 3, 7]], "ranks share no core");
        for (count, ranks) in [(1, 1), (3, 1), (5, 1), (9, 1), (2, 1), (1, 2), (3, 3)] {
            assert_eq!(auto(count, ranks), vec![FREE; ranks], "{count} threads, {ranks} ranks");
        }
    }

    #[test]
    fn whoever_asks_for_it_gets_cores_first_and_then_the_other_halves() {
        let cpus = machine(2, 2);
        let on = |count, ranks| chosen(&cpus, Pinning::On, count, ranks);
        assert_eq!(on(3, 1), [[0, 1, 2]]);
        assert_eq!(on(5, 1), [[0, 4, 1, 2, 3]]);
        assert_eq!(on(2, 2), [[0, 1], [2, 3]], "a rank has a package to itself");
        assert_eq!(on(9, 1), [FREE], "two threads would have to share");
        assert_eq!(on(usize::MAX, 2), [FREE, FREE]);
        assert_eq!(chosen(&cpus, Pinning::Off, 4, 1), [FREE]);
    }

    #[test]
    fn nothing_outside_of_what_the_process_may_use_is_taken() {
        // Half of each of two cores, and both halves of a third.
        let cpus: Vec<Cpu> =
            machine(1, 4).into_iter().filter(|cpu| [1, 2, 6, 7].contains(&cpu.id)).collect();
        assert_eq!(chosen(&cpus, Pinning::Auto, 3, 1), [[1, 2, 7]]);
        assert_eq!(chosen(&cpus, Pinning::Auto, 4, 1), [[1, 2, 6, 7]]);
        assert_eq!(choose(&[], Threads { count: 1, pinning: Pinning::On }, (0, 1)), FREE);
    }

    #[test]
    #[cfg_attr(miri, ignore = "it writes files")]
    fn the_system_tells_where_cpus_lie() {
        let root = tempfile::tempdir().unwrap();
        let says = |id: usize, files: &[(&str, &str)]| {
            let folder = root.path().join(format!("cpu{id}/topology"));
            fs::create_dir_all(&folder).unwrap();
            for (file, text) in files {
                fs::write(folder.join(file), text).unwrap();
            }
        };
        says(0, &[("core_cpus_list", "0,2\n"), ("physical_package_id", "1\n")]);
        says(1, &[("thread_siblings_list", "1-3\n"), ("physical_package_id", "0\n")]);
        says(2, &[("core_cpus_list", "0,2\n"), ("physical_package_id", "1\n")]);
        says(3, &[("core_cpus_list", "what?\n")]);
        let found: Vec<_> = topology(root.path(), &[0, 1, 2, 3, 4])
            .into_iter()
            .map(|Cpu { package, core, id }| (package, core, id))
            .collect();
        assert_eq!(found, [(0, 1, 1), (0, 3, 3), (0, 4, 4), (1, 0, 0), (1, 0, 2)]);
    }

    #[test]
    fn a_thread_is_free_again_once_it_drops_the_pin() {
        let allowed = || Allowed::now().unwrap().cpus();
        let before = allowed();
        let last = *before.last().unwrap();
        let pinned = Pinned::on(last).unwrap();
        assert_eq!(allowed(), [last]);
        drop(pinned);
        assert_eq!(allowed(), before);
    }
}
