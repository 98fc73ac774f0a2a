//! The JSON API under `/api/v1`. Failures are `{"error": {code, message, hint}}`.

pub(crate) mod audit;
pub(crate) mod continuity;
mod decision_body;
pub(crate) mod decisions;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod openapi;
mod openapi_bodies;
pub(crate) mod overview;
pub(crate) mod record;
pub(crate) mod series;
pub(crate) mod shapes;
pub(crate) mod sql;
pub(crate) mod traces;
