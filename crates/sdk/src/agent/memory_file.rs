//! A memory in files: one of JSON lines for each session.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use throughline_llm::{Message, Part, genai};
use tokio::time::Instant;

use super::memory::{Memory, MemoryError};
use crate::private_file::private;
use crate::task;

/// Bytes of a session that are read at most, the newest. A file of twice as many is cut to them.
const SESSION_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// How long another run, or another process, is waited for that has the session's file in hand.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two tries to get the lock: an append takes less.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// A memory in a directory: a file of JSON lines for each session, one message a line, in the form
/// of `gen_ai.input.messages`. The files' names are hashes of the sessions' ids. On Unix only their
/// owner can read them.
///
/// Runs of one session, in this process or others, may share it: what a run appends stays together.
/// They wait for each other with the system's file locks, on files `*.lock` of which a directory has
/// 256 at most; the file system must know such locks. Of what a crash left half-written, a load
/// leaves out what no provider takes: torn lines, results without their calls, calls without results.
///
/// ```no_run
/// use throughline::{Agent, ChatModel, FileMemory, MemoryWindow};
/// # fn example(model: impl ChatModel + 'static) -> Result<(), throughline::AgentError> {
/// let agent = Agent::builder("shop", model, "gpt-4o-mini")
///     .memory(FileMemory::new("/var/lib/shop/sessions"), MemoryWindow::tokens(4_000))
///     .build()?;
/// # drop(agent); Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct FileMemory {
    directory: PathBuf,
}

impl FileMemory {
    /// A memory in this directory, which is made when it is first needed.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    fn path(&self, session: &str) -> PathBuf {
        self.directory.join(format!("{}.jsonl", blake3::hash(session.as_bytes()).to_hex()))
    }

    /// The file that is locked for a session: of those whose hashes begin alike the same one, so that
    /// there are not as many as sessions.
    fn lock_path(&self, session: &str) -> PathBuf {
        let hash = blake3::hash(session.as_bytes());
        self.directory.join(format!("{:02x}.lock", hash.as_bytes()[0]))
    }

    /// Does what reads or writes a session's file, alone.
    async fn alone<T: Send + 'static>(
        &self,
        session: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (path, lock) = (self.path(session), self.lock_path(session));
        let directory = self.directory.clone();
        let lock = blocking(move || {
            fs::create_dir_all(&directory)?;
            private(OpenOptions::new().create(true).append(true)).open(&lock)
        })
        .await?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        // Tries, rather than a wait that nothing ends and that keeps a thread for itself.
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let secs = LOCK_TIMEOUT.as_secs();
                    let text = format!("expected the session's lock within {secs} s, got none");
                    return Err(io::Error::new(ErrorKind::TimedOut, text));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        blocking(move || {
            let done = work(&path);
            // Closed, it is unlocked: also when the work goes on after its caller has gone.
            drop(lock);
            done
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Puts lines at the end of a session's file, which nobody else has in hand.
fn append(path: &Path, lines: &str) -> io::Result<()> {
    let mut file = private(OpenOptions::new().create(true).read(true).append(true)).open(path)?;
    let before = file.metadata()?.len();
    let mut text = String::with_capacity(lines.len() + 1);
    if before > 0 {
        // A line that was cut short by a crash is not to take the next one with it.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != [b'\n'] {
            text.push('\n');
        }
    }
    text.push_str(lines);
    if let Err(error) = file.write_all(text.as_bytes()) {
        // All of a run or nothing of it: the disk may be full.
        file.set_len(before)?;
        return Err(error);
    }
    if before + text.len() as u64 > 2 * SESSION_MAX_BYTES {
        let newest = tail(path)?;
        // Ours alone as long as the lock is; one that a crash left is written over.
        let beside = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut cut = private(options.create(true).write(true).truncate(true)).open(&beside)?;
        cut.write_all(newest.as_bytes())?;
        cut.sync_all()?;
        fs::rename(&beside, path)?;
    }
    Ok(())
}

/// The newest whole lines of a file, [`SESSION_MAX_BYTES`] at most.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(SESSION_MAX_BYTES);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(SESSION_MAX_BYTES).read_to_end(&mut bytes)?;
    let from = match skipped {
        0 => 0,
        _ => bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1),
    };
    Ok(String::from_utf8_lossy(&bytes[from..]).into_owned())
}

