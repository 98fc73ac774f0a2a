//! JSON as people read it: indented, coloured by kind, nothing lost.

use std::fmt::Write as _;

use maud::{Escaper, Markup, PreEscaped};
use serde_json::Value as Json;

/// Levels of nesting that get their own lines; deeper ones stay on one.
const MAX_DEPTH: usize = 32;

/// The value with two spaces a level and a class on keys, strings, numbers and literals.
pub(crate) fn pretty(value: &Json) -> Markup {
    let mut out = String::new();
    write_value(&mut out, value, 0);
    PreEscaped(out)
}

/// The value as plain indented text.
pub(crate) fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_else(|_| other.to_string()),
    }
}

fn write_value(out: &mut String, value: &Json, depth: usize) {
    match value {
        Json::Null => out.push_str("<i class=\"jl\">null</i>"),
        Json::Bool(truth) => {
            let _ = write!(out, "<i class=\"jl\">{truth}</i>");
        }
        Json::Number(number) => {
            let _ = write!(out, "<i class=\"jn\">{number}</i>");
        }
        Json::String(_) => write_quoted(out, "js", value),
        Json::Array(items) if items.is_empty() => out.push_str("[]"),
        Json::Object(entries) if entries.is_empty() => out.push_str("{}"),
        nested if depth >= MAX_DEPTH => write_quoted(out, "js", nested),
        Json::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "\n" } else { ",\n" });
                indent(out, depth + 1);
                write_value(out, item, depth + 1);
            }
            close(out, depth, ']');
        }
        Json::Object(entries) => {
            out.push('{');
            for (at, (key, item)) in entries.iter().enumerate() {
                out.push_str(if at == 0 { "\n" } else { ",\n" });
                indent(out, depth + 1);
                write_quoted(out, "jk", &Json::from(key.as_str()));
                out.push_str(": ");
                write_value(out, item, depth + 1);
            }
            close(out, depth, '}');
        }
    }
}

fn write_quoted(out: &mut String, class: &str, value: &Json) {
    let _ = write!(out, "<i class=\"{class}\">");
    let _ = write!(Escaper::new(out), "{value}");
    out.push_str("</i>");
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn close(out: &mut String, depth: usize, bracket: char) {
    out.push('\n');
    indent(out, depth);
    out.push(bracket);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        let html = pretty(&serde_json::json!({ "</pre><script>": ["<img onerror=x>", 1, null] }));
        insta::assert_snapshot!(html.into_string(), @r#"
        {
          <i class="jk">&quot;&lt;/pre&gt;&lt;script&gt;&quot;</i>: [
            <i class="js">&quot;&lt;img onerror=x&gt;&quot;</i>,
            <i class="jn">1</i>,
            <i class="jl">null</i>
          ]
        }
        "#);
    }

    proptest::proptest! {
        /// Without its marks the text is the same JSON again, and no tag of the value survives.
        #[test]
        fn nothing_is_lost(text in "\\PC{0,40}", number in proptest::prelude::any::<i64>()) {
            let value = serde_json::json!({ "a": [text, number, { "b": text }], text.clone(): true });
            let html = pretty(&value).into_string();
            let mut plain = html.clone();
            for class in ["jk", "js", "jn", "jl"] {
                plain = plain.replace(&format!("<i class=\"{class}\">"), "");
            }
            let plain = plain.replace("</i>", "");
            proptest::prop_assert!(!plain.contains('<'));
            let plain = plain.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
            proptest::prop_assert_eq!(serde_json::from_str::<Json>(&plain).unwrap(), value);
        }
    }
}
