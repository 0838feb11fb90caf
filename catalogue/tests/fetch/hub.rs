//! Repositories of the Hugging Face hub, played by a server on this machine.

use std::path::Path;

use crate::fixture::{Asked, Reply, Server, settings, sha256};
use catalogue::{CatalogueError, ModelReference, Secret, Settings, resolve};

const COMMIT: &str = "5d9e5ae4a4d4a5ae2ac3ea8ca1b8e1a3b7b6c4f2";
const INDEX: &str = r#"{"metadata": {}, "weight_map": {
    "a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors", "c": "model-1-of-2.safetensors"}}"#;

type Files = &'static [(&'static str, &'static [u8])];

const SHARDED: Files = &[
    ("README.md", b"read me"),
    ("config.json", b"{}"),
    ("tokenizer.json", b"{\"model\": 1}"),
    ("generation_config.json", b"{\"eos\": 1}"),
    ("model.safetensors.index.json", INDEX.as_bytes()),
    ("model-1-of-2.safetensors", b"first half"),
    ("model-2-of-2.safetensors", b"second half"),
    ("consolidated.safetensors", b"both once more"),
    ("onnx/model.safetensors", b"another"),
];

/// What a hub answers for the files of `org/toy`: weights are large files, the others small ones.
fn answer(files: Files, asked: &Asked) -> Reply {
    if asked.path == "/api/models/org/toy/revision/main" {
        let siblings: Vec<_> =
            files.iter().map(|(name, _)| serde_json::json!({ "rfilename": name })).collect();
        return Reply::body(serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string());
    }
    let path = asked.path.trim_start_matches("/small");
    let name = [COMMIT, "main"]
        .iter()
        .find_map(|revision| path.strip_prefix(&format!("/org/toy/resolve/{revision}/")));
    let Some((name, bytes)) = files.iter().find(|(file, _)| Some(*file) == name) else {
        return Reply::status(404);
    };
    let large = Path::new(name).extension().is_some_and(|kind| kind != "json");
    match asked.method.as_str() {
        "HEAD" if large => Reply::status(302)
            .header("Location", "http://localhost:1/absent")
            .header("X-Linked-Etag", format!("\"{}\"", sha256(bytes)))
            .header("X-Linked-Size", bytes.len().to_string())
            .header("X-Repo-Commit", COMMIT),
        "HEAD" if !asked.path.starts_with("/small") => {
            Reply::status(307).header("Location", format!("/small{path}"))
        }
        "HEAD" => Reply::body(*bytes)
            .header("ETag", format!("W/\"{:x}-{}\"", bytes.len(), name.len()))
            .header("X-Repo-Commit", COMMIT),
        _ => Reply::range(bytes, asked),
    }
}

fn hub(files: Files) -> Server {
    Server::start(move |asked, _| answer(files, asked))
}

