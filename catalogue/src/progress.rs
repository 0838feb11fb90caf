//! How far a fetch has come, and how a person sees it.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Something that happened while a model is fetched.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// Something a person should read.
    Notice(&'a str),
    /// Work goes on.
    Step {
        /// What is done.
        phase: Phase,
        /// With what.
        name: &'a str,
        /// Bytes behind us.
        done: u64,
        /// Bytes in all, where that is known.
        total: Option<u64>,
    },
}

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It comes over the network.
    Downloading,
    /// Its sum is computed.
    Checking,
    /// It is unpacked.
    Unpacking,
}

impl Phase {
    fn verb(self) -> &'static str {
        match self {
            Self::Downloading => "fetching",
            Self::Checking => "checking",
            Self::Unpacking => "unpacking",
        }
    }
}

/// Shows progress on standard error: a bar on a terminal, otherwise a line for every tenth of a
/// download.
pub fn shown() -> impl Fn(Progress<'_>) {
    let stderr = io::stderr();
    let drawing = Mutex::new(Drawing::new(stderr.is_terminal()));
    move |progress| {
        let mut drawing = drawing.lock().unwrap_or_else(PoisonError::into_inner);
        drawing.apply(progress, &mut io::stderr());
    }
}

/// What is on the screen.
struct Drawing {
    terminal: bool,
    /// The file that is worked on, as it is called there.
    title: String,
    bar: Option<ProgressBar>,
    /// Tenths of the way that were printed.
    tenths: u64,
}

impl Drawing {
    fn new(terminal: bool) -> Self {
        Self { terminal, title: String::new(), bar: None, tenths: 0 }
    }

    fn apply(&mut self, progress: Progress<'_>, lines: &mut dyn Write) {
        // Nobody to tell is no reason to stop: failures to write are dropped.
        match progress {
            Progress::Notice(notice) => match &self.bar {
                Some(bar) => bar.suspend(|| writeln!(lines, "{notice}")).ok(),
                None => writeln!(lines, "{notice}").ok(),
            },
            Progress::Step { phase, name, done, total } => {
                let new = self.begin(format!("{} {name}", phase.verb()), done, total);
                match &self.bar {
                    Some(bar) => {
                        bar.set_position(done);
                        (Some(done) == total).then(|| bar.finish_and_clear())
                    }
                    None if phase == Phase::Downloading => self.line(done, total, lines).ok(),
                    // What takes a second or two is one line.
                    None => new.then(|| writeln!(lines, "{}", self.title).ok()).flatten(),
                }
            }
        };
    }

    /// Turns to the next piece of work; says whether it is one.
    fn begin(&mut self, title: String, done: u64, total: Option<u64>) -> bool {
        if self.title == title {
            return false;
        }
        self.title = title;
        self.tenths = 0;
        if self.terminal {
            let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
            bar.set_style(style());
            bar.set_message(self.title.clone());
            bar.set_position(done);
            bar.reset_eta();
            self.bar = Some(bar);
        }
        true
    }

    /// One line for each tenth that is new.
    fn line(&mut self, done: u64, total: Option<u64>, lines: &mut dyn Write) -> io::Result<()> {
        let Some(total) = total.filter(|total| *total > 0) else { return Ok(()) };
        let tenths = (u128::from(done) * 10 / u128::from(total)).min(10);
        let tenths = u64::try_from(tenths).unwrap_or(10);
        if tenths <= self.tenths {
            return Ok(());
        }
        self.tenths = tenths;
        writeln!(lines, "{}: {} % of {}", self.title, tenths * 10, HumanBytes(total))
    }
}

fn style() -> ProgressStyle {
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_each_tenth_of_a_download_is_one_line() {
        let mut drawing = Drawing::new(false);
        let mut lines = Vec::new();
        drawing.apply(Progress::Notice("mind the licence"), &mut lines);
        for done in 0..=100 {
            let phase = Phase::Downloading;
            let step = Progress::Step { phase, name: "a", done, total: Some(100) };
            drawing.apply(step, &mut lines);
        }
        for done in 0..5 {
            let phase = Phase::Checking;
            drawing.apply(Progress::Step { phase, name: "a", done, total: Some(5) }, &mut lines);
        }
        let text = String::from_utf8(lines).unwrap();
        assert_eq!(text.lines().count(), 12, "{text}");
        assert!(text.starts_with("mind the licence\nfetching a: 10 % of 100 B\n"), "{text}");
        assert!(text.ends_with("fetching a: 100 % of 100 B\nchecking a\n"), "{text}");
    }
}
