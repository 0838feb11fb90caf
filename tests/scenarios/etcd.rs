//! A real etcd on this machine, for one test.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Lines of its log after which an etcd that does not serve is given up.
const LINES_MAX: usize = 500;

/// An etcd that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Etcd {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Etcd {
    /// Starts one; none where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        if !fixture::has("etcd", "etcd-server") {
            return None;
        }
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        Some(Self { child: run(port, &folder), folder, port })
    }

    /// What `--etcd` is given.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with all that it knew forgotten.
    pub(crate) fn restart_empty(&mut self) {
        self.folder = tempfile::tempdir().unwrap();
        self.child = run(self.port, &self.folder);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // A process that has ended already cannot be ended: that is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn run(port: u16, folder: &TempDir) -> Child {
    let url = format!("http://127.0.0.1:{port}");
    let mut child = Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.path())
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", "http://127.0.0.1:0"])
        .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = |line: &String| line.contains("serving") && line.contains("client requests on");
    let mut said = Vec::new();
    loop {
        let line = lines.next().unwrap_or_else(|| panic!("etcd ended: {said:?}")).unwrap();
        let found = ready(&line);
        said.push(line);
        if found {
            break;
        }
        assert!(said.len() < LINES_MAX, "etcd does not serve: {said:?}");
    }
    // Whatever it says later is read, so that it never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    child
}
