//! Certificates and rights that change under a cluster that serves.

use std::fs;
use std::path::Path;

use etcd_client::{
    Certificate, Client as EtcdClient, ConnectOptions, Identity, Permission, PermissionType,
    TlsOptions,
};

use crate::etcd::{ADDRESS, Etcd};
use crate::membership::ranks;
use crate::process::Process;
use crate::secure::{Client, certificate};
use crate::security::{certs, proof, put};
use crate::site::{Site, address, question, read, streaming, until};

/// The nodes.
const NODES: [&str; 3] = ["one", "two", "front"];

fn strings(arguments: &[&str], more: &[String]) -> Vec<String> {
    arguments.iter().map(|&argument| argument.to_owned()).chain(more.iter().cloned()).collect()
}

fn start(arguments: &[String], until: &str) -> Process {
    Process::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), until)
}

fn node(folder: &Path, name: &str, listen: &str) -> Process {
    let arguments = ["worker", "--listen", listen, "--metrics", "127.0.0.1:0", "--threads", "1"];
    start(&strings(&arguments, &proof(folder, name)), "worker on ")
}

/// Connects until a node shows the certificate that lies in a folder.
async fn shows(client: &Client, process: &Process, folder: &Path, node: &str) {
    let (address, wanted) = (address(process), certificate(folder, node));
    // While its files are being replaced, a node may turn away whom it will let in soon.
    let shows = async || client.shown(&address).await.is_ok_and(|shown| shown == wanted);
    until(&format!("{node} shows its new certificate"), shows).await;
}

/// An authority takes the place of another: both are trusted, the nodes' certificates change, only the new one is
/// trusted. Nobody is started anew for it, and an answer goes on all the while.
#[tokio::test]
async fn an_authority_and_all_certificates_change_under_an_answer() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let used = tempfile::tempdir().unwrap();
    let (old, new, used) = (old.path(), new.path(), used.path());
    for folder in [old, new] {
        certs(folder, &NODES);
    }
    let files = |node: &str| [format!("{node}.pem"), format!("{node}.key")];
    let take = |from: &Path, name: &str| put(used, name, &fs::read(from.join(name)).unwrap());
    take(old, "ca.pem");
    NODES.iter().flat_map(|node| files(node)).for_each(|name| take(old, &name));

    let workers = vec![node(used, "one", "127.0.0.1:0"), node(used, "two", "127.0.0.1:0")];
    let at = workers.iter().map(address).collect::<Vec<_>>();
    let coordinator = ["coordinator", "--port", "0", "--worker", &at[0], "--worker", &at[1]];
    let front = start(&strings(&coordinator, &proof(used, "front")), "    -d");
    let mut site = Site::of(front, workers);
    let body = question("Tell me a story about a lighthouse.", 160);
    let expected = site.chat(body.clone()).await;

    let response = site.post("/v1/chat/completions", &streaming(body.clone())).await;
    let both = [fs::read(old.join("ca.pem")).unwrap(), fs::read(new.join("ca.pem")).unwrap()];
    put(used, "ca.pem", &both.concat());
    NODES.iter().flat_map(|node| files(node)).for_each(|name| take(new, &name));
    for (process, node) in site.workers.iter().zip(NODES) {
        shows(&Client::proving(new, node, "arcmesh"), process, new, node).await;
    }
    take(new, "ca.pem");
    let stranger = Client::proving(old, "one", "arcmesh");
    assert_eq!(read(response, |_| {}).await, expected);
    for process in &site.workers {
        assert!(
            stranger.shown(&address(process)).await.is_err(),
            "its authority is trusted no more"
        );
    }
    // Whoever comes now is met with the new certificates: the coordinator's and the other rank's.
    let response = site.post("/v1/chat/completions", &streaming(body.clone())).await;
    let mut lost = site.workers.pop();
    let disturbed = read(response, |pieces| {
        if pieces == 8 {
            let mut lost = lost.take().unwrap();
            lost.kill();
            site.workers.push(node(new, "two", &at[1]));
        }
    });
    assert_eq!(disturbed.await, expected);
    ranks(&site, 2).await;
    assert_eq!(site.chat(body).await, expected);
}

/// An etcd that asks everybody for a certificate and a password, and lets a cluster see its own keys alone.
#[tokio::test]
async fn a_cluster_lives_in_an_etcd_that_speaks_tls_and_knows_its_users() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certs(folder, &["one", "two", "front", "admin", ADDRESS]);
    let Some(etcd) = Etcd::secure(folder) else { return };
    rights(folder, &etcd.url()).await;
    let url = etcd.url();
    let membership = ["--etcd", &url, "--etcd-user", "cluster:its password"];
    let with = |arguments: &[&str], name: &str| {
        strings(&[arguments, &membership].concat(), &proof(folder, name))
    };
    let worker = |name: &str| start(&with(&["worker", "--threads", "1"], name), "worker on ");
    let coordinator = ["coordinator", "--port", "0", "--world", "2"];
    let workers = vec![worker("one"), worker("two")];
    let mut site = Site::of(start(&with(&coordinator, "front"), "    -d"), workers);
    let body = question("Tell me a story about a lighthouse.", 60);
    let expected = site.chat(body.clone()).await;
    // It is told who comes and goes, as by any other.
    let (new, old) = (worker("one"), site.workers.remove(0));
    let drained = fixture::program(env!("CARGO_BIN_EXE_arcmesh"))
        .args(with(&["drain", &address(&old)], "front"))
        .output()
        .unwrap();
    assert!(drained.status.success(), "{drained:?}");
    site.workers.push(new);
    assert_eq!(site.chat(body).await, expected);
    // Strangers end with one line.
    let nobody = strangers(folder, &url);
    for arguments in nobody {
        let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
        let ended = command.args(coordinator).args(&arguments).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success(), "{arguments:?} was let in");
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("arcmesh: --etcd: "), "{arguments:?}: {said}");
        assert!(!said.contains("pass word"), "{said}");
    }
}

/// What those give who lack something: a certificate, the right one, a password, a user.
fn strangers(folder: &Path, url: &str) -> Vec<Vec<String>> {
    let other = folder.join("other");
    certs(&other, &["front"]);
    let at = ["--etcd", url];
    let user = |user: &str| strings(&["--etcd-user", user], &[]);
    vec![
        [strings(&at, &[]), user("cluster:its password")].concat(),
        [strings(&at, &proof(&other, "front")), user("cluster:its password")].concat(),
        [strings(&at, &proof(folder, "front")), user("cluster:a pass word")].concat(),
        strings(&at, &proof(folder, "front")),
    ]
}

/// A user of the cluster's own keys, and an etcd that asks for one.
async fn rights(folder: &Path, url: &str) {
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")))
        .identity(Identity::from_pem(read("admin.pem"), read("admin.key")));
    let options = ConnectOptions::new().with_tls(tls);
    let mut client = EtcdClient::connect([url], Some(options)).await.unwrap();
    client.role_add("cluster").await.unwrap();
    let keys = Permission::new(PermissionType::Readwrite, "/arcmesh/default/").with_prefix();
    client.role_grant_permission("cluster", keys).await.unwrap();
    client.user_add("cluster", "its password", None).await.unwrap();
    client.user_grant_role("cluster", "cluster").await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_add("root", "another", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
}