fn fetch(reference: &str, settings: &Settings) -> Result<std::path::PathBuf, CatalogueError> {
    resolve(&ModelReference::parse(reference).unwrap(), settings, &|_| {})
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_repository_becomes_a_folder_of_what_the_model_needs() {
    let server = hub(SHARDED);
    let (_folder, mut settings) = settings(&server.url);
    let folder = fetch("hf:org/toy", &settings).unwrap();
    assert!(folder.ends_with(format!("hub/hub/models--org--toy/snapshots/{COMMIT}")));
    let expected = [
        "config.json",
        "generation_config.json",
        "model-1-of-2.safetensors",
        "model-2-of-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names(&folder), expected);
    assert_eq!(std::fs::read(folder.join("model-2-of-2.safetensors")).unwrap(), b"second half");

    let before = server.asked().len();
    assert_eq!(fetch("hf:org/toy", &settings).unwrap(), folder);
    assert_eq!(server.asked().len(), before, "a cached model needs no network");
    settings.hub.offline = true;
    assert_eq!(fetch("hf:org/toy", &settings).unwrap(), folder);
    assert_eq!(fetch("hf:org/toy:config.json", &settings).unwrap(), folder.join("config.json"));
}

#[test]
fn a_folder_that_lacks_a_shard_is_completed() {
    let server = hub(SHARDED);
    let (_folder, settings) = settings(&server.url);
    let folder = fetch("hf:org/toy", &settings).unwrap();
    let shard = folder.join("model-1-of-2.safetensors");
    std::fs::remove_file(std::fs::canonicalize(&shard).unwrap()).unwrap();
    assert!(!shard.exists());
    assert_eq!(fetch("hf:org/toy", &settings).unwrap(), folder);
    assert_eq!(std::fs::read(shard).unwrap(), b"first half");
}

#[test]
fn a_single_weight_file_suffices() {
    let server = hub(&[
        ("config.json", b"{}"),
        ("model.safetensors", b"all"),
        ("adapter.safetensors", b"more"),
    ]);
    let (_folder, settings) = settings(&server.url);
    let folder = fetch("hf:org/toy", &settings).unwrap();
    assert_eq!(names(&folder), ["config.json", "model.safetensors"]);
    let before = server.asked().len();
    assert_eq!(fetch("hf:org/toy", &settings).unwrap(), folder);
    assert_eq!(server.asked().len(), before);
}

#[test]
fn one_gguf_file_is_taken_and_of_several_one_must_be_chosen() {
    let server = hub(&[("README.md", b"x"), ("toy.gguf", b"the model")]);
    let (_folder, mut alone) = settings(&server.url);
    let path = fetch("hf:org/toy", &alone).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"the model");
    alone.hub.offline = true;
    assert_eq!(fetch("hf:org/toy", &alone).unwrap(), path);

    let server = hub(&[("a.gguf", b"a"), ("sub/b.gguf", b"b")]);
    let (_folder, settings) = settings(&server.url);
    let error = fetch("hf:org/toy", &settings).unwrap_err().to_string();
    assert_eq!(error, "hf:org/toy: choose a file with hf:org/toy:FILE among a.gguf, sub/b.gguf");
    let path = fetch("hf:org/toy:sub/b.gguf", &settings).unwrap();
    assert!(path.ends_with(format!("{COMMIT}/sub/b.gguf")));
    assert_eq!(std::fs::read(path).unwrap(), b"b");
}

#[test]
fn a_repository_without_a_model_says_so() {
    let server = hub(&[("README.md", b"x")]);
    let (_folder, alone) = settings(&server.url);
    let error = fetch("hf:org/toy", &alone).unwrap_err().to_string();
    assert!(error.contains("neither safetensors nor GGUF"), "{error}");
    let server = hub(&[("model.safetensors", b"x")]);
    let (_folder, settings) = settings(&server.url);
    let error = fetch("hf:org/toy", &settings).unwrap_err().to_string();
    assert!(error.contains("no config.json"), "{error}");
    let error = fetch("hf:org/toy:absent.gguf", &settings).unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");
}

#[test]
fn a_large_file_is_checked_and_goes_on_where_it_was_cut_off() {
    const WEIGHTS: Files = &[("toy.gguf", b"the weights of a toy")];
    let server = Server::start(|asked, before| match (asked.method.as_str(), before) {
        ("GET", 1) => Reply::body(b"the weights of a toy").cut(6),
        _ => answer(WEIGHTS, asked),
    });
    let (_folder, alone) = settings(&server.url);
    let path = fetch("hf:org/toy:toy.gguf", &alone).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"the weights of a toy");
    let starts: Vec<_> =
        server.asked().into_iter().filter(|asked| asked.method == "GET").map(|a| a.start).collect();
    assert_eq!(starts, [None, Some(6)]);

    let server = Server::start(|asked, _| match asked.method.as_str() {
        "GET" => Reply::body(b"the weights of a fox"),
        _ => answer(WEIGHTS, asked),
    });
    let (_folder, settings) = settings(&server.url);
    let error = fetch("hf:org/toy:toy.gguf", &settings).unwrap_err();
    assert!(matches!(error, CatalogueError::Damaged { .. }), "{error:?}");
    assert_eq!(names(&settings.hub.cache.join("models--org--toy/blobs")), [""; 0]);
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let elsewhere = Server::start(|asked, _| Reply::range(b"the model", asked));
    let address = elsewhere.url.replace("127.0.0.1", "localhost") + "/bytes";
    let server = Server::start(move |asked, _| match asked.method.as_str() {
        "GET" => Reply::status(302).header("Location", address.clone()),
        _ => answer(&[("toy.gguf", b"the model")], asked),
    });
    let (_folder, mut settings) = settings(&server.url);
    settings.hub.token = Some(Secret("hf_secret".to_owned()));
    let path = fetch("hf:org/toy:toy.gguf", &settings).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"the model");
    for asked in server.asked() {
        assert_eq!(asked.authorization.as_deref(), Some("Bearer hf_secret"), "{asked:?}");
    }
    assert_eq!(elsewhere.asked()[0].authorization, None);
    assert!(!format!("{settings:?}").contains("hf_secret"));
}

