//! `throughline slo`: files of SLOs are checked, brought over, written for others, and held against what
//! is stored.

mod evaluate;
pub(crate) mod list;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use throughline_govern::slo::{
    self, Alert, Budgeting, Length, MAX_SLO_FILE_BYTES, Mistake, Objective, Slo, SloFiles, Source,
};

use crate::args::{SloAction, SloArgs, SloExportForm, SloImportForm};
use crate::commands::{stdin_text, write_json};
use crate::failure::{Failure, Outcome};
use crate::settings::Settings;
use crate::show::{BOLD, YELLOW, counted, one_line, styled};
use crate::table::{self, Cell, left, right};

/// Where SLOs are looked for when no file is named.
const DEFAULT_SLO_DIR: &str = "slo";

/// Most files that are read at once.
const MAX_FILES: usize = 1_000;

/// Runs one action.
pub(crate) async fn run(settings: &Settings, args: &SloArgs) -> Outcome {
    match &args.action {
        None => list::run(settings, &args.list).await,
        Some(SloAction::List(args)) => list::run(settings, args).await,
        Some(SloAction::Check { files, json }) => check(files, *json),
        Some(SloAction::Import { form: SloImportForm::Sloth, file }) => import(file),
        Some(SloAction::Export { form, files }) => export(*form, files),
        Some(SloAction::Evaluate { series, files, json }) => evaluate::run(series, files, *json),
    }
}

/// A file with what it says.
struct Read {
    name: String,
    text: String,
}

/// A file's text; `-` is standard input.
fn text_of(path: &Path, most: usize) -> Outcome<String> {
    if path == Path::new("-") {
        return stdin_text(most);
    }
    let unreadable =
        |error: io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > most as u64 {
        let path = path.display();
        return Err(Failure::usage(format!(
            "expected a file of at most {most} bytes, {path} has {bytes}"
        )));
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// The files that are meant: those of a directory are its `.yaml` and `.yml`, by name.
fn files_of(paths: &[PathBuf]) -> Outcome<Vec<Read>> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml") {
                inside.push(path);
            }
        }
        if inside.is_empty() {
            let path = path.display();
            return Err(Failure::not_found(format!("{path} has no .yaml or .yml file")));
        }
        inside.sort();
        found.extend(inside);
    }
    if found.len() > MAX_FILES {
        let got = found.len();
        return Err(Failure::usage(format!("expected at most {MAX_FILES} files, got {got}")));
    }
    let read = |path: &PathBuf| {
        let text = text_of(path, MAX_SLO_FILE_BYTES)?;
        Ok(Read { name: path.display().to_string(), text })
    };
    found.iter().map(read).collect()
}

/// Reads OpenSLO files; what will surprise is told on stderr.
fn read(paths: &[PathBuf]) -> Outcome<SloFiles> {
    let files = files_of(paths)?;
    let sources: Vec<Source<'_>> =
        files.iter().map(|file| Source { name: &file.name, text: &file.text }).collect();
    let read = slo::read_openslo(&sources).map_err(|mistakes| {
        let count = counted(mistakes.0.len() as u64, "mistake", "mistakes");
        Failure::usage(format!("these SLOs cannot be used, {count}\n{mistakes}"))
            .hint("docs/slo.md tells what a file may say")
    })?;
    tell(&read.notes)?;
    Ok(read)
}

fn tell(notes: &[Mistake]) -> io::Result<()> {
    let mut err = anstream::stderr().lock();
    for note in notes {
        writeln!(err, "{} {note}", styled(YELLOW, "note:"))?;
    }
    Ok(())
}

fn check(paths: &[PathBuf], json: bool) -> Outcome {
    let files = read(paths)?;
    let mut out = anstream::stdout().lock();
    if json {
        let slos: Vec<Value> = files.slos.iter().map(slo_json).collect();
        let notes: Vec<String> = files.notes.iter().map(ToString::to_string).collect();
        return write_json(&mut out, &json!({"slos": slos, "notes": notes}));
    }
    for slo in &files.slos {
        understood(&mut out, slo)?;
    }
    let count = counted(files.slos.len() as u64, "SLO", "SLOs");
    Ok(writeln!(out, "{count} can be used")?)
}

