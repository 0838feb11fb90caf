//! A real etcd on this machine, for one test.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::process;

/// Lines of its log after which an etcd that does not serve is given up.
const LINES_MAX: usize = 500;

/// Where it is reached, and how its certificate is called.
pub(crate) const ADDRESS: &str = "127.0.0.1";

/// An etcd that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Etcd {
    child: Child,
    folder: TempDir,
    port: u16,
    /// Where the certificates of an etcd lie that speaks TLS, and wants its clients to prove who they are.
    certificates: Option<PathBuf>,
}

impl Etcd {
    /// Starts one; none where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::with(None)
    }

    /// One that knows an authority, and whose own certificate is the node's that is called as its address.
    pub(crate) fn secure(certificates: &Path) -> Option<Self> {
        Self::with(Some(certificates.to_owned()))
    }

    fn with(certificates: Option<PathBuf>) -> Option<Self> {
        if !fixture::has("etcd", "etcd-server") {
            return None;
        }
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        Some(Self {
            child: run(port, &folder, certificates.as_deref()),
            folder,
            port,
            certificates,
        })
    }

    /// What `--etcd` is given.
    pub(crate) fn url(&self) -> String {
        url(self.port, self.certificates.as_deref())
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with all that it knew forgotten.
    pub(crate) fn restart_empty(&mut self) {
        self.folder = tempfile::tempdir().unwrap();
        self.child = run(self.port, &self.folder, self.certificates.as_deref());
    }

    /// Starts it again, as it was.
    pub(crate) fn restart(&mut self) {
        self.child = run(self.port, &self.folder, self.certificates.as_deref());
    }

    /// Sends it a signal, as `kill` names it.
    pub(crate) fn signal(&self, name: &str) {
        process::signal(&self.child, name);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // A process that has ended already cannot be ended: that is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port that nobody uses.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn url(port: u16, certificates: Option<&Path>) -> String {
    let scheme = if certificates.is_some() { "https" } else { "http" };
    format!("{scheme}://{ADDRESS}:{port}")
}

fn run(port: u16, folder: &TempDir, certificates: Option<&Path>) -> Child {
    let url = url(port, certificates);
    let mut command = Command::new("etcd");
    if let Some(certificates) = certificates {
        let file = |name: &str| certificates.join(name);
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(file("ca.pem"));
        command.arg("--cert-file").arg(file(&format!("{ADDRESS}.pem")));
        command.arg("--key-file").arg(file(&format!("{ADDRESS}.key")));
    }
    let mut child = command
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
