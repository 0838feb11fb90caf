//! A real browser without a window, driven over a pair of pipes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What the browser is called on Debian.
const PROGRAM: &str = "chromium";

/// A browser with one page.
#[derive(Debug)]
pub(crate) struct Browser {
    child: Child,
    out: File,
    into: File,
    buffer: Vec<u8>,
    number: u64,
    session: Option<String>,
    _profile: TempDir,
}

/// A browser; none where it is not installed.
pub(crate) fn browser() -> Option<Browser> {
    fixture::has(PROGRAM, "chromium").then(Browser::start)
}

impl Browser {
    fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let pipe = |name: &str| profile.path().join(name);
        let (to, from) = (pipe("to"), pipe("from"));
        assert!(Command::new("mkfifo").args([&to, &from]).status().unwrap().success());
        // It reads from file descriptor 3 and writes to 4.
        let child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<\"$PIPE_TO\" 4>\"$PIPE_FROM\"", "sh", PROGRAM])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .env("PIPE_TO", &to)
            .env("PIPE_FROM", &from)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Each waits until the browser has opened the other end, in its order.
        let out = OpenOptions::new().write(true).open(&to).unwrap();
        let into = File::open(&from).unwrap();
        let (buffer, number, session) = (Vec::new(), 0, None);
        let mut browser = Self { child, out, into, buffer, number, session, _profile: profile };
        let target = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.ask("Target.attachToTarget", &attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.ask("Page.enable", &json!({}));
        browser
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.out.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = self.message();
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }

    fn message(&mut self) -> Value {
        let mut piece = [0; 1 << 16];
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&message[..end]).unwrap();
            }
            let count = self.into.read(&mut piece).unwrap();
            assert!(count > 0, "the browser ended");
            self.buffer.extend_from_slice(&piece[..count]);
        }
    }

    /// Opens an address in a window of this size, light or dark.
    pub(crate) fn open(&mut self, url: &str, (width, height): (u32, u32), scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", &size);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", &json!({ "features": features }));
        self.ask("Page.navigate", &json!({ "url": url }));
        self.until("document.readyState === 'complete'");
    }

    /// The value of an expression, waited for if it is a promise.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut found = self.ask("Runtime.evaluate", &asked);
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].take()
    }

    /// Waits within the page until an expression is true.
    pub(crate) fn until(&mut self, expression: &str) {
        let waiting = format!(
            "new Promise(done => {{ const look = () => ({expression}) ? done(true) : setTimeout(look, 50); look(); }})"
        );
        self.value(&waiting);
    }

    /// Presses and releases a key.
    pub(crate) fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let text = if key == "Enter" && kind == "keyDown" { "\r" } else { "" };
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.ask("Input.dispatchKeyEvent", &event);
        }
    }

    /// Types a text where the focus is.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.ask("Input.insertText", &json!({ "text": text }));
    }

    /// What a screen reader finds: role and name of each thing on the page.
    pub(crate) fn read_out(&mut self) -> Vec<(String, String)> {
        let tree = self.ask("Accessibility.getFullAXTree", &json!({}));
        let text =
            |node: &Value, what: &str| node[what]["value"].as_str().unwrap_or_default().to_owned();
        let nodes = tree["nodes"].as_array().unwrap();
        let seen = nodes.iter().filter(|node| node["ignored"] != true);
        seen.map(|node| (text(node, "role"), text(node, "name"))).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
