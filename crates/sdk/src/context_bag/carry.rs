//! Bags across processes: an HTTP header, gRPC metadata, an environment variable, MCP `_meta`.
//! Written is what a tool was given to see; of a bag that is nobody's view, session and trace alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use serde_json::{Map, Value};

use super::bag::ContextBag;
use super::error::BagError;
use super::schema::{BagSchema, Need};
use super::wire::Wire;

/// The HTTP header and the gRPC metadata key: JSON as base64url without padding.
pub const CONTEXT_BAG_HEADER: &str = "x-throughline-context";

/// The environment variable: JSON.
pub const CONTEXT_BAG_ENV: &str = "THROUGHLINE_CONTEXT";

/// The key under `_meta` of an MCP request: a JSON object.
pub const CONTEXT_BAG_META_KEY: &str = "throughline/context";

/// Bytes of a carried bag, at most, as JSON: servers take headers of 8 KiB.
pub const CONTEXT_BAG_MAX_BYTES: usize = 6_000;

/// Bytes of the header, at most.
const HEADER_MAX_BYTES: usize = CONTEXT_BAG_MAX_BYTES.div_ceil(3) * 4;

const HEADER: HeaderName = HeaderName::from_static(CONTEXT_BAG_HEADER);

impl ContextBag {
    /// What a tool of these needs is given of the current context's bag, to be sent to it; `None`
    /// where there is no bag and nothing is needed.
    pub(crate) fn to_send(tool: &str, needs: &[Need]) -> Result<Option<Self>, BagError> {
        match Context::map_current(Self::of) {
            None if needs.iter().all(Need::is_optional) => Ok(None),
            bag => bag.unwrap_or_default().view_for(tool, needs).map(Some),
        }
    }

    /// The JSON that carriers carry.
    ///
    /// # Errors
    /// [`BagError::TooLarge`].
    pub fn to_json(&self) -> Result<String, BagError> {
        let wire = if self.is_view() { Wire::of(self) } else { Wire::bare(self) };
        let text = serde_json::to_string(&wire)
            .map_err(|error| BagError::Form { reason: error.to_string() })?;
        check_size(text.len(), CONTEXT_BAG_MAX_BYTES)?;
        Ok(text)
    }

    /// The bag that somebody else's carrier carried. What came with it was given for this hop.
    ///
    /// # Errors
    /// [`BagError`], when it is none; the message has no value of it.
    pub fn from_json(text: &str) -> Result<Self, BagError> {
        check_size(text.len(), CONTEXT_BAG_MAX_BYTES)?;
        let wire: Wire = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
        wire.read(BagSchema::standard(), true)
    }

    /// Writes the bag into headers, replacing one that they have.
    ///
    /// # Errors
    /// [`BagError::TooLarge`]; the headers have none then.
    pub fn inject_headers(&self, headers: &mut HeaderMap) -> Result<(), BagError> {
        headers.remove(HEADER);
        let text = URL_SAFE_NO_PAD.encode(self.to_json()?);
        let mut value = HeaderValue::try_from(text)
            .map_err(|error| BagError::Form { reason: error.to_string() })?;
        value.set_sensitive(true);
        headers.insert(HEADER, value);
        Ok(())
    }

    /// The bag in headers; `None` when there is none.
    ///
    /// # Errors
    /// [`BagError`], when there are two, or what is there is none.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, BagError> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(BagError::Form { reason: "got two of them".to_owned() });
        }
        check_size(value.len(), HEADER_MAX_BYTES)?;
        let wrong = || BagError::Form { reason: "the header is no base64url of JSON".to_owned() };
        let json = URL_SAFE_NO_PAD.decode(value.as_bytes()).map_err(|_| wrong())?;
        Self::from_json(&String::from_utf8(json).map_err(|_| wrong())?).map(Some)
    }

    /// The bag in this process's environment; `None` when there is none.
    ///
    /// # Errors
    /// [`BagError`], when what is there is none.
    pub fn from_env() -> Result<Option<Self>, BagError> {
        match std::env::var_os(CONTEXT_BAG_ENV) {
            None => Ok(None),
            Some(text) => match text.to_str() {
                Some(text) => Self::from_json(text).map(Some),
                None => Err(BagError::Form { reason: "the variable is no text".to_owned() }),
            },
        }
    }

    /// Writes the bag into the `_meta` of an MCP request, replacing one that it has.
    ///
    /// # Errors
    /// [`BagError::TooLarge`]; the map has none then.
    pub fn inject_meta(&self, meta: &mut Map<String, Value>) -> Result<(), BagError> {
        meta.remove(CONTEXT_BAG_META_KEY);
        let value = serde_json::from_str(&self.to_json()?).map_err(|error| unreadable(&error))?;
        meta.insert(CONTEXT_BAG_META_KEY.to_owned(), value);
        Ok(())
    }

    /// The bag in the `_meta` of an MCP request; `None` when there is none.
    ///
    /// # Errors
    /// [`BagError`], when what is there is none.
    pub fn from_meta(meta: &Map<String, Value>) -> Result<Option<Self>, BagError> {
        meta.get(CONTEXT_BAG_META_KEY).map(|value| Self::from_json(&value.to_string())).transpose()
    }
}

