//! Walks the chain from its first record to its head and names what differs.
//!
//! One read transaction: what a running server appends meanwhile is not looked at, and what it
//! erases meanwhile is still there. The walk goes on after a problem, so that one changed record
//! is one finding and not all that come after it.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension as _};
use throughline_trace::DecisionId;

use crate::audit::chain::{Hash, LinkInput, genesis, log_id};
use crate::audit::findings::{AnchorFinding, ProblemKind, Verification};
use crate::audit::key::AuditKeys;
use crate::audit::statement::{Bridge, Checkpoint};
use crate::audit::trust::{Secret, Trust};
use crate::audit::{chain::ChainError, verify_content, verify_order};
use crate::control::hex;
use crate::schema::to_nanos;
use crate::writer::now_unix_nano;

/// What somebody kept outside the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnchorLines {
    /// Which anchor, for people.
    pub name: String,
    /// Its lines, one checkpoint each; empty ones are passed over.
    pub lines: Vec<String>,
}

/// With what a chain is verified.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// The secrets: without that of a record its link cannot be checked.
    pub keys: AuditKeys,
    /// Public keys that are trusted beside those of the secrets.
    pub public_keys: Vec<[u8; 32]>,
    /// What anchors have kept.
    pub anchors: Vec<AnchorLines>,
}

/// Who vouches for a head.
#[derive(Debug, Clone)]
enum Voucher {
    Database,
    Anchor(usize),
}

/// A record as the chain has it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) kind: i64,
    pub(crate) decision_id: Option<[u8; 16]>,
    pub(crate) received_unix_nano: u64,
    pub(crate) key: i64,
    pub(crate) commitment: Hash,
    pub(crate) link: Hash,
}

impl Link {
    pub(crate) fn read(row: &rusqlite::Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            number: row.get::<_, i64>(0)? as u64,
            kind: row.get(1)?,
            decision_id: row.get(2)?,
            received_unix_nano: to_nanos(row.get(3)?),
            key: row.get(4)?,
            commitment: row.get(5)?,
            link: row.get(6)?,
        })
    }

    /// What its link is made of when it follows `previous`.
    pub(crate) fn input(&self, previous: Hash) -> LinkInput {
        LinkInput {
            previous,
            number: self.number,
            received_unix_nano: self.received_unix_nano,
            kind: u8::try_from(self.kind).unwrap_or(u8::MAX),
            decision_id: self.decision_id.unwrap_or_default(),
            commitment: self.commitment,
        }
    }

    pub(crate) fn decision(&self) -> Option<DecisionId> {
        self.decision_id.map(|id| DecisionId(uuid::Uuid::from_bytes(id)))
    }
}

/// The walk.
pub(crate) struct Walk<'a> {
    control: &'a Connection,
    log: String,
    trust: Trust,
    vouched: BTreeMap<u64, Vec<(Voucher, Checkpoint)>>,
    names: Vec<String>,
    suspects: verify_order::Suspects,
    /// Keys of which it was told that they are missing.
    told_keys: HashSet<i64>,
    report: Verification,
}

/// Verifies the log in a connection that is in a read transaction.
pub(crate) fn verify(
    control: &Connection,
    options: &VerifyOptions,
) -> Result<Verification, ChainError> {
    let begin = Instant::now();
    let mut walk = Walk::new(control, options)?;
    walk.report.time_unix_nano = now_unix_nano();
    walk.anchors(options);
    let erased = verify_content::erased_ranges(control)?;
    let head = walk.records(&erased)?;
    walk.ends(head)?;
    walk.suspects.judge(&walk.trust, &mut walk.report);
    verify_content::strays(control, &mut walk.report)?;
    verify_content::holds(control, &mut walk.report)?;
    let mut report = walk.report;
    report.problems.sort_by_key(|problem| problem.number.unwrap_or(u64::MAX));
    report.took_ms = begin.elapsed().as_millis() as u64;
    Ok(report)
}

impl<'a> Walk<'a> {
    fn new(control: &'a Connection, options: &VerifyOptions) -> Result<Self, ChainError> {
        let log = log_id(control)?;
        let trust = Trust::read(control, &options.keys, &options.public_keys)?;
        let report = Verification { log: log.clone(), ..Verification::default() };
        let mut walk = Self {
            control,
            log,
            trust,
            vouched: BTreeMap::new(),
            names: Vec::new(),
            suspects: verify_order::Suspects::default(),
            told_keys: HashSet::new(),
            report,
        };
        for (checkpoint, _) in checkpoints(control, &walk.log)? {
            walk.report.checkpoints += 1;
            walk.report.last_checkpoint_number = Some(checkpoint.number);
            walk.vouch(Voucher::Database, checkpoint);
        }
        Ok(walk)
    }

