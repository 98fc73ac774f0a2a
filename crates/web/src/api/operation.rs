//! One operation of the API, and what answers it, held to its description.

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;

use super::contract::{self, Contract};
use crate::state::Shared;

/// One operation: its query parameters are told in lists of names.
pub(crate) type Operation =
    throughline_api::Operation<&'static [&'static str], MethodRouter<Shared>>;

/// What answers it, held to its description.
pub(crate) fn route(operation: Operation) -> MethodRouter<Shared> {
    let contract = Arc::new(Contract::of(&operation));
    operation.by.route_layer(from_fn_with_state(contract, contract::keep))
}
