//! ClickHouse as a mirror of the embedded store: its tables, the statements over them, what is still
//! to be sent, and reads of what several servers have sent. The network is the caller's.
//!
//! What is to be sent is what the segments have beyond what ClickHouse has acknowledged, noted by
//! key space of a trace in `clickhouse.db`. A batch is noted before it is sent, so that after a
//! crash the very same rows go out under the same `insert_deduplication_token`; and each row has the
//! place in its segment as its key, so that what was sent twice all the same is one row at read.

mod cells;
mod charts;
mod conditions;
mod decisions;
mod feed;
mod groups;
mod kind;
mod list;
mod metrics;
mod parse;
mod parse_records;
mod position;
mod recent;
mod records;
mod remote;
mod rows;
mod schema;
mod stored_rollups;

pub use feed::{Batch, Erasure, Feed, Insert, Lost, MirrorError, RollupBatch};
pub use kind::RowKind;
pub(crate) use position::{decisions_sent, has_all};
pub use remote::{RemoteReader, Rows, Statements};
pub use rows::StoredRows;
pub use schema::{
    CLAIM_NAME, ERASE_DECISIONS, MIGRATION_NOTED, MIGRATIONS, MIGRATIONS_TABLE, MIRROR_VERSION,
    NAME_HOLDER, NOTE_ROLLUPS, SERVER_SPANS, decisions_ttl_statement, ttl_statements,
};
pub use stored_rollups::{RollupPage, RollupTable};