#[cfg(feature = "grpc")]
impl ContextBag {
    /// Writes the bag into gRPC metadata, replacing one that it has.
    ///
    /// # Errors
    /// [`BagError::TooLarge`]; the metadata have none then.
    pub fn inject_metadata(
        &self,
        metadata: &mut tonic::metadata::MetadataMap,
    ) -> Result<(), BagError> {
        let mut headers = std::mem::take(metadata).into_headers();
        let injected = self.inject_headers(&mut headers);
        *metadata = tonic::metadata::MetadataMap::from_headers(headers);
        injected
    }

    /// The bag in gRPC metadata; `None` when there is none.
    ///
    /// # Errors
    /// [`BagError`], when there are two, or what is there is none.
    pub fn from_metadata(
        metadata: &tonic::metadata::MetadataMap,
    ) -> Result<Option<Self>, BagError> {
        Self::from_headers(metadata.as_ref())
    }
}

fn check_size(bytes: usize, limit_bytes: usize) -> Result<(), BagError> {
    if bytes > limit_bytes { Err(BagError::TooLarge { bytes, limit_bytes }) } else { Ok(()) }
}

/// An error of JSON by its place alone: its text may quote a value.
fn unreadable(error: &serde_json::Error) -> BagError {
    let what = if error.is_data() { "a member has another type" } else { "it is no JSON" };
    let (line, column) = (error.line(), error.column());
    BagError::Form { reason: format!("{what}, at line {line} column {column}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::context_bag::SourceLayer;

    fn view() -> ContextBag {
        let bag = ContextBag::new();
        bag.set_session("s-1");
        bag.set(SourceLayer::Caller, "user_timezone", "Europe/Vienna").expect("set");
        bag.set_turn("order", json!({"item": 7})).expect("set");
        bag.view_for("a_v1", &[Need::of("user_timezone")]).expect("a view")
    }

    #[test]
    fn r2_3_every_carrier_carries_what_the_tool_was_given() {
        let mut headers = HeaderMap::new();
        view().inject_headers(&mut headers).expect("it fits");
        let mut meta = Map::new();
        view().inject_meta(&mut meta).expect("it fits");
        let came = [
            ContextBag::from_headers(&headers).expect("a bag").expect("there"),
            ContextBag::from_meta(&meta).expect("a bag").expect("there"),
            ContextBag::from_json(&view().to_json().expect("it fits")).expect("a bag"),
        ];
        for bag in came {
            assert_eq!(bag.fields(), ["user_timezone"]);
            assert_eq!(bag.session_id().as_deref(), Some("s-1"));
        }
        assert_eq!(ContextBag::from_headers(&HeaderMap::new()).map(|bag| bag.is_none()), Ok(true));
    }

    #[test]
    fn a_bag_that_is_no_tools_view_carries_no_field() {
        let bag = ContextBag::new();
        bag.set(SourceLayer::Caller, "user_timezone", "Europe/Vienna").expect("set");
        assert!(!bag.to_json().expect("it fits").contains("Vienna"));
    }

    #[test]
    fn a_bag_too_large_is_not_carried() {
        let bag = ContextBag::new();
        bag.set_turn("order", json!({"text": "x".repeat(CONTEXT_BAG_MAX_BYTES)})).expect("set");
        let view = bag.view_for("a_v1", &[Need::of("entities")]).expect("a view");
        let mut headers = HeaderMap::new();
        let error = view.inject_headers(&mut headers).expect_err("too large");
        assert!(matches!(error, BagError::TooLarge { .. }));
        assert!(headers.is_empty());
    }

    #[test]
    fn two_headers_are_none() {
        let mut headers = HeaderMap::new();
        view().inject_headers(&mut headers).expect("it fits");
        let again = headers[HEADER].clone();
        headers.append(HEADER, again);
        assert!(ContextBag::from_headers(&headers).is_err());
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(text in "[ -~]{0,200}") {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_str(&text).expect("ascii"));
            let _ = ContextBag::from_headers(&headers);
            headers.insert(HEADER, HeaderValue::from_str(&URL_SAFE_NO_PAD.encode(&text)).expect("ascii"));
            let _ = ContextBag::from_headers(&headers);
        }
    }
}
