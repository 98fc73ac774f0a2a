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
    let sessions = reader.sessions(&all, Some("u3"), 1).await;
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

/// A trace of a user at some milliseconds.
fn at(trace: u128, millis: u64, user: &str) -> Span {
    let mut span = span(trace, 1, None, millis * 1_000_000);
    span.attributes.set("user.id", user);
    span
}

/// The names of all further pages, two by two.
async fn rest(reader: &throughline_store::Reader, mut cursor: Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(next) = cursor {
        let page = reader.users(&TraceFilter::default(), Some(&next), 2).await.unwrap();
        found.extend(page.items.into_iter().map(|user| user.name));
        cursor = page.next;
    }
    found
}

#[tokio::test]
async fn who_becomes_active_while_pages_are_turned_is_listed_once_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (reader, all) = (store.reader(), TraceFilter::default());
    let users = ["ada", "bob", "cy", "dan", "eve", "fay"];
    let mut traces: Vec<Span> =
        users.iter().zip(1..).map(|(user, n)| at(n, n as u64 * 10, user)).collect();
    // Of a listed one there is an older trace too.
    traces.push(at(7, 5, "fay"));
    store.inbox().commit(spans(NOON, traces)).await.unwrap();
    let first = reader.users(&all, None, 2).await.unwrap();
    assert_eq!(names(&first), [("fay", 2), ("eve", 1)]);
    // Above the cursor: somebody who was not listed yet, in this segment and in a later one. Below it: a
    // trace that came late, of one who has an older one, and of somebody new.
    let late = vec![at(11, 90, "ada"), at(12, 35, "bob"), at(13, 33, "new")];
    store.inbox().commit(spans(NOON + 1, late)).await.unwrap();
    store.inbox().commit(spans(NOON + DAY, vec![at(14, 91, "cy")])).await.unwrap();
    // What was listed goes on in a later segment: it was there before.
    let mut more = span(6, 2, Some(1), 61_000_000);
    more.attributes.set("user.id", "fay");
    store.inbox().commit(spans(NOON + DAY, vec![more])).await.unwrap();
    assert_eq!(rest(&reader, first.next).await, ["dan", "cy", "bob", "ada"]);
    let page = reader.users(&all, None, 10).await.unwrap();
    assert_eq!(names(&page)[0], ("cy", 2), "begun anew, the list has all of them");
    assert_eq!(page.items.len(), 7);
    store.close().await.unwrap();
}
