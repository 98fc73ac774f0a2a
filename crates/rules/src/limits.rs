//! Every limit of the language, with its unit.

/// Longest source of an expression, bytes.
pub const MAX_SOURCE_BYTES: usize = 16 * 1024;

/// Deepest nesting of an expression, levels: brackets, operators, selections and calls that stand
/// in one another. A chain of `&&` or of `||` counts as one level, however long it is.
pub const MAX_DEPTH: u16 = 100;

/// Most steps of one evaluation. Every operation is a step, in macros once an element, and so is
/// every 64 bytes of text and every element that an operation has to go through.
pub const MAX_STEPS: u64 = 1_000_000;

/// Most steps that are spent on working a constant part out in advance; what needs more is left to
/// the evaluation.
pub(crate) const MAX_FOLD_STEPS: u64 = 10_000;

/// Largest value that an operation may make (joined text, a list of a macro), bytes; an element of a
/// list counts [`ELEMENT_BYTES`] beside its content.
pub const MAX_RESULT_BYTES: usize = 1024 * 1024;

/// What an element of a list or map counts beside its content, bytes.
pub const ELEMENT_BYTES: usize = 32;

/// Largest constant that is worked out in advance, bytes.
pub(crate) const MAX_FOLD_BYTES: usize = 64 * 1024;

/// Deepest nesting of a value that is compared, measured or copied, levels.
pub const MAX_VALUE_DEPTH: usize = 128;

/// Largest compiled program of a regular expression, bytes.
pub const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Most mistakes that are told at once.
pub const MAX_MISTAKES: usize = 10;

/// Most paths that are looked up once and remembered during an evaluation.
pub(crate) const MAX_REMEMBERED: usize = 8;

/// Bytes of text that count as one step.
pub(crate) const BYTES_PER_STEP: usize = 64;

/// Keys that are compared, looking for one, and count as one step.
pub(crate) const KEYS_PER_STEP: u64 = 8;
