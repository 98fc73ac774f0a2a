//! The page of the store's segments.

use axum::http::StatusCode;

use crate::{Site, fixtures, recent_ns};

#[tokio::test]
async fn the_store_page_tells_each_segment_how_it_stands_and_what_it_holds() {
    let site = Site::open();
    site.commit(fixtures::fraud(0xa1, recent_ns())).await;
    let page = site.get("/store").await;
    assert_eq!(page.status, StatusCode::OK);
    let told: serde_json::Value =
        serde_json::from_str(&site.get("/api/v1/segments").await.body).unwrap();
    let open = &told["items"][0];
    assert_eq!(open["state"], "open");
    for expected in [open["segment"].as_str().unwrap(), ">open<", "in all files"] {
        assert!(page.body.contains(expected), "{expected}: {}", page.body);
    }
    let spans = open["spans"].as_u64().unwrap();
    assert!(spans > 0 && page.body.contains(&format!(r#"data-label="Spans">{spans}<"#)), "{spans}");
    let refused = site.get("/store?sort=size").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}
