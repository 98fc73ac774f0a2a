//! What bad cases have in common that good ones have not, and what changed just before.
//!
//! A cause found here is a correlation with a change that precedes it: the best that observation can
//! give. It is told with the numbers that it rests on, and there is none rather than a wrong one where the
//! data does not say.

mod cases;
mod changes;
mod paragraph;
mod rank;

pub use cases::{Case, CauseConfig, MAX_CASES};
pub use changes::{Change, PrecedingChange};
pub use paragraph::paragraph;
pub use rank::{Condition, Factor, RootCause, find_cause};
