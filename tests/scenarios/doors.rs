//! The door of the HTTP API: https, keys from a file, and both changed while answers go on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::process::Process;
use crate::secure::Client;
use crate::security::{certs, put};
use crate::site::{Site, question, read, streaming, until};

#[tokio::test]
async fn https_serves_what_http_serves_and_its_certificate_changes_under_an_answer() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (folder, other) = (folder.path(), other.path());
    let name = "127.0.0.1";
    certs(folder, &[name]);
    certs(other, &[name]);
    let (first, second) = (Client::trusting(folder, name), Client::trusting(other, name));
    let path = |file: &str| folder.join(file).display().to_string();
    let (certificate, key) = (path("127.0.0.1.pem"), path("127.0.0.1.key"));
    let secure = ["--http-cert", &certificate, "--http-key", &key];
    let (front, log) =
        Process::logged(&[&["serve", "--port", "0"], &secure[..]].concat(), "    -d");
    let address = front.told("https://");

    let chat = "/v1/chat/completions";
    let body = streaming(question("Tell me a story about a lighthouse.", 120));
    let expected = read(first.ask(&address, chat, Some(&body)).await.unwrap(), |_| {}).await;
    assert!(expected.done && !expected.text.is_empty(), "{expected:?}");
    let mut wrong = body.clone();
    wrong["max_tokens"] = json!("many");
    let refused = first.ask(&address, chat, Some(&wrong)).await.unwrap();
    assert_eq!(refused.status(), 400);
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["param"], json!("max_tokens"));
    plain(&address).await;
    assert_eq!(first.ask(&address, "/health", None).await.unwrap().status(), 200);

    // A stranger's certificate becomes the server's; an answer that began before goes on.
    let response = first.ask(&address, chat, Some(&body)).await.unwrap();
    for name in ["127.0.0.1.pem", "127.0.0.1.key"] {
        put(folder, name, &fs::read(other.join(name)).unwrap());
    }
    let is_new = async || second.ask(&address, "/health", None).await.is_ok();
    until("the new certificate is in use", is_new).await;
    assert!(first.ask(&address, "/health", None).await.is_err(), "the old one is in use");
    assert_eq!(read(response, |_| {}).await, expected);
    assert!(log.has("certificates of HTTP were read again"));
    // One that is none changes nothing, and is said.
    fs::write(folder.join("127.0.0.1.pem"), "no certificate").unwrap();
    let said = async || {
        second.ask(&address, "/health", None).await.unwrap();
        log.has("the certificates of HTTP before stay in use")
    };
    until("a certificate that is none is told", said).await;
    second.ask(&address, "/health", None).await.unwrap();
}

/// Whoever speaks plain HTTP, or nothing that is known, is told so or cut off, and disturbs nobody.
async fn plain(address: &str) {
    let url = format!("http://{address}/v1/chat/completions");
    let refused =
        reqwest::Client::new().post(url).json(&question("Hello.", 3)).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.headers()["content-type"], "application/json");
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["code"], json!("https_required"), "{error}");
    for junk in [&b"\x16\x03\x01\xff\xff\0\0\0"[..], b"\x16", b"\0\0\0\0", b""] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(junk).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Whatever is said, it ends.
        let mut said = Vec::new();
        drop(stream.read_to_end(&mut said));
        assert!(!said.starts_with(b"HTTP/1.1 200"), "{said:?}");
    }
}

async fn status(site: &Site, key: &str) -> u16 {
    let url = format!("{}/v1/models", site.base);
    let request = reqwest::Client::new().get(url).bearer_auth(key);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn keys_of_a_file_come_and_go_while_it_serves_and_a_wrong_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, "# whose is whose\n\nfirst-key-of-ours\nsecond-key-of-ours\n").unwrap();
    let path = file.display().to_string();
    let arguments =
        ["serve", "--port", "0", "--api-key", "a-key-that-stays", "--api-key-file", &path];
    let (front, log) = Process::logged(&arguments, "    -d");
    let site = Site::of(front, Vec::new());
    for (key, expected) in [
        ("first-key-of-ours", 200),
        ("second-key-of-ours", 200),
        ("a-key-that-stays", 200),
        ("third-key-of-ours", 401),
        ("# whose is whose", 401),
    ] {
        assert_eq!(status(&site, key).await, expected, "{key}");
    }
    let write = |text: &str| put(folder.path(), "keys", text.as_bytes());
    write("third-key-of-ours\nsecond-key-of-ours\n");
    let third = async || status(&site, "third-key-of-ours").await;
    until("a new key is accepted", async || third().await == 200).await;
    for (key, expected) in
        [("first-key-of-ours", 401), ("second-key-of-ours", 200), ("a-key-that-stays", 200)]
    {
        assert_eq!(status(&site, key).await, expected, "{key}");
    }
    for (wrong, reason) in [
        ("fourth-key-of-ours\na key of ours\n", "keys, line 2: "),
        ("# nobody\n", "keys: there is no key in it"),
    ] {
        write(wrong);
        until(reason, async || third().await > 0 && log.has(reason)).await;
        assert_eq!(status(&site, "third-key-of-ours").await, 200);
        assert_eq!(status(&site, "fourth-key-of-ours").await, 401);
    }
    assert!(log.has("the API keys before stay in use"));
    fs::remove_file(&file).unwrap();
    until("a file that is gone is told", async || third().await > 0 && log.has("No such file"))
        .await;
    assert_eq!(status(&site, "third-key-of-ours").await, 200);
    assert!(!log.has("of-ours") && !log.has("that-stays"), "{log:?}");
}

/// Files that are none are one line, before anything is served.
#[test]
fn files_that_cannot_be_used_are_named_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    certs(folder.path(), &["one", "two"]);
    fs::write(folder.path().join("empty"), "# nobody\n").unwrap();
    let (one, two) = (path("one.pem"), path("two.key"));
    for (arguments, said) in [
        (vec!["--api-key-file", &path("empty")], "--api-key-file: "),
        (vec!["--api-key-file", &path("nowhere")], "No such file"),
        (vec!["--http-cert", &one], "--http-cert and --http-key belong together"),
        (vec!["--http-cert", &one, "--http-key", &two], "they make no sense together"),
        (vec!["--http-cert", &one, "--http-key", &one], "--http-cert, --http-key: "),
    ] {
        let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
        let ended = command.args(["serve", "--port", "0"]).args(&arguments).output().unwrap();
        let text = String::from_utf8(ended.stderr).unwrap();
        let last = text.lines().last().unwrap();
        assert!(!ended.status.success() && last.contains(said), "{arguments:?}: {text}");
    }
}
