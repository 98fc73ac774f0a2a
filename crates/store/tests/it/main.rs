//! The store through its public doors.
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

mod access;
mod audit;
mod audit_life;
mod backup;
mod clickhouse;
mod clickhouse_hold;
mod clickhouse_tails;
mod continuity;
mod derived;
mod duplicates;
mod durability;
mod keeper;
mod kept_audit;
mod kept_derived;
mod kept_rollups;
mod lists;
mod made;
mod opening;
mod packing;
mod retention;
mod rollups;
mod round_trip;
mod sampling;
mod sql;
mod sql_docs;
mod sql_life;
mod sql_push;
mod summaries;
mod users;
