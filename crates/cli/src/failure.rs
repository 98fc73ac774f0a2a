//! How a command ends badly: an error for people, a hint what to do, an exit code for scripts.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

/// Exit codes, as `--help` lists them. 0 is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was tried and did not work.
    Failure = 1,
    /// Arguments, environment or configuration file are wrong.
    Usage = 2,
    /// What was asked for is not there.
    NotFound = 3,
    /// The data directory or a port belongs to another process.
    Busy = 4,
    /// The audit log is not what it was.
    Tampered = 5,
    /// A file of the store or of a backup is not what it was.
    Damaged = 6,
}

/// The table of exit codes under `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  failure
  2  wrong arguments, environment or configuration
  3  what was asked for does not exist
  4  the data directory or a port is in use by another process
  5  the audit log does not verify
  6  a file of the store or of a backup is damaged";

/// What every command answers.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// A failure with this exit code. The message is lowercase, without a final period.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, error: anyhow::Error::msg(message.to_string()), hint: None }
    }

    /// Wrong arguments, environment or configuration.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// What was asked for is not there.
    pub(crate) fn not_found(message: impl fmt::Display) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether it only says that nobody reads the output any more (`throughline traces | head`).
    fn is_broken_pipe(&self) -> bool {
        self.error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Tells the user on stderr, and gives the code to exit with.
    pub(crate) fn report(&self) -> ExitCode {
        if self.is_broken_pipe() {
            return ExitCode::SUCCESS;
        }
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
        let mut err = anstream::stderr().lock();
        // When stderr is closed there is nobody left to tell.
        let _ = writeln!(err, "{red}error:{red:#} {:#}", self.error);
        if let Some(hint) = &self.hint {
            for line in hint.lines() {
                let _ = writeln!(err, "{cyan}hint:{cyan:#} {line}");
            }
        }
        ExitCode::from(self.exit as u8)
    }

    /// The error on one line, for the log.
    pub(crate) fn line(&self) -> String {
        format!("{:#}", self.error)
    }

    /// Error and hint as the terminal shows them, for tests.
    #[cfg(test)]
    pub(crate) fn to_text(&self) -> String {
        let hint = self.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("error({}): {:#}{hint}", self.exit as u8, self.error)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: Exit::Failure, error: error.into(), hint: None }
    }
}
