//! JSON in the one form that RFC 8785 gives it (JCS): whoever spells the same value, in whatever
//! language and order, gets the same bytes.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// The canonical bytes of a value. Numbers are IEEE doubles, as the RFC has it: whole numbers beyond
/// 2⁵³ lose their last digits; put such ids into texts.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => write_number(text, number),
        Value::String(string) => write_string(text, string),
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write_value(text, item);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            // UTF-16 is not the order of UTF-8: a surrogate pair comes before U+E000.
            fields.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            text.push('{');
            for (at, (name, field)) in fields.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write_string(text, name);
                text.push(':');
                write_value(text, field);
            }
            text.push('}');
        }
    }
}

fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            c if c < ' ' => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// As ECMAScript writes a number: the shortest digits that give the same double, plain between
/// 10⁻⁶ and 10²¹, otherwise with an exponent.
fn write_number(text: &mut String, number: &Number) {
    let value = number.as_f64().unwrap_or(0.0);
    if value == 0.0 {
        return text.push('0');
    }
    if value < 0.0 {
        text.push('-');
    }
    let scientific = format!("{:e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let count = i32::try_from(digits.len()).unwrap_or(1);
    // Where the point stands, counted from the first digit.
    let point = exponent + 1;
    match point {
        1..=21 if count <= point => {
            text.push_str(&digits);
            text.extend(std::iter::repeat_n('0', usize::try_from(point - count).unwrap_or(0)));
        }
        1..=21 => {
            let (whole, rest) = digits.split_at(usize::try_from(point).unwrap_or(0));
            let _ = write!(text, "{whole}.{rest}");
        }
        -5..=0 => {
            text.push_str("0.");
            text.extend(std::iter::repeat_n('0', usize::try_from(-point).unwrap_or(0)));
            text.push_str(&digits);
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            let sign = if exponent < 0 { '-' } else { '+' };
            let _ = write!(text, "{first}{dot}{rest}e{sign}{}", exponent.abs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(json: &str) -> String {
        canonical_json(&serde_json::from_str(json).expect("json"))
    }

    #[test]
    fn numbers_are_written_as_ecmascript_does() {
        for (number, text) in [
            ("1", "1"),
            ("1.0", "1"),
            ("1e0", "1"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("100", "100"),
            ("333333333.33333329", "333333333.3333333"),
            ("1E30", "1e+30"),
            ("4.50", "4.5"),
            ("2e-3", "0.002"),
            ("0.000000000000000000000000001", "1e-27"),
            ("0.000001", "0.000001"),
            ("0.0000001", "1e-7"),
            ("1e21", "1e+21"),
            ("999999999999999999999", "1e+21"),
            ("123456789012345680000", "123456789012345680000"),
            ("9007199254740993", "9007199254740992"),
            ("18446744073709551615", "18446744073709552000"),
            ("-5e-324", "-5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ] {
            assert_eq!(of(number), text, "{number}");
        }
    }

    #[test]
    fn the_examples_of_rfc_8785_hold() {
        let example = r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#;
        assert_eq!(
            of(example),
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );
        let keys = r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#;
        let fields: serde_json::Map<String, Value> = serde_json::from_str(keys).expect("json");
        let sorted = canonical_json(&Value::Object(fields));
        let order = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"];
        let places: Vec<_> = order.iter().map(|name| sorted.find(name)).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{sorted}");
    }

    proptest! {
        #[test]
        fn the_form_is_json_and_a_fixed_point(number: f64, string in ".{0,12}", key in ".{0,6}") {
            let value = serde_json::json!({ key: number, "s": [string, number] });
            let once = canonical_json(&value);
            let back: Value = serde_json::from_str(&once).expect("json");
            prop_assert_eq!(canonical_json(&back), once);
        }
    }
}
