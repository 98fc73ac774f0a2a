//! How an MCP server is reached, and what its tools are called.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use reqwest::Url;

use crate::context_bag::Need;
use crate::tools::tool::TOOL_TIMEOUT;

/// How a server is reached.
#[derive(Clone)]
pub(super) enum Via {
    Stdio {
        program: OsString,
        args: Vec<OsString>,
        environment: Vec<(OsString, OsString)>,
        is_cleared: bool,
    },
    Http {
        url: Url,
        headers: HashMap<HeaderName, HeaderValue>,
    },
}

/// A server that is not connected yet.
#[derive(Clone)]
pub struct McpBuilder {
    pub(super) via: Via,
    pub(super) prefix: String,
    pub(super) version: Option<u32>,
    pub(super) needs: Vec<Need>,
    pub(super) timeout: Duration,
}

impl McpBuilder {
    pub(super) fn new(via: Via) -> Self {
        Self { via, prefix: String::new(), version: None, needs: Vec::new(), timeout: TOOL_TIMEOUT }
    }

    /// One argument of a server's program.
    #[must_use]
    pub fn arg(mut self, text: impl Into<OsString>) -> Self {
        if let Via::Stdio { args, .. } = &mut self.via {
            args.push(text.into());
        }
        self
    }

    /// A variable of the environment of a server's program.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        if let Via::Stdio { environment, .. } = &mut self.via {
            environment.push((name.into(), value.into()));
        }
        self
    }

    /// Starts a server's program with `PATH` and the variables of [`env`](Self::env) alone.
    #[must_use]
    pub fn clear_environment(mut self) -> Self {
        if let Via::Stdio { is_cleared, .. } = &mut self.via {
            *is_cleared = true;
        }
        self
    }

    /// A header of every request to a server over HTTP, for credentials among others. One that HTTP
    /// does not allow is left out.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Via::Http { headers, .. } = &mut self.via
            && let (Ok(name), Ok(mut value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
        {
            value.set_sensitive(true);
            headers.insert(name, value);
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
