//! The simulated provider, for examples that ask whoever the environment names.

use std::net::Ipv4Addr;

use throughline_demo::provider::{ProviderOptions, serve};
use throughline_demo::{Pace, Seed};

/// Starts one on a free port, which ends with the test's process; answers its address.
pub(crate) fn start() -> String {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("nonblocking");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let options =
                ProviderOptions { pace: Pace::new(0.0), ..ProviderOptions::new(Seed::new(42)) };
            serve(listener, options, std::future::pending()).await.expect("served");
        });
    });
    format!("http://{address}/v1")
}
