//! `arcmesh` as a process of its own, ended with the test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Lines of standard output after which a process that does not say what it should is given up.
const LINES_MAX: usize = 100;

/// A process that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    said: Vec<String>,
}

/// What a process has logged so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Whether a line has this in it.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.contains(text))
    }
}

impl Process {
    /// As [`Process::start`], with what it logs.
    pub(crate) fn logged(arguments: &[&str], until: &str) -> (Self, Log) {
        let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
        command.args(arguments).stderr(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (log, stderr) = (Log::default(), child.stderr.take().unwrap());
        let kept = Arc::clone(&log.0);
        std::thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            lines.for_each(|line| kept.lock().unwrap().push(line));
        });
        (Self::ready(child, arguments, until), log)
    }

    /// Starts `arcmesh` and reads what it says until a line begins with `until`.
    pub(crate) fn start(arguments: &[&str], until: &str) -> Self {
        let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
        let child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        Self::ready(child, arguments, until)
    }

    fn ready(mut child: Child, arguments: &[&str], until: &str) -> Self {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {arguments:?}")).unwrap();
            let found = line.starts_with(until);
            said.push(line);
            if found {
                break;
            }
            assert!(said.len() < LINES_MAX, "it never said {until:?}: {said:?}");
        }
        // Whatever it says later is read, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, said }
    }

    /// What it said, line by line.
    pub(crate) fn said(&self) -> &[String] {
        &self.said
    }

    /// What stands behind `before` in the first line that has it, up to a blank or a comma.
    pub(crate) fn told(&self, before: &str) -> String {
        let line = self.said.iter().find_map(|line| line.split_once(before)).unwrap().1;
        line.split([' ', ',']).next().unwrap().to_owned()
    }

    /// As if the machine had lost its power.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends without being asked; whether all went well.
    pub(crate) fn end_by_itself(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, as `kill` names it.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Asks it to end and waits until it has; whether all went well.
    pub(crate) fn end(&mut self) -> bool {
        self.signal("TERM");
        self.child.wait().unwrap().success()
    }
}

/// Sends a process a signal, as `kill` names it.
pub(crate) fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
    assert!(sent.success(), "{name}");
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has ended already cannot be ended: that is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
