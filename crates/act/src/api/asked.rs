//! What a request brings, with mistakes told as all others are: its body and its query; what its path names is read as
//! everywhere ([`throughline_api::InPath`]).

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use throughline_api::Refuses;

use super::{MAX_BODY_BYTES, Refused};
use crate::actor::Actor;

/// The bytes of a body.
pub(super) struct Sent(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        Bytes::from_request(request, state).await.map(Self).map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Refused::too_large(MAX_BODY_BYTES),
            _ => Refused::bad_request("expected a whole body, the connection broke".to_owned()),
        })
    }
}

impl Refuses for Actor {
    type Refusal = Refused;

    fn parameter(name: &str, expected: &str, got: &str) -> Refused {
        Refused::parameter(name, expected, got)
    }
}

/// The parameters of a query.
pub(super) struct InQuery<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for InQuery<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => Err(Refused::parameter(
                "query",
                "the parameters that /api/v1/openapi.json has",
                &error.body_text(),
            )),
        }
    }
}
