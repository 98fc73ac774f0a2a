//! Who read decisions: noted in the background, many equal reads as one record.
//!
//! A page that refreshes itself asks the same again and again. Within [`WINDOW`] equal questions of
//! one reader are one record that counts them. Whoever reads never waits: what does not fit into
//! the channel is dropped and counted.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rusqlite::{Connection, params};
use serde::Serialize;

use crate::audit::holds::AuditFilter;
use crate::audit::log::{AuditError, AuditLog};
use crate::audit::read_room::{self, MAX_READ_RECORDS};
use crate::schema::{from_nanos, to_nanos};
use crate::writer::now_unix_nano;

/// Reads that wait to be noted; beyond it they are dropped and counted.
const MAX_WAITING: usize = 4_096;

/// How long equal reads become one record.
const WINDOW: Duration = Duration::from_secs(600);

/// How long a read waits for others before it is written.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// Records that are open for more of the same at once.
const MAX_OPEN: usize = 1_024;

/// Longest text of a question that is kept, characters.
const MAX_QUERY_CHARS: usize = 500;

/// How long reads are kept when nothing is said, days.
pub const READS_RETENTION_DAYS: u64 = 365;

/// How often old records are removed.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// They are removed sooner once there are more new ones than this part (one in so many) of all.
const PRUNE_SHARE: u64 = 20;

/// One read of decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRead {
    /// Id and name of the key, or `local`.
    pub who: String,
    /// `api`, `page` or `cli`.
    pub via: &'static str,
    /// What was asked.
    pub query: String,
    /// Decisions that were answered.
    pub rows: u64,
}

/// Equal reads within some minutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadRecord {
    /// Running number; give the last one as `before` for what comes behind.
    pub read: u64,
    /// When it was first asked, nanoseconds since the Unix epoch.
    pub first_unix_nano: u64,
    /// When it was last asked, nanoseconds since the Unix epoch.
    pub last_unix_nano: u64,
    /// Id and name of the key, or `local`.
    pub who: String,
    /// `api`, `page` or `cli`.
    pub via: String,
    /// What was asked.
    pub query: String,
    /// How often.
    pub times: u64,
    /// Decisions that were answered, all times together.
    pub rows: u64,
}

enum Message {
    Read(DecisionRead),
    Flush(SyncSender<()>),
}

/// Notes reads; cheap to clone.
#[derive(Debug, Clone)]
pub struct ReadLog {
    sender: SyncSender<Message>,
    dropped: Counter,
}

impl ReadLog {
    /// Starts the thread that writes. It ends when all clones are gone.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn start(
        audit: AuditLog,
        retention_days: u64,
        registry: &mut Registry,
    ) -> std::io::Result<Self> {
        Self::start_with(audit, retention_days, MAX_READ_RECORDS, registry)
    }

    /// The same with room for so many records.
    fn start_with(
        audit: AuditLog,
        retention_days: u64,
        most: u64,
        registry: &mut Registry,
    ) -> std::io::Result<Self> {
        let counters = Counters::default();
        counters.register(registry.sub_registry_with_prefix("throughline_audit"));
        let dropped = counters.dropped.clone();
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let open = HashMap::new();
        let notebook =
            Notebook { audit, retention_days, most, open, new: 0, pruned: None, counters };
        std::thread::Builder::new()
            .name("audit-reads".to_owned())
            .spawn(move || notebook.run(&receiver))?;
        Ok(Self { sender, dropped })
    }

    /// Notes a read; never waits.
    pub fn note(&self, read: DecisionRead) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sender.try_send(Message::Read(read))
        {
            self.dropped.inc();
        }
    }

    /// Waits until everything that was noted is on disk. Blocks.
    pub fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.sender.send(Message::Flush(done)).is_ok() {
            // An error means that the thread is gone, and with it what it had.
            let _ = is_done.recv();
        }
    }
}

/// What is told of the log on `/metrics`.
#[derive(Debug, Default)]
struct Counters {
    dropped: Counter,
    written: Counter,
    folded: Counter,
}

impl Counters {
    fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("reads_dropped", "Reads of decisions that could not be noted", &self.dropped),
            ("reads", "Reads of decisions that were noted", &self.written),
            (
                "reads_folded",
                "Records of reads that were added up, as one reader had too many",
                &self.folded,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
    }
}

