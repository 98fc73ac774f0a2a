//! The tables of the audit log in `control.db`.

/// Migration: the chain, its keys, checkpoints and anchors, what was erased, holds, and reads.
///
/// `chain.kind` is 0 for a decision, whose content and salt lie in `decisions`; other records have
/// theirs in `audit_records`. `chain.link` follows from the link before it, see `audit/chain.rs`.
/// The state `unchained` is 1 until the decisions of an earlier version have their places.
pub(crate) const AUDIT: &str = "
INSERT INTO state VALUES ('chain_head', 0), ('unchained', 1);
ALTER TABLE decisions ADD COLUMN number INTEGER;
ALTER TABLE decisions ADD COLUMN salt BLOB;
CREATE TABLE audit_log(id INTEGER PRIMARY KEY CHECK (id = 1), log TEXT NOT NULL);
INSERT INTO audit_log VALUES (1, lower(hex(randomblob(16))));
CREATE TABLE audit_keys(
    key INTEGER PRIMARY KEY, key_id TEXT NOT NULL UNIQUE, public BLOB NOT NULL,
    external INTEGER NOT NULL, since INTEGER NOT NULL);
CREATE TABLE chain(
    number INTEGER PRIMARY KEY, kind INTEGER NOT NULL, decision_id BLOB, received INTEGER NOT NULL,
    key INTEGER NOT NULL, commitment BLOB NOT NULL, link BLOB NOT NULL);
CREATE TABLE audit_records(number INTEGER PRIMARY KEY, salt BLOB NOT NULL, body TEXT NOT NULL);
CREATE TABLE erased(decision_id BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE bridges(
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, before BLOB NOT NULL, after BLOB NOT NULL,
    decisions INTEGER NOT NULL, time INTEGER NOT NULL, key INTEGER NOT NULL,
    signature BLOB NOT NULL);
CREATE TABLE checkpoints(
    number INTEGER PRIMARY KEY, head BLOB NOT NULL, time INTEGER NOT NULL,
    count INTEGER NOT NULL, key INTEGER NOT NULL, signature BLOB NOT NULL);
CREATE TABLE anchors(
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, last_number INTEGER NOT NULL,
    last_time INTEGER, failures INTEGER NOT NULL, error TEXT, tried INTEGER) WITHOUT ROWID;
CREATE TABLE verifications(
    id INTEGER PRIMARY KEY CHECK (id = 1), time INTEGER NOT NULL, head INTEGER NOT NULL,
    records INTEGER NOT NULL, problems INTEGER NOT NULL, first_problem TEXT);
CREATE TABLE holds(
    id TEXT PRIMARY KEY, created INTEGER NOT NULL, body TEXT NOT NULL, released INTEGER)
    WITHOUT ROWID;
CREATE TABLE audit_reads(
    read INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, who TEXT NOT NULL,
    via TEXT NOT NULL, query TEXT NOT NULL, times INTEGER NOT NULL, rows INTEGER NOT NULL);
CREATE INDEX audit_reads_last ON audit_reads(last);
";
