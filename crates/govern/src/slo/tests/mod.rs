//! Tests of the room, one file a part.

mod indicators;
