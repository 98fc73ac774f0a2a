//! `govern.db`: what rules remember and said, what was done, and what people decided about it.

use crate::schema::Schema;

/// `govern.db`.
pub(crate) const GOVERN: Schema = Schema::new(&[GOVERN_V1, ACTIONS_BY_KIND, SPENDING, EMBEDDINGS]);

/// Bodies are JSON, so that a field of a later version is kept. `states` are committed with the
/// findings that came of them. The `id` of a finding, an action and a directive is what makes it one,
/// however often it is asked for. `documents` are things with a history that people and rules change:
/// rollouts, experiments, contracts, incidents, takeovers; a change is a further version.
const GOVERN_V1: &str = "
CREATE TABLE states(
    rule TEXT PRIMARY KEY, version TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE findings(
    finding INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, rule TEXT NOT NULL, kind TEXT NOT NULL,
    subject TEXT NOT NULL, severity INTEGER NOT NULL, firing INTEGER NOT NULL,
    since INTEGER NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX findings_by_time ON findings(since);
CREATE INDEX findings_firing ON findings(firing, since);
CREATE INDEX findings_by_rule ON findings(rule, since);
CREATE TABLE actions(
    action INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, finding TEXT NOT NULL, rule TEXT NOT NULL,
    kind TEXT NOT NULL, subject TEXT NOT NULL, at INTEGER NOT NULL, state TEXT NOT NULL,
    detail TEXT NOT NULL, decision_id TEXT, finished INTEGER, body TEXT NOT NULL);
CREATE INDEX actions_by_time ON actions(at);
CREATE INDEX actions_by_rule ON actions(rule, subject, at);
CREATE INDEX actions_open ON actions(state) WHERE state = 'asked';
CREATE TABLE switches(
    name TEXT PRIMARY KEY, is_on INTEGER NOT NULL, at INTEGER NOT NULL, person TEXT NOT NULL,
    reason TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE directives(
    place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, issued INTEGER NOT NULL,
    expires INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX directives_by_end ON directives(expires);
CREATE TABLE directive_acks(
    id TEXT NOT NULL, instance TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    decision_id TEXT, at INTEGER NOT NULL, PRIMARY KEY (id, instance)) WITHOUT ROWID;
CREATE TABLE documents(
    kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, at INTEGER NOT NULL,
    person TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, name, version)) WITHOUT ROWID;
CREATE INDEX documents_by_time ON documents(kind, at);
";

/// Who was told what, and which workflows were started, is looked for every few seconds.
const ACTIONS_BY_KIND: &str = "CREATE INDEX actions_by_kind ON actions(kind, at);";

/// Money that the keys of the gateway have spent, by day and month.
const SPENDING: &str = "
CREATE TABLE spending(
    period TEXT NOT NULL, key TEXT NOT NULL, usd REAL NOT NULL, PRIMARY KEY (period, key)) WITHOUT ROWID;
";

/// What sessions were about, and the embeddings of those texts by their hash.
const EMBEDDINGS: &str = "
CREATE TABLE embeddings(text BLOB PRIMARY KEY, at INTEGER NOT NULL, numbers BLOB NOT NULL);
CREATE INDEX embeddings_by_time ON embeddings(at);
CREATE TABLE contexts(
    trace BLOB NOT NULL, text BLOB NOT NULL, at INTEGER NOT NULL, agent TEXT NOT NULL,
    session TEXT NOT NULL, PRIMARY KEY (trace, text)) WITHOUT ROWID;
CREATE INDEX contexts_by_time ON contexts(at);
";
