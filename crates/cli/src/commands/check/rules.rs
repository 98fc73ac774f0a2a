//! `throughline check FILE`: whether files with rules can be read, and what they would have said and done.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::sync::Arc;

use indicatif::ProgressBar;
use jiff::tz::TimeZone;
use prometheus_client::registry::Registry;
use serde::Serialize;
use throughline_act::{ActConfig, Opa};
use throughline_govern::Rules;
use throughline_store::Governance;
use throughline_trace::FindingState;

use crate::acting;
use crate::args::CheckArgs;
use crate::commands::signals::of_round;
use crate::commands::slo::list::{Replay as Counts, count};
use crate::commands::{of_control, open_reader, write_json};
use crate::failure::{Failure, Outcome};
use crate::governing::replay::{Event, MAX_REPLAY_MIN, Minutes, Replayed, Taken, replay};
use crate::governing::{LAG_NANOS, MINUTE_NANOS, RuleFiles, now_unix_nano};
use crate::settings::Settings;
use crate::show::{self, BOLD, DIM, RED, YELLOW, counted, one_line, styled};
use crate::table::{self, Cell, left, right};

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report<'r> {
    slos: Vec<&'r str>,
    policies: Vec<&'r str>,
    signals: Vec<&'r str>,
    rollouts: Vec<&'r str>,
    notes: &'r [String],
    replay: Option<Told<'r>>,
}

#[derive(Debug, Serialize)]
struct Told<'r> {
    /// First minute, nanoseconds since the Unix epoch.
    from_unix_nano: u64,
    /// End of the last.
    to_unix_nano: u64,
    counted: &'r Counts,
    #[serde(flatten)]
    replayed: &'r Replayed,
}

/// What was replayed.
struct Past {
    minutes: (u64, u64),
    counted: Counts,
    replayed: Replayed,
}

pub(super) async fn run(
    settings: &Settings,
    act: &ActConfig,
    args: &CheckArgs,
    files: Vec<PathBuf>,
) -> Outcome {
    if let Some(file) = files.iter().find(|file| file.extension().is_some_and(|end| end == "rego"))
    {
        let message = format!("expected files with rules (.yaml, .yml), got {}", file.display());
        let hint = "check the rule that names it with rego_file: that says what is asked";
        return Err(Failure::usage(message).hint(hint));
    }
    let rules = Arc::new(RuleFiles::new(files).read()?);
    let opa = match args.ask_opa {
        false => None,
        true => {
            let opa = acting::opa(act, &mut Registry::default())?;
            Some(opa.ok_or_else(|| {
                Failure::usage("expected `act.opa` in the configuration with --ask-opa, got none")
                    .hint("docs/acting.md tells what `act:` may say")
            })?)
        }
    };
    let past = match args.replay {
        None => None,
        Some(since) => Some(of_past((settings, opa.as_ref()), &rules, since, args.max).await?),
    };
    let mut out = anstream::stdout().lock();
    if args.json {
        return write_json(&mut out, &report(&rules, past.as_ref()));
    }
    Ok(write(&mut out, &rules, past.as_ref())?)
}

async fn of_past(
    (settings, opa): (&Settings, Option<&Opa>),
    rules: &Arc<Rules>,
    since: u64,
    max: usize,
) -> Outcome<Past> {
    let reader = open_reader(settings)?;
    let governance = Governance::open(&settings.data_dir).map_err(|error| of_control(&error))?;
    // Of whole minutes, which exporters have had time to send: as a server does.
    let now = now_unix_nano().saturating_sub(LAG_NANOS);
    let minutes = (since / MINUTE_NANOS, now / MINUTE_NANOS);
    let length = minutes.1.saturating_sub(minutes.0);
    if length == 0 || length > MAX_REPLAY_MIN {
        return Err(Failure::usage(format!(
            "expected --replay of a minute to {} days, got {}",
            MAX_REPLAY_MIN / (24 * 60),
            show::duration(now.saturating_sub(since))
        )));
    }
    // What is in the windows of the first minute counts too.
    let begins = rules.slos.iter().flat_map(|slo| slo.needs(minutes.0 * MINUTE_NANOS));
    let begin = begins.map(|need| need.from_min).min().unwrap_or(minutes.0);
    let (counters, counted) = match rules.slos.is_empty() {
        true => Default::default(),
        false => count(&reader, &rules.slos, begin * MINUTE_NANOS, now, max).await?,
    };
    let bar = match io::stderr().is_terminal() {
        true => ProgressBar::new(length),
        false => ProgressBar::hidden(),
    };
    let asked = ((&reader, Some(&governance)), opa);
    let replayed = replay(rules, asked, &counters, minutes, |done| bar.set_position(done)).await;
    bar.finish_and_clear();
    Ok(Past { minutes, counted, replayed: replayed.map_err(of_round)? })
}

