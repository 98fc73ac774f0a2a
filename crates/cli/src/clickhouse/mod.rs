//! The mirror in ClickHouse: what is committed here is written there too, behind ingest and never in
//! its way. What waits is what the segments have beyond what ClickHouse acknowledged, so that
//! neither an outage nor a crash needs a spool.

mod client;
mod mirror;

pub(crate) use client::Client;
pub(crate) use mirror::Mirror;