/// What the thread has in hand.
struct Notebook {
    audit: AuditLog,
    retention_days: u64,
    /// Most records that are kept.
    most: u64,
    open: HashMap<(String, &'static str, String), Open>,
    /// Records since it was last looked whether there are too many.
    new: u64,
    /// When that was.
    pruned: Option<std::time::Instant>,
    counters: Counters,
}

#[derive(Debug)]
struct Open {
    /// Its row, once it has one.
    row: Option<i64>,
    first_unix_nano: u64,
    last_unix_nano: u64,
    times: u64,
    rows: u64,
    /// Reads that are not written yet.
    pending: u64,
}

impl Notebook {
    fn run(mut self, receiver: &Receiver<Message>) {
        loop {
            let waiting = self.open.values().any(|open| open.pending > 0);
            let message = match waiting {
                true => receiver.recv_timeout(FLUSH_AFTER),
                false => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(Message::Read(read)) => {
                    self.add(read);
                    // Others that wait come along, up to a bound: a stream of reads must not keep
                    // the first from the disk.
                    let until = std::time::Instant::now() + FLUSH_AFTER;
                    while std::time::Instant::now() < until
                        && let Ok(message) =
                            receiver.recv_timeout(until - std::time::Instant::now())
                    {
                        match message {
                            Message::Read(read) => self.add(read),
                            Message::Flush(done) => {
                                self.flush();
                                let _ = done.send(());
                            }
                        }
                    }
                    self.flush();
                }
                Ok(Message::Flush(done)) => {
                    self.flush();
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.flush();
                    return;
                }
            }
        }
    }

    /// Removes what is too old, and adds up what is too much, when it is time to; the latter is told,
    /// since it may be somebody's way to be forgotten.
    fn prune(&mut self) {
        let is_time = self.pruned.is_none_or(|at| at.elapsed() > PRUNE_EVERY);
        if !is_time && self.new <= self.most / PRUNE_SHARE {
            return;
        }
        (self.pruned, self.new) = (Some(std::time::Instant::now()), 0);
        let before = now_unix_nano().saturating_sub(days_nano(self.retention_days));
        let most = self.most;
        match self.audit.write(|control| Ok(read_room::prune(control, before, most)?)) {
            Ok(folded) => {
                // What is open may have been added up with the rest.
                if !folded.is_empty() {
                    self.open.clear();
                }
                for read_room::Folded { who, records } in folded {
                    self.counters.folded.inc_by(records);
                    tracing::warn!(
                        who,
                        records,
                        most,
                        "one reader of decisions has more records than there is room for; the oldest were added up to one"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(%error, "old reads of decisions could not be removed");
            }
        }
    }

    fn add(&mut self, read: DecisionRead) {
        let now = now_unix_nano();
        let query: String = read.query.chars().take(MAX_QUERY_CHARS).collect();
        let open = self.open.entry((read.who, read.via, query)).or_insert(Open {
            row: None,
            first_unix_nano: now,
            last_unix_nano: now,
            times: 0,
            rows: 0,
            pending: 0,
        });
        open.last_unix_nano = now;
        open.times += 1;
        open.rows += read.rows;
        open.pending += 1;
        if self.open.len() > MAX_OPEN {
            self.flush();
            self.open.clear();
        }
    }

    fn flush(&mut self) {
        let (open, new) = (&mut self.open, &mut self.new);
        let outcome = self.audit.write(|control| {
            for ((who, via, query), open) in open.iter_mut().filter(|(_, open)| open.pending > 0) {
                *new += u64::from(open.row.is_none());
                open.row = Some(write(control, who, via, query, open)?);
            }
            Ok(())
        });
        let pending: u64 = open.values_mut().map(|open| std::mem::take(&mut open.pending)).sum();
        match outcome {
            Ok(()) => self.counters.written.inc_by(pending),
            Err(error) => {
                // They would be tried again with the next of the same: what is lost is counted.
                tracing::warn!(%error, reads = pending, "reads of decisions could not be noted");
                self.counters.dropped.inc_by(pending)
            }
        };
        let now = now_unix_nano();
        let window = WINDOW.as_nanos() as u64;
        self.open.retain(|_, open| now.saturating_sub(open.first_unix_nano) < window);
        self.prune();
    }
}

fn write(
    control: &Connection,
    who: &str,
    via: &str,
    query: &str,
    open: &Open,
) -> Result<i64, rusqlite::Error> {
    if let Some(row) = open.row {
        let changed = control
            .prepare_cached(
                "UPDATE audit_reads SET last = ?2, times = ?3, rows = ?4 WHERE read = ?1",
            )?
            .execute(params![
                row,
                from_nanos(open.last_unix_nano),
                open.times as i64,
                open.rows as i64
            ])?;
        if changed > 0 {
            return Ok(row);
        }
    }
    control
        .prepare_cached(
            "INSERT INTO audit_reads(first, last, who, via, query, times, rows)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            from_nanos(open.first_unix_nano),
            from_nanos(open.last_unix_nano),
            who,
            via,
            query,
            open.times as i64,
            open.rows as i64,
        ])?;
    Ok(control.last_insert_rowid())
}

fn days_nano(days: u64) -> u64 {
    days.saturating_mul(86_400 * 1_000_000_000)
}

/// Takes the names of who was erased out of the questions that were asked.
pub(crate) fn forget(control: &Connection, filter: &AuditFilter) -> Result<(), AuditError> {
    for name in [&filter.session, &filter.agent].into_iter().flatten() {
        control.execute(
            "UPDATE audit_reads SET query = '(erased)' WHERE instr(query, ?1) > 0",
            [name],
        )?;
    }
    Ok(())
}

impl AuditLog {
    /// Notes one read at once: for a command, which ends.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn note_read(&self, read: &DecisionRead) -> Result<(), AuditError> {
        let now = now_unix_nano();
        let open = Open {
            row: None,
            first_unix_nano: now,
            last_unix_nano: now,
            times: 1,
            rows: read.rows,
            pending: 0,
        };
        self.write(|control| {
            write(control, &read.who, read.via, &read.query, &open)?;
            Ok(())
        })
    }

