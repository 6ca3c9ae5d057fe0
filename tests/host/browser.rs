//! The live page in a real browser, which the tests drive by the Chrome DevTools Protocol over a pipe.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::scratch::Scratch;
use crate::support::client::{connect, echo};
use crate::support::http::{get, sample};
use crate::support::{PATIENCE, Process, edgecho, pause, run, wait_until};
use crate::tools::tool;

/// A headless Chromium with one page. It is killed, by its process id, when it goes out of scope.
struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    number: u64,
    /// The documents that have been loaded.
    loaded: Vec<Value>,
    /// Errors on the console, and exceptions.
    errors: Vec<String>,
    _folder: Scratch,
}

impl Browser {
    fn start(path: &Path) -> Self {
        let folder = Scratch::new();
        // It reads commands from descriptor 3, and writes answers to descriptor 4.
        let script = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut child = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(path)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", folder.file("profile")))
            .env("HOME", folder.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the browser starts");
        let (commands, answers) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut browser = Self {
            child,
            commands,
            messages: Self::read(answers),
            session: String::new(),
            number: 0,
            loaded: Vec::new(),
            errors: Vec::new(),
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let session = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}));
        }
        browser.call("Page.setLifecycleEventsEnabled", json!({"enabled": true}));
        browser
    }

    fn read(answers: ChildStdout) -> Receiver<Value> {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("JSON");
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        receiver
    }

    /// Calls a method of the protocol, and returns its result.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).expect("the browser reads commands");
        loop {
            let message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == self.number {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    /// Notes an event that tells of an error, or that a document is loaded.
    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        if message["method"] == "Page.lifecycleEvent" && parameters["name"] == "load" {
            self.loaded.push(parameters["loaderId"].clone());
        }
        let is_error = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => parameters["entry"]["level"] != "info" && parameters["entry"]["level"] != "verbose",
            Some("Runtime.consoleAPICalled") => parameters["type"] == "error" || parameters["type"] == "warning",
            _ => false,
        };
        if is_error {
            self.errors.push(message.to_string());
        }
    }

    /// Returns the value of an expression on the page.
    fn value(&mut self, expression: &str) -> Value {
        let result = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Returns a figure of the page.
    fn figure(&mut self, name: &str) -> Option<f64> {
        self.value(&format!("document.getElementById('total-{name}').value")).as_str()?.parse().ok()
    }

    /// Opens a page, and waits until it is loaded: before that the document is the one before.
    fn open(&mut self, address: SocketAddr) {
        self.resize(1280, 900);
        let document = self.call("Page.navigate", json!({"url": format!("http://{address}/")}))["loaderId"].clone();
        while !self.loaded.contains(&document) {
            let message = self.messages.recv_timeout(PATIENCE).expect("the page is loaded");
            self.note(&message);
        }
    }

    fn resize(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Waits until the page says something about the state of the server.
    fn wait_for_state(&mut self, text: &str) {
        wait_until(text, || {
            self.value("document.getElementById('state').textContent").as_str().is_some_and(|state| state.starts_with(text))
        });
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the highest point of a plot's line, as a share of the plot's height, or none without a line.
fn peak(browser: &mut Browser, plot: &str) -> Option<f64> {
    let script = format!(
        "(() => {{ const svg = document.querySelector('#plot-{plot} svg'), path = svg.querySelector('path'); \
         const ys = (path.getAttribute('d').match(/[ML][\\d.-]+ [\\d.-]+/g) || []).map(point => Number(point.split(' ')[1])); \
         return ys.length ? 1 - Math.min(...ys) / svg.clientHeight : null; }})()"
    );
    browser.value(&script).as_f64()
}

#[test]
fn the_page_shows_a_flood_in_a_browser_without_an_error_wide_and_narrow_light_and_dark() {
    let Some(path) = tool("the live page", "chromium") else { return };
    let (mut server, admin) = Process::with_admin(&["--drain-timeout", "60s"]);
    let mut browser = Browser::start(&path);
    browser.open(admin);
    browser.wait_for_state("Serving.");
    let target = server.address.to_string();
    let (status, stdout, stderr) = run(&mut edgecho(&["flood", &target, "-c", "7", "-d", "3s", "--json", "-"]));
    assert!(status.success(), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).expect("JSON");
    let bytes = (report["bytes"]["sent"].as_u64().expect("a number")
        + report["bytes"]["handshakes"].as_u64().expect("a number")) as f64;
    wait_until("the page shows the end of the flood", || browser.figure("closed-peer") == Some(7.0));
    for (name, value) in [("received", bytes), ("sent", bytes), ("accepted", 7.0), ("open", 0.0), ("closed-reset", 0.0)] {
        assert_eq!(browser.figure(name), Some(value), "{name}");
    }
    for plot in ["connections", "bytes", "events", "turns", "closes"] {
        assert!(peak(&mut browser, plot).is_some_and(|share| share > 0.4), "the plot of {plot} is flat");
    }
    let label = browser.value("document.querySelector('#plot-bytes svg').getAttribute('aria-label')");
    assert!(label.as_str().is_some_and(|label| label.starts_with("Bytes: received ")), "{label}");

    for width in [320, 700, 1280, 2560] {
        browser.resize(width, 900);
        let too_wide = browser.value("document.documentElement.scrollWidth > innerWidth");
        assert_eq!(too_wide, false, "at {width} pixels the page is wider than its window");
        wait_until("the plots fit", || {
            let script = "[...document.querySelectorAll('svg text')].every(text => text.getBoundingClientRect().right <= innerWidth + 1)";
            browser.value(script) == true
        });
    }
    let back = "getComputedStyle(document.body).backgroundColor";
    let backs = ["light", "dark"].map(|scheme| {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        browser.call("Emulation.setEmulatedMedia", json!({"features": features}));
        browser.value(back)
    });
    assert_ne!(backs[0], backs[1], "the page has one colour scheme only");

    // A hidden page asks for nothing.
    let hide = |is_hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{configurable: true, value: {is_hidden}}}); \
             document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    let asked = || sample(&get(admin, "/metrics").body, "edgecho_admin_responses_total{code=\"200\"}");
    browser.value(&hide(true));
    wait_until("the page asks for nothing", || {
        let before = asked();
        pause(std::time::Duration::from_millis(2_500));
        asked() == before + 1
    });
    browser.value(&hide(false));
    let mut own = 0;
    let before = asked();
    wait_until("the page asks again", || {
        own += 1;
        asked() > before + own
    });
    assert_eq!(browser.errors, Vec::<String>::new());

    // The page says what happens to the server.
    let client = connect(server.address);
    echo(&client, b"hello");
    server.signal(Signal::SIGTERM);
    browser.wait_for_state("Draining: ");
    drop(client);
    assert_eq!(server.wait().code(), Some(0), "{}", server.stderr());
    browser.wait_for_state("The server is gone: ");
}
