//! `throughline store`, `backup`, `restore`: the files, beside a running server or without one.

use std::io::Write as _;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::tz::TimeZone;
use serde_json::json;
use throughline_store::{
    BackupError, BackupOptions, Progress, SegmentInfo, SegmentState, Tally, back_up, restore,
    verify_store,
};

use crate::args::{BackupArgs, RestoreArgs, StoreAction};
use crate::commands::{advised, of_query, open_reader, write_json};
use crate::failure::{Exit, Failure, Outcome};
use crate::settings::Settings;
use crate::show::{self, BOLD, DIM, RED, moment, one_line, styled};
use crate::table::{self, Cell, left, right};

/// Runs one action.
pub(crate) async fn run(settings: &Settings, action: StoreAction) -> Outcome {
    match action {
        StoreAction::Segments { json } => segments(settings, json).await,
        StoreAction::Verify { json } => verify(settings, json),
        StoreAction::ClickHouse { action } => super::clickhouse::run(settings, action).await,
    }
}

async fn segments(settings: &Settings, json: bool) -> Outcome {
    let segments = open_reader(settings)?.segments().await.map_err(of_query)?;
    let mut out = anstream::stdout().lock();
    if json {
        return segments
            .iter()
            .try_for_each(|info| write_json(&mut out, &throughline_web::segment_json(info)));
    }
    let columns = [
        left("segment"),
        left("state"),
        right("size"),
        right("traces"),
        right("spans"),
        right("logs"),
        right("sampled away"),
        left("verified"),
    ];
    Ok(table::write(&mut out, &columns, segments.iter().map(row).collect())?)
}

fn row(info: &SegmentInfo) -> Vec<Cell> {
    let style = match info.state {
        SegmentState::Damaged | SegmentState::Missing => RED,
        SegmentState::Retired | SegmentState::Skeleton => DIM,
        _ => BOLD,
    };
    let verified =
        info.verified_unix_nano.map(|time| moment(time, &TimeZone::system())).unwrap_or_default();
    vec![
        Cell::from(info.segment.clone()),
        Cell::styled(info.state.as_str(), style),
        Cell::from(bytes(info.bytes)),
        Cell::from(show::count(info.traces)),
        Cell::from(show::count(info.spans)),
        Cell::from(show::count(info.logs)),
        Cell::from(info.sampled.as_ref().map(sampled_away).unwrap_or_default()),
        Cell::from(info.damage.as_deref().map_or(verified, one_line)),
    ]
}

/// Spans that sampling took, by what took most of them.
fn sampled_away(tally: &Tally) -> String {
    let total = tally.total_dropped().spans;
    let most = tally.dropped.iter().max_by_key(|(_, count)| count.spans);
    match most {
        Some((by, count)) if total > 0 && count.spans < total => {
            format!("{} ({by} {})", show::count(total), show::count(count.spans))
        }
        Some((by, _)) if total > 0 => format!("{} ({by})", show::count(total)),
        _ => "0".to_owned(),
    }
}

fn verify(settings: &Settings, json: bool) -> Outcome {
    let bar = bar("verifying");
    let report = verify_store(&settings.data_dir, |step| bar.show(step)).map_err(of_query)?;
    bar.end();
    let mut out = anstream::stdout().lock();
    if json {
        let mut answer = json!(report);
        answer["is_good"] = json!(report.is_good());
        write_json(&mut out, &answer)?;
    } else {
        for file in &report.files {
            let verdict = match &file.damage {
                Some(damage) => styled(RED, &format!("damaged: {}", one_line(damage))).to_string(),
                None if file.is_sealed => "as sealed".to_owned(),
                None => "whole".to_owned(),
            };
            writeln!(out, "{}  {}  {verdict}", file.file, bytes(file.bytes))?;
        }
        for file in &report.missing {
            writeln!(out, "{}", styled(RED, &format!("segments/{file}  missing")))?;
        }
    }
    if report.is_good() {
        return Ok(());
    }
    let damaged = report.files.iter().filter(|file| file.damage.is_some()).count();
    let names: Vec<&str> = report
        .files
        .iter()
        .filter(|file| file.damage.is_some())
        .map(|file| file.file.as_str())
        .chain(report.missing.iter().map(String::as_str))
        .collect();
    Err(Failure::new(
        Exit::Damaged,
        format!(
            "{} of the store damaged, {} missing: {}",
            show::counted(damaged as u64, "file", "files"),
            report.missing.len(),
            names.join(", ")
        ),
    )
    .hint("restore the files from a backup; docs/keeping.md says how"))
}

