//! A memory in files: one of JSON lines for each session.

use std::io::{ErrorKind, SeekFrom};
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use serde_json::Value;
use throughline_llm::{Message, genai};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{self, AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::memory::{Memory, MemoryError};

/// Bytes of a session that are read at most, the newest. A file of twice as many is cut to them.
const SESSION_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A memory in a directory: a file of JSON lines for each session, one message a line, in the form
/// of `gen_ai.input.messages`. The files' names are hashes of the sessions' ids. On Unix only their
/// owner can read them.
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

    async fn write(&self, session: &str, messages: &[Message]) -> io::Result<()> {
        let mut lines = String::new();
        for message in messages {
            let json = genai::input_messages(std::slice::from_ref(message));
            lines.push_str(&json[0].to_string());
            lines.push('\n');
        }
        fs::create_dir_all(&self.directory).await?;
        let path = self.path(session);
        let mut file = private(OpenOptions::new().create(true).append(true)).open(&path).await?;
        // One write: lines of two runs of a session do not mix.
        file.write_all(lines.as_bytes()).await?;
        file.flush().await?;
        if file.metadata().await?.len() > 2 * SESSION_MAX_BYTES {
            let newest = tail(&path).await?;
            let beside = path.with_extension("new");
            let mut options = OpenOptions::new();
            let mut cut =
                private(options.create(true).write(true).truncate(true)).open(&beside).await?;
            cut.write_all(newest.as_bytes()).await?;
            cut.flush().await?;
            fs::rename(&beside, &path).await?;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// The newest whole lines of a file, [`SESSION_MAX_BYTES`] at most.
async fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path).await?;
    let length = file.metadata().await?.len();
    let skipped = length.saturating_sub(SESSION_MAX_BYTES);
    file.seek(SeekFrom::Start(skipped)).await?;
    let mut bytes = Vec::new();
    file.take(SESSION_MAX_BYTES).read_to_end(&mut bytes).await?;
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
    messages
}

impl Memory for FileMemory {
    fn name(&self) -> &str {
        "file"
    }

    fn load<'a>(&'a self, session: &'a str) -> BoxFuture<'a, Result<Vec<Message>, MemoryError>> {
        Box::pin(async move {
            let path = self.path(session);
            match tail(&path).await {
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
            let failed = |error: io::Error| {
                MemoryError::keep(format!("{error} ({})", self.path(session).display()))
            };
            self.write(session, messages).await.map_err(failed)
        })
    }
}

#[cfg(test)]
mod tests {
    use throughline_llm::{Part, ToolCall};

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
}
