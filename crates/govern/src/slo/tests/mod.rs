//! Tests of the room, one file a part.

mod evaluation;
mod files;
mod indicators;
mod sloth;
mod windows;
