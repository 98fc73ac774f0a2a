//! `throughline trace ID`: one trace as a tree.

use std::io::Write as _;

use jiff::tz::TimeZone;
use throughline_store::{Reader, StoredTrace, TraceFilter};
use throughline_trace::{TraceId, TraceTree};

use crate::args::{TraceArgs, TraceRef};
use crate::commands::audit::note_read;
use crate::commands::{of_query, open_reader, write_json};
use crate::draw;
use crate::failure::{Failure, Outcome};
use crate::settings::Settings;
use crate::show::count;

/// Prints one trace.
pub(crate) async fn run(settings: &Settings, args: &TraceArgs) -> Outcome {
    let reader = open_reader(settings)?;
    let id = match args.id {
        TraceRef::Id(id) => id,
        TraceRef::Last => newest(&reader).await?,
    };
    let Some(trace) = reader.trace(id).await.map_err(of_query)? else {
        return Err(Failure::not_found(format!(
            "no trace {id} in {}",
            settings.data_dir.display()
        ))
        .hint("list traces with `throughline traces`; name another directory with --data-dir"));
    };
    if !trace.decisions.is_empty() {
        note_read(settings, format!("trace {id}"), trace.decisions.len());
    }
    let mut out = anstream::stdout().lock();
    if args.json {
        return write_json(&mut out, &throughline_web::trace_json(trace));
    }
    let StoredTrace { summary, spans, logs: _, decisions, truncated, is_skeleton } = trace;
    let shown = spans.len();
    let sampled = summary.sampled;
    let weight = sampled.weight_of_trace(summary.span_count);
    writeln!(out, "{}", draw::heading(&summary, &TimeZone::system()))?;
    write!(out, "{}", draw::tree(&TraceTree::build(spans), &decisions))?;
    if is_skeleton {
        writeln!(
            anstream::stderr().lock(),
            "{} took the content of this trace; a decision or a hold keeps its skeleton",
            if sampled.spans_bared > 0 { "sampling" } else { "retention" }
        )?;
    }
    if sampled.spans_dropped > 0 {
        writeln!(
            anstream::stderr().lock(),
            "sampling took {} of its spans; the figures are those of the whole",
            count(sampled.spans_dropped)
        )?;
    }
    if weight > 1.0 {
        writeln!(
            anstream::stderr().lock(),
            "sampling chose this trace by chance; it stands for about {} like it",
            count(weight.round() as u64)
        )?;
    }
    if let Some(truncated) = truncated {
        writeln!(
            anstream::stderr().lock(),
            "shown: {} of {} spans; the rest is stored",
            count(shown as u64),
            count(truncated.total_spans)
        )?;
    }
    Ok(())
}

async fn newest(reader: &Reader) -> Outcome<TraceId> {
    let page = reader.traces(&TraceFilter::default(), None, 1).await.map_err(of_query)?;
    match page.items.first() {
        Some(summary) => Ok(summary.trace_id),
        None => Err(Failure::not_found("there are no traces yet")
            .hint("send some to `throughline serve`, or watch `throughline demo`")),
    }
}
