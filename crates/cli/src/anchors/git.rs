//! Notes in a git repository, on the commit that is checked out. Each replaces the one before on
//! that commit; the history of the notes' ref keeps all of them.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use throughline_store::Checkpoint;
use tokio::process::Command;

/// Longest that one command of git may take: a push goes over the network.
const GIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Notes that are read back, the first that git lists.
const MAX_NOTES: usize = 10_000;

/// Writes a note, and pushes it when a remote is named.
pub(super) async fn write(
    repository: &Path,
    notes_ref: &str,
    push: Option<&str>,
    checkpoint: &Checkpoint,
) -> Result<(), String> {
    let notes = format!("--ref={notes_ref}");
    let line = checkpoint.to_line();
    run(repository, &["notes", &notes, "add", "-f", "-m", &line, "HEAD"]).await?;
    if let Some(remote) = push {
        run(repository, &["push", "--quiet", "--", remote, notes_ref]).await?;
    }
    Ok(())
}

/// The newest note on each commit.
pub(super) async fn read(repository: &Path, notes_ref: &str) -> Result<Vec<String>, String> {
    let notes = format!("--ref={notes_ref}");
    // Without a note there is no ref yet.
    if run(repository, &["rev-parse", "--quiet", "--verify", notes_ref]).await.is_err() {
        return Ok(Vec::new());
    }
    let listed = run(repository, &["notes", &notes, "list"]).await?;
    let mut lines = Vec::new();
    for blob in listed.lines().take(MAX_NOTES).filter_map(|line| line.split(' ').next()) {
        let note = run(repository, &["cat-file", "blob", blob]).await?;
        lines.extend(note.lines().map(str::to_owned));
    }
    Ok(lines)
}

async fn run(repository: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(repository)
        // Who writes is the server, whatever the user's own configuration says.
        .args(["-c", "user.name=throughline", "-c", "user.email=throughline@localhost"])
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let what = format!("git {} in {}", arguments[0], repository.display());
    let output: Output = match tokio::time::timeout(GIT_TIMEOUT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{what} did not start: {error}")),
        Err(_) => return Err(format!("{what} took more than {} s", GIT_TIMEOUT.as_secs())),
    };
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "{what} failed: {}",
            error.trim().lines().last().unwrap_or("no reason")
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
