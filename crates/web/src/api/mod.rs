//! The JSON API under `/api/v1`. It reads only; failures are `{"error": {code, message, hint}}`.

pub(crate) mod decisions;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod overview;
pub(crate) mod series;
pub(crate) mod shapes;
pub(crate) mod traces;
