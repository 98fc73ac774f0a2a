//! Routing over several models and A/B tests (requirement R3.3).

mod builder;
mod experiment;
mod hints;
mod learned;
mod router;
mod tags;

pub use builder::{RouteTo, RouterBuilder};
pub use experiment::{AbTest, Experiment, ab_test};
pub use hints::RouteHints;
pub use router::{Router, RouterError};
pub use tags::{AbGroup, RoutingTags};
