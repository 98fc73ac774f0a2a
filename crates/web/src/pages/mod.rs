//! One file a page: the handler reads, pure functions draw.

mod chat;
pub(crate) mod continuity;
pub(crate) mod decision;
pub(crate) mod decisions;
pub(crate) mod dimension_list;
mod filterbar;
pub(crate) mod gaps;
pub(crate) mod gateway;
pub(crate) mod governance;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod overview;
pub(crate) mod querybox;
mod redacted;
pub(crate) mod series;
pub(crate) mod sessions;
pub(crate) mod setup;
mod span;
pub(crate) mod sql;
pub(crate) mod store;
mod times;
pub(crate) mod trace;
pub(crate) mod traces;
pub(crate) mod users;
mod waterfall;

mod chart;
mod json_text;
