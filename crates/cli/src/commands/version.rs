//! `throughline version`.

use std::io::Write as _;

use crate::args::VersionArgs;
use crate::commands::write_json;
use crate::failure::Outcome;

/// Prints the version.
pub(crate) fn run(args: &VersionArgs) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = anstream::stdout().lock();
    if args.json {
        return write_json(&mut out, &serde_json::json!({ "version": version }));
    }
    Ok(writeln!(out, "throughline {version}")?)
}
