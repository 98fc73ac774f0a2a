//! The limit of open files: connections, segments and queries share it, so it is raised as far as the
//! system allows, and connections leave room for the rest.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Open files kept back from connections, for segments, queries and the log: a port that took the
/// last one would keep the store from opening tomorrow's file.
const RESERVED_FILES: u64 = 256;

/// Ports that share the limit.
const PORTS: u64 = 3;

/// Raises the soft limit to the hard one. Answers the limit in force; `None` when there is none.
pub(crate) fn raise() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, wanted) {
            Ok(()) => limit = getrlimit(Resource::Nofile),
            Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
        }
    }
    limit.current
}

/// Connections that one port may serve at once under `limit` open files.
pub(crate) fn connections(wanted: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return wanted };
    let room = limit.saturating_sub(RESERVED_FILES).max(PORTS) / PORTS;
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if room < wanted {
        tracing::warn!(
            wanted,
            room,
            limit,
            "fewer connections a port: the system allows too few open files (ulimit -n)"
        );
    }
    wanted.min(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_files() {
        assert_eq!(connections(1_000, Some(1_024)), 256);
        assert_eq!(connections(1_000, Some(1 << 20)), 1_000);
        assert_eq!(connections(1_000, Some(10)), 1);
        assert_eq!(connections(1_000, None), 1_000);
        assert!(raise().is_none_or(|limit| limit > 0));
    }
}
