//! How an MCP server is reached, and what its tools are called.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use reqwest::Url;
use tokio::process::Command;

use crate::context_bag::{CONTEXT_BAG_ENV, Need};
use crate::http_client;
use crate::propagation;
use crate::tools::tool::TOOL_TIMEOUT;

/// How a server is reached.
#[derive(Clone)]
pub(super) enum Via {
    Stdio {
        program: OsString,
        args: Vec<OsString>,
        environment: Vec<(OsString, OsString)>,
        inherits: Inherits,
    },
    Http {
        url: Url,
        headers: HashMap<HeaderName, HeaderValue>,
    },
}

/// What a server's program has of this process's environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inherits {
    /// `PATH` alone.
    Path,
    /// [`MCP_INHERITED_VARIABLES`].
    Small,
    /// All of it.
    All,
}

/// The variables of this process that the program of an MCP server has when nothing else is said:
/// those that the official SDKs for MCP pass on, none of which holds credentials.
#[cfg(not(windows))]
pub const MCP_INHERITED_VARIABLES: &[&str] = &["HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"];

/// The variables of this process that the program of an MCP server has when nothing else is said:
/// those that the official SDKs for MCP pass on, none of which holds credentials.
#[cfg(windows)]
pub const MCP_INHERITED_VARIABLES: &[&str] = &[
    "APPDATA",
    "HOMEDRIVE",
    "HOMEPATH",
    "LOCALAPPDATA",
    "PATH",
    "PATHEXT",
    "PROCESSOR_ARCHITECTURE",
    "SYSTEMDRIVE",
    "SYSTEMROOT",
    "TEMP",
    "USERNAME",
    "USERPROFILE",
];

impl Inherits {
    /// Makes the environment of a program that, before what its server is given by name. Nothing of
    /// a trace or context is in it: the server outlives the call that it is started in.
    pub(super) fn apply(self, command: &mut Command) {
        let kept: &[&str] = match self {
            Self::All => {
                for name in propagation::ENV_NAMES.into_iter().chain([CONTEXT_BAG_ENV]) {
                    command.env_remove(name);
                }
                return;
            }
            Self::Small => MCP_INHERITED_VARIABLES,
            Self::Path => &["PATH"],
        };
        command.env_clear();
        command.envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    }
}

/// A server that is not connected yet.
#[derive(Clone)]
pub struct McpBuilder {
    pub(super) via: Via,
    pub(super) prefix: String,
    pub(super) version: Option<u32>,
    pub(super) needs: Vec<Need>,
    pub(super) timeout: Duration,
    /// What was said that cannot be meant, first: connecting fails with it.
    pub(super) wrong: Option<String>,
}

impl McpBuilder {
    pub(super) fn new(via: Via) -> Self {
        Self {
            via,
            prefix: String::new(),
            version: None,
            needs: Vec::new(),
            timeout: TOOL_TIMEOUT,
            wrong: None,
        }
    }

    /// One argument of a server's program.
    #[must_use]
    pub fn arg(mut self, text: impl Into<OsString>) -> Self {
        if let Via::Stdio { args, .. } = &mut self.via {
            args.push(text.into());
        }
        self
    }

    /// A variable of the environment of a server's program, beside those that it inherits.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        if let Via::Stdio { environment, .. } = &mut self.via {
            environment.push((name.into(), value.into()));
        }
        self
    }

    /// Starts a server's program with `PATH` and the variables of [`env`](Self::env) alone, without
    /// the other [`MCP_INHERITED_VARIABLES`].
    #[must_use]
    pub fn clear_environment(self) -> Self {
        self.inheriting(Inherits::Path)
    }

    /// Starts a server's program with this process's whole environment, credentials among it, but
    /// for the variables of a trace and context. Only for a program that may know all that this one
    /// knows: to others give what they need with [`env`](Self::env).
    #[must_use]
    pub fn inherit_environment(self) -> Self {
        self.inheriting(Inherits::All)
    }

    fn inheriting(mut self, what: Inherits) -> Self {
        if let Via::Stdio { inherits, .. } = &mut self.via {
            *inherits = what;
        }
        self
    }

    /// A header of every request to a server over HTTP, for credentials among others. One that HTTP
    /// does not allow is an error of [`connect`](Self::connect).
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Via::Http { headers, .. } = &mut self.via {
            match http_client::secret_header(name, value) {
                Ok((name, value)) => drop(headers.insert(name, value)),
                Err(wrong) => self.wrong = self.wrong.or(Some(wrong)),
            }
        }
        self
    }

    /// Puts this before the tools' names: `files` makes `files_read_v1` of `read`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The version in the tools' ids, in place of the first number of the server's own.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    /// Declares the fields of the caller's [`ContextBag`](crate::ContextBag) that the server's tools
    /// need; they are in `_meta["throughline/context"]`.
    #[must_use]
    pub fn with_needs(mut self, needs: impl IntoIterator<Item = Need>) -> Self {
        self.needs = needs.into_iter().collect();
        self
    }

    /// Sets how long a call may take; [`TOOL_TIMEOUT`] when not said.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl fmt::Debug for McpBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpBuilder").field("server", &self.via.shown()).finish_non_exhaustive()
    }
}

impl Via {
    /// The server as messages name it: without arguments, path or credentials.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Stdio { program, .. } => std::path::Path::new(program)
                .file_name()
                .unwrap_or(program)
                .to_string_lossy()
                .into_owned(),
            Self::Http { url, .. } => url.host_str().unwrap_or_default().to_owned(),
        }
    }
}
