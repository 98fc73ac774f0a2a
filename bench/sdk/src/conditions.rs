//! What the figures were measured on and with.

use crate::ROUNDS;
use crate::spans::{STEPS, STEPS_OF_A_TRACE};
use crate::streams::CHUNKS;
use crate::tasks::TASKS;

/// The lock file of the workspace: what was built is what it names.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// Crates whose versions bear on the figures.
const CRATES: [&str; 7] = [
    "throughline",
    "tracing",
    "tracing-subscriber",
    "tracing-opentelemetry",
    "opentelemetry_sdk",
    "fastrace",
    "tokio",
];

/// The conditions, as lines that begin with `#`.
pub(crate) fn text() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu =
        read("/proc/cpuinfo", "model name").unwrap_or_else(|| "a CPU without a name".to_owned());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let profile = if cfg!(debug_assertions) { "NOT optimised" } else { "release" };
    let crates: Vec<String> =
        CRATES.iter().map(|name| format!("{name} {}", version(name).unwrap_or("?"))).collect();
    format!(
        "# {cpu}, {cores} cores, load {load} at the end; one thread; {profile} build\n\
         # medians of {ROUNDS} rounds in turns; {STEPS} steps a round in traces of \
         {STEPS_OF_A_TRACE}, {TASKS} tasks, {CHUNKS} chunks\n\
         # {}",
        crates.join(", ")
    )
}

/// The value of the first line `key : value` of a file.
fn read(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The version of a crate in the lock file.
fn version(name: &str) -> Option<&'static str> {
    let (_, entry) = LOCK.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    entry.split('"').next()
}
