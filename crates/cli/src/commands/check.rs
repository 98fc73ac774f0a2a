//! `throughline check`: whether a rule can be read, and what it would have said of what is stored.

mod rules;

use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde::Serialize;
use throughline_act::ActConfig;
use throughline_rules::{Expression, Match, Schema, Scope, limits, schemas};
use throughline_store::{DecisionFilter, Page, QueryError, Reader, TraceFilter};
use throughline_trace::{Decision, TraceSummary};

use crate::args::{CheckArgs, RuleSubject};
use crate::commands::audit::note_read;
use crate::commands::{PAGE_ROWS, of_query, open_reader, stdin_text, write_json};
use crate::failure::{Failure, Outcome};
use crate::settings::Settings;
use crate::show::{self, BOLD, DIM, RED, counted, one_line, short, styled};
use crate::table::{self, Cell, left};

/// Subjects that fit, and errors, that are shown.
const MAX_EXAMPLES: usize = 5;

/// Most characters of a name that is shown.
const MAX_NAME_CHARS: usize = 48;

/// Checks a rule and, if asked to, replays what is stored.
pub(crate) async fn run(settings: &Settings, act: &ActConfig, args: &CheckArgs) -> Outcome {
    if let Some(files) = args.files() {
        return rules::run(settings, act, args, files).await;
    }
    let source = source(args.rules.first().map_or("-", String::as_str))?;
    let rule = Expression::filter(&source, &schema(args.of)).map_err(|mistakes| {
        Failure::usage(format!("the rule cannot be used\n{mistakes}"))
            .hint("docs/rules.md has the language, and what a rule may speak of")
    })?;
    let replay = match args.replay {
        None => None,
        Some(since) => {
            let reader = open_reader(settings)?;
            let replay = replay(&reader, &rule, args, since).await?;
            if args.of == RuleSubject::Decision {
                let rule = source.split_whitespace().collect::<Vec<_>>().join(" ");
                let rows = usize::try_from(replay.looked_at()).unwrap_or(usize::MAX);
                note_read(settings, format!("check {rule}"), rows);
            }
            Some(replay)
        }
    };
    let mut out = anstream::stdout().lock();
    if args.json {
        return write_json(&mut out, &Report::of(&rule, args.of, replay.as_ref()));
    }
    Ok(write(&mut out, &rule, args.of, replay.as_ref())?)
}

fn source(rule: &str) -> Outcome<String> {
    if rule == "-" { stdin_text(limits::MAX_SOURCE_BYTES) } else { Ok(rule.to_owned()) }
}

fn schema(of: RuleSubject) -> Schema {
    match of {
        RuleSubject::Span => schemas::span_schema(),
        RuleSubject::Trace => schemas::trace_schema(),
        RuleSubject::Decision => schemas::decision_schema(),
    }
}

/// What a rule said of what is stored.
#[derive(Debug, Default, Serialize)]
struct Replay {
    /// Begin, nanoseconds since the Unix epoch.
    since_unix_nano: u64,
    yes: u64,
    no: u64,
    /// Subjects that the rule has no value for: they do not match.
    errors: u64,
    /// There was more than `--max` lets through.
    is_cut: bool,
    /// Traces that could not be looked at whole: too large, or retired in part or meanwhile.
    traces_cut: u64,
    examples: Vec<Example>,
    error_examples: Vec<Example>,
}

