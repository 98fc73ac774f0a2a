//! `throughline experiment`: how experiments of rule files stand, read from the data directory beside a running server or
//! without one; a person's word about them is written there, and the server follows.

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde::Serialize;
use throughline_govern::experiment::{
    Difference, ExperimentResult, ExperimentSpec, Look, Looks, Run, Runs, Stopped, Verdict,
};
use throughline_store::{Governance, QueryError};

use super::act::who;
use crate::args::ExperimentAction;
use crate::commands::{of_control, of_query, write_json};
use crate::failure::{Exit, Failure, Outcome};
use crate::governing::experiments::{KIND, LOOKS_PREFIX, objection};
use crate::governing::{RuleFiles, now_unix_nano};
use crate::settings::Settings;
use crate::show::{BOLD, DIM, moment, one_line, styled};
use crate::table::{self, Cell, left, right};

/// Smaller p-values are told as smaller than this.
const LEAST_P: f64 = 0.0001;

/// How often a change is tried that a server's own came before.
const WRITES: usize = 8;

/// Looks that `show` prints, evenly spread.
const SHOWN_LOOKS: usize = 20;

/// How one stands.
#[derive(Debug, Serialize)]
struct Told {
    name: String,
    /// `None` where no file names it any more.
    spec: Option<ExperimentSpec>,
    /// `not_begun`, `runs`, `stopped`, or the verdict.
    state: &'static str,
    /// The last run; `None` before the first.
    run: Option<Run>,
    /// What was known of that run over time.
    looks: Vec<Look>,
}

/// Runs one action on the data directory.
pub(crate) fn run(settings: &Settings, files: RuleFiles, action: ExperimentAction) -> Outcome {
    if !settings.data_dir.exists() {
        return Err(of_query(QueryError::NoStore(settings.data_dir.clone())));
    }
    let governance = Governance::open(&settings.data_dir).map_err(|error| of_control(&error))?;
    let mut files = files.with_kept(&governance).map_err(|error| of_control(&error))?;
    let specs = files.read()?.experiments;
    match action {
        ExperimentAction::List { json } => list(&all(&governance, &specs)?, json),
        ExperimentAction::Show { name, json } => {
            let all = all(&governance, &specs)?;
            let found = all.iter().find(|one| one.name == name);
            show(found.ok_or_else(|| unknown(&name))?, json)
        }
        ExperimentAction::Start { name, by } => {
            let spec = specs.get(&name).ok_or_else(|| unknown(&name))?;
            let (by, now) = (who(by), now_unix_nano());
            // As for one that begins by itself; what was refused its share of the traffic would not ask again.
            let why =
                objection(&governance, spec, &name, now).map_err(|error| of_control(&error))?;
            if let Some(why) = why {
                return Err(Failure::new(Exit::Failure, format!("{name} cannot begin now: {why}"))
                    .hint("`throughline act status` shows pauses, holds and freezes"));
            }
            change(&governance, &name, &by, |runs| {
                runs.begin_again(spec, now).then(|| format!("{name} begins again"))
            })
        }
        ExperimentAction::Stop { name, reason, by } => {
            let person = who(by);
            let stopped = Stopped { at_unix_nano: now_unix_nano(), person, reason };
            let by = stopped.person.clone();
            change(&governance, &name, &by, |runs| {
                runs.stop(stopped.clone()).then(|| format!("{name} is stopped"))
            })
        }
    }
}

fn unknown(name: &str) -> Failure {
    Failure::usage(format!("expected the name of an experiment, got {name:?}"))
        .hint("`throughline experiment list` has them; those of files need `governance.rules`")
}

/// Changes the runs of an experiment, which a server may change too.
fn change(
    governance: &Governance,
    name: &str,
    by: &str,
    change: impl Fn(&mut Runs) -> Option<String>,
) -> Outcome {
    for _ in 0..WRITES {
        let found = governance.document(KIND, name).map_err(|error| of_control(&error))?;
        let version = found.as_ref().map_or(0, |found| found.version);
        let mut runs = match found {
            Some(found) => found.read::<Runs>().map_err(|error| of_control(&error))?,
            None => Runs::default(),
        };
        let Some(told) = change(&mut runs) else {
            let is_on = runs.runs.last().is_some_and(Run::is_on);
            let expected = if is_on { "one that is over" } else { "one that runs" };
            return Err(Failure::usage(format!("expected {expected}, got {name:?}"))
                .hint("`throughline experiment list` tells how they stand"));
        };
        let body = serde_json::to_string(&runs).map_err(anyhow::Error::from)?;
        let written = governance.write_document(KIND, name, version, by, &body);
        if written.map_err(|error| of_control(&error))?.is_some() {
            return Ok(writeln!(anstream::stderr().lock(), "{}", one_line(&told))?);
        }
    }
    let told = format!("{name} was changed {WRITES} times meanwhile by others");
    Err(Failure::new(Exit::Failure, told).hint("try it again"))
}

/// Those of files, and those that ran and that no file names any more.
fn all(governance: &Governance, specs: &BTreeMap<String, ExperimentSpec>) -> Outcome<Vec<Told>> {
    let mut runs: BTreeMap<String, Runs> = BTreeMap::new();
    for document in governance.documents(KIND).map_err(|error| of_control(&error))? {
        let of = document.read::<Runs>().map_err(|error| of_control(&error))?;
        runs.insert(document.name, of);
    }
    for name in specs.keys() {
        runs.entry(name.clone()).or_default();
    }
    let states = governance.states().map_err(|error| of_control(&error))?;
    let looks: BTreeMap<&str, Looks> = states
        .iter()
        .filter_map(|state| {
            let name = state.rule.strip_prefix(LOOKS_PREFIX)?;
            let looks = serde_json::from_str(&state.body);
            let looks = looks.inspect_err(|error| {
                tracing::warn!(experiment = name, %error, "what was known over time cannot be read");
            });
            Some((name, looks.ok()?))
        })
        .collect();
    let told = runs.into_iter().map(|(name, mut runs)| {
        let spec = specs.get(&name).cloned();
        let run = match &spec {
            Some(spec) => runs.of(spec).cloned(),
            None => runs.runs.pop(),
        };
        let of = looks.get(name.as_str());
        let of = of
            .filter(|of| run.as_ref().is_some_and(|run| run.since_unix_nano == of.since_unix_nano));
        let looks = of.map(|of| of.looks.clone()).unwrap_or_default();
        Told { state: state(run.as_ref()), name, spec, run, looks }
    });
    Ok(told.collect())
}