#[test]
fn a_closed_repository_asks_for_a_token() {
    let server = Server::start(|_, _| Reply::status(401));
    let (_folder, settings) = settings(&server.url);
    let error = fetch("hf:org/toy", &settings).unwrap_err().to_string();
    assert!(error.contains("401") && error.contains("HF_TOKEN"), "{error}");
}

#[test]
fn offline_a_missing_model_is_named() {
    let (_folder, mut settings) = settings("http://127.0.0.1:1");
    settings.hub.offline = true;
    let error = fetch("hf:org/toy:a.gguf", &settings).unwrap_err();
    assert!(matches!(error, CatalogueError::Offline { .. }), "{error:?}");
    assert!(error.to_string().contains("hf:org/toy:a.gguf"), "{error}");
}

#[test]
fn a_hostile_hub_writes_nowhere_else() {
    let hostile: &[fn(&Asked) -> Reply] = &[
        |_| Reply::body("x").header("ETag", "\"../../../escaped\"").header("X-Repo-Commit", COMMIT),
        |_| Reply::body("x").header("ETag", "\"\"").header("X-Repo-Commit", COMMIT),
        |_| Reply::body("x").header("ETag", "\"abc\"").header("X-Repo-Commit", "../../escaped"),
        |_| Reply::body("x").header("ETag", "\"abc\""),
        |_| Reply::status(302).header("Location", "/org/toy/resolve/main/toy.gguf"),
        |_| Reply::status(302),
    ];
    for reply in hostile {
        let server = Server::start(move |asked, _| reply(asked));
        let (_folder, settings) = settings(&server.url);
        let error = fetch("hf:org/toy:toy.gguf", &settings).unwrap_err();
        assert!(matches!(error, CatalogueError::Refused { .. }), "{error:?}");
        assert!(!settings.hub.cache.exists());
    }
    let lists: &[Files] = &[
        &[("config.json", b"{}"), ("..\\escaped.safetensors", b"x")],
        &[("../../escaped.gguf", b"x")],
        &[
            ("config.json", b"{}"),
            ("model.safetensors.index.json", br#"{"weight_map": {"a": "../../../../escaped"}}"#),
        ],
        &[("config.json", b"{}"), ("model.safetensors.index.json", b"[[[[")],
    ];
    for files in lists {
        let server = hub(files);
        let (folder, settings) = settings(&server.url);
        let error = fetch("hf:org/toy", &settings).unwrap_err();
        let stopped =
            matches!(error, CatalogueError::Choice { .. } | CatalogueError::Damaged { .. });
        assert!(stopped, "{error:?}");
        assert_eq!(names(folder.path()).iter().filter(|name| name.contains("escaped")).count(), 0);
    }
}
