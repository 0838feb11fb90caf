//! What memory this process may use, as Linux tells it: the machine's, or less where a control group,
//! such as a container's, has a limit.

use std::fs;
use std::path::Path;

/// Assumed where the machine does not say: enough for a small model, too little to hurt.
const ASSUMED_BYTES: u64 = 4 << 30;

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// Memory that this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostMemory {
    /// All there is, bytes.
    pub(crate) total_bytes: u64,
    /// What can be had without swapping, bytes.
    pub(crate) available_bytes: u64,
}

impl HostMemory {
    /// Asks now.
    #[must_use]
    pub(crate) fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let machine = Self::parse(&text("/proc/meminfo"));
        machine.within(Path::new(GROUPS), &text("/proc/self/cgroup"))
    }

    fn parse(meminfo: &str) -> Self {
        let total_bytes = line_of(meminfo, "MemTotal:").unwrap_or(ASSUMED_BYTES);
        let available_bytes = line_of(meminfo, "MemAvailable:").unwrap_or(total_bytes);
        Self { total_bytes, available_bytes: available_bytes.min(total_bytes) }
    }

    /// What the control groups under `root` leave of it. `groups` is a `/proc/self/cgroup`.
    fn within(mut self, root: &Path, groups: &str) -> Self {
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let (files, root) = match controllers {
                "" => (&VERSION_2, root.to_path_buf()),
                _ if controllers.split(',').any(|it| it == "memory") => {
                    (&VERSION_1, root.join("memory"))
                }
                _ => continue,
            };
            // Limits of the groups around ours hold too. Seen from within a container, ours may not
            // be there by the path that the machine knows it by; then the root stands for it.
            for group in Path::new(path.trim_start_matches('/')).ancestors() {
                self = self.within_group(&root.join(group), files);
            }
        }
        self
    }

    fn within_group(self, group: &Path, files: &Files) -> Self {
        let text = |name| fs::read_to_string(group.join(name)).unwrap_or_default();
        let Ok(limit) = text(files.limit).trim().parse::<u64>() else { return self };
        let used: u64 = text(files.used).trim().parse().unwrap_or(0);
        let stat = text("memory.stat");
        // Pages of files go when something else needs the room.
        let files = files.cached.map(|name| line_of(&stat, name).unwrap_or(0));
        let used = used.saturating_sub(files[0].saturating_add(files[1]));
        Self {
            total_bytes: self.total_bytes.min(limit),
            available_bytes: self.available_bytes.min(limit.saturating_sub(used)),
        }
    }
}

/// What a version of control groups calls its files, and lines of `memory.stat`.
struct Files {
    limit: &'static str,
    used: &'static str,
    cached: [&'static str; 2],
}

const VERSION_2: Files = Files {
    limit: "memory.max",
    used: "memory.current",
    cached: ["inactive_file ", "active_file "],
};

const VERSION_1: Files = Files {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cached: ["total_inactive_file ", "total_active_file "],
};

/// Bytes of a line by its beginning: a number, of KiB where it says so.
pub(crate) fn line_of(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?.trim();
    match value.strip_suffix("kB") {
        Some(kib) => kib.trim().parse::<u64>().ok()?.checked_mul(1024),
        None => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: HostMemory = HostMemory { total_bytes: 10_000, available_bytes: 8_000 };

    fn assert_within(groups: &str, files: &[(&str, &str)], total_bytes: u64, available_bytes: u64) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let expected = HostMemory { total_bytes, available_bytes };
        assert_eq!(MACHINE.within(root.path(), groups), expected, "{groups}");
    }

    #[test]
    fn the_two_lines_that_count_are_found() {
        let text = "MemTotal:       2000 kB\nMemFree:   7 kB\nMemAvailable:   1000 kB\n";
        let memory = HostMemory::parse(text);
        assert_eq!(memory, HostMemory { total_bytes: 2_048_000, available_bytes: 1_024_000 });
    }

    #[test]
    fn a_machine_that_does_not_say_gets_a_modest_guess() {
        let memory = HostMemory::parse("MemTotal: lots\n");
        assert_eq!(memory.available_bytes, ASSUMED_BYTES);
    }

    #[test]
    fn the_strictest_limit_of_all_groups_around_the_process_counts() {
        let stat = "anon 300\ninactive_file 600\nactive_file 100\n";
        let files = [
            ("pod/own/memory.max", "max\n"),
            ("pod/memory.max", "5000\n"),
            ("pod/memory.current", "1000\n"),
            ("pod/memory.stat", stat),
            ("memory.max", "6000\n"),
        ];
        assert_within("0::/pod/own\n", &files, 5_000, 4_700);
        assert_within("0::/\n", &files, 6_000, 6_000);
    }

    #[test]
    fn a_group_that_is_not_there_by_its_path_is_the_root() {
        let files = [("memory.max", "4000"), ("memory.current", "500")];
        assert_within("0::/docker/0123\n", &files, 4_000, 3_500);
        assert_within("0::/../..\n", &files, 4_000, 3_500);
    }

    #[test]
    fn groups_of_the_first_version_count_too() {
        let files = [
            ("memory/box/memory.limit_in_bytes", "3000"),
            ("memory/box/memory.usage_in_bytes", "2500"),
            ("memory/box/memory.stat", "cache 9\ntotal_inactive_file 500\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
        ];
        assert_within("4:cpu,memory:/box\n1:cpu:/\n0::/\n", &files, 3_000, 1_000);
    }

    #[test]
    fn without_limits_there_is_what_the_machine_has() {
        assert_within("0::/user\n", &[("user/memory.max", "max")], 10_000, 8_000);
        assert_within("nonsense", &[], 10_000, 8_000);
    }
}
