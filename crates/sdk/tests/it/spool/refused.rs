//! A receiver that answers: what it will never take is set aside and stops nothing, what somebody can
//! repair waits.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use throughline::OtlpProtocol;
use tonic::{Code, Request, Response, Status};

use super::*;

/// The one file with this ending.
fn file_with(directory: &Path, ending: &str) -> std::path::PathBuf {
    let names = files(directory);
    let mut found = names.iter().filter(|name| name.ends_with(ending));
    let name = found.next().unwrap_or_else(|| panic!("no {ending} in {names:?}"));
    assert_eq!(found.next(), None, "{names:?}");
    directory.join(name)
}

#[test]
fn r4_4_one_decision_that_is_refused_for_good_stops_no_other_and_can_be_sent_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, server) = Server::start();
    server.knows_poison.store(true, Ordering::Release);
    let telemetry = builder(address, directory.path()).build().expect("telemetry");
    {
        let _in = telemetry.enter();
        for n in 0..300 {
            let action = if n == 170 { "poison" } else { "pay" };
            decision("act").action(action).record();
        }
        let id = decision("act").action("poison").record_required_blocking();
        id.expect("the disk has it, whatever the receiver will say");
    }
    telemetry.flush();
    let counts = telemetry.counts();
    assert_eq!(server.kept().len(), 299, "the others have arrived");
    assert_eq!((counts.decisions.exported, counts.decisions.failed), (299, 2));
    assert_eq!((counts.decision_spool.waiting, counts.decision_spool.set_aside), (0, 2));
    let lost = telemetry.shutdown().expect_err("two have not arrived").to_string();
    assert!(lost.contains("2 decisions") && lost.contains("*.refused"), "{lost}");
    drop(telemetry);

    let refused = file_with(directory.path(), ".refused");
    server.knows_poison.store(false, Ordering::Release);
    std::fs::rename(&refused, refused.with_extension("spool")).expect("named anew");
    let next = builder(address, directory.path()).service_name("other").build().expect("telemetry");
    next.flush();
    assert_eq!(next.counts().decision_spool.replayed, 2);
    let kept = server.kept();
    let poison: Vec<_> = kept.values().filter(|kept| kept.action == "poison").collect();
    assert_eq!(poison.len(), 2);
    assert!(poison.iter().all(|kept| kept.service == "shop"), "{poison:?}");
    next.shutdown().expect("nothing is lost");
    drop(next);
    assert_eq!(files(directory.path()), Vec::<String>::new(), "nothing is left behind");
}

/// Asks for the spool to be sent until so many decisions are sent or set aside.
fn flush_all(telemetry: &Telemetry, decisions: u64) {
    let begin = std::time::Instant::now();
    let done = || {
        let counts = telemetry.counts().decisions;
        counts.exported + counts.failed
    };
    while done() < decisions {
        assert!(begin.elapsed() < std::time::Duration::from_secs(60), "{:?}", telemetry.counts());
        telemetry.flush();
    }
}

#[test]
fn r4_4_one_decision_at_which_the_receiver_fails_stops_no_other() {
    for poison in [0, 5, 8] {
        let directory = tempfile::tempdir().expect("a directory");
        let (address, server) = Server::start();
        server.knows_poison.store(true, Ordering::Release);
        server.breaks_at_poison.store(true, Ordering::Release);
        let telemetry = builder(address, directory.path()).build().expect("telemetry");
        {
            let _in = telemetry.enter();
            for n in 0..9 {
                decision("act").action(if n == poison { "poison" } else { "pay" }).record();
            }
        }
        flush_all(&telemetry, 9);
        assert_eq!(server.kept().len(), 8, "the others have arrived");
        assert_eq!(telemetry.counts().decision_spool.set_aside, 1);
        telemetry.shutdown().expect_err("one has not arrived");
        file_with(directory.path(), ".refused");
    }
}

#[test]
fn r4_4_a_receiver_that_fails_at_everything_gets_everything_once_it_is_mended() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, server) = Server::start();
    server.answer_with(500);
    let telemetry = builder(address, directory.path()).build().expect("telemetry");
    {
        let _in = telemetry.enter();
        for _ in 0..9 {
            decision("act").action("pay").record();
        }
    }
    // Far more often than it takes to suspect one.
    while server.requests.load(Ordering::Acquire) < 24 {
        telemetry.flush();
    }
    assert_eq!(telemetry.counts().decision_spool.set_aside, 0);
    server.answer_with(0);
    flush_all(&telemetry, 9);
    assert_eq!(server.kept().len(), 9);
    telemetry.shutdown().expect("nothing is lost");
}

