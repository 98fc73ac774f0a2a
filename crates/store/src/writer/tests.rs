//! The writer by itself: groups, rollbacks, poisoned batches, a full disk.

use throughline_trace::{LogRecord, Refusal, Span, SpanBatch, SpanId, TraceId};
use tokio::sync::oneshot;

use super::*;
use crate::audit::holds::AuditFilter;
use crate::audit::key::AuditKeys;
use crate::audit::log::AuditLog;
use crate::options::RollupRetention;
use crate::prepare;
use crate::reader::Reader;
use crate::session::{Files, Session};

struct Bench {
    writer: Writer,
    queue: Arc<Queue>,
    layout: Layout,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    layout.create().unwrap();
    let lock = DirectoryLock::take(&layout).unwrap();
    let metrics = StoreMetrics::register(&mut prometheus_client::registry::Registry::default());
    let (committed, _) = broadcast::channel(8);
    let options = StoreOptions::new(dir.path());
    let writer = Writer::open(layout.clone(), lock, &options, metrics.clone(), committed).unwrap();
    Bench { writer, queue: Queue::new(options, metrics), layout, _dir: dir }
}

impl Bench {
    /// Writes batches as one group; answers what each was told.
    fn write(&mut self, batches: Vec<SpanBatch>) -> Vec<Result<Accepted, Refusal>> {
        let (jobs, answers): (Vec<_>, Vec<_>) = batches
            .into_iter()
            .map(|batch| {
                let reservation = self.queue.reserve(1).unwrap();
                let (reply, answer) = oneshot::channel();
                (
                    Job {
                        prepared: prepare::prepare(batch, Default::default()).unwrap(),
                        reservation,
                        reply,
                    },
                    answer,
                )
            })
            .unzip();
        self.writer.write(jobs);
        answers.into_iter().map(|mut answer| answer.try_recv().unwrap()).collect()
    }

    fn span_count(&self) -> u64 {
        let session = Session::begin(Arc::new(Files::new(self.layout.clone())));
        crate::read_metrics::stats(&session).unwrap().spans
    }

    /// What the file says of a trace, and what its spans say.
    fn counts_of(&self, trace: u128) -> (u64, usize, usize) {
        let session = Session::begin(Arc::new(Files::new(self.layout.clone())));
        let found = crate::read_traces::trace(&session, TraceId::from_u128(trace)).unwrap();
        found.map_or((0, 0, 0), |t| (t.summary.span_count, t.spans.len(), t.decisions.len()))
    }
}

