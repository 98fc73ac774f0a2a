//! The simulated provider, for examples that ask whoever the environment names.

/// Starts one, which ends with the test's process; answers its address.
pub(crate) fn start() -> String {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let address = throughline_examples::simulated().await.expect("a port");
            tell.send(address).expect("somebody waits");
            std::future::pending::<()>().await;
        });
    });
    told.recv().expect("an address")
}