/// A subject.
#[derive(Debug, Serialize)]
struct Example {
    /// Of the trace, or of the decision.
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Replay {
    fn judge(&mut self, rule: &Expression, subject: &dyn Scope, id: &str, name: &str) {
        let example = |error| Example { id: id.to_owned(), name: name.to_owned(), error };
        match rule.matches(subject) {
            Match::Yes => {
                self.yes += 1;
                if self.examples.len() < MAX_EXAMPLES {
                    self.examples.push(example(None));
                }
            }
            Match::No => self.no += 1,
            Match::Error(error) => {
                self.errors += 1;
                if self.error_examples.len() < MAX_EXAMPLES {
                    self.error_examples.push(example(Some(rule.explain(&error).message)));
                }
            }
        }
    }

    fn looked_at(&self) -> u64 {
        self.yes + self.no + self.errors
    }
}

async fn replay(
    reader: &Reader,
    rule: &Expression,
    args: &CheckArgs,
    since_unix_nano: u64,
) -> Outcome<Replay> {
    let mut replay = Replay { since_unix_nano, ..Replay::default() };
    match args.of {
        RuleSubject::Decision => decisions(reader, rule, args.max, &mut replay).await?,
        of => traces(reader, rule, of, args.max, &mut replay).await?,
    }
    Ok(replay)
}

/// Looks at the items of a list page after page, the newest first, at most `max` of them; says whether
/// there are more.
pub(super) async fn each<T>(
    max: usize,
    page: impl AsyncFn(Option<&str>, usize) -> Result<Page<T>, QueryError>,
    mut look: impl AsyncFnMut(T) -> Outcome,
) -> Outcome<bool> {
    let (mut cursor, mut left) = (None::<String>, max);
    while left > 0 {
        let page = page(cursor.as_deref(), PAGE_ROWS.min(left)).await.map_err(of_query)?;
        left = left.saturating_sub(page.items.len());
        for item in page.items {
            look(item).await?;
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn traces(
    reader: &Reader,
    rule: &Expression,
    of: RuleSubject,
    max: usize,
    replay: &mut Replay,
) -> Outcome {
    let filter = TraceFilter {
        start_after_unix_nano: Some(replay.since_unix_nano),
        ..TraceFilter::default()
    };
    let page = async |cursor: Option<&str>, rows| reader.traces(&filter, cursor, rows).await;
    let is_cut = each(max, page, async |summary: TraceSummary| {
        let id = summary.trace_id.to_string();
        if of == RuleSubject::Trace {
            replay.judge(rule, &summary, &id, summary.name());
            return Ok(());
        }
        // It may have been retired a moment ago.
        let Some(trace) = reader.trace(summary.trace_id).await.map_err(of_query)? else {
            replay.traces_cut += 1;
            return Ok(());
        };
        let is_thinned = trace.is_skeleton || trace.summary.sampled.spans_dropped > 0;
        replay.traces_cut += u64::from(is_thinned || trace.truncated.is_some());
        if !is_thinned {
            trace.spans.iter().for_each(|span| replay.judge(rule, span, &id, &span.name));
        }
        Ok(())
    })
    .await?;
    replay.is_cut = is_cut;
    Ok(())
}

async fn decisions(reader: &Reader, rule: &Expression, max: usize, replay: &mut Replay) -> Outcome {
    let filter = DecisionFilter {
        after_unix_nano: Some(replay.since_unix_nano),
        ..DecisionFilter::default()
    };
    let page = async |cursor: Option<&str>, rows| reader.decisions(&filter, cursor, rows).await;
    let is_cut = each(max, page, async |decision: Decision| {
        let name = format!("{}: {}", decision.stage, decision.action);
        replay.judge(rule, &decision, &decision.decision_id.to_string(), &name);
        Ok(())
    })
    .await?;
    replay.is_cut = is_cut;
    Ok(())
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report<'a> {
    rule: &'a str,
    of: &'static str,
    replay: Option<&'a Replay>,
}

impl<'a> Report<'a> {
    fn of(rule: &'a Expression, of: RuleSubject, replay: Option<&'a Replay>) -> Self {
        Self { rule: rule.source(), of: of.names().0, replay }
    }
}

fn write(
    out: &mut impl Write,
    rule: &Expression,
    of: RuleSubject,
    replay: Option<&Replay>,
) -> io::Result<()> {
    let (one, many) = of.names();
    writeln!(
        out,
        "{}  {}",
        styled(BOLD, &format!("a rule about {many}")),
        one_line(rule.source())
    )?;
    let Some(replay) = replay else {
        return writeln!(out, "it can be used; --replay 24h says what it would have said");
    };
    let since = show::moment(replay.since_unix_nano, &TimeZone::system());
    let looked_at = counted(replay.looked_at(), one, many);
    writeln!(out, "since {since} it would have looked at {looked_at}:\n")?;
    let share = |count: u64| match replay.looked_at() {
        0 => String::new(),
        all => format!("{:.2} %", count as f64 * 100.0 / all as f64),
    };
    for (what, count) in [("yes", replay.yes), ("no", replay.no), ("error", replay.errors)] {
        writeln!(out, "  {what:5}  {:>12}  {:>8}", show::count(count), share(count))?;
    }
    examples(out, "such as", &replay.examples)?;
    examples(out, "errors, which match nothing", &replay.error_examples)?;
    if replay.traces_cut > 0 {
        let traces = counted(replay.traces_cut, "trace", "traces");
        writeln!(out, "\n{traces} could not be looked at whole (too large, or retired)")?;
    }
    if replay.is_cut {
        writeln!(out, "\nthere is more: --max is how many are looked at")?;
    }
    Ok(())
}

fn examples(out: &mut impl Write, title: &str, examples: &[Example]) -> io::Result<()> {
    if examples.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", styled(BOLD, title))?;
    let row = |example: &Example| -> Vec<Cell> {
        let error = example.error.as_deref().unwrap_or_default();
        vec![
            Cell::styled(example.id.clone(), DIM),
            short(&one_line(&example.name), MAX_NAME_CHARS).into(),
            Cell::styled(one_line(error), RED),
        ]
    };
    let columns = [left("ID"), left("NAME"), left("")];
    table::write(out, &columns, examples.iter().map(row).collect())
}
