//! `throughline export`: OTLP JSON, one export request a line, a trace a request, or several where it
//! is large. Traces, log records, and decisions as `agent.decision` events; metric series stay. Or the
//! tables of SQL as Parquet.

mod lines;
mod parquet_file;
mod sampled;
mod tables;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use throughline_ingest::{encode_logs, encode_spans};
use throughline_store::{
    DecisionFilter, ExportSampler, ExportVerdict, LogFilter, Reader, TraceFilter,
};
use throughline_trace::{Decision, LogRecord, TraceId};

use crate::args::ExportArgs;
use crate::commands::audit::note_read;
use crate::commands::{PAGE_ROWS, of_query, open_reader};
use crate::failure::{Exit, Failure, Outcome};
use crate::settings::Settings;
use crate::show;

/// Ending of a file that is not whole yet.
const PARTIAL: &str = ".partial";

/// Exports what the arguments name.
pub(crate) async fn run(settings: &Settings, args: &ExportArgs) -> Outcome {
    if args.parquet {
        return tables::run(settings, args).await;
    }
    let reader = open_reader(settings)?;
    let mut sink = Sink::open(args.out.as_deref())?;
    let mut done = Done::default();
    let sampler = match args.sampled {
        true => Some(sampled::sampler(&reader, settings, &wanted_traces(args)).await?),
        false => None,
    };
    match args.trace {
        Some(id) => {
            if !export_trace(&reader, id, None, (&mut sink, &mut done)).await? {
                return Err(Failure::not_found(format!("no trace {id}")));
            }
        }
        None => {
            traces(&reader, args, sampler.as_ref(), (&mut sink, &mut done)).await?;
            decisions_alone(&reader, args, &mut sink, &mut done).await?;
            if args.agent.is_none() {
                logs_alone(&reader, args, &mut sink, &mut done).await?;
            }
        }
    }
    sink.finish()?;
    if done.decisions > 0 {
        note_read(settings, "export".to_owned(), done.decisions);
    }
    let Done { spans, logs, decisions, cut, skeletons, sampled, left, stayed } = done;
    tracing::info!(spans, logs, decisions, skeletons, sampled, "exported");
    for (reason, traces) in left {
        tracing::info!(reason, traces, "left, by sampling");
    }
    for (reason, traces) in stayed {
        tracing::info!(reason, traces, "stayed, by sampling");
    }
    if cut > 0 {
        return Err(Failure::new(
            Exit::Failure,
            format!(
                "{} larger than one answer of the store; each is exported in part",
                show::counted(cut, "trace is", "traces are")
            ),
        )
        .hint("`throughline backup` copies everything"));
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Done {
    spans: usize,
    logs: usize,
    decisions: usize,
    skeletons: u64,
    /// Traces that lack spans which sampling took.
    sampled: u64,
    /// Traces that were too large for one answer.
    cut: u64,
    /// Traces that were sampled and left, by reason.
    left: BTreeMap<String, u64>,
    /// Those that stayed.
    stayed: BTreeMap<String, u64>,
}

/// The traces that are exported whole.
fn wanted_traces(args: &ExportArgs) -> TraceFilter {
    TraceFilter {
        agent: args.agent.clone(),
        start_after_unix_nano: args.since,
        start_before_unix_nano: args.until,
        ..TraceFilter::default()
    }
}

async fn traces(
    reader: &Reader,
    args: &ExportArgs,
    sampler: Option<&ExportSampler>,
    (sink, done): (&mut Sink, &mut Done),
) -> Outcome {
    let filter = wanted_traces(args);
    let mut cursor: Option<String> = None;
    loop {
        let page = reader.traces(&filter, cursor.as_deref(), PAGE_ROWS).await.map_err(of_query)?;
        for summary in page.items {
            export_trace(reader, summary.trace_id, sampler, (sink, done)).await?;
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// Answers whether the trace is there.
async fn export_trace(
    reader: &Reader,
    id: TraceId,
    sampler: Option<&ExportSampler>,
    (sink, done): (&mut Sink, &mut Done),
) -> Outcome<bool> {
    let Some(mut trace) = reader.trace(id).await.map_err(of_query)? else { return Ok(false) };
    match sampler.map(|sampler| sampler.judge(&trace)) {
        None => {}
        Some(ExportVerdict::Stays(reason)) => {
            *done.stayed.entry(reason).or_default() += 1;
            return Ok(true);
        }
        Some(ExportVerdict::Leaves { reason, weight }) => {
            *done.left.entry(reason).or_default() += 1;
            sampled::weigh(&mut trace.spans, weight);
        }
    }
    done.cut += u64::from(trace.truncated.is_some());
    done.skeletons += u64::from(trace.is_skeleton);
    done.sampled += u64::from(trace.summary.sampled.spans_dropped > 0);
    done.spans += trace.spans.len();
    lines::write(sink.traces(), &trace.spans, lines::MAX_LINE_BYTES, &encode_spans)?;
    sink.write_logs(&trace.logs, &trace.decisions, done)?;
    Ok(true)
}

/// What became of the traces that a page names.
struct Exported<'a> {
    reader: &'a Reader,
    filter: TraceFilter,
    known: HashMap<TraceId, bool>,
}

impl<'a> Exported<'a> {
    fn new(reader: &'a Reader, args: &ExportArgs) -> Self {
        Self { reader, filter: wanted_traces(args), known: HashMap::new() }
    }

    /// Whether a trace was exported, with all that belongs to it; one without spans is not, nor is
    /// one that began before the time that was asked for.
    async fn has(&mut self, id: Option<TraceId>) -> Outcome<bool> {
        let Some(id) = id else { return Ok(false) };
        if let Some(known) = self.known.get(&id) {
            return Ok(*known);
        }
        let summary = self.reader.summary(id).await.map_err(of_query)?;
        let was_exported = summary.is_some_and(|summary| self.filter.matches(&summary));
        self.known.insert(id, was_exported);
        Ok(was_exported)
    }
}

/// Decisions that belong to no trace that is exported.
async fn decisions_alone(
    reader: &Reader,
    args: &ExportArgs,
    sink: &mut Sink,
    done: &mut Done,
) -> Outcome {
    let filter = DecisionFilter {
        agent: args.agent.clone(),
        after_unix_nano: args.since,
        before_unix_nano: args.until,
        ..DecisionFilter::default()
    };
    let mut cursor: Option<String> = None;
    loop {
        let page =
            reader.decisions(&filter, cursor.as_deref(), PAGE_ROWS).await.map_err(of_query)?;
        let mut exported = Exported::new(reader, args);
        let mut alone: Vec<Decision> = Vec::new();
        for decision in page.items {
            if !exported.has(decision.trace_id).await? {
                alone.push(decision);
            }
        }
        sink.write_logs(&[], &alone, done)?;
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// Log records that belong to no trace that is exported.
async fn logs_alone(
    reader: &Reader,
    args: &ExportArgs,
    sink: &mut Sink,
    done: &mut Done,
) -> Outcome {
    let filter = LogFilter {
        after_unix_nano: args.since,
        before_unix_nano: args.until,
        ..LogFilter::default()
    };
    let mut cursor: Option<String> = None;
    loop {
        let page = reader.logs(&filter, cursor.as_deref(), PAGE_ROWS).await.map_err(of_query)?;
        let mut exported = Exported::new(reader, args);
        let mut alone: Vec<LogRecord> = Vec::new();
        for log in page.items {
            if !exported.has(log.trace_id).await? {
                alone.push(log);
            }
        }
        sink.write_logs(&alone, &[], done)?;
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// Where lines go: all to one place, or each signal to a file of its own.
struct Sink {
    outs: Vec<Box<dyn Write>>,
    /// Files that get their name at the end.
    files: Vec<(PathBuf, PathBuf)>,
}

impl Sink {
    fn open(out: Option<&Path>) -> Outcome<Self> {
        let Some(out) = out else {
            return Ok(Self { outs: vec![Box::new(anstream::stdout())], files: Vec::new() });
        };
        let is_directory = out.is_dir() || out.as_os_str().to_string_lossy().ends_with('/');
        let paths = match is_directory {
            true => {
                fs::create_dir_all(out)?;
                vec![out.join("traces.jsonl"), out.join("logs.jsonl")]
            }
            false => vec![out.to_owned()],
        };
        let mut sink = Self { outs: Vec::new(), files: Vec::new() };
        for path in paths {
            let partial = partial_of(&path);
            let file = create_private(&partial).map_err(|error| {
                Failure::new(Exit::Failure, format!("cannot write {}: {error}", path.display()))
            })?;
            sink.outs.push(Box::new(BufWriter::new(file)));
            sink.files.push((partial, path));
        }
        Ok(sink)
    }

    fn traces(&mut self) -> &mut Box<dyn Write> {
        &mut self.outs[0]
    }

    fn write_logs(
        &mut self,
        logs: &[LogRecord],
        decisions: &[Decision],
        done: &mut Done,
    ) -> Outcome {
        done.logs += logs.len();
        done.decisions += decisions.len();
        let (at, most) = (self.outs.len() - 1, lines::MAX_LINE_BYTES);
        let out = &mut self.outs[at];
        if lines::write_if_short(out, encode_logs(logs, decisions), most)? {
            return Ok(());
        }
        lines::write(out, logs, most, &|logs: &[LogRecord]| encode_logs(logs, &[]))?;
        lines::write(out, decisions, most, &|decisions: &[Decision]| encode_logs(&[], decisions))
    }

    /// Gives the files their names: until then nobody takes them for whole.
    fn finish(mut self) -> Outcome {
        for out in &mut self.outs {
            out.flush()?;
        }
        drop(self.outs);
        for (partial, path) in self.files {
            fs::rename(partial, path)?;
        }
        Ok(())
    }
}

/// Where a file is written until it is whole.
fn partial_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL);
    PathBuf::from(name)
}

/// A file for its owner only: prompts are nobody else's business.
fn create_private(path: &Path) -> std::io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
