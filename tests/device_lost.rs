//! A device that is lost ends the program: one clear line, and a status that says so.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fixture::{Architecture, Toy};

/// An OpenCL library that loses its device, for each real one that there is to test with.
fn losing(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    if !fixture::has("rustc", "rustc") {
        return Vec::new();
    }
    let devices = fixture::device::opencl().into_iter().filter(|(_, real)| real.is_absolute());
    let compile = |(name, real): (&str, PathBuf)| {
        let library = folder.join(format!("{name}.so"));
        let mut search = OsString::from("link-arg=-Wl,--no-as-needed,-rpath,");
        search.push(real.parent().unwrap());
        let mut link = OsString::from("link-arg=");
        link.push(&real);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/losing.rs");
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-C", "panic=abort", "-o"]);
        rustc.arg(&library).arg(source).arg("-C").arg(search).arg("-C").arg(link);
        let output = rustc.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (library, real)
    };
    devices.map(compile).collect()
}

/// The program on such a device, which is lost once `lost` is there.
fn arcmesh(folder: &Path, (library, real): &(PathBuf, PathBuf), words: &[&str]) -> Command {
    let model = fixture::gguf(folder, &Toy::new(Architecture::Llama));
    let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
    command.args(words).arg("--model").arg(model);
    command.args(["--backend", "opencl", "--device", "cpu", "--opencl-library"]).arg(library);
    command.env("TEST_LOSING", real).env("TEST_LOST", folder.join("lost"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn assert_lost(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let mut ends = said.lines().filter(|line| line.starts_with("arcmesh: "));
    let (end, more) = (ends.next().unwrap_or_default(), ends.next());
    assert_eq!(more, None, "{said}");
    let expected =
        ["the device of rank 0 is lost", "clEnqueueReadBuffer gave -5", "reset or is lost"];
    assert!(expected.iter().all(|part| end.contains(part)), "{said}");
}

#[test]
fn serve_ends_when_a_device_is_lost_under_a_request() {
    let folder = tempfile::tempdir().unwrap();
    for library in losing(folder.path()) {
        let words = ["serve", "--port", "0", "--world", "1"];
        let mut serving = arcmesh(folder.path(), &library, &words).spawn().unwrap();
        let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.rsplit("http://").next().unwrap().to_owned();
        File::create(folder.path().join("lost")).unwrap();
        let asked = asked_for_tokens(&address);
        assert_lost(&serving.wait_with_output().unwrap());
        assert!(!asked.starts_with("HTTP/1.1 200"), "{asked}");
        std::fs::remove_file(folder.path().join("lost")).unwrap();
    }
}

#[test]
fn generate_ends_when_a_device_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    for library in losing(folder.path()) {
        File::create(folder.path().join("lost")).unwrap();
        let output = arcmesh(folder.path(), &library, &["generate", "the"]).output().unwrap();
        assert_lost(&output);
        std::fs::remove_file(folder.path().join("lost")).unwrap();
    }
}

/// Asks for a token, and gives what came back before the connection closed.
fn asked_for_tokens(address: &str) -> String {
    let body = r#"{"prompt": "the", "max_tokens": 4}"#;
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    // A connection that is cut off is an answer, too.
    drop(stream.read_to_string(&mut answer));
    answer
}
