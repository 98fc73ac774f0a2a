//! Tools that are programs: arguments on the command line and as JSON on standard input, the answer
//! on standard output, the trace and the context in the environment (requirements R2.2, R2.3, R4.1).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::BoxFuture;
use opentelemetry::Context;
use serde_json::{Map, Value, json};
use throughline_trace::ErrorType;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::error::ToolError;
use super::template::{Template, TemplateError};
use super::tool::{TOOL_TIMEOUT, Tool};
use super::tool_id::{ToolId, ToolIdError};
use crate::context_bag::{CONTEXT_BAG_ENV, ContextBag, Need};
use crate::propagation;

/// Bytes that a program may answer with at most; it is stopped when it writes more.
pub const SUBPROCESS_STDOUT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of the end of what a program writes to standard error that its failure tells.
pub const SUBPROCESS_STDERR_TAIL_BYTES: usize = 4 * 1024;

/// How long the output of a program that has ended is read on, when what it started holds it open.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// Variables that a cleared environment keeps, and the beginnings of those that it keeps.
const KEPT_NAMES: [&str; 4] = ["PATH", "LANG", "TZ", "SYSTEMROOT"];
const KEPT_PREFIX: &str = "OTEL_EXPORTER_";

/// A tool that is a program.
///
/// The model's arguments are put into the places of the command line's templates, and written to
/// standard input as one JSON object. The environment is a copy of this process's (or
/// [cleared](Self::clear_environment)), with `TRACEPARENT`, `TRACESTATE`, `BAGGAGE` and
/// `THROUGHLINE_CONTEXT` of this call. An exit code other than 0 is a failure that tells the end of
/// standard error. When the call runs out of time or is given up, the program is killed, and on Unix
/// all that it started with it.
///
/// ```no_run
/// use serde_json::json;
/// use throughline::{SubprocessTool, ToolRegistry};
///
/// let grep = SubprocessTool::new("grep_v1", "Finds lines of the manual", "grep")?
///     .arg("--max-count=20")
///     .arg("--")
///     .arg_of("{words}")?
///     .arg("manual.txt")
///     .parameters(json!({
///         "type": "object",
///         "properties": {"words": {"type": "string"}},
///         "required": ["words"],
///     }))
///     .answering_text();
/// let tools = ToolRegistry::new().with(grep)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SubprocessTool {
    id: ToolId,
    description: String,
    program: OsString,
    args: Vec<Template>,
    parameters: Value,
    result: Option<Value>,
    directory: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    is_environment_cleared: bool,
    is_text: bool,
    needs: Vec<Need>,
    timeout: Duration,
}

impl SubprocessTool {
    /// A program without arguments, which answers with JSON.
    ///
    /// # Errors
    /// [`ToolIdError`] when the id cannot be a tool's, or has no version.
    pub fn new(
        id: &str,
        description: impl Into<String>,
        program: impl Into<OsString>,
    ) -> Result<Self, ToolIdError> {
        Ok(Self {
            id: id.parse()?,
            description: description.into(),
            program: program.into(),
            args: Vec::new(),
            parameters: json!({"type": "object", "properties": {}}),
            result: None,
            directory: None,
            environment: Vec::new(),
            is_environment_cleared: false,
            is_text: false,
            needs: Vec::new(),
            timeout: TOOL_TIMEOUT,
        })
    }

    /// One argument of the command line, as it is.
    #[must_use]
    pub fn arg(mut self, text: impl Into<String>) -> Self {
        self.args.push(Template::plain(text.into()));
        self
    }

