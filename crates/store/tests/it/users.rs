//! Users: named by traces, listed with totals, searched for.

use throughline_store::{GroupSummary, Page, SearchQuery, TraceFilter};
use throughline_trace::{Span, TraceId};

use crate::made::{DAY, NOON, open, span, spans};

fn of(trace: u128, key: &str, user: &str) -> Span {
    let mut span = span(trace, 1, None, trace as u64 * 1_000_000);
    span.attributes.set(key, user);
    span.attributes.set("session_id", format!("s-{}", trace % 2));
    span
}

fn names(page: &Page<GroupSummary>) -> Vec<(&str, u64)> {
    page.items.iter().map(|user| (user.name.as_str(), user.trace_count)).collect()
}

#[tokio::test]
async fn users_are_listed_the_latest_first_and_paged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut number = of(4, "user.id", "x");
    number.attributes.set("user.id", 42_i64);
    let first =
        vec![of(1, "user.id", "ada"), of(2, "enduser.id", "bob"), of(3, "user.id", "ada"), number];
    store.inbox().commit(spans(NOON, first)).await.unwrap();
    let second = vec![of(5, "user.id", "bob"), span(6, 1, None, 6_000_000)];
    store.inbox().commit(spans(NOON + DAY, second)).await.unwrap();
    let (reader, all) = (store.reader(), TraceFilter::default());
    let page = reader.users(&all, None, 10).await.unwrap();
    assert_eq!(names(&page), [("bob", 2), ("42", 1), ("ada", 2)]);
    assert_eq!(page.items[0].sessions, ["s-0", "s-1"].into());
    assert_eq!(page.items[2].sessions, ["s-1"].into());
    let (mut cursor, mut found) = (None, Vec::new());
    loop {
        let page = reader.users(&all, cursor.as_deref(), 1).await.unwrap();
        found.extend(page.items.into_iter().map(|user| user.name));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, ["bob", "42", "ada"]);
    let sessions = reader.sessions(&all, Some("u2"), 1).await;
    assert!(sessions.is_err(), "a cursor of another list");
    for (text, wanted) in [
        ("user:ada", vec![3, 1]),
        ("user:b*", vec![5, 2]),
        ("user:42", vec![4]),
        ("-user:*", vec![6]),
        ("user:(ada OR bob) session:s-1", vec![5, 3, 1]),
    ] {
        let query = Some(SearchQuery::parse(text, NOON).unwrap());
        let filter = TraceFilter { query, ..TraceFilter::default() };
        let page = reader.traces(&filter, None, 10).await.unwrap();
        let ids: Vec<TraceId> = page.items.iter().map(|trace| trace.trace_id).collect();
        let wanted: Vec<TraceId> = wanted.into_iter().map(TraceId::from_u128).collect();
        assert_eq!(ids, wanted, "{text}");
    }
    let facets = reader.facets().await.unwrap();
    let users: Vec<&str> = facets.users.iter().map(|user| user.value.as_str()).collect();
    assert_eq!(users.len(), 3, "{users:?}");
    store.close().await.unwrap();
}
