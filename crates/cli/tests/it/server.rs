//! A real server process on free ports, and the other commands beside it.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

/// Longest that a start or a stop may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary with a data directory.
pub(crate) fn throughline(data_dir: &Path) -> Command {
    // A directory without a throughline.yaml.
    let mut command = throughline_in(data_dir.parent().expect("a parent"));
    command.arg("--data-dir").arg(data_dir);
    command
}

/// The binary in a working directory, untouched by the environment of whoever runs the tests.
pub(crate) fn throughline_in(working_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throughline"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THROUGHLINE_") {
            command.env_remove(name);
        }
    }
    command.current_dir(working_dir);
    command
}

/// Runs a command to its end. One that does not end, a server that should have refused to start,
/// is killed and tells so by its exit code of -1.
pub(crate) fn run(data_dir: &Path, args: &[&str]) -> Finished {
    run_on(data_dir, args, b"")
}

/// The same, with something on standard input, which the command has to read.
pub(crate) fn run_on(data_dir: &Path, args: &[&str], input: &[u8]) -> Finished {
    let mut command = throughline(data_dir);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    child.stdin.take().expect("piped").write_all(input).expect("read");
    let (ended, is_over) = channel::<()>();
    let pid = child.id();
    let watchdog = thread::spawn(move || {
        if is_over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            send_signal(pid, "KILL");
        }
    });
    let output = child.wait_with_output().expect("an end");
    drop(ended);
    watchdog.join().expect("the watchdog");
    Finished::of(&output)
}

fn send_signal(pid: u32, name: &str) {
    let script = format!("kill -{name} {pid}");
    let status = Command::new("sh").args(["-c", &script]).status().expect("sh runs");
    assert!(status.success(), "the process is there");
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Stdout of a success.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
    }
}

/// An HTTP client.
pub(crate) fn client() -> reqwest::Client {
    trust_ring();
    reqwest::Client::new()
}

/// The clients are built without a TLS provider of their own.
pub(crate) fn trust_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// A server that is ready. It is killed when dropped.
pub(crate) struct Server {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    pub(crate) grpc: String,
    pub(crate) http: String,
    pub(crate) web: String,
}

impl Server {
    /// Starts `serve` and waits until it says that it is ready.
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &["serve"])
    }

    /// Starts a serving command with more arguments.
    pub(crate) fn start_with(data_dir: &Path, args: &[&str]) -> Self {
        let mut command = throughline(data_dir);
        command.args(args);
        command.args(["--grpc-port", "0", "--http-port", "0", "--web-port", "0"]);
        command.args(["--log-format", "json", "--log", "info"]);
        Self::spawn(command)
    }

    /// Starts a command as it is and waits until it says that it is ready.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().expect("piped");
        let ready = listen(BufReader::new(stderr), Arc::clone(&log));
        let Ok(line) = ready.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            panic!("the server did not get ready:\n{}", log.lock().expect("the log").join("\n"));
        };
        let url = |name: &str| line[name].as_str().expect("a URL").to_owned();
        Self { grpc: url("grpc"), http: url("http"), web: url("web"), child, log }
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("the log").join("\n")
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// Sends a signal by name (`TERM`).
    pub(crate) fn signal(&self, name: &str) {
        send_signal(self.child.id(), name);
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server did not stop:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and a clean end.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// What the process has printed, to be read after its end.
    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("piped, and read once")
    }

    /// Resident memory without the pages of files, kB.
    pub(crate) fn memory_kb(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("a Linux process");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
    }

    /// GET on the web port: status and body.
    pub(crate) async fn get(&self, path: &str, key: Option<&str>) -> (u16, String) {
        let mut request = client().get(format!("{}{path}", self.web));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    /// GET on the web port that must succeed, as JSON.
    pub(crate) async fn get_json(&self, path: &str) -> Json {
        let (status, body) = self.get(path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps the log, and tells the line that says `ready`.
fn listen(stderr: impl BufRead + Send + 'static, log: Arc<Mutex<Vec<String>>>) -> Receiver<Json> {
    let (tell, ready) = channel();
    thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            if let Ok(json) = serde_json::from_str::<Json>(&line)
                && json["message"] == "ready"
            {
                let _ = tell.send(json);
            }
            log.lock().expect("the log").push(line);
        }
    });
    ready
}

/// Asks again and again until the answer is what is waited for.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