/// `throughline backup`.
pub(crate) fn back(settings: &Settings, args: &BackupArgs) -> Outcome {
    let options = BackupOptions {
        data_dir: settings.data_dir.clone(),
        target: args.dir.clone(),
        link: args.link,
    };
    let bar = bar("backing up");
    let done = back_up(&options, |step| bar.show(step)).map_err(of_backup)?;
    bar.end();
    let mut out = anstream::stdout().lock();
    if args.json {
        let answer = json!({
            "dir": args.dir,
            "files": done.files,
            "bytes": done.bytes,
            "copied_bytes": done.copied_bytes,
            "reused_files": done.reused_files,
            "damaged": done.damaged,
        });
        write_json(&mut out, &answer)?;
    } else {
        writeln!(
            out,
            "{} in {}, {} copied, {} already there",
            show::counted(done.files, "file", "files"),
            args.dir.display(),
            bytes(done.copied_bytes),
            show::count(done.reused_files)
        )?;
    }
    if done.damaged.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Damaged,
        format!("the backup lacks damaged segments: {}", done.damaged.join(", ")),
    )
    .hint("everything else is in it; restore these from an earlier backup"))
}

/// `throughline restore`.
pub(crate) fn restore_into(settings: &Settings, args: &RestoreArgs) -> Outcome {
    let bar = bar("restoring");
    let done = restore(&args.dir, &settings.data_dir, |step| bar.show(step)).map_err(of_backup)?;
    bar.end();
    let mut out = anstream::stdout().lock();
    if args.json {
        let answer = json!({
            "data_dir": settings.data_dir,
            "files": done.files,
            "bytes": done.bytes,
            "began_unix_nano": done.began_unix_nano.to_string(),
        });
        return write_json(&mut out, &answer);
    }
    writeln!(
        out,
        "{} ({}) in {}; all that was acknowledged before {} is there",
        show::counted(done.files, "file", "files"),
        bytes(done.bytes),
        settings.data_dir.display(),
        moment(done.began_unix_nano, &TimeZone::system())
    )?;
    Ok(())
}

fn of_backup(error: BackupError) -> Failure {
    let exit = match &error {
        BackupError::Query(_) => {
            return match error {
                BackupError::Query(error) => of_query(error),
                other => Failure::new(Exit::Failure, other),
            };
        }
        BackupError::NoBackup(_) => Exit::NotFound,
        BackupError::NotEmpty { .. } => Exit::Usage,
        BackupError::Damaged { .. } => Exit::Damaged,
        BackupError::List { .. } | BackupError::Io { .. } => Exit::Failure,
    };
    advised(exit, &error.to_string())
}

/// A bar on stderr, where that is a terminal.
struct Bar(ProgressBar);

fn bar(what: &'static str) -> Bar {
    let bar = ProgressBar::new(0);
    if let Ok(style) =
        ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {eta}  {msg}")
    {
        bar.set_style(style);
    }
    bar.set_prefix(what);
    Bar(bar)
}

impl Bar {
    fn show(&self, step: Progress<'_>) {
        self.0.set_length(step.total_bytes);
        self.0.set_position(step.done_bytes);
        if self.0.message() != step.file {
            self.0.set_message(step.file.to_owned());
        }
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// Bytes for people.
fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
