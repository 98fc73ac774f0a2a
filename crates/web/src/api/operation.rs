//! One operation of the API, and what answers it, held to its description.

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;

use super::contract::{self, Contract};
use crate::state::Shared;

/// One operation: its query parameters are told in lists of names.
pub(crate) type Operation =
    throughline_api::Operation<&'static [&'static str], MethodRouter<Shared>>;

/// The names of its query parameters, each once.
pub(crate) fn parameters_of(operation: &Operation) -> Vec<&'static str> {
    let mut names = Vec::new();
    for name in operation.query.iter().flat_map(|list| list.iter()) {
        if !names.contains(name) {
            names.push(*name);
        }
    }
    names
}

/// What answers it, held to its description.
pub(crate) fn route(operation: Operation) -> MethodRouter<Shared> {
    let contract = Arc::new(Contract::of(&operation));
    operation.by.route_layer(from_fn_with_state(contract, contract::keep))
}