fn state(run: Option<&Run>) -> &'static str {
    match run {
        None => "not_begun",
        Some(run) if run.stopped.is_some() => "stopped",
        Some(run) => run.verdict().map_or("runs", Verdict::as_str),
    }
}

impl Told {
    fn units(&self) -> (u64, u64) {
        let result = self.run.as_ref().and_then(|run| run.result.as_ref());
        let of_result = result.map(|of| (of.control_units, of.treatment_units));
        let of_look = self.looks.last().map(|of| (of.control_units, of.treatment_units));
        of_result.or(of_look).unwrap_or_default()
    }

    fn difference(&self) -> Option<Difference> {
        let result = self.run.as_ref().and_then(|run| run.result.as_ref());
        result.map_or_else(|| self.looks.last().and_then(|of| of.difference), |of| of.difference)
    }
}

fn list(all: &[Told], is_json: bool) -> Outcome {
    let mut out = anstream::stdout().lock();
    if is_json {
        return all.iter().try_for_each(|one| write_json(&mut out, one));
    }
    if all.is_empty() {
        return Ok(writeln!(anstream::stderr().lock(), "there are no experiments")?);
    }
    let columns = [
        left("NAME"),
        left("AGENT"),
        left("STATE"),
        right("UNITS"),
        left("DIFFERENCE"),
        right("P"),
    ];
    let row = |one: &Told| -> Vec<Cell> {
        let agent = one.spec.as_ref().map_or("(no file)", |spec| spec.agent.as_str());
        let (control, treatment) = one.units();
        let known = one.difference();
        vec![
            one_line(&one.name).into(),
            one_line(agent).into(),
            one.state.into(),
            format!("{control} + {treatment}").into(),
            known.map(interval).unwrap_or_default().into(),
            known.map(|of| p_value(of.p_value)).unwrap_or_default().into(),
        ]
    };
    Ok(table::write(&mut out, &columns, all.iter().map(row).collect())?)
}

fn interval(of: Difference) -> String {
    format!("{:+.4} ({:+.4} to {:+.4})", of.difference, of.low, of.high)
}

fn p_value(p: f64) -> String {
    if p < LEAST_P { format!("< {LEAST_P}") } else { format!("{p:.4}") }
}

fn show(of: &Told, is_json: bool) -> Outcome {
    let mut out = anstream::stdout().lock();
    if is_json {
        return write_json(&mut out, of);
    }
    Ok(write(&mut out, of)?)
}

fn write(out: &mut impl Write, of: &Told) -> io::Result<()> {
    let zone = TimeZone::system();
    writeln!(out, "{}  {}", styled(BOLD, &one_line(&of.name)), of.state)?;
    if let Some(spec) = &of.spec {
        writeln!(
            out,
            "{} of {}: {} {} % against {} {} %, by {}; a difference of {} matters",
            spec.metric.as_str(),
            one_line(&spec.agent),
            one_line(&spec.treatment),
            spec.share,
            one_line(&spec.control),
            100 - spec.share,
            one_line(&spec.by),
            spec.min_effect
        )?;
    }
    let Some(run) = &of.run else { return Ok(()) };
    writeln!(out, "since {}", moment(run.since_unix_nano, &zone))?;
    if let Some(Stopped { at_unix_nano, person, reason }) = &run.stopped {
        let at = moment(*at_unix_nano, &zone);
        writeln!(out, "stopped {at} by {}: {}", one_line(person), one_line(reason))?;
    }
    if let (Some(result), Some(at)) = (&run.result, run.decided_unix_nano) {
        writeln!(out, "decided {}: {}", moment(at, &zone), one_line(&result.reason))?;
        guardrails(out, result)?;
    }
    if let Some(known) = of.difference() {
        writeln!(out, "difference {}, p = {}", interval(known), p_value(known.p_value))?;
    }
    if of.looks.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let step = of.looks.len().div_ceil(SHOWN_LOOKS).max(1);
    let last = of.looks.len() - 1;
    let shown = of.looks.iter().enumerate().filter(|(at, _)| (last - at).is_multiple_of(step));
    let row = |(_, look): (usize, &Look)| -> Vec<Cell> {
        vec![
            Cell::styled(moment(look.at_unix_nano, &zone), DIM),
            format!("{} + {}", look.control_units, look.treatment_units).into(),
            look.difference.map(interval).unwrap_or_default().into(),
            look.difference.map(|of| p_value(of.p_value)).unwrap_or_default().into(),
        ]
    };
    let columns = [left("LOOKED AT"), right("UNITS"), left("DIFFERENCE"), right("P")];
    table::write(out, &columns, shown.map(row).collect())
}

fn guardrails(out: &mut impl Write, of: &ExperimentResult) -> io::Result<()> {
    for one in &of.guardrails {
        let word = if one.is_breached { "breached" } else { "holds" };
        let known = one.difference.map(interval).unwrap_or_default();
        writeln!(out, "guardrail {}: {word} {known}", one.metric)?;
    }
    Ok(())
}