#[test]
fn r4_4_what_an_earlier_process_left_is_set_aside_like_our_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, server) = Server::start();
    server.set_down(true);
    let telemetry = builder(address, directory.path()).build().expect("telemetry");
    for action in ["pay", "poison", "ship"] {
        let _in = telemetry.enter();
        decision("act").action(action).record();
    }
    telemetry.shutdown().expect("what is on disk is not lost");
    drop(telemetry);
    server.knows_poison.store(true, Ordering::Release);
    server.set_down(false);
    let next = builder(address, directory.path()).build().expect("telemetry");
    next.flush();
    let counts = next.counts().decision_spool;
    assert_eq!((counts.replayed, counts.set_aside), (2, 1));
    next.shutdown().expect("nothing of this process is lost");
    file_with(directory.path(), ".refused");
}

#[test]
fn r4_4_a_receiver_that_refuses_everything_is_not_asked_about_each() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, server) = Server::start();
    server.answer_with(413);
    let telemetry = builder(address, directory.path()).build().expect("telemetry");
    {
        let _in = telemetry.enter();
        for _ in 0..2_000 {
            decision("act").action("pay").record();
        }
    }
    telemetry.flush();
    let counts = telemetry.counts();
    assert_eq!((counts.decisions.failed, counts.decision_spool.set_aside), (2_000, 2_000));
    let requests = server.requests.load(Ordering::Acquire);
    assert!(requests < 100, "{requests} requests");
    server.set_down(false);
    {
        let _in = telemetry.enter();
        decision("act").action("ship").record();
    }
    telemetry.flush();
    assert_eq!(server.kept().len(), 1, "what comes later goes on");
}

#[test]
fn r4_4_wrong_credentials_keep_decisions_until_they_are_right() {
    for status in [401, 403, 404] {
        let directory = tempfile::tempdir().expect("a directory");
        let (address, server) = Server::start();
        server.answer_with(status);
        let telemetry = builder(address, directory.path()).build().expect("telemetry");
        let _in = telemetry.enter();
        decision("act").action("pay").record();
        telemetry.flush();
        let counts = telemetry.counts();
        assert_eq!((counts.decision_spool.waiting, counts.decision_spool.set_aside), (1, 0));
        assert_eq!(counts.decisions.failed, 0);
        server.answer_with(0);
        telemetry.flush();
        wait_until("it arrives", || telemetry.counts().decisions.exported == 1);
        assert_eq!(server.kept().len(), 1, "{status}");
    }
}

/// A receiver over gRPC that answers with one code.
#[derive(Clone)]
struct Coded(Arc<Mutex<Code>>);

#[tonic::async_trait]
impl LogsService for Coded {
    async fn export(
        &self,
        _: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        match *self.0.lock().expect("a code") {
            Code::Ok => Ok(Response::new(ExportLogsServiceResponse::default())),
            code => Err(Status::new(code, "as the test says")),
        }
    }
}

impl Coded {
    fn start(code: Code) -> (SocketAddr, Self) {
        let server = Self(Arc::new(Mutex::new(code)));
        let served = server.clone();
        let address = crate::receiver::serve(move || {
            tonic::service::Routes::new(LogsServiceServer::new(served)).prepare().into_axum_router()
        });
        (address, server)
    }
}

#[test]
fn r4_4_over_grpc_the_code_says_what_becomes_of_a_decision() {
    for (code, set_aside) in [
        (Code::InvalidArgument, 1),
        (Code::Unauthenticated, 0),
        (Code::PermissionDenied, 0),
        (Code::Unimplemented, 0),
        (Code::Unavailable, 0),
        (Code::OutOfRange, 0),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let (address, server) = Coded::start(code);
        let telemetry = builder(address, directory.path())
            .protocol(OtlpProtocol::Grpc)
            .build()
            .expect("telemetry");
        let _in = telemetry.enter();
        decision("act").action("pay").record();
        telemetry.flush();
        let counts = telemetry.counts().decision_spool;
        assert_eq!((counts.waiting, counts.set_aside), (1 - set_aside, set_aside), "{code:?}");
        *server.0.lock().expect("a code") = Code::Ok;
        decision("act").action("ship").record();
        telemetry.flush();
        wait_until("the rest arrives", || telemetry.counts().decision_spool.waiting == 0);
        assert_eq!(telemetry.counts().decisions.exported, 2 - set_aside, "{code:?}");
    }
}
