//! An axum service and its client: the trace goes from the client's request through the handler into
//! the work that the handler leaves behind, which ends after the answer is sent.

use std::net::Ipv4Addr;

use axum::Router;
use axum::extract::MatchedPath;
use axum::routing::post;
use throughline::middleware::{SendTraced as _, TraceServerLayer};
use throughline::{Telemetry, span, task};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let telemetry = Telemetry::builder().service_name("axum-service").init()?;
    let (mailed, mut mails) = mpsc::channel(1);
    let order = move || {
        let mailed = mailed.clone();
        async move {
            // Not `tokio::spawn`: what is spawned this way stays on the trace.
            task::spawn(async move {
                let mail = span("mail the receipt").start();
                mail.run(mailed.send("receipt")).await
            });
            "ordered"
        }
    };
    // The route names the span: a path would make a name of every order.
    let traced = TraceServerLayer::new()
        .route(|request| Some(request.get::<MatchedPath>()?.as_str().to_owned()));
    let app = Router::new().route("/orders", post(order)).layer(traced);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}/orders", listener.local_addr()?);
    task::spawn(axum::serve(listener, app).into_future());

    let answer = throughline_examples::http_client()?.post(url).send_traced().await?.text().await?;
    println!("{answer}");
    mails.recv().await;
    telemetry.close().await?;
    Ok(())
}
