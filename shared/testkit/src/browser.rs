//! Headless Chromium, driven over the DevTools protocol on two pipes: messages are JSON, each
//! followed by a zero byte.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::process::{Guard, command};

/// A browser with one page.
pub struct Browser {
    // Ends first.
    _process: Guard,
    to: File,
    from: Receiver<Value>,
    session: String,
    next: u64,
    /// What the page asked of the network, disk included.
    pub requests: Vec<String>,
    /// What the browser complained of: exceptions, violated policies, dialogs.
    pub complaints: Vec<String>,
}

impl Browser {
    /// Starts it with its files in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        let (to, from) = (folder.join("to-browser"), folder.join("from-browser"));
        for pipe in [&to, &from] {
            mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        }
        let mut browser = command("sh", folder);
        // The protocol is spoken on the descriptors 3 and 4.
        browser.args(["-c", "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
             --no-first-run --remote-debugging-pipe --user-data-dir=\"$HOME/profile\" about:blank 3<\"$0\" 4>\"$1\""]);
        browser.arg(&to).arg(&from);
        let process = Guard::start("chromium", &mut browser, &folder.join("browser.log"))?;
        let to = File::options().write(true).open(to)?;
        let from = File::open(from)?;
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(from).split(0) {
                let Ok(message) = message else { return };
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            _process: process,
            to,
            from: messages,
            session: String::new(),
            next: 0,
            requests: Vec::new(),
            complaints: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attached = browser.call(
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        )?;
        browser.session = attached["sessionId"].as_str().context("a session")?.to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to.write_all(message.to_string().as_bytes())?;
        self.to.write_all(&[0])?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message =
                self.from.recv_timeout(left).with_context(|| format!("answer to {method}"))?;
            if message["id"] == self.next {
                if let Some(error) = message.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(message["result"].clone());
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                self.requests.push(url.to_owned());
            }
            "Log.entryAdded" => self.complaints.push(params["entry"]["text"].to_string()),
            "Runtime.exceptionThrown" => {
                self.complaints.push(params["exceptionDetails"].to_string())
            }
            "Page.javascriptDialogOpening" => self.complaints.push(params.to_string()),
            _ => {}
        }
    }

    /// Opens a file, and waits until it is loaded.
    pub fn open(&mut self, file: &Path) -> Result<()> {
        self.call("Page.navigate", json!({ "url": format!("file://{}", file.display()) }))?;
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let params = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", params)?;
        if let Some(exception) = answer.get("exceptionDetails") {
            bail!("{expression}: {exception}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.value(expression)? != Value::Bool(true) {
            if Instant::now() > deadline {
                let shown = self.value("document.body.innerText")?;
                bail!("waited for {expression}; the page shows {shown}");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }
}
