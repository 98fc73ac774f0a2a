//! One contender, so often, and nothing else: for a program that counts its instructions.

use anyhow::Context as _;

/// Does `turns` of the contender, in hundreds.
///
/// # Errors
/// When there is no contender of this name, or no number.
pub(crate) fn run(contender: Option<String>, turns: Option<String>) -> anyhow::Result<()> {
    let contender = contender.context("expected a contender: host, bare, carried-task, …")?;
    let turns = turns.context("expected how many turns to do")?;
    let turns = turns.parse().with_context(|| format!("expected how many turns, got {turns}"))?;
    if contender.ends_with("-task") {
        crate::tasks::alone(&contender, turns)
    } else {
        crate::spans::alone(&contender, turns)
    }
}