/// The messages of these lines. A line that is none, such as one whose writing was cut short, is
/// left out with a warning.
fn messages_of(lines: &str, path: &Path) -> Vec<Message> {
    let mut messages = Vec::new();
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        match serde_json::from_str::<Value>(line) {
            Ok(value @ Value::Object(_)) => {
                let (read, _) = genai::parse_messages(&Value::Array(vec![value]));
                messages.extend(read.into_iter().map(|read| read.message));
            }
            _ => tracing::warn!(
                file = %path.display(),
                bytes = line.len(),
                "expected a message on a line of the session's file, got something else; it is left out"
            ),
        }
    }
    let parts = parts_of(&messages);
    let messages = whole_exchanges(messages);
    let left_out = parts - parts_of(&messages);
    if left_out > 0 {
        tracing::warn!(
            file = %path.display(),
            left_out,
            "expected each tool call of the session's file with its result; those without the other are left out"
        );
    }
    messages
}

fn parts_of(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.parts.len()).sum()
}

/// The conversation without results whose call is lost and calls whose result is: providers refuse
/// a request with either. Results stand right behind the message that asked for them.
fn whole_exchanges(messages: Vec<Message>) -> Vec<Message> {
    let mut kept: Vec<Message> = Vec::with_capacity(messages.len());
    let mut rest = messages.into_iter().peekable();
    while let Some(mut asking) = rest.next() {
        let mut answers = Vec::new();
        if !is_answer(&asking) {
            answers.extend(std::iter::from_fn(|| rest.next_if(is_answer)));
        }
        let asked: Vec<String> = asking.tool_calls().map(|call| call.id.clone()).collect();
        let mut answered = Vec::new();
        for answer in &mut answers {
            answer.parts.retain(|part| match part {
                Part::ToolResult(result) => {
                    let id = result.id.clone().unwrap_or_default();
                    let is_wanted = asked.contains(&id) && !answered.contains(&id);
                    answered.push(id);
                    is_wanted
                }
                _ => true,
            });
        }
        asking.parts.retain(|part| match part {
            Part::ToolCall(call) => answered.contains(&call.id),
            // Nobody before it asked.
            Part::ToolResult(_) => false,
            _ => true,
        });
        kept.extend(
            [asking].into_iter().chain(answers).filter(|message| !message.parts.is_empty()),
        );
    }
    kept
}

fn is_answer(message: &Message) -> bool {
    message.parts.iter().any(|part| matches!(part, Part::ToolResult(_)))
}

impl Memory for FileMemory {
    fn name(&self) -> &str {
        "file"
    }