    /// One argument of the command line with `{name}` for the places of the model's arguments; one
    /// that the model left out takes the whole text with it. A value may not make an option of a
    /// text that is none, unless the text stands after `--`.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn arg_of(mut self, template: &str) -> Result<Self, TemplateError> {
        self.args.push(Template::parse(template)?);
        Ok(self)
    }

    /// JSON Schema of the arguments: an object.
    #[must_use]
    pub fn parameters(mut self, schema: Value) -> Self {
        self.parameters = schema;
        self
    }

    /// JSON Schema of the answer.
    #[must_use]
    pub fn result_schema(mut self, schema: Value) -> Self {
        self.result = Some(schema);
        self
    }

    /// Takes the answer for text rather than JSON.
    #[must_use]
    pub fn answering_text(mut self) -> Self {
        self.is_text = true;
        self
    }

    /// Where the program runs.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// A variable of the program's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts the program with no variables but `PATH`, `LANG`, `TZ`, `OTEL_EXPORTER_*`, those of the
    /// trace and context, and those of [`env`](Self::env).
    #[must_use]
    pub fn clear_environment(mut self) -> Self {
        self.is_environment_cleared = true;
        self
    }

    /// Declares the fields of the caller's [`ContextBag`] that the program needs; they are in
    /// `THROUGHLINE_CONTEXT`.
    #[must_use]
    pub fn with_needs(mut self, needs: impl IntoIterator<Item = Need>) -> Self {
        self.needs = needs.into_iter().collect();
        self
    }

    /// Sets how long the program may run; [`TOOL_TIMEOUT`] when not said.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn run(&self, arguments: Value) -> Result<Value, ToolError> {
        let mut command = self.command(&arguments)?;
        let mut child = command.spawn().map_err(|error| {
            ToolError::kind(
                ErrorType::ToolFailed,
                format!("expected to start {}: {error}", self.shown()),
            )
        })?;
        let mut group = Group::of(&child);
        let input = child.stdin.take();
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut input) = input {
                // A program that does not read is none of our business.
                let _ = input.write_all(arguments.to_string().as_bytes()).await;
                let _ = input.shutdown().await;
            }
        };
        let mut said = Vec::new();
        let mut complained = Vec::new();
        let ended = {
            let reading = async {
                let ((), told, ()) = tokio::join!(
                    feed,
                    read_all(output, &mut said),
                    read_tail(errors, &mut complained)
                );
                told
            };
            tokio::pin!(reading);
            let told = tokio::select! {
                told = &mut reading => Some(told),
                _ = child.wait() => tokio::time::timeout(OUTPUT_GRACE, &mut reading).await.ok(),
            };
            match told {
                Some(Err(TooMuch)) => None,
                Some(Ok(())) => Some(true),
                None => Some(false),
            }
        };
        let status = match ended {
            None => {
                drop(group);
                let most = SUBPROCESS_STDOUT_MAX_BYTES;
                let text = format!("expected at most {most} bytes from {}, got more", self.shown());
                return Err(ToolError::kind(ErrorType::InvalidResponse, text));
            }
            Some(is_read) => {
                let status = child.wait().await?;
                // What the program left behind with its output in hand goes with the group.
                group.is_left_behind = !is_read;
                status
            }
        };
        self.answer(status, &said, &complained)
    }

    fn answer(
        &self,
        status: ExitStatus,
        said: &[u8],
        complained: &[u8],
    ) -> Result<Value, ToolError> {
        if !status.success() {
            let tail = String::from_utf8_lossy(complained);
            let message =
                format!("expected {} to succeed, got {status}: {}", self.shown(), tail.trim());
            let code =
                status.code().map_or_else(|| status.to_string(), |code| format!("exit {code}"));
            return Err(ToolError::Code { kind: ErrorType::ToolFailed, code, message });
        }
        if self.is_text {
            return Ok(Value::String(String::from_utf8_lossy(said).into_owned()));
        }
        serde_json::from_slice(said).map_err(|error| {
            let text = format!("expected JSON from {}: {error}", self.shown());
            ToolError::kind(ErrorType::InvalidResponse, text)
        })
    }

    fn command(&self, arguments: &Value) -> Result<Command, ToolError> {
        let mut command = Command::new(&self.program);
        command.args(self.command_line(arguments)?);
        if self.is_environment_cleared {
            command.env_clear();
            command.envs(std::env::vars_os().filter(|(name, _)| {
                let name = name.to_str().unwrap_or_default();
                KEPT_NAMES.contains(&name) || name.starts_with(KEPT_PREFIX)
            }));
        }
        for name in propagation::ENV_NAMES.into_iter().chain([CONTEXT_BAG_ENV]) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned());
        command.envs(propagation::inject_env(&Context::current()));
        let context = |error| ToolError::Context { id: self.id.to_string(), error };
        if let Some(bag) = ContextBag::to_send(self.id.as_str(), &self.needs).map_err(context)? {
            command.env(CONTEXT_BAG_ENV, bag.to_json().map_err(context)?);
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        Ok(command)
    }

    fn command_line(&self, arguments: &Value) -> Result<Vec<String>, ToolError> {
        let nothing = Map::new();
        let given = arguments.as_object().unwrap_or(&nothing);
        let wrong = |reason: String| ToolError::InvalidArguments {
            id: self.id.to_string(),
            got: arguments.to_string(),
            reason,
        };
        let mut line = Vec::with_capacity(self.args.len());
        let mut may_be_option = true;
        for template in &self.args {
            let filled = template.fill(given, |name, value| match value.contains('\0') {
                true => Err(format!("at /{name}: expected a text without a zero byte")),
                false => Ok(value),
            });
            let Some(filled) = filled.map_err(wrong)? else { continue };
            if may_be_option && filled.starts_with('-') && !template.begins_with("-") {
                let names: Vec<&str> = template.names().collect();
                let reason = format!(
                    "at /{}: expected a value that does not begin with '-'",
                    names.join(", /")
                );
                return Err(wrong(reason));
            }
            may_be_option &= filled != "--";
            line.push(filled);
        }
        Ok(line)
    }

    /// The program's name, without where it lies.
    fn shown(&self) -> String {
        let path = std::path::Path::new(&self.program);
        path.file_name().unwrap_or(&self.program).to_string_lossy().into_owned()
    }
}

impl Tool for SubprocessTool {
    fn id(&self) -> &ToolId {
        &self.id
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> Value {
        self.parameters.clone()
    }

    fn result_schema(&self) -> Option<Value> {
        self.result.clone()
    }

    fn needs(&self) -> &[Need] {
        &self.needs
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
        Box::pin(self.run(arguments))
    }
}

/// A program's process group, killed when it is dropped while something of it may still run.
struct Group {
    #[cfg_attr(not(unix), expect(dead_code, reason = "elsewhere the program alone is killed"))]
    leader: Option<u32>,
    is_left_behind: bool,
}

impl Group {
    fn of(child: &Child) -> Self {
        Self { leader: child.id(), is_left_behind: true }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if self.is_left_behind
            && let Some(leader) = self.leader.and_then(|id| i32::try_from(id).ok())
            && let Some(group) = rustix::process::Pid::from_raw(leader)
        {
            // It may be gone already, which is as well.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// More output than allowed.
struct TooMuch;

async fn read_all(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> Result<(), TooMuch> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; READ_BYTES];
    // A pipe that breaks has no more to say.
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if into.len() + read > SUBPROCESS_STDOUT_MAX_BYTES {
            return Err(TooMuch);
        }
        into.extend_from_slice(&buffer[..read]);
    }
    Ok(())
}

async fn read_tail(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        into.extend_from_slice(&buffer[..read]);
        let surplus = into.len().saturating_sub(SUBPROCESS_STDERR_TAIL_BYTES);
        into.drain(..surplus);
    }
}
