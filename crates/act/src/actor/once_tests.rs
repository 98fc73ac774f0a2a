//! What is done is done once, and to its end.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt as _;
use throughline_trace::Operation;

use super::tests::{asked, scene_of};
use super::*;

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
