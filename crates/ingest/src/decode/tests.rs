//! Holds the reader of plain spans against `prost`, on requests made at random down to the wire.

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use throughline_trace::Value;

use super::*;

const RECEIVED_UNIX_NANO: u64 = 1_795_348_800_000_000_000;

/// What a field of a message is.
#[derive(Clone, Copy)]
enum Shape {
    Id,
    Text,
    Number,
    Fixed64,
    Fixed32,
    Message(&'static [(u32, Shape)]),
}

use Shape::{Fixed32, Fixed64, Id, Message, Number, Text};

static REQUEST: [(u32, Shape); 1] = [(1, Message(&OF_RESOURCE))];
static OF_RESOURCE: [(u32, Shape); 4] =
    [(1, Message(&RESOURCE)), (2, Message(&OF_SCOPE)), (2, Message(&OF_SCOPE)), (3, Text)];
static OF_SCOPE: [(u32, Shape); 5] = [
    (1, Message(&SCOPE)),
    (2, Message(&SPAN)),
    (2, Message(&SPAN)),
    (2, Message(&SPAN)),
    (3, Text),
];
static RESOURCE: [(u32, Shape); 3] = [(1, Message(&ENTRY)), (2, Number), (3, Message(&ENTITY))];
static ENTITY: [(u32, Shape); 4] = [(1, Text), (2, Text), (3, Text), (4, Text)];
static SCOPE: [(u32, Shape); 4] = [(1, Text), (2, Text), (3, Message(&ENTRY)), (4, Number)];
static SPAN: [(u32, Shape); 17] = [
    (1, Id),
    (2, Id),
    (3, Text),
    (4, Id),
    (5, Text),
    (6, Number),
    (7, Fixed64),
    (8, Fixed64),
    (9, Message(&ENTRY)),
    (9, Message(&ENTRY)),
    (10, Number),
    (11, Message(&EVENT)),
    (12, Number),
    (13, Message(&LINK)),
    (14, Number),
    (15, Message(&STATUS)),
    (16, Fixed32),
];
static EVENT: [(u32, Shape); 4] = [(1, Fixed64), (2, Text), (3, Message(&ENTRY)), (4, Number)];
static LINK: [(u32, Shape); 6] =
    [(1, Id), (2, Id), (3, Text), (4, Message(&ENTRY)), (5, Number), (6, Fixed32)];
static STATUS: [(u32, Shape); 2] = [(2, Text), (3, Number)];
static ENTRY: [(u32, Shape); 2] = [(1, Text), (2, Message(&VALUE))];
static VALUE: [(u32, Shape); 7] = [
    (1, Text),
    (2, Number),
    (3, Number),
    (4, Fixed64),
    (5, Message(&ARRAY)),
    (6, Message(&MAP)),
    (7, Id),
];
static ARRAY: [(u32, Shape); 1] = [(1, Message(&VALUE))];
static MAP: [(u32, Shape); 1] = [(1, Message(&ENTRY))];

/// Writes messages by what chance says, a byte a choice; without chance left they end.
struct Writer<'a> {
    chance: std::slice::Iter<'a, u8>,
    /// Whether to write what encoders do not.
    is_odd: bool,
}

