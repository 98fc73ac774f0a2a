//! What is done is done once, and to its end.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt as _;
use serde_json::json;
use throughline_trace::Operation;

use super::tests::{asked, scene_of};
use super::*;
use crate::standing::FREEZE;

/// An operation of another room that counts.
fn counting(count: &Arc<AtomicU32>) -> Hooks {
    let count = Arc::clone(count);
    let hook: Hook = Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Performed::Done("looked".to_owned()) }.boxed()
    });
    Hooks { investigate: Some(hook), ..Hooks::default() }
}

#[tokio::test]
async fn what_could_not_be_noted_is_noted_later_and_not_done_again() {
    let count = Arc::default();
    let scene = scene_of(&ActConfig::default(), counting(&count));
    let wanted = asked("a", Operation::Investigate);
    let actions = vec![wanted.clone()];
    scene.governance.commit(&Evaluation { actions, ..Evaluation::default() }).expect("committed");
    // What `note` leaves behind when the disk takes nothing.
    let record = ActionRecord {
        state: ActionState::Done,
        detail: "looked before".to_owned(),
        ..as_asked(&wanted, "")
    };
    scene.actor.keep(record);
    assert!(!scene.actor.is_due("a"), "not at once");
    scene.actor.look_for_actions().await;
    scene.actor.tries().waiting.clear();
    scene.actor.note_again().await;
    scene.actor.look_for_actions().await;
    scene.actor.inner.working.close();
    scene.actor.inner.working.wait().await;
    assert_eq!(count.load(Ordering::Relaxed), 0, "it was done before");
    let kept = scene.governance.action("a").expect("read").expect("kept");
    assert_eq!((kept.state, kept.detail.as_str()), (ActionState::Done, "looked before"));
    assert!(scene.actor.tries().unnoted.is_empty());
    scene.actor.perform(&asked("b", Operation::Investigate)).await;
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_was_begun_is_noted_also_when_whoever_asked_gives_up() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (is_begun, may_go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
    let hook: Hook = Arc::new(move |_| {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        async move {
            begun.notify_one();
            go_on.notified().await;
            Performed::Done("looked".to_owned())
        }
        .boxed()
    });
    let hooks = Hooks { investigate: Some(hook), ..Hooks::default() };
    let scene = scene_of(&ActConfig::default(), hooks);
    let order = json!({"id": "a", "operation": {"type": "investigate"}, "reason": "a look"});
    let request = scene.ask("POST", "/api/v1/actions", order);
    tokio::select! {
        answer = request => panic!("answered {answer:?}"),
        () = is_begun.notified() => {}
    }
    may_go_on.notify_one();
    scene.actor.inner.working.close();
    scene.actor.inner.working.wait().await;
    let kept = scene.governance.action("a").expect("read").expect("kept");
    assert_eq!((kept.state, kept.detail.as_str()), (ActionState::Done, "looked"));
}

#[tokio::test]
async fn an_id_stands_for_what_was_asked_for_under_it_first() {
    let count = Arc::default();
    let scene = scene_of(&ActConfig::default(), counting(&count));
    let actions = vec![asked("a", Operation::Investigate)];
    scene.governance.commit(&Evaluation { actions, ..Evaluation::default() }).expect("committed");
    let order = json!({"id": "a", "operation": {"type": "freeze", "ttl_s": 60}, "reason": "x"});
    let (_, answer) = scene.ask("POST", "/api/v1/actions", order).await;
    assert_eq!((&answer["told"], &answer["state"]), (&"investigate".into(), &"done".into()));
    assert_eq!(count.load(Ordering::Relaxed), 1);
    assert!(scene.governance.documents(FREEZE).expect("read").is_empty());
}
