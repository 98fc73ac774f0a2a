//! The cases of the W3C trace-context harness, written anew from the specification's Level 2, for
//! both ways in: the functions over headers, and the propagator for OpenTelemetry. Requirement R2.2.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use throughline::propagation::{self, Propagator};
use throughline::{Recorder, Telemetry, span};

/// The ids that every request without a fault in them has.
const TRACE: &str = "12345678901234567890123456789012";
const GOOD: &str = "00-12345678901234567890123456789012-1234567890123456-01";

/// What a service sends on after a request.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    trace_id: String,
    parent_id: String,
    flags: String,
    state: Option<String>,
}

impl Sent {
    fn of(headers: &HeaderMap) -> Self {
        let parent = headers["traceparent"].to_str().expect("ascii");
        let parts: Vec<&str> = parent.split('-').collect();
        assert_eq!((parts.len(), parts[0], parent.len()), (4, "00", 55), "{parent}");
        let state = headers.get("tracestate").map(|v| v.to_str().expect("ascii").to_owned());
        Self {
            trace_id: parts[1].to_owned(),
            parent_id: parts[2].to_owned(),
            flags: parts[3].to_owned(),
            state,
        }
    }
}

/// Receives requests, does its work in a span, and asks somebody else.
struct Service {
    telemetry: Telemetry,
    is_text_map: bool,
}

impl Service {
    fn both() -> [Self; 2] {
        [false, true].map(|is_text_map| {
            let telemetry = Telemetry::builder().recorder(&Recorder::new()).build();
            Self { telemetry: telemetry.expect("telemetry"), is_text_map }
        })
    }

    fn ask(&self, headers: &[(&str, &str)]) -> Sent {
        let mut incoming = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a header name");
            incoming
                .append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        }
        let _in = self.telemetry.enter();
        let mut outgoing = HeaderMap::new();
        let propagator = Propagator::new();
        let cx = if self.is_text_map {
            propagator.extract(&HeaderExtractor(&incoming))
        } else {
            propagation::extract(&incoming)
        };
        let work = span("work").parent(cx).start();
        if self.is_text_map {
            propagator.inject_context(&work.context(), &mut HeaderInjector(&mut outgoing));
        } else {
            propagation::inject_context(&work.context(), &mut outgoing);
        }
        Sent::of(&outgoing)
    }
}

/// What must become of a request's trace.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// It goes on, with this `tracestate`.
    On(&'static str),
    /// A new one begins, without a `tracestate`.
    New,
}
use Then::{New, On};

