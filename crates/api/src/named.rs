//! What a path names.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::de::DeserializeOwned;

/// The state of a router that has its own way to refuse a request.
pub trait Refuses {
    /// The refusal, as the router answers it.
    type Refusal: axum::response::IntoResponse;

    /// A parameter that cannot be read: its name, what was expected and what came.
    fn parameter(name: &str, expected: &str, got: &str) -> Self::Refusal;
}

impl<T: Refuses> Refuses for Arc<T> {
    type Refusal = T::Refusal;

    fn parameter(name: &str, expected: &str, got: &str) -> Self::Refusal {
        T::parameter(name, expected, got)
    }
}

/// What a path names, with a mistake told as all others of its router are.
#[derive(Debug, Clone)]
pub struct InPath<T>(pub T);

impl<T, S> FromRequestParts<S> for InPath<T>
where
    T: DeserializeOwned + Send,
    S: Refuses + Send + Sync,
{
    type Rejection = S::Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, S::Refusal> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(_) => Err(S::parameter("path", "percent-encoded UTF-8", parts.uri.path())),
        }
    }
}