    fn anchors(&mut self, options: &VerifyOptions) {
        for (at, anchor) in options.anchors.iter().enumerate() {
            self.names.push(anchor.name.clone());
            self.report.anchors.push(AnchorFinding {
                name: anchor.name.clone(),
                checkpoints: 0,
                agreed: 0,
                highest_number: 0,
            });
            for (line_no, line) in anchor.lines.iter().enumerate() {
                if line.trim().is_empty() {
                    continue;
                }
                match Checkpoint::from_line(line) {
                    Ok(checkpoint) => {
                        self.report.anchors[at].checkpoints += 1;
                        self.vouch(Voucher::Anchor(at), checkpoint);
                    }
                    Err(error) => self.report.add(
                        ProblemKind::Unreadable,
                        None,
                        None,
                        format!("{}, line {}: {error}", anchor.name, line_no + 1),
                    ),
                }
            }
        }
    }

    /// Takes a statement for the walk when it is about this log and signed by a trusted key.
    fn vouch(&mut self, voucher: Voucher, checkpoint: Checkpoint) {
        let (number, name) = (checkpoint.number, self.name(&voucher));
        let wrong = if checkpoint.log != self.log {
            Some(format!(
                "{name} vouches for record {number} of the log {}; this log is {}",
                checkpoint.log, self.log
            ))
        } else if !checkpoint.is_signed() {
            Some(format!("{name} for record {number} has a signature that is not right"))
        } else if !self.trust.believes(&checkpoint.public_key, number) {
            Some(format!(
                "{name} for record {number} is signed by the key {}, which is not trusted here",
                hex(&checkpoint.public_key)
            ))
        } else {
            None
        };
        if let Some(what) = wrong {
            self.report.add(ProblemKind::Signature, Some(number), None, what);
            return;
        }
        if let Voucher::Anchor(at) = voucher {
            let found = &mut self.report.anchors[at];
            found.highest_number = found.highest_number.max(number);
        }
        self.vouched.entry(number).or_default().push((voucher, checkpoint));
    }

    fn name(&self, voucher: &Voucher) -> String {
        match voucher {
            Voucher::Database => "the checkpoint in control.db".to_owned(),
            Voucher::Anchor(at) => format!("the anchor {}", self.names[*at]),
        }
    }

    /// Every record in order; answers number and link of the last.
    fn records(&mut self, erased: &verify_content::Ranges) -> Result<(u64, Hash), ChainError> {
        let mut statement = self.control.prepare(verify_content::RECORDS)?;
        let mut rows = statement.query([])?;
        let (mut number, mut previous) = (0_u64, Some(genesis(&self.log)));
        let mut head = genesis(&self.log);
        while let Some(row) = rows.next()? {
            self.report.records += 1;
            let found = row.get::<_, i64>(0)?;
            if found <= 0 {
                self.report.add(
                    ProblemKind::Inserted,
                    None,
                    None,
                    format!("a record has the number {found}; the first is 1"),
                );
                continue;
            }
            let found = found as u64;
            if found != number + 1 {
                previous = self.gap(number + 1, found - 1, previous)?;
            }
            number = found;
            let link = match Link::read(row) {
                Ok(link) => link,
                Err(error) => {
                    let what = format!("the row of the chain cannot be read: {error}");
                    self.report.add(ProblemKind::Unreadable, Some(found), None, what);
                    previous = None;
                    continue;
                }
            };
            if let Some(previous) = previous {
                self.check_link(&link, previous);
            }
            self.agree(number, link.link);
            verify_content::content(row, &link, erased, &mut self.report);
            previous = Some(link.link);
            head = link.link;
        }
        Ok((number, head))
    }

    fn check_link(&mut self, link: &Link, previous: Hash) {
        match self.trust.secret(link.key, link.number) {
            Secret::Held(secret) => {
                let computed = link.input(previous).link(&secret);
                if computed != link.link {
                    self.suspects.add(link.clone(), previous, computed);
                }
            }
            _ if !self.told_keys.insert(link.key) => {}
            Secret::Own => {
                let what = "from here records are linked with the key that lies in control.db, and no change to a key that was given comes behind them: whoever can write to the database can make them";
                self.report.add(ProblemKind::Signature, Some(link.number), None, what);
            }
            Secret::Missing => {
                let id = self.trust.id(link.key).unwrap_or("that is not listed");
                let what = format!(
                    "from here records are linked with the key {id}, which was not given: their links cannot be checked"
                );
                self.report.add(ProblemKind::Key, Some(link.number), None, what);
            }
        }
    }