/// Name of the case in the harness, then requests of one `traceparent` each and what becomes of them.
const TRACEPARENT_CASES: &[(&str, &[(&str, Then)])] = &[
    ("traceparent_included_tracestate_missing", &[(GOOD, On(""))]),
    (
        "traceparent_version_0x00",
        &[
            ("00-12345678901234567890123456789012-1234567890123456-01.", New),
            (
                "00-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like",
                New,
            ),
        ],
    ),
    (
        "traceparent_version_0xcc",
        &[
            ("cc-12345678901234567890123456789012-1234567890123456-01", On("")),
            (
                "cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like",
                On(""),
            ),
            (
                "cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be-like",
                New,
            ),
        ],
    ),
    (
        "traceparent_version_0xff",
        &[("ff-12345678901234567890123456789012-1234567890123456-01", New)],
    ),
    (
        "traceparent_version_illegal_characters",
        &[
            (".0-12345678901234567890123456789012-1234567890123456-01", New),
            ("0.-12345678901234567890123456789012-1234567890123456-01", New),
        ],
    ),
    (
        "traceparent_version_too_long",
        &[
            ("000-12345678901234567890123456789012-1234567890123456-01", New),
            ("0000-12345678901234567890123456789012-1234567890123456-01", New),
        ],
    ),
    (
        "traceparent_version_too_short",
        &[("0-12345678901234567890123456789012-1234567890123456-01", New)],
    ),
    (
        "traceparent_trace_id_all_zero",
        &[("00-00000000000000000000000000000000-1234567890123456-01", New)],
    ),
    (
        "traceparent_trace_id_illegal_characters",
        &[
            ("00-.2345678901234567890123456789012-1234567890123456-01", New),
            ("00-1234567890123456789012345678901.-1234567890123456-01", New),
        ],
    ),
    (
        "traceparent_trace_id_too_long",
        &[("00-123456789012345678901234567890123-1234567890123456-01", New)],
    ),
    (
        "traceparent_trace_id_too_short",
        &[("00-1234567890123456789012345678901-1234567890123456-01", New)],
    ),
    (
        "traceparent_parent_id_all_zero",
        &[("00-12345678901234567890123456789012-0000000000000000-01", New)],
    ),
    (
        "traceparent_parent_id_illegal_characters",
        &[
            ("00-12345678901234567890123456789012-.234567890123456-01", New),
            ("00-12345678901234567890123456789012-123456789012345.-01", New),
        ],
    ),
    (
        "traceparent_parent_id_too_long",
        &[("00-12345678901234567890123456789012-12345678901234567-01", New)],
    ),
    (
        "traceparent_parent_id_too_short",
        &[("00-12345678901234567890123456789012-123456789012345-01", New)],
    ),
    (
        "traceparent_trace_flags_illegal_characters",
        &[
            ("00-12345678901234567890123456789012-1234567890123456-.0", New),
            ("00-12345678901234567890123456789012-1234567890123456-0.", New),
        ],
    ),
    (
        "traceparent_trace_flags_too_long",
        &[("00-12345678901234567890123456789012-1234567890123456-001", New)],
    ),
    (
        "traceparent_trace_flags_too_short",
        &[("00-12345678901234567890123456789012-1234567890123456-1", New)],
    ),
    (
        "traceparent_ows_handling",
        &[
            (" 00-12345678901234567890123456789012-1234567890123456-01", On("")),
            ("\t00-12345678901234567890123456789012-1234567890123456-01", On("")),
            ("00-12345678901234567890123456789012-1234567890123456-01 ", On("")),
            ("00-12345678901234567890123456789012-1234567890123456-01\t", On("")),
            ("\t 00-12345678901234567890123456789012-1234567890123456-01 \t", On("")),
        ],
    ),
];

/// The `tracestate`s of a request, and the one that goes on.
type StateCase = (&'static [&'static str], &'static str);

