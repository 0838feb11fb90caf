//! Nodes that prove to each other who they are, and a stranger that cannot.

use std::path::Path;

use crate::process::Process;
use crate::site::{Site, address, question};

/// How the node of this name proves who it is.
pub(crate) fn proof(folder: &Path, name: &str) -> [String; 6] {
    let path = |file: &str| folder.join(file).display().to_string();
    let (certificate, key) = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
    ["--tls-ca".to_owned(), path("ca.pem"), "--tls-cert".to_owned(), certificate]
        .into_iter()
        .chain(["--tls-key".to_owned(), key])
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

/// Replaces a file: whole or not at all.
pub(crate) fn put(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join("new"), bytes).unwrap();
    std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

pub(crate) fn certs(folder: &Path, names: &[&str]) {
    let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
    command.args(["certs", "init", "--certs-folder"]).arg(folder);
    command.args(names.iter().flat_map(|name| ["--node-name", name]));
    assert!(command.output().unwrap().status.success());
}

#[tokio::test]
async fn whoever_has_a_certificate_of_the_cluster_takes_part_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let strangers = tempfile::tempdir().unwrap();
    certs(folder.path(), &["one", "two", "front"]);
    certs(strangers.path(), &["front"]);
    let worker = |name: &str| {
        let proof = proof(folder.path(), name);
        let proof = proof.iter().map(String::as_str);
        let arguments = ["worker", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
        let all: Vec<_> = arguments.into_iter().chain(["--threads", "1"]).chain(proof).collect();
        Process::start(&all, "worker on ")
    };
    let workers = vec![worker("one"), worker("two")];
    let (first, second) = (address(&workers[0]), address(&workers[1]));
    let coordinator = ["coordinator", "--port", "0", "--worker", &first, "--worker", &second];
    let own = proof(folder.path(), "front");
    let all: Vec<_> = coordinator.into_iter().chain(own.iter().map(String::as_str)).collect();
    let site = Site::of(Process::start(&all, "    -d"), workers);
    let body = question("Why is the sky blue?", 12);
    let expected = site.chat(body.clone()).await;
    // Another cluster's certificate is no better than none, and disturbs nobody.
    let other = proof(strangers.path(), "front");
    for proof in [&other[..], &[]] {
        let mut stranger = fixture::program(env!("CARGO_BIN_EXE_arcmesh"))
            .args(coordinator)
            .args(proof)
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let lines =
            std::io::BufRead::lines(std::io::BufReader::new(stranger.stderr.take().unwrap()));
        let waits = lines.map(Result::unwrap).any(|line| line.contains("waiting for all workers"));
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(waits, "it was let in");
        assert_eq!(site.chat(body.clone()).await, expected);
    }
}