impl Writer<'_> {
    fn roll(&mut self, sides: u8) -> u8 {
        self.chance.next().map_or(0, |byte| byte % sides)
    }

    fn message(&mut self, fields: &[(u32, Shape)]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut next = 0;
        while self.chance.len() > 0 && out.len() < 4_000 {
            if self.is_odd && self.roll(24) == 1 {
                self.odd(fields, &mut out);
                continue;
            }
            // Mostly in order, as encoders write; some fields are left out.
            next += usize::from(self.roll(3));
            let Some((number, shape)) = fields.get(next) else { break };
            next += usize::from(self.roll(4) > 0);
            self.field(*number, *shape, &mut out);
        }
        out
    }

    fn field(&mut self, number: u32, shape: Shape, out: &mut Vec<u8>) {
        match shape {
            Id => {
                let bytes = [16, 8, 8, 16, 0, 7][usize::from(self.roll(6))];
                let byte = self.roll(4);
                bytes_field(number, &vec![byte; bytes], out);
            }
            Text => {
                let texts = ["", "agent_id", "ü", "gen_ai.system", "openai", "a b c", "chat"];
                bytes_field(number, texts[usize::from(self.roll(7))].as_bytes(), out);
            }
            Number => {
                encode_key(number, WireType::Varint, out);
                let numbers = [0, 1, 2, 3, 300, u64::from(u32::MAX) + 2, u64::MAX];
                encode_varint(numbers[usize::from(self.roll(7))], out);
            }
            Fixed64 => {
                encode_key(number, WireType::SixtyFourBit, out);
                let times = [0, 5, RECEIVED_UNIX_NANO, RECEIVED_UNIX_NANO + 1, u64::MAX];
                out.extend(times[usize::from(self.roll(5))].to_le_bytes());
            }
            Fixed32 => {
                encode_key(number, WireType::ThirtyTwoBit, out);
                out.extend(u32::from(self.roll(255)).to_le_bytes());
            }
            Message(fields) => {
                let message = self.message(fields);
                bytes_field(number, &message, out);
            }
        }
    }

    /// A field that encoders do not write.
    fn odd(&mut self, fields: &[(u32, Shape)], out: &mut Vec<u8>) {
        let (number, shape) = fields[usize::from(self.roll(fields.len() as u8))];
        match self.roll(9) {
            0 => encode_key(number, WireType::StartGroup, out),
            1 => {
                encode_key(77, WireType::StartGroup, out);
                self.field(number, shape, out);
                encode_key(77, WireType::EndGroup, out);
            }
            2 => self.field(99, shape, out),
            3 => bytes_field(number, b"\xff\xc3", out),
            4 => {
                // Of the tenth byte of a number only one bit is one.
                encode_key(99, WireType::Varint, out);
                out.extend([0xff; 9]);
                out.push(self.roll(4));
            }
            5 => {
                // A number in a table of strings, of a key or a value.
                encode_key(if self.roll(2) == 0 { 3 } else { 8 }, WireType::Varint, out);
                out.push(self.roll(3));
            }
            6 => out.push(self.roll(255)),
            // The field twice, or among others.
            _ => {
                self.field(number, shape, out);
                self.field(number, shape, out);
            }
        }
    }
}

