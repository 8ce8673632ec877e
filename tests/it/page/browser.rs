//! Headless Chromium, driven by its own protocol over two pipes: each message is JSON and ends with
//! a zero byte. Crates for that bring a runtime, a web socket and the whole protocol as generated
//! code, which takes longer to build than all of these tests; ten of its commands are used here.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The longest time for an answer of Chromium, and for the page to show something.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A running browser with one tab. It is ended when it goes out of scope.
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    sent: u64,
    session: Option<String>,
    events: Vec<Value>,
    dir: TempDir,
}

impl Browser {
    /// Starts Chromium, which must be installed.
    pub(crate) fn start() -> Self {
        let dir = TempDir::with_prefix("leasehold-chromium-").expect("a temporary directory");
        let log = File::create(dir.path().join("log")).expect("Chromium's log");
        // Chromium reads commands from file 3 and writes to file 4.
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >&2", "chromium"]);
        shell.args(["--headless=new", "--remote-debugging-pipe", "--no-first-run", "about:blank"]);
        // Root has no sandbox, a machine for tests no graphics and little shared memory.
        shell.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        // It asks nobody else.
        shell.args(["--disable-background-networking", "--disable-component-update"]);
        shell.arg(format!("--user-data-dir={}", dir.path().display()));
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = shell.spawn().expect("a shell");
        let commands = child.stdin.take().expect("a pipe to Chromium");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe from Chromium"));
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let (session, events) = (None, Vec::new());
        let mut browser = Self { child, commands, messages, sent: 0, session, events, dir };
        let tab = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let to = json!({ "targetId": tab["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", to)["sessionId"].clone();
        browser.session = session.as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1440, 1000, false);
        browser
    }

    /// Carries out a command of the protocol, which must succeed.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut command = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let mut text = command.to_string().into_bytes();
        text.push(0);
        if let Err(error) = self.commands.write_all(&text) {
            panic!("Chromium has ended ({error}): {}", self.log());
        }
        loop {
            let Ok(message) = self.messages.recv_timeout(PATIENCE) else {
                panic!("no answer of Chromium to {method}: {}", self.log());
            };
            if message["id"] == self.sent {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        format!("is Debian's package chromium installed? Its log:\n{log}")
    }

    /// The size of the window; a phone has a touch screen too.
    pub(crate) fn size(&mut self, width: u32, height: u32, phone: bool) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone,
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
        self.call("Emulation.setTouchEmulationEnabled", json!({ "enabled": phone }));
    }

    /// Has the system prefer a colour scheme: `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        self.until("document.readyState === 'complete'");
    }

    /// The value of an expression in the page.
    pub(crate) fn ask(&mut self, script: &str) -> Value {
        let params = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let said = self.call("Runtime.evaluate", params);
        assert!(said["exceptionDetails"].is_null(), "{script}: {}", said["exceptionDetails"]);
        said["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    pub(crate) fn until(&mut self, script: &str) {
        let start = Instant::now();
        while self.ask(&format!("(async () => Boolean(await ({script})))()")) != true {
            if start.elapsed() > PATIENCE {
                let shown = self.ask("document.body.innerText.slice(0, 3000)");
                panic!("not true within {PATIENCE:?}: {script}\nthe page shows:\n{shown}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Clicks with the mouse on the middle of an element, which must be in view or come into it.
    pub(crate) fn click(&mut self, selector: &str) {
        self.until(&format!("document.querySelector({selector:?})"));
        let place = self.ask(&format!(
            "(() => {{ const one = document.querySelector({selector:?}); \
             one.scrollIntoView({{ block: 'center' }}); \
             const box = one.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        self.click_at(&place[0], &place[1]);
    }

    pub(crate) fn click_at(&mut self, x: &Value, y: &Value) {
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Presses a key, such as `a`, `ArrowDown` or `Enter`, wherever the focus is.
    pub(crate) fn press(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { key } else { "" };
        let text = if key == "Enter" { "\r" } else { text };
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            _ => 0,
        };
        let down = json!({
            "type": "keyDown", "key": key, "text": text, "windowsVirtualKeyCode": code,
        });
        self.call("Input.dispatchKeyEvent", down);
        let up = json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", up);
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// A picture of the window, as a PNG.
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("base64")
    }

    /// Errors and warnings that the page reported, and requests to others than this host.
    pub(crate) fn complaints(&mut self, host: &str) -> Vec<String> {
        self.ask("1");
        let complaint = |event: &Value| {
            let params = &event["params"];
            let level = params["entry"]["level"].as_str().or(params["type"].as_str());
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(params.to_string()),
                "Log.entryAdded" | "Runtime.consoleAPICalled"
                    if matches!(level, Some("error" | "warning" | "assert")) =>
                {
                    Some(params.to_string())
                }
                "Network.requestWillBeSent" => {
                    let url = params["request"]["url"].as_str().unwrap_or_default();
                    let own = url.starts_with(&format!("http://{host}/"));
                    (!own).then(|| format!("a request to {url}"))
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(complaint).collect()
    }

    /// The paths of the requests of the page.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        self.ask("1");
        let path = |event: &Value| {
            let sent = event["method"] == "Network.requestWillBeSent";
            let url = event["params"]["request"]["url"].as_str().filter(|_| sent)?;
            url.splitn(4, '/').nth(3).map(str::to_owned)
        };
        self.events.iter().filter_map(path).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