fn report<'r>(rules: &'r Rules, past: Option<&'r Past>) -> Report<'r> {
    Report {
        slos: rules.slos.iter().map(|slo| slo.name.as_str()).collect(),
        policies: rules.policies.keys().map(String::as_str).collect(),
        signals: rules.signals.keys().map(String::as_str).collect(),
        rollouts: rules.rollouts.keys().map(String::as_str).collect(),
        notes: &rules.notes,
        replay: past.map(|past| Told {
            from_unix_nano: past.minutes.0 * MINUTE_NANOS,
            to_unix_nano: past.minutes.1 * MINUTE_NANOS,
            counted: &past.counted,
            replayed: &past.replayed,
        }),
    }
}

fn write(out: &mut impl Write, rules: &Rules, past: Option<&Past>) -> io::Result<()> {
    let count = |number: usize, one: &str, many: &str| counted(number as u64, one, many);
    writeln!(
        out,
        "{}  {}, {}, {}, {}",
        styled(BOLD, "the rules can be used"),
        count(rules.slos.len(), "SLO", "SLOs"),
        count(rules.policies.len(), "policy", "policies"),
        count(rules.signals.len(), "signal", "signals"),
        count(rules.rollouts.len(), "rollout", "rollouts"),
    )?;
    for note in &rules.notes {
        writeln!(out, "{} {}", styled(YELLOW, "note:"), one_line(note))?;
    }
    let Some(Past { minutes, counted: seen, replayed }) = past else {
        return writeln!(out, "--replay 24h says what they would have said and done");
    };
    let zone = TimeZone::system();
    let moment = |minute: u64| show::moment(minute * MINUTE_NANOS, &zone);
    writeln!(out, "from {} to {} they would have told:\n", moment(minutes.0), moment(minutes.1))?;
    if replayed.events.is_empty() {
        writeln!(out, "  nothing")?;
    } else {
        let columns = [left("TIME"), left("RULE"), left("FINDING"), left("ACTION"), left("")];
        let rows = replayed.events.iter().map(|event| row(event, &zone)).collect();
        table::write(out, &columns, rows)?;
    }
    if !replayed.policies.is_empty() {
        let columns = [
            left("POLICY"),
            right("QUIET"),
            right("WAITING"),
            right("FIRING"),
            right("UNKNOWN"),
            left("WHY UNKNOWN"),
        ];
        writeln!(out, "\nminutes of policies and contracts:\n")?;
        table::write(out, &columns, replayed.policies.iter().map(of_policy).collect())?;
    }
    writeln!(out, "\nnothing was done")?;
    limits(out, rules, seen)
}

/// What the answer rests on.
fn limits(out: &mut impl Write, rules: &Rules, seen: &Counts) -> io::Result<()> {
    if !rules.slos.is_empty() {
        let traces = counted(seen.traces, "stored trace", "stored traces");
        writeln!(out, "SLOs and contracts were counted from the spans of {traces}")?;
    }
    if seen.traces_cut > 0 {
        let cut = counted(seen.traces_cut, "trace is", "traces are");
        writeln!(
            out,
            "{cut} not whole (sampled, too large or retired): those minutes are not covered"
        )?;
    }
    if seen.is_cut {
        writeln!(out, "there are more traces: --max is how many are looked at")?;
    }
    if seen.unjudged > 0 {
        let count = counted(u64::try_from(seen.unjudged).unwrap_or(0), "event", "events");
        writeln!(out, "{count} could not be judged: a rule had no value for them")?;
    }
    Ok(())
}

fn row(event: &Event, zone: &TimeZone) -> Vec<Cell> {
    let (state, style) = match event.state {
        Some(FindingState::Firing) => ("fires", RED),
        Some(_) => ("ends", DIM),
        None => ("goes on", DIM),
    };
    let action = |taken: &Taken| match taken.held_back {
        None => one_line(&taken.told),
        Some("cool_down") => format!("{} (held back: it rests)", one_line(&taken.told)),
        Some(_) => format!("{} (told only: dry_run)", one_line(&taken.told)),
    };
    let actions: Vec<String> = event.actions.iter().map(action).collect();
    vec![
        show::moment(event.at_unix_nano, zone).into(),
        one_line(&event.rule).into(),
        Cell::styled(state, style),
        actions.join(", ").into(),
        one_line(&event.summary).into(),
    ]
}

fn of_policy((name, minutes): (&String, &Minutes)) -> Vec<Cell> {
    let number = |minutes: u64| Cell::from(show::count(minutes));
    vec![
        one_line(name).into(),
        number(minutes.quiet),
        number(minutes.waiting),
        number(minutes.firing),
        number(minutes.unknown),
        Cell::styled(one_line(&minutes.why_unknown), DIM),
    ]
}