fn bytes_field(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn request(chance: &[u8], is_odd: bool) -> Vec<u8> {
    Writer { chance: chance.iter(), is_odd }.message(&REQUEST)
}

/// Small enough to be passed now and then.
fn limits() -> Limits {
    Limits {
        max_attributes: 3,
        max_events: 1,
        max_links: 1,
        max_name_bytes: 8,
        max_attribute_bytes: 12,
        ..Limits::default()
    }
}

type Outcome = Result<(SpanBatch, Report), DecodeError>;

/// What becomes of `body` if all of it is read as messages.
fn by_prost(body: &[u8], limits: &Limits) -> Outcome {
    let allowance = Allowance::new(limits.max_decoded_bytes, None);
    let read = reading(body, &allowance);
    let (request, not_utf8) = read.traces()?;
    let mut converter = Converter::new(limits, &allowance, RECEIVED_UNIX_NANO, &not_utf8);
    converter.traces(request);
    Ok(converter.finish())
}

/// What the reader of plain spans makes of `body`; `None` if it leaves it.
fn plain(body: &[u8], limits: &Limits) -> Option<(SpanBatch, Report)> {
    let allowance = Allowance::new(limits.max_decoded_bytes, None);
    reading(body, &allowance).plain_traces(limits, RECEIVED_UNIX_NANO).unwrap()
}

fn reading<'a>(body: &'a [u8], allowance: &'a Allowance) -> Reading<'a> {
    Reading { signal: Signal::Traces, encoding: Encoding::Protobuf, body, allowance, cut_key: None }
}

/// The whole way of a request; compared by `Debug` for the sake of NaN.
fn whole(body: &[u8], limits: &Limits) -> String {
    let decoded = decode(Signal::Traces, Encoding::Protobuf, body, limits, RECEIVED_UNIX_NANO);
    format!("{:?}", decoded.map(|decoded| (decoded.batch, decoded.report)))
}

fn same(body: &[u8]) -> Result<(), TestCaseError> {
    let limits = limits();
    let expected = by_prost(body, &limits);
    if let Some(read) = plain(body, &limits) {
        prop_assert_eq!(format!("{:?}", Outcome::Ok(read)), format!("{expected:?}"));
    }
    prop_assert_eq!(whole(body, &limits), format!("{expected:?}"));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_read_is_what_prost_reads(chance in vec(any::<u8>(), 0..600)) {
        same(&request(&chance, true))?;
    }

    #[test]
    fn damaged_requests_are_read_or_refused_as_by_prost(
        chance in vec(any::<u8>(), 20..400),
        at: prop::sample::Index,
        byte: u8,
        cut: bool,
    ) {
        let mut body = request(&chance, false);
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
            if cut {
                body.truncate(at);
            }
        }
        same(&body)?;
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused_as_by_prost(body in vec(any::<u8>(), 0..64)) {
        same(&body)?;
    }

    #[test]
    fn what_an_encoder_writes_is_plain(chance in vec(any::<u8>(), 0..600)) {
        let message = ExportTraceServiceRequest::decode(&request(&chance, false)[..]).unwrap();
        let body = message.encode_to_vec();
        prop_assert!(plain(&body, &limits()).is_some());
        same(&body)?;
    }
}

/// `message` within messages, each the field of that number of the next.
fn within(numbers: &[u32], mut message: Vec<u8>) -> Vec<u8> {
    for number in numbers {
        let mut outer = Vec::new();
        bytes_field(*number, &message, &mut outer);
        message = outer;
    }
    message
}

/// A request of one span with one attribute, whose fields after the key are these.
fn request_with(value: &[Vec<u8>]) -> Vec<u8> {
    let entry = within(&[1], b"list".to_vec()).into_iter().chain(value.concat()).collect();
    let mut span = within(&[1], vec![1; 16]);
    span.extend(within(&[2], vec![1; 8]));
    span.extend(within(&[9], entry));
    within(&[2, 2, 1], span)
}

#[test]
fn what_protobuf_merges_is_left_to_prost() {
    let list = |text: &str| within(&[1, 1, 5], text.as_bytes().to_vec());
    let in_one_value = within(&[2], [list("a"), list("b")].concat());
    let in_two_values = ["a", "b"].map(|text| within(&[2], list(text)));
    for body in [request_with(&[in_one_value]), request_with(&in_two_values)] {
        let limits = Limits::default();
        assert!(plain(&body, &limits).is_none());
        let decoded =
            decode(Signal::Traces, Encoding::Protobuf, &body, &limits, RECEIVED_UNIX_NANO);
        let list = decoded.unwrap().batch.spans.remove(0).attributes.0.remove(0).1;
        let both = ["a", "b"].map(|text| Value::String(text.to_owned()));
        assert_eq!(list, Value::Array(both.to_vec()));
    }
}

#[test]
fn values_nested_deeply_are_left_to_prost() {
    let nested = |levels: usize| {
        let value = within(&[1, 5].repeat(levels), Vec::new());
        request_with(&[within(&[2], value)])
    };
    let limits = Limits::default();
    assert!(plain(&nested(20), &limits).is_some());
    for levels in [30, 50, 100, 10_000] {
        let body = nested(levels);
        assert!(plain(&body, &limits).is_none());
        let decoded =
            decode(Signal::Traces, Encoding::Protobuf, &body, &limits, RECEIVED_UNIX_NANO);
        assert_eq!(decoded.is_ok(), levels < 50);
    }
}

#[test]
fn memory_is_taken_before_it_is_used() {
    // A list of 50,000 empty values, 2 bytes each.
    let array = [0x0a, 0].repeat(50_000);
    let message = request_with(&[within(&[5, 2], array)]);
    let limits = Limits { max_decoded_bytes: 1_000_000, ..Limits::default() };
    let allowance = Allowance::new(limits.max_decoded_bytes, None);
    let read = reading(&message, &allowance);
    let refused = read.plain_traces(&limits, RECEIVED_UNIX_NANO).unwrap_err();
    assert_eq!(refused, DecodeError::TooLarge { limit_bytes: 1_000_000 });
}
