//! A process of the demo: started, listened to, and ended.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::demo::check::Check;

/// How long a process may take until it says that it is there.
const START_MAX: Duration = Duration::from_secs(600);
/// How long it may take to end.
const END_MAX: Duration = Duration::from_secs(60);
/// Between two looks at whether it has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Lines that may wait to be read.
const LINES_MAX: usize = 64;

/// A process; it is killed where it is dropped before it has ended.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts it. What it says on standard error goes to a file named after it.
    pub(super) fn start(name: &str, command: &mut Command, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let errors = File::create(&log)
            .with_context(|| format!("--folder: cannot write {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn();
        let mut child = child.with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().context("it has a standard output")?;
        let (tell, lines) = mpsc::sync_channel(LINES_MAX);
        // It is read to its end, so that it never waits for us.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // A line that nobody waits for is passed over.
                drop(tell.try_send(line));
            }
        });
        Ok(Self { name: name.to_owned(), child, lines })
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that starts so; what follows.
    pub(super) fn says(&self, start: &str) -> anyhow::Result<String> {
        let until = Instant::now() + START_MAX;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(start) {
                        return Ok(rest.to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("{} did not start in time", self.name),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(anyhow!("{0} ended: see {0}.log", self.name));
                }
            }
        }
    }

    /// Tells it to end, and waits until it has: it must, with exit code 0.
    pub(super) fn end(mut self) -> Check {
        let name = format!("{} ends", self.name);
        match self.child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Check::failed(&name, format!("it had ended: {status}")),
            Err(error) => return Check::failed(&name, error.to_string()),
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
            return Check::failed(&name, error.to_string());
        }
        let until = Instant::now() + END_MAX;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => {
                    return Check::passed(&name, "when it is told to".to_owned());
                }
                Ok(Some(status)) => return Check::failed(&name, status.to_string()),
                Ok(None) if Instant::now() < until => std::thread::sleep(LOOK_PAUSE),
                Ok(None) => return Check::failed(&name, "not in time: it was killed".to_owned()),
                Err(error) => return Check::failed(&name, error.to_string()),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended cannot be killed, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
