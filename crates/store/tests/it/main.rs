//! The store through its public doors.

mod access;
mod duplicates;
mod durability;
mod lists;
mod made;
mod opening;
mod round_trip;
mod summaries;