/// Name of the case in the harness, then requests of several `tracestate`s each, which all have a
/// good `traceparent`, and the `tracestate` that goes on.
const TRACESTATE_CASES: &[(&str, &[StateCase])] = &[
    ("tracestate_included_traceparent_included", &[(&["foo=1,bar=2"], "foo=1,bar=2")]),
    (
        "tracestate_empty_header",
        &[
            (&["foo=1", ""], "foo=1"),
            (&["", "foo=1"], "foo=1"),
            (&[""], ""),
            (&["a=1,,b=2,"], "a=1,b=2"),
        ],
    ),
    (
        "tracestate_multiple_headers_different_keys",
        &[(&["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3")],
    ),
    (
        "tracestate_duplicated_keys",
        &[
            (&["foo=1,foo=1"], "foo=1,foo=1"),
            (&["foo=1,foo=2"], "foo=1,foo=2"),
            (&["foo=1", "foo=1"], "foo=1,foo=1"),
            (&["foo=1", "foo=2"], "foo=1,foo=2"),
        ],
    ),
    (
        "tracestate_all_allowed_characters",
        &[
            (
                &["abcdefghijklmnopqrstuvwxyz0123456789_-*/=v"],
                "abcdefghijklmnopqrstuvwxyz0123456789_-*/=v",
            ),
            (&["0a@x_-*/=v"], "0a@x_-*/=v"),
            (
                &["k= !\"#$%&'()*+-./0123456789:;<>?@ABCXYZ[\\]^_`abcxyz{|}~"],
                "k= !\"#$%&'()*+-./0123456789:;<>?@ABCXYZ[\\]^_`abcxyz{|}~",
            ),
        ],
    ),
    (
        "tracestate_ows_handling",
        &[
            (&["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
            (&["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3"),
            (&["\t foo=1 \t"], "foo=1"),
        ],
    ),
    (
        "tracestate_key_illegal_characters",
        &[(&["foo =1"], ""), (&["FOO=1"], ""), (&["foo.bar=1"], "")],
    ),
    (
        // Level 2 lets `@` stand anywhere but at the beginning.
        "tracestate_key_illegal_vendor_format",
        &[
            (&["@foo=1,bar=2"], ""),
            (&["foo@=1,bar=2"], "foo@=1,bar=2"),
            (&["foo@@bar=1,bar=2"], "foo@@bar=1,bar=2"),
            (&["foo@bar@baz=1,bar=2"], "foo@bar@baz=1,bar=2"),
        ],
    ),
    (
        "tracestate_value_illegal_characters",
        &[(&["foo=bar=baz"], ""), (&["foo=,bar=3"], ""), (&["foo=é"], ""), (&["foo"], "")],
    ),
];

fn assert_goes(service: &Service, headers: &[(&str, &str)], then: Then, case: &str) {
    let sent = service.ask(headers);
    let way = if service.is_text_map { "propagator" } else { "functions" };
    let said = format!("{case} by {way}: {headers:?} became {sent:?}");
    match then {
        On(state) => {
            assert_eq!(sent.trace_id, TRACE, "{said}");
            assert_eq!(sent.state.as_deref().unwrap_or_default(), state, "{said}");
        }
        New => {
            assert_ne!(sent.trace_id, TRACE, "{said}");
            assert_eq!(sent.state, None, "{said}");
        }
    }
    assert_ne!(sent.parent_id, "1234567890123456", "{said}");
    assert!(sent.trace_id.bytes().any(|c| c != b'0'), "{said}");
}

#[test]
fn r2_2_every_traceparent_case_of_the_w3c_harness() {
    for service in Service::both() {
        for (case, requests) in TRACEPARENT_CASES {
            for (parent, then) in *requests {
                assert_goes(&service, &[("traceparent", parent)], *then, case);
                // A bad traceparent takes its tracestate with it.
                if let New = then {
                    let headers = [("traceparent", *parent), ("tracestate", "foo=1")];
                    assert_goes(&service, &headers, New, case);
                }
            }
        }
    }
}

#[test]
fn r2_2_every_tracestate_case_of_the_w3c_harness() {
    for service in Service::both() {
        for (case, requests) in TRACESTATE_CASES {
            for (states, expected) in *requests {
                let mut headers = vec![("traceparent", GOOD)];
                headers.extend(states.iter().map(|state| ("tracestate", *state)));
                assert_goes(&service, &headers, On(expected), case);
            }
        }
    }
}

#[test]
fn r2_2_header_names_and_missing_headers_of_the_w3c_harness() {
    for service in Service::both() {
        assert_goes(&service, &[], New, "both_traceparent_and_tracestate_missing");
        assert_goes(
            &service,
            &[("tracestate", "foo=1")],
            New,
            "tracestate_included_traceparent_missing",
        );
        for name in ["trace-parent", "trace.parent"] {
            assert_goes(&service, &[(name, GOOD)], New, "traceparent_header_name");
        }
        for name in ["TraceParent", "TrAcEpArEnT", "TRACEPARENT"] {
            assert_goes(&service, &[(name, GOOD)], On(""), "traceparent_header_name_valid_casing");
        }
        for name in ["trace-state", "trace.state"] {
            let headers = [("traceparent", GOOD), (name, "foo=1")];
            assert_goes(&service, &headers, On(""), "tracestate_header_name");
        }
        for name in ["TraceState", "TrAcEsTaTe", "TRACESTATE"] {
            let headers = [("traceparent", GOOD), (name, "foo=1")];
            assert_goes(&service, &headers, On("foo=1"), "tracestate_header_name_valid_casing");
        }
    }
}

#[test]
fn r2_2_two_traceparents_restart_the_trace() {
    let other = GOOD.replace("-1234567890123456-", "-1234567890123457-");
    for service in Service::both() {
        for second in [GOOD, &other] {
            let headers = [("traceparent", GOOD), ("traceparent", second), ("tracestate", "foo=1")];
            assert_goes(&service, &headers, New, "traceparent_duplicated");
        }
    }
}

#[test]
fn r2_2_the_limits_of_tracestate_are_those_of_the_w3c_harness() {
    let members = |range: std::ops::RangeInclusive<u32>| -> String {
        range.map(|n| format!("bar{n:02}={n:02}")).collect::<Vec<_>>().join(",")
    };
    let state_of = |service: &Service, states: &[&str]| {
        let mut headers = vec![("traceparent", GOOD)];
        headers.extend(states.iter().map(|state| ("tracestate", *state)));
        let sent = service.ask(&headers);
        assert_eq!(sent.trace_id, TRACE, "a bad tracestate does no harm to the trace");
        sent.state.unwrap_or_default()
    };
    let key = |chars: usize| format!("{}=1", "z".repeat(chars));
    let vendor =
        |tenant: usize, system: usize| format!("{}@{}=1", "t".repeat(tenant), "v".repeat(system));
    for service in Service::both() {
        // tracestate_member_count_limit
        let parts = [members(1..=10), members(11..=20), members(21..=32)];
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        assert_eq!(state_of(&service, &parts), members(1..=32));
        assert_eq!(state_of(&service, &[parts[0], parts[1], &members(21..=33)]), "");
        // tracestate_key_length_limit; Level 2 counts the key as a whole.
        for good in [key(256), vendor(241, 14), vendor(242, 1), vendor(1, 15)] {
            assert_eq!(state_of(&service, &["foo=1", &good]), format!("foo=1,{good}"));
        }
        for bad in [key(257), vendor(241, 15)] {
            assert_eq!(state_of(&service, &["foo=1", &bad]), "");
        }
        for (value_chars, is_good) in [(256, true), (257, false)] {
            let state = format!("foo={}", "v".repeat(value_chars));
            assert_eq!(state_of(&service, &[&state]) == state, is_good, "{value_chars}");
        }
    }
}

#[test]
fn r2_2_flags_survive_with_the_random_one() {
    for service in Service::both() {
        // The last digit: sampled 1, random 2; the others are not defined and are not sent on.
        for (came, goes) in [("01", "01"), ("03", "03"), ("ff", "03"), ("02", "02"), ("00", "00")] {
            let sent = service.ask(&[("traceparent", &GOOD.replace("-01", &format!("-{came}")))]);
            assert_eq!((sent.trace_id.as_str(), sent.flags.as_str()), (TRACE, goes), "{came}");
        }
    }
}

#[test]
fn r2_2_several_requests_of_the_w3c_harness() {
    let bad = "00-00000000000000000000000000000000-1234567890123456-01";
    for service in Service::both() {
        for (case, headers, is_one_trace) in [
            ("multiple_requests_with_valid_traceparent", vec![("traceparent", GOOD)], true),
            ("multiple_requests_without_traceparent", vec![], false),
            ("multiple_requests_with_illegal_traceparent", vec![("traceparent", bad)], false),
        ] {
            let sent: Vec<Sent> = (0..3).map(|_| service.ask(&headers)).collect();
            let distinct = |of: fn(&Sent) -> &str| {
                sent.iter().map(of).collect::<std::collections::BTreeSet<_>>().len()
            };
            assert_eq!(distinct(|sent| &sent.parent_id), 3, "{case}");
            assert_eq!(distinct(|sent| &sent.trace_id), if is_one_trace { 1 } else { 3 }, "{case}");
        }
    }
}

#[test]
fn a_parent_that_is_no_trace_leaves_the_context() {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", HeaderValue::from_static("00-bad"));
    let cx = Propagator::new().extract_with_context(&Context::new(), &HeaderExtractor(&headers));
    assert!(!opentelemetry::trace::TraceContextExt::has_active_span(&cx));
}
