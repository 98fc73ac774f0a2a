//! What a receiver accepts: every limit, with its unit, its reason and its default.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Default of [`IngestOptions::max_request_bytes`]: what the OTLP specification recommends.
pub const MAX_REQUEST_BYTES: usize = 64 * MIB;

/// Default of [`IngestOptions::max_in_flight_bytes`].
pub const MAX_IN_FLIGHT_BYTES: usize = 512 * MIB;

/// Default of [`IngestOptions::body_idle_timeout`].
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Default of [`IngestOptions::body_timeout`]: the largest body at 550 kB a second.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// Default of [`IngestOptions::busy_retry_after`].
pub const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Default of [`Limits::max_decoded_bytes`]: four times the recommended request, which a request
/// of usual spans never comes near (about two and a half times its size).
pub const MAX_DECODED_BYTES: usize = 256 * MIB;

/// Default of [`Limits::max_item_bytes`]: eight values of the largest size.
pub const MAX_ITEM_BYTES: usize = 8 * MIB;

/// Default of [`Limits::max_attribute_bytes`].
pub const MAX_ATTRIBUTE_BYTES: usize = MIB;

/// Default of [`Limits::max_name_bytes`].
pub const MAX_NAME_BYTES: usize = 16 * KIB;

/// Default of [`Limits::max_attributes`]: eight times what OpenTelemetry SDKs keep.
pub const MAX_ATTRIBUTES: usize = 1_024;

/// Default of [`Limits::max_events`]: room for one event a token of a long answer.
pub const MAX_EVENTS: usize = 8_192;

/// Default of [`Limits::max_links`].
pub const MAX_LINKS: usize = 1_024;

/// What the receivers accept.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// Largest body, bytes: as it comes over the wire, and again after decompression.
    pub max_request_bytes: usize,
    /// Most memory that all requests in hand may take together, bytes: bodies, what they unfold
    /// to, and what is decoded but not yet durable. Beyond it requests are refused with retry
    /// information. Raised to what one request of the largest size needs, if it is less.
    pub max_in_flight_bytes: usize,
    /// How long a client may pause within a body.
    pub body_idle_timeout: Duration,
    /// How long a body may take to arrive, in all: a byte now and then must not hold memory for ever.
    pub body_timeout: Duration,
    /// When a client refused for want of memory is asked to come back.
    pub busy_retry_after: Duration,
    /// Origins (`https://app.example.com`) whose browser pages may send OTLP/HTTP; `*` for all.
    /// Empty: no page may.
    pub cors_origins: Vec<String>,
    /// Host names (without port; IPv6 in brackets) to which browser pages may address requests;
    /// `None` for any. With access control off it keeps web sites from sending by making their own
    /// name mean this machine (DNS rebinding). Only requests with the header `Origin` or
    /// `Sec-Fetch-Site` are checked, which browsers send and exporters do not.
    pub allowed_hosts: Option<Vec<String>>,
    /// Bounds on what a request decodes to.
    pub limits: Limits,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            max_request_bytes: MAX_REQUEST_BYTES,
            max_in_flight_bytes: MAX_IN_FLIGHT_BYTES,
            body_idle_timeout: BODY_IDLE_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            busy_retry_after: BUSY_RETRY_AFTER,
            cors_origins: Vec::new(),
            allowed_hosts: None,
            limits: Limits::default(),
        }
    }
}

impl IngestOptions {
    /// Memory that all requests in hand may take, bytes: never less than one request may need for
    /// its body twice (compressed and not) and for what it decodes to, or such a request would be
    /// told to retry for ever.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        let largest =
            self.max_request_bytes.saturating_mul(2).saturating_add(self.limits.max_decoded_bytes);
        self.max_in_flight_bytes.max(largest)
    }
}

/// Bounds on what a request decodes to. A request beyond the first is refused, an item beyond the
/// second is rejected alone, what is beyond the others is cut, marked on the item and counted.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest request once decoded, bytes of memory. Small bytes can make large structures: an
    /// empty span is 2 bytes on the wire and 300 in memory.
    pub max_decoded_bytes: usize,
    /// Largest span, log record, decision or data point, bytes of content, with its resource and
    /// scope, after all else was cut and mended: the store could never take one much larger, and
    /// its whole request with it.
    pub max_item_bytes: usize,
    /// Longest attribute value, log body or status message, bytes; lists and maps count as a whole.
    pub max_attribute_bytes: usize,
    /// Longest name or attribute key, bytes.
    pub max_name_bytes: usize,
    /// Most attributes of one span, event, link, log record, data point, resource or scope.
    pub max_attributes: usize,
    /// Most events of one span.
    pub max_events: usize,
    /// Most links of one span.
    pub max_links: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_decoded_bytes: MAX_DECODED_BYTES,
            max_item_bytes: MAX_ITEM_BYTES,
            max_attribute_bytes: MAX_ATTRIBUTE_BYTES,
            max_name_bytes: MAX_NAME_BYTES,
            max_attributes: MAX_ATTRIBUTES,
            max_events: MAX_EVENTS,
            max_links: MAX_LINKS,
        }
    }
}