    /// Reads of decisions, newest first, those before the record `before`.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn reads(&self, before: Option<u64>, limit: usize) -> Result<Vec<ReadRecord>, AuditError> {
        self.read(|control| {
            let mut statement = control.prepare(
                "SELECT read, first, last, who, via, query, times, rows FROM audit_reads
                 WHERE read < ?1 ORDER BY read DESC LIMIT ?2",
            )?;
            let before = before.map_or(i64::MAX, |before| before.min(i64::MAX as u64) as i64);
            let rows = statement.query_map(params![before, limit as i64], |row| {
                Ok(ReadRecord {
                    read: row.get::<_, i64>(0)? as u64,
                    first_unix_nano: to_nanos(row.get(1)?),
                    last_unix_nano: to_nanos(row.get(2)?),
                    who: row.get(3)?,
                    via: row.get(4)?,
                    query: row.get(5)?,
                    times: row.get::<_, i64>(6)? as u64,
                    rows: row.get::<_, i64>(7)? as u64,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AuditKeys;
    use crate::schema::CONTROL;

    #[test]
    fn a_flood_of_questions_takes_nobody_elses_records_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        drop(CONTROL.open_writer(&dir.path().join("control.db")).unwrap());
        let audit = AuditLog::new(dir.path(), AuditKeys::default());
        let mut registry = Registry::default();
        let log = ReadLog::start_with(audit.clone(), 365, 20, &mut registry).unwrap();
        let note = |who: &str, query: String| {
            log.note(DecisionRead { who: who.to_owned(), via: "api", query, rows: 1 });
        };
        note("quiet", "decisions".to_owned());
        log.flush();
        for round in 0..3 {
            (0..30).for_each(|at| note("loud", format!("decisions {round} {at}")));
            log.flush();
        }
        let kept = audit.reads(None, 1_000).unwrap();
        assert!(kept.iter().any(|one| one.who == "quiet"), "{kept:?}");
        assert!(kept.len() <= 20, "{kept:?}");
        assert_eq!(kept.iter().map(|one| one.times).sum::<u64>(), 91, "nothing goes uncounted");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let folded = text
            .lines()
            .find_map(|line| line.strip_prefix("throughline_audit_reads_folded_total "));
        assert!(folded.unwrap().parse::<u64>().unwrap() > 60, "{text}");
    }
}
