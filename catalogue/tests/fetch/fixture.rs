//! A server on this machine that plays a package index or a hub, and a cache of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catalogue::{HubSettings, Patience, Settings};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// What the client asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// First byte that was asked for.
    pub(crate) start: Option<usize>,
    pub(crate) authorization: Option<String>,
}

/// What the server answers.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<u64>,
    /// The server never answers.
    silent: bool,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), length: Some(0), silent: false }
    }

    pub(crate) fn body(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { length: Some(body.len() as u64), body, ..Self::status(200) }
    }

    /// The part of `body` that was asked for.
    pub(crate) fn range(body: &[u8], asked: &Asked) -> Self {
        let Some(start) = asked.start else { return Self::body(body) };
        if start >= body.len() {
            return Self::status(416);
        }
        let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
        let mut reply = Self::body(&body[start..]).header("Content-Range", range);
        reply.status = 206;
        reply
    }

    pub(crate) fn silence() -> Self {
        Self { silent: true, ..Self::status(200) }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Ends the connection after so many bytes of the body.
    pub(crate) fn cut(mut self, bytes: usize) -> Self {
        self.body.truncate(bytes);
        self
    }

    /// Says another length; without one the end of the connection is the end of the body.
    pub(crate) fn announce(mut self, length: Option<u64>) -> Self {
        self.length = length;
        self
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Starts a server; `answer` also gets how many requests for this path came before.
    pub(crate) fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { url, asked }
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    answer: &dyn Fn(&Asked, usize) -> Reply,
) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let mut asked =
        Asked { method: words.next()?, path: words.next()?, start: None, authorization: None };
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.start = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok(),
            "authorization" => asked.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let before = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        log.iter().filter(|other| other.path == asked.path).count() - 1
    };
    let reply = answer(&asked, before);
    if reply.silent {
        // Until the client gives up.
        stream.read_to_end(&mut Vec::new()).ok()?;
        return None;
    }
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = reply.length {
        head += &format!("Content-Length: {length}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if asked.method != "HEAD" {
        stream.write_all(&reply.body).ok()?;
    }
    Some(())
}

/// Settings whose cache is new, and whose index and hub are `url`. No pauses between tries.
pub(crate) fn settings(url: &str) -> (TempDir, Settings) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        cache: folder.path().join("cache"),
        index: format!("{url}/simple/"),
        hub: HubSettings {
            cache: folder.path().join("hub/hub"),
            endpoint: url.to_owned(),
            token: None,
            offline: false,
        },
        patience: Patience { tries_max: 3, pause: Duration::ZERO, ..Patience::default() },
    };
    (folder, settings)
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
