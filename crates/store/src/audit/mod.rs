//! The audit log: decisions as received, in a keyed hash chain, with signed checkpoints.
//!
//! Every decision that is inserted gets a running number and a link in the same transaction as its
//! row ([`chain`]). The link covers a commitment to the content rather than the content, so that
//! content can be erased and the chain stays whole. Checkpoints are signed statements about the
//! head ([`statement`]); whoever keeps one elsewhere, an anchor, can later show what was cut off or
//! rewritten. [`verify`] walks all of it and names what differs.

pub(crate) mod chain;
pub(crate) mod erase;
pub(crate) mod findings;
pub(crate) mod holds;
pub(crate) mod key;
pub(crate) mod log;
pub(crate) mod read_room;
pub(crate) mod reads;
pub(crate) mod retention;
pub(crate) mod standing;
pub(crate) mod statement;
pub(crate) mod tables;
pub(crate) mod trust;
pub(crate) mod verify;
mod verify_content;
mod verify_order;
