//! Whatever a provider sends and wherever it is cut, the client gets a defined answer and the trace an
//! outcome.

use proptest::prelude::*;

use crate::house::{House, before};
use crate::script::{Do, STREAM, Script, ending, opening, piece};

/// Runs of one gateway; each opens real sockets.
const CASES: u32 = 40;

fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let part = prop_oneof![
        4 => "[a-z ]{1,8}".prop_map(|text| piece(&text).into_bytes()),
        1 => Just(opening().into_bytes()),
        1 => Just(b": keep-alive\n\n".to_vec()),
        1 => Just(b"event: ping\ndata: {}\n\n".to_vec()),
        1 => Just(b"data: \xff\xfe\n\n".to_vec()),
        1 => Just(b"data: {\"choices\":".to_vec()),
        2 => Just(ending().into_bytes()),
    ];
    prop::collection::vec(part, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn r3_2_no_stream_ends_clean_that_is_not_complete(parts in parts(), cut in 0usize..40) {
        let mut bytes = parts.concat();
        bytes.truncate(bytes.len().saturating_sub(cut));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (status, text, tree) = runtime.block_on(async {
            let answer = vec![Do::Send(STREAM.to_owned()), Do::Raw(bytes), Do::Cut];
            let script = Script::start([answer]).await;
            let house = House::open(&before(&script.url)).await;
            let answered = house.ask_stream("gpt-4o").await;
            (answered.status.as_u16(), answered.text(), house.tree().await)
        });
        match status {
            200 => prop_assert!(
                text.ends_with("data: [DONE]\n\n") != text.contains("\"error\":{"),
                "{text}"
            ),
            502 => prop_assert!(text.starts_with("{\"error\":{"), "{text}"),
            other => prop_assert!(false, "{other}: {text}"),
        }
        let is_good = status == 200 && text.ends_with("[DONE]\n\n");
        prop_assert_eq!(tree.contains("ERROR"), !is_good, "{}", tree);
        prop_assert!(tree.starts_with("chat gpt-4o outcome="), "{tree}");
    }
}