    fn load<'a>(&'a self, session: &'a str) -> BoxFuture<'a, Result<Vec<Message>, MemoryError>> {
        Box::pin(async move {
            let path = self.path(session);
            if !path.exists() {
                return Ok(Vec::new());
            }
            match self.alone(session, tail).await {
                Ok(lines) => Ok(messages_of(&lines, &path)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(MemoryError::load(format!("{error} ({})", path.display()))),
            }
        })
    }

    fn append<'a>(
        &'a self,
        session: &'a str,
        messages: &'a [Message],
    ) -> BoxFuture<'a, Result<(), MemoryError>> {
        Box::pin(async move {
            let mut lines = String::new();
            for message in messages {
                let json = genai::input_messages(std::slice::from_ref(message));
                lines.push_str(&json[0].to_string());
                lines.push('\n');
            }
            let kept = self.alone(session, move |path| append(path, &lines)).await;
            kept.map_err(|error| {
                MemoryError::keep(format!("{error} ({})", self.path(session).display()))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use throughline_llm::ToolCall;

    use super::*;

    #[tokio::test]
    async fn messages_come_back_as_they_were() {
        let directory = tempfile::tempdir().expect("a directory");
        let memory = FileMemory::new(directory.path().join("sessions"));
        assert_eq!(memory.load("s/1").await, Ok(Vec::new()));
        let mut asked = Message::assistant("let me see");
        let arguments = r#"{"item":7}"#.to_owned();
        let call = ToolCall { id: "c1".into(), name: "stock_v1".into(), arguments };
        asked.parts.push(Part::ToolCall(call));
        let said = [Message::user("ü\n?"), asked, Message::tool_result("c1", 12)];
        memory.append("s/1", &said[..1]).await.expect("kept");
        memory.append("s/1", &said[1..]).await.expect("kept");
        assert_eq!(memory.load("s/1").await.expect("messages"), said);
        assert_eq!(memory.load("../s/1").await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn a_line_that_was_cut_short_is_left_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let memory = FileMemory::new(directory.path());
        memory.append("s", &[Message::user("hello")]).await.expect("kept");
        let path = memory.path("s");
        let mut text = std::fs::read_to_string(&path).expect("lines");
        text.push_str("{\"role\":\"us\n");
        std::fs::write(&path, text).expect("written");
        assert_eq!(memory.load("s").await, Ok(vec![Message::user("hello")]));
    }

    #[tokio::test]
    async fn a_session_s_file_is_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let memory = FileMemory::new(directory.path());
        let long = Message::user("x".repeat(1024 * 1024));
        for _ in 0..12 {
            memory.append("s", std::slice::from_ref(&long)).await.expect("kept");
        }
        let bytes = std::fs::metadata(memory.path("s")).expect("a file").len();
        assert!(bytes <= 2 * SESSION_MAX_BYTES, "{bytes}");
        assert!(memory.load("s").await.expect("messages").ends_with(&[long]));
    }

    /// While the file is cut to its newest part, nobody appends to what is being replaced.
    #[tokio::test]
    async fn a_session_in_hand_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let memory = FileMemory::new(directory.path());
        memory.append("s", &[Message::user("1")]).await.expect("kept");
        let (begun, begins) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        let cutting = memory.clone();
        let cut = task::spawn(async move {
            let work = move |path: &Path| {
                let read = fs::read(path)?;
                begun.send(()).map_err(io::Error::other)?;
                goes_on.recv().map_err(io::Error::other)?;
                fs::write(path, read)
            };
            cutting.alone("s", work).await
        });
        task::spawn_blocking(move || begins.recv()).await.expect("a thread").expect("begun");
        let said = [Message::user("2")];
        let mut append = std::pin::pin!(memory.append("s", &said));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut append).await;
        assert!(early.is_err(), "the file is in hand: {early:?}");
        go_on.send(()).expect("it waits");
        append.await.expect("kept");
        cut.await.expect("a task").expect("cut");
        let all = [Message::user("1"), Message::user("2")];
        assert_eq!(memory.load("s").await.expect("messages"), all);
    }

    #[tokio::test]
    async fn a_torn_last_line_does_not_take_the_next_one_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let memory = FileMemory::new(directory.path());
        memory.append("s", &[Message::user("hello")]).await.expect("kept");
        let path = memory.path("s");
        let mut text = std::fs::read_to_string(&path).expect("lines");
        text.push_str("{\"role\":\"assistant\",\"parts\":[{\"ty");
        std::fs::write(&path, text).expect("written");
        memory.append("s", &[Message::user("again")]).await.expect("kept");
        let kept = memory.load("s").await.expect("messages");
        assert_eq!(kept, [Message::user("hello"), Message::user("again")]);
    }

    fn calling(ids: &[&str], text: &str) -> Message {
        let mut message = Message::assistant(text);
        message.parts.retain(|_| !text.is_empty());
        message.parts.extend(ids.iter().map(|id| {
            let (id, name) = ((*id).to_owned(), "stock_v1".to_owned());
            Part::ToolCall(ToolCall { id, name, ..ToolCall::default() })
        }));
        message
    }

    #[test]
    fn calls_and_results_without_each_other_are_left_out() {
        let result = |id: &str| Message::tool_result(id, 12);
        let user = || Message::user("how many?");
        let whole = [user(), calling(&["a", "b"], ""), result("a"), result("b"), user()];
        assert_eq!(whole_exchanges(whole.to_vec()), whole);
        assert_eq!(
            whole_exchanges(vec![result("x"), user(), result("a"), user()]),
            [user(), user()],
            "their calls are lost"
        );
        assert_eq!(
            whole_exchanges(vec![calling(&["a", "b"], "let me see"), result("b"), result("b")]),
            [calling(&["b"], "let me see"), result("b")],
            "the result of one is lost, that of the other is there twice"
        );
        assert_eq!(
            whole_exchanges(vec![user(), calling(&["a"], ""), user(), result("a")]),
            [user(), user()],
            "another message stands between"
        );
    }
}