fn batch(trace: u128, names: &[&str]) -> SpanBatch {
    let spans = names.iter().enumerate().map(|(at, name)| {
        let mut span =
            Span::new(TraceId::from_u128(trace), SpanId::from_u64(at as u64 + 1), None, *name);
        let text = format!(r#"[{{"role":"user","content":"a message of some length, {name}"}}]"#);
        span.attributes.set("gen_ai.input.messages", text);
        span.attributes.set("agent_id", "fraud");
        span
    });
    SpanBatch { spans: spans.collect(), ..SpanBatch::default() }
}

pub(crate) fn decision(trace: u128) -> Decision {
    Decision {
        decision_id: DecisionId::random(),
        parent_decision_id: None,
        trace_id: Some(TraceId::from_u128(trace)),
        span_id: None,
        timestamp_ns: 1,
        received_at_ns: 2,
        stage: String::new(),
        input_hash: String::new(),
        model_version: String::new(),
        action: String::new(),
        reason: String::new(),
        confidence: None,
        agent_id: String::new(),
        session_id: String::new(),
        instance_id: String::new(),
        seq: 0,
        derived: false,
        service: String::new(),
        attributes: throughline_trace::Attributes::new(),
    }
}

fn spans_of(answer: &Result<Accepted, Refusal>) -> u64 {
    answer.as_ref().map_or(0, |accepted| accepted.spans)
}

#[test]
fn a_poisonous_batch_does_not_harm_its_neighbours() {
    let mut bench = bench();
    bench
        .writer
        .segment
        .connection
        .execute_batch(
            "CREATE TRIGGER poison BEFORE INSERT ON spans WHEN new.name = 'poison'
             BEGIN SELECT raise(ABORT, 'poisoned'); END",
        )
        .unwrap();
    let answers =
        bench.write(vec![batch(1, &["a", "b"]), batch(2, &["c", "poison"]), batch(3, &["d"])]);
    assert_eq!(answers.iter().map(spans_of).collect::<Vec<_>>(), [2, 0, 1]);
    assert!(matches!(&answers[1], Err(Refusal::Storage(text)) if text.contains("poisoned")));
    assert_eq!(bench.span_count(), 3);
    assert_eq!((bench.counts_of(1), bench.counts_of(2)), ((2, 2, 0), (0, 0, 0)));
    // What the failed batch had brought is not taken for stored.
    let answers = bench.write(vec![batch(2, &["c"]), batch(3, &["d", "e"])]);
    assert_eq!(answers.iter().map(spans_of).collect::<Vec<_>>(), [1, 1]);
    assert_eq!((bench.counts_of(2), bench.counts_of(3)), ((1, 1, 0), (2, 2, 0)));
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost_or_doubled_afterwards() {
    let mut bench = bench();
    assert_eq!(spans_of(&bench.write(vec![batch(1, &["a"])])[0]), 1);
    let pages: i64 = bench
        .writer
        .segment
        .connection
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    bench.writer.segment.connection.pragma_update(None, "max_page_count", pages + 2).unwrap();
    let big = || {
        let mut big = batch(2, &["b", "c"]);
        big.spans[0].name =
            (0..60_000_u64).map(|n| char::from(b'a' + (n * n % 23) as u8)).collect();
        big.decisions.push(decision(2));
        big
    };
    let sent = big();
    let mut small = batch(1, &["a", "later"]);
    small.logs = Vec::<LogRecord>::new();
    let answers = bench.write(vec![small.clone(), sent.clone()]);
    for answer in &answers {
        assert!(matches!(answer, Err(Refusal::DiskFull { .. })), "{answer:?}");
    }
    assert_eq!((bench.span_count(), bench.counts_of(2)), (1, (0, 0, 0)));
    assert_eq!(
        spans_of(&bench.write(vec![small])[0]),
        1,
        "what fits is taken while the disk is full"
    );

    bench.writer.segment.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    let answers = bench.write(vec![sent.clone(), sent]);
    let accepted: Vec<_> = answers
        .iter()
        .flatten()
        .map(|a| (a.spans, a.duplicate_spans, a.decisions, a.duplicate_decisions))
        .collect();
    assert_eq!(accepted, [(2, 0, 1, 0), (0, 2, 0, 1)]);
    assert_eq!((bench.counts_of(1), bench.counts_of(2)), ((2, 2, 0), (2, 2, 1)));
}

#[test]
fn a_disk_that_is_full_for_decisions_or_at_a_rotation_refuses_and_recovers() {
    let mut bench = bench();
    assert_eq!(spans_of(&bench.write(vec![batch(1, &["a"])])[0]), 1);
    let pages: i64 =
        bench.writer.control.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    bench.writer.control.pragma_update(None, "max_page_count", pages).unwrap();
    let mut sent = batch(2, &["b"]);
    sent.decisions = (0..200).map(|_| decision(2)).collect();
    let refused = bench.write(vec![sent.clone()]).remove(0);
    assert!(matches!(refused, Err(Refusal::DiskFull { .. })), "{refused:?}");
    assert_eq!((bench.span_count(), bench.counts_of(2)), (1, (0, 0, 0)), "nothing half");
    // The next segment cannot be registered either: the old one goes on when there is room.
    let open = bench.writer.segment.id;
    bench.writer.max_segment_bytes = 1;
    bench.writer.control.execute_batch("CREATE TEMP TRIGGER full BEFORE INSERT ON main.segments BEGIN SELECT raise(ABORT, 'full'); END").unwrap();
    let refused = bench.write(vec![batch(3, &["c"])]).remove(0);
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!((bench.writer.segment.id, bench.span_count()), (open, 1));
    bench.writer.control.execute_batch("DROP TRIGGER full").unwrap();
    bench.writer.control.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    let accepted = bench.write(vec![sent]).remove(0).unwrap();
    assert_eq!((accepted.spans, accepted.decisions), (1, 200));
    assert_eq!(bench.writer.segment.id, open.next());
    assert_eq!((bench.counts_of(1), bench.counts_of(2)), ((1, 1, 0), (1, 1, 200)));
}

#[test]
fn a_segment_commit_that_fails_after_the_decisions_leaves_them_new() {
    let mut bench = bench();
    // A foreign key that is checked at the commit only: the segment's COMMIT itself fails.
    bench
        .writer
        .segment
        .connection
        .execute_batch(
            "PRAGMA foreign_keys = ON;
             CREATE TABLE parent(id INTEGER PRIMARY KEY);
             CREATE TABLE child(id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
             CREATE TRIGGER break_commit AFTER INSERT ON spans WHEN new.name = 'break'
             BEGIN INSERT INTO child VALUES (1); END",
        )
        .unwrap();
    let mut sent = batch(1, &["break"]);
    sent.decisions.push(decision(1));
    assert!(matches!(bench.write(vec![sent.clone()])[0], Err(Refusal::Storage(_))));
    assert_eq!(bench.counts_of(1), (0, 0, 1), "the decision is there, but nobody was told");
    bench.writer.segment.connection.execute_batch("DROP TRIGGER break_commit").unwrap();
    let mut listener = bench.writer.committed.subscribe();
    let answer = bench.write(vec![sent])[0].clone().unwrap();
    assert_eq!((answer.spans, answer.decisions, answer.duplicate_decisions), (1, 1, 0));
    let told = listener.try_recv().unwrap();
    assert_eq!((told.decisions.len(), told.summaries[0].decision_count), (1, 1));
    assert_eq!(bench.counts_of(1), (1, 1, 1));
    // Had the next segment begun in between, the span would be in it: so it does not say that the decision is of an earlier one.
    let (first, behind) = (bench.writer.segment.id, manifest::behind_next);
    bench.writer.rotate(first.next()).unwrap();
    assert_eq!(behind(&bench.writer.control, first).unwrap(), None);
    bench.writer.rotate(first.next().next()).unwrap();
    assert_eq!(behind(&bench.writer.control, first.next()).unwrap(), Some(1));
}

#[test]
fn what_a_hold_kept_goes_in_the_pass_in_which_it_is_released() {
    const DECISIONS: usize = 1_500; // more than one transaction looks at
    let mut bench = bench();
    let mut sent = batch(1, &["a"]);
    sent.decisions.extend((0..DECISIONS).map(|_| Decision {
        derived: true,
        span_id: Some(SpanId::from_u64(1)),
        ..decision(1)
    }));
    bench.write(vec![sent]).remove(0).unwrap();
    let audit = AuditLog::new(bench.layout.root(), AuditKeys::default());
    let filter = AuditFilter { trace_id: Some(TraceId::from_u128(1)), ..AuditFilter::default() };
    let hold = audit.hold(&filter, "case", "me").unwrap();
    let mut went = Vec::new();
    audit
        .retire_derived(DECISIONS as u64, |decisions| {
            went.push(decisions);
            audit.release(&hold.id, "me").map(drop)
        })
        .unwrap();
    assert_eq!((went[0], went.iter().sum::<u64>()), (0, DECISIONS as u64), "{went:?}");
}

#[tokio::test]
async fn a_query_that_takes_too_long_ends_with_advice() {
    let bench = bench();
    let session = Session::begin(Arc::new(Files::new(bench.layout.clone())));
    let lease = session.segment(bench.writer.segment.id).unwrap();
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let error = lease.query_row(endless, [], |row| row.get::<_, i64>(0)).unwrap_err();
    insta::assert_snapshot!(lease.fails(&error), @"the query took longer than 2000 ms; narrow it by time, agent or session");
    drop(lease);
    assert!(session.check_time().is_err());
    assert_eq!(
        Reader::new(Arc::new(Files::new(bench.layout.clone())), RollupRetention::default())
            .stats()
            .await
            .unwrap()
            .segments,
        1
    );
}

#[test]
fn a_page_costs_the_same_however_many_traces_went_on_the_next_day() {
    const CARRIED: u128 = 3_000;
    let mut bench = bench();
    let first = bench.writer.segment.id.day.0 as u64 * 86_400_000_000_000;
    let second = first + 86_400_000_000_000;
    let traces = |received: u64, span: u64, error: bool| {
        let spans = (1..=CARRIED).map(|trace| {
            let id = SpanId::from_u64(span);
            let mut span = Span::new(TraceId::from_u128(trace), id, None, "run");
            span.start_unix_nano = first + trace as u64 + id.as_u64();
            span.end_unix_nano = span.start_unix_nano + 1;
            span.attributes.set("agent_id", "fraud");
            if error {
                span.status.code = throughline_trace::StatusCode::Error;
            }
            span
        });
        SpanBatch { received_unix_nano: received, spans: spans.collect(), ..SpanBatch::default() }
    };
    for batch in [traces(first, 1, false), traces(second, 2, true)] {
        assert_eq!(spans_of(&bench.write(vec![batch])[0]), CARRIED as u64);
    }
    let newer = (1..=3).map(|trace| {
        let mut span =
            Span::new(TraceId::from_u128(CARRIED + trace), SpanId::from_u64(1), None, "new");
        span.start_unix_nano = first + 10_000;
        span
    });
    let newer =
        SpanBatch { received_unix_nano: second, spans: newer.collect(), ..SpanBatch::default() };
    assert_eq!(spans_of(&bench.write(vec![newer])[0]), 3);

    let files = Arc::new(Files::new(bench.layout.clone()));
    let list = |filter: &crate::TraceFilter, cursor: Option<&str>| {
        let session = Session::begin(Arc::clone(&files));
        let page = crate::read_traces::list(&session, filter, cursor, 50).unwrap();
        (page, session.rows())
    };
    let none = crate::TraceFilter::default();
    let agent = crate::TraceFilter { agent: Some("fraud".to_owned()), ..none.clone() };
    for (filter, total) in [(none, CARRIED + 3), (agent, CARRIED)] {
        let (mut cursor, mut seen) = (None, std::collections::HashSet::new());
        loop {
            let (page, rows) = list(&filter, cursor.as_deref());
            assert!(rows <= 4 * 51, "a page of 50 looked at {rows} rows");
            for summary in page.items {
                let is_carried =
                    summary.trace_id.as_bytes() <= TraceId::from_u128(CARRIED).as_bytes();
                assert_eq!(summary.span_count, if is_carried { 2 } else { 1 });
                assert!(seen.insert(summary.trace_id), "each trace once");
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len() as u128, total);
    }
    // What holds of the first day's part only is not found.
    let fine = crate::TraceFilter { error: Some(false), ..Default::default() };
    assert_eq!(list(&fine, None).0.items.len(), 3);
}

#[test]
fn commits_wait_for_the_disk() {
    let bench = bench();
    for connection in [&bench.writer.segment.connection, &bench.writer.control] {
        let full: i64 =
            connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        let mode: String =
            connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!((full, mode.as_str()), (2, "wal"));
    }
}

#[test]
fn few_connections_to_earlier_segments_are_kept() {
    let mut bench = bench();
    let first = bench.writer.segment.id.day.0 as u64;
    let mut on = |day: u64, trace: u128| {
        let mut batch = batch(trace, &["a"]);
        batch.spans[0].span_id = SpanId::from_u64(day + 1);
        batch.received_unix_nano = (first + day) * 86_400_000_000_000;
        bench.write(vec![batch]).remove(0).unwrap();
        bench.writer.segment.memory.earlier.open_count()
    };
    for day in 0..7 {
        on(day, u128::from(day) + 1);
    }
    let most = (0..6).map(|trace| on(7, trace + 1)).max();
    assert_eq!(most, Some(4));
    bench.writer.segment.memory.earlier.close_idle();
    assert_eq!(bench.writer.segment.memory.earlier.open_count(), 0);
}

#[test]
fn a_listener_that_stalls_holds_a_bounded_number_of_bytes() {
    const SENT: usize = 20_000;
    let mut bench = bench();
    let mut listener = bench.writer.committed.subscribe();
    let mut sent = batch(1, &["a"]);
    sent.logs = Vec::<LogRecord>::new();
    sent.spans.extend((2..SENT as u128).map(|n| batch(n, &["a"]).spans.remove(0)));
    sent.decisions = (0..300).map(|_| decision(1)).collect();
    for one in &mut sent.decisions {
        one.reason = "\u{e9}".repeat(100_000);
        one.attributes.set("prompt", "x".repeat(100_000));
        one.attributes.set("small", 7_i64);
    }
    bench.write(vec![sent]).remove(0).unwrap();
    let (mut summaries, mut decisions) = (0, 0);
    loop {
        let piece = match listener.try_recv() {
            Ok(piece) => piece,
            // The channel of the bench is shorter than that of a store.
            Err(broadcast::error::TryRecvError::Lagged(_)) => continue,
            Err(_) => break,
        };
        assert!(piece.summaries.len() < 3_000, "{}", piece.summaries.len());
        summaries += piece.summaries.len();
        decisions += piece.decisions.len();
        for one in &piece.decisions {
            assert!(one.reason.len() < 2_100 && one.reason.ends_with('\u{2026}'));
            assert_eq!(one.attributes.len(), 1);
        }
    }
    assert!(decisions == 300 && summaries > 0, "{decisions} {summaries}");
    let kept = crate::read_traces::trace(
        &Session::begin(Arc::new(Files::new(bench.layout.clone()))),
        TraceId::from_u128(1),
    );
    assert_eq!(kept.unwrap().unwrap().decisions[0].reason.chars().count(), 100_000);
}

#[test]
fn a_locked_control_database_refuses_the_group_and_not_one_batch_after_the_other() {
    let mut bench = bench();
    let other = rusqlite::Connection::open(bench.layout.control()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let sent = || {
        (1..=20).map(|trace| {
            let mut batch = batch(trace, &["a"]);
            batch.decisions.push(decision(trace));
            batch
        })
    };
    let begin = Instant::now();
    for answer in bench.write(sent().collect()) {
        assert!(
            matches!(&answer, Err(Refusal::Storage(text)) if text.contains("locked")),
            "{answer:?}"
        );
    }
    // One by one it would be twenty times the patience.
    assert!(begin.elapsed() < CONTROL_BUSY_TIMEOUT * 10, "{:?}", begin.elapsed());
    other.execute_batch("ROLLBACK").unwrap();
    assert!(bench.write(sent().collect()).iter().all(|answer| spans_of(answer) == 1));
}

#[test]
fn a_jump_of_the_clock_makes_no_segment_of_a_future_day() {
    let mut bench = bench();
    let open = bench.writer.segment.id;
    let mut jumped = batch(1, &["a"]);
    jumped.received_unix_nano = (open.day.0 as u64 + 5_000) * 86_400_000_000_000;
    assert_eq!(spans_of(&bench.write(vec![jumped])[0]), 1);
    assert_eq!(bench.layout.list().unwrap(), [open]);
}