/// How an SLO is understood, in words.
fn understood(out: &mut impl Write, slo: &Slo) -> io::Result<()> {
    let words = match (slo.display_name.is_empty(), slo.description.is_empty()) {
        (false, _) => one_line(&slo.display_name),
        (true, false) => one_line(&slo.description),
        (true, true) => String::new(),
    };
    writeln!(out, "{}  {words}", styled(BOLD, &slo.name))?;
    writeln!(out, "  service {}, budget over {}", one_line(&slo.service), slo.window)?;
    for objective in &slo.objectives {
        let percent = percent(objective.target);
        writeln!(out, "  {}: {percent} of {}", one_line(&objective.name), counted_by(objective))?;
        writeln!(out, "    {}", one_line(&objective.indicator.to_string()))?;
    }
    let evaluation = slo.evaluation;
    writeln!(
        out,
        "  root cause is looked for when the burn rate is over {} in {} windows of {} in a row",
        evaluation.threshold,
        evaluation.windows,
        Length::of_minutes(evaluation.window_min)
    )?;
    if !slo.alerts.is_empty() {
        let columns =
            [left("  ALERT"), left("SEVERITY"), right("OVER"), left("WINDOWS"), left("TELLS")];
        table::write(out, &columns, slo.alerts.iter().map(alert_row).collect())?;
    }
    writeln!(out)
}

fn counted_by(objective: &Objective) -> String {
    match objective.budgeting {
        Budgeting::Occurrences => "events".to_owned(),
        Budgeting::Timeslices { slice_min, slice_target } => format!(
            "slices of {} in which {} of events are good",
            Length::of_minutes(slice_min),
            percent(slice_target)
        ),
        Budgeting::RatioTimeslices { slice_min } => {
            format!("events on the mean of slices of {}", Length::of_minutes(slice_min))
        }
    }
}

fn alert_row(alert: &Alert) -> Vec<Cell> {
    let mut windows = Length::of_minutes(alert.long_min).to_string();
    if alert.short_min != alert.long_min {
        windows += &format!(" and {}", Length::of_minutes(alert.short_min));
    }
    if alert.after_min > 0 {
        windows += &format!(" for {}", Length::of_minutes(alert.after_min));
    }
    vec![
        format!("  {}", one_line(&alert.name)).into(),
        alert.severity.as_str().into(),
        alert.threshold.to_string().into(),
        windows.into(),
        one_line(&alert.targets.join(", ")).into(),
    ]
}

/// A share as people write it: `99.9 %`.
fn percent(share: f64) -> String {
    format!("{} %", (share * 1e8).round() / 1e6)
}

fn slo_json(slo: &Slo) -> Value {
    let objective = |objective: &Objective| {
        json!({
            "name": objective.name,
            "target": objective.target,
            "budgeting": objective.budgeting,
            "indicator": {"id": objective.indicator.id(), "counts": objective.indicator.to_string()},
        })
    };
    let alert = |alert: &Alert| {
        json!({
            "name": alert.name,
            "severity": alert.severity,
            "threshold": alert.threshold,
            "long_window_min": alert.long_min,
            "short_window_min": alert.short_min,
            "after_min": alert.after_min,
            "receivers": alert.targets,
        })
    };
    json!({
        "name": slo.name,
        "display_name": slo.display_name,
        "description": slo.description,
        "service": slo.service,
        "version": slo.version,
        "window": slo.window.to_string(),
        "objectives": slo.objectives.iter().map(objective).collect::<Vec<_>>(),
        "alerts": slo.alerts.iter().map(alert).collect::<Vec<_>>(),
        "evaluation": slo.evaluation,
        "min_events": slo.min_events,
        "runbook": slo.runbook,
    })
}

fn import(file: &Path) -> Outcome {
    let text = text_of(file, MAX_SLO_FILE_BYTES)?;
    let name = file.display().to_string();
    let read = slo::import_sloth(Source { name: &name, text: &text }).map_err(|mistakes| {
        Failure::usage(format!("this file cannot be brought over\n{mistakes}"))
            .hint("docs/slo.md tells what becomes of Sloth's keys")
    })?;
    tell(&read.notes)?;
    Ok(anstream::stdout().lock().write_all(slo::write_openslo(&read.slos).as_bytes())?)
}

fn export(form: SloExportForm, paths: &[PathBuf]) -> Outcome {
    let files = read(paths)?;
    let text = match form {
        SloExportForm::Prometheus => slo::write_prometheus(&files.slos),
        SloExportForm::Openslo => slo::write_openslo(&files.slos),
    };
    Ok(anstream::stdout().lock().write_all(text.as_bytes())?)
}
