//! Whatever comes: no panic, valid JSON stays valid, and what is found is gone.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value as Json};
use throughline_redact::{Action, Builtin, RedactionConfig, Redactor, RuleConfig};

use crate::{keys, only, path, pattern, redactor, rule, text, under};

/// Every kind of rule at once.
static EVERYTHING: LazyLock<Redactor> = LazyLock::new(|| {
    let mut rules: Vec<RuleConfig> = [Builtin::Email, Builtin::Phone, Builtin::Card]
        .map(|builtin| RuleConfig::builtin(builtin, Action::Hash))
        .to_vec();
    rules.push(rule("custom", pattern("C-[0-9]+")));
    rules.push(rule("named", keys(&["*.hidden", "hidden"])));
    rules.push(rule("placed", path("$..place[*].at")));
    redactor(&RedactionConfig { rules, ..RedactionConfig::default() })
});

/// Looks for cards alone.
static CARDS: LazyLock<Redactor> =
    LazyLock::new(|| only(vec![RuleConfig::builtin(Builtin::Card, Action::Mask)]));

/// These digits of a card with the check digit of Luhn behind them.
fn with_check_digit(digits: &str) -> String {
    let doubled = |at: usize, digit: u32| match digit {
        digit if at % 2 == 1 => digit,
        digit if digit > 4 => digit * 2 - 9,
        digit => digit * 2,
    };
    let of = |(at, digit): (usize, u8)| doubled(at, u32::from(digit - b'0'));
    let sum: u32 = digits.bytes().rev().enumerate().map(of).sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

/// Text with the characters that matter, and any other.
fn odd_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[\\PC]{0,40}",
        "[a-e@.{}\\[\\]\":,\\\\u0-9+ sk-]{0,60}",
        "(\\{\"(hidden|place|password)\":)?[\\[{\"]{0,4}[a-z0-9@. ]{0,9}[\\]}\",\\\\]{0,6}",
        Just("eve@example.com".to_owned()),
        Just("+49 170 1234567".to_owned()),
        Just("4111 1111 1111 1111".to_owned()),
    ]
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        odd_text().prop_map(Json::from),
    ];
    let name = prop_oneof![odd_text(), "hidden|place|at|password|x"];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            proptest::collection::vec((name.clone(), inner), 0..5)
                .prop_map(|entries| Json::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Whether a text or a name in it contains this.
fn holds(json: &Json, wanted: &str) -> bool {
    match json {
        Json::String(text) => text.contains(wanted),
        Json::Array(items) => items.iter().any(|item| holds(item, wanted)),
        Json::Object(entries) => {
            entries.iter().any(|(name, item)| name.contains(wanted) || holds(item, wanted))
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_card_is_found_behind_numbers_of_any_kind(
        // Groups of four are left out: they may be the beginning of another card.
        before in proptest::collection::vec("([0-9]{1,3}|[0-9]{5,24})( |-|/|: |, )", 0..9),
        last in "([0-9]{1,3}|[0-9]{5,24})",
        digits in "4[0-9]{14}",
        in_fours in any::<bool>(),
        after in "( charged|, 12/27|| [0-9]{1,3}|\\.)",
    ) {
        let mut card = with_check_digit(&digits);
        if in_fours {
            (4..16).step_by(4).rev().for_each(|at| card.insert(at, ' '));
        }
        let said = format!("{}{last} {card}{after}", before.concat());
        let left = text(&CARDS, &said);
        prop_assert!(!left.contains(&card), "{said}: {left}");
    }

    #[test]
    fn any_text_is_answered_without_a_panic(key in odd_text(), said in odd_text(), more in odd_text()) {
        let redactor = &*EVERYTHING;
        let joined = format!("{said}{more}");
        let _ = under(redactor, &key, &joined);
        let _ = text(redactor, &joined);
    }

    #[test]
    fn valid_json_stays_valid(json in json(), is_pretty in any::<bool>()) {
        let redactor = &*EVERYTHING;
        let before = if is_pretty { format!("{json:#}") } else { json.to_string() };
        let after = text(redactor, &before);
        if before.trim_start().starts_with(['{', '[', '"']) {
            let parsed: Result<Json, _> = serde_json::from_str(&after);
            prop_assert!(parsed.is_ok(), "{before}\n{after}");
            let parsed = parsed.expect("checked");
            prop_assert!(!holds(&parsed, "eve@example.com"), "{before}\n{after}");
        }
    }

    #[test]
    fn json_without_finds_is_the_same_to_the_byte(entries in proptest::collection::btree_map("[a-d]{1,3}", "[a-z \\\\\"é\n]{0,12}", 0..6)) {
        let before = serde_json::to_string_pretty(&entries).expect("JSON");
        prop_assert_eq!(text(&EVERYTHING, &before), before);
    }

    #[test]
    fn a_cut_anywhere_is_no_way_out(json in json(), share in 0.0..1.0_f64) {
        let secret = ["sk-", "0123456789abcdef0123456789"].concat();
        let json = serde_json::json!({ "a": json, "note": secret, "hidden": "zzqqzz" }).to_string();
        let cut = json.floor_char_boundary((json.len() as f64 * share) as usize);
        let after = text(&EVERYTHING, &json[..cut]);
        prop_assert!(!after.contains(&secret) && !after.contains("zzqqzz"), "{after}");
    }

    #[test]
    fn redacting_twice_is_redacting_once(said in odd_text(), more in odd_text()) {
        let redactor = &*EVERYTHING;
        let once = text(redactor, &format!("{said} {more}"));
        prop_assert_eq!(text(redactor, &once), once);
    }
}
