//! How far long work is, for whoever watches it.

/// A step of long work over files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file at hand.
    pub file: &'a str,
    /// Bytes that are done with.
    pub done_bytes: u64,
    /// Bytes in all, as far as is known.
    pub total_bytes: u64,
}