    /// Records that are not there; answers the link to go on from.
    fn gap(
        &mut self,
        first: u64,
        last: u64,
        previous: Option<Hash>,
    ) -> Result<Option<Hash>, rusqlite::Error> {
        let bridge = bridge_from(self.control, first)?.filter(|(bridge, _)| bridge.last == last);
        let Some((bridge, key)) = bridge else {
            let what = match last - first {
                0 => "it is not in the chain, and no signed bridge says that it was retired"
                    .to_owned(),
                _ => format!(
                    "records {first} to {last} are not in the chain, and no signed bridge says that they were retired"
                ),
            };
            self.report.add(ProblemKind::Missing, Some(first), None, what);
            return Ok(None);
        };
        let public = self.trust.public(key);
        if !self.trust.believes(public, last) || !bridge.is_signed(public, &self.log) {
            let what =
                format!("the bridge over records {first} to {last} is not signed by a trusted key");
            self.report.add(ProblemKind::Signature, Some(first), None, what);
        }
        if previous.is_some_and(|previous| previous != bridge.before) {
            let what = format!(
                "the bridge over records {first} to {last} begins at another record than the chain has before it"
            );
            self.report.add(ProblemKind::Rewritten, Some(first), None, what);
        }
        self.report.retired += last - first + 1;
        // What was retired cannot be compared any more, but for its last record.
        for number in
            self.vouched.range(first..=last).map(|(number, _)| *number).collect::<Vec<_>>()
        {
            if number == last {
                self.agree(number, bridge.after);
            } else {
                for (voucher, _) in self.vouched.remove(&number).unwrap_or_default() {
                    self.count_agreed(&voucher);
                }
            }
        }
        Ok(Some(bridge.after))
    }

    fn count_agreed(&mut self, voucher: &Voucher) {
        if let Voucher::Anchor(at) = voucher {
            self.report.anchors[*at].agreed += 1;
        }
    }

    /// Holds what was vouched for against the chain.
    fn agree(&mut self, number: u64, link: Hash) {
        for (voucher, checkpoint) in self.vouched.remove(&number).unwrap_or_default() {
            if checkpoint.head == link {
                self.count_agreed(&voucher);
                continue;
            }
            let what = format!(
                "{} vouches for the link {}, the chain has {}: this record or one before it is not what it was",
                self.name(&voucher),
                hex(&checkpoint.head),
                hex(&link)
            );
            self.report.add(ProblemKind::Rewritten, Some(number), None, what);
        }
    }

    /// What should come behind the last record.
    fn ends(&mut self, (last, head): (u64, Hash)) -> Result<(), ChainError> {
        self.report.head_number = last;
        self.report.head = hex(&head);
        let mut highest: BTreeMap<String, u64> = BTreeMap::new();
        for (number, vouched) in std::mem::take(&mut self.vouched) {
            for (voucher, _) in vouched {
                highest.insert(self.name(&voucher), number);
            }
        }
        let noted: i64 = self.control.query_row(
            "SELECT value FROM state WHERE name = 'chain_head'",
            [],
            |row| row.get(0),
        )?;
        if noted as u64 > last {
            highest.insert("the note of the head in control.db".to_owned(), noted as u64);
        }
        for (name, number) in highest {
            let what = format!(
                "the chain ends at record {last}, but {name} vouches for {number}: records {} to {number} were cut off, or an older copy was put in place",
                last + 1
            );
            self.report.add(ProblemKind::Truncated, Some(last + 1), None, what);
        }
        if (noted as u64) < last {
            let what = format!(
                "control.db notes {noted} as its last record: this one was appended past the server"
            );
            self.report.add(ProblemKind::Inserted, Some(noted as u64 + 1), None, what);
        }
        Ok(())
    }
}

/// The checkpoints of the database by number, each with the row of its key.
pub(crate) fn checkpoints(
    control: &Connection,
    log: &str,
) -> Result<Vec<(Checkpoint, i64)>, rusqlite::Error> {
    let mut statement = control.prepare_cached(
        "SELECT number, head, time, count, checkpoints.key, signature, public FROM checkpoints
         LEFT JOIN audit_keys ON audit_keys.key = checkpoints.key ORDER BY number",
    )?;
    let rows = statement.query_map([], |row| read_checkpoint(row, log))?;
    rows.collect()
}

/// A row of number, head, time, count, key, signature and public key.
pub(crate) fn read_checkpoint(
    row: &rusqlite::Row<'_>,
    log: &str,
) -> Result<(Checkpoint, i64), rusqlite::Error> {
    let made = Checkpoint {
        log: log.to_owned(),
        number: row.get::<_, i64>(0)? as u64,
        head: row.get(1)?,
        time_unix_nano: to_nanos(row.get(2)?),
        count: row.get::<_, i64>(3)? as u64,
        signature: row.get(5)?,
        public_key: row.get::<_, Option<Hash>>(6)?.unwrap_or_default(),
    };
    Ok((made, row.get(4)?))
}

/// The bridge that begins at a record, with the row of its key. There may be as many as there are recorded decisions.
fn bridge_from(control: &Connection, first: u64) -> Result<Option<(Bridge, i64)>, rusqlite::Error> {
    let mut statement = control.prepare_cached(
        "SELECT first, last, before, after, decisions, time, key, signature FROM bridges
         WHERE first = ?1",
    )?;
    let found = statement.query_row([first as i64], |row| {
        let bridge = Bridge {
            first: row.get::<_, i64>(0)? as u64,
            last: row.get::<_, i64>(1)? as u64,
            before: row.get(2)?,
            after: row.get(3)?,
            decisions: row.get::<_, i64>(4)? as u64,
            time_unix_nano: to_nanos(row.get(5)?),
            signature: row.get(7)?,
        };
        Ok((bridge, row.get(6)?))
    });
    found.optional()
}
