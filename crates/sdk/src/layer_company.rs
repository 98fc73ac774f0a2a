//! Other OpenTelemetry layers in the subscriber that ours is in.
//!
//! `tracing-opentelemetry` keeps one record a span, and panics where two of its layers make one. Its
//! extension traits find a layer by a type that it keeps to itself; that type is what its layers are
//! known by here.

use std::any::TypeId;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::dispatcher::{Dispatch, WeakDispatch};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_opentelemetry::get_otel_context;

/// What our layer is to its subscriber.
#[derive(Debug, Default)]
pub(crate) struct Company {
    place: AtomicU8,
    /// It is only asked for what never changes, whatever panicked meanwhile.
    whole: OnceLock<AssertUnwindSafe<WeakDispatch>>,
}

/// Nobody has looked above yet; below there is none.
const UNKNOWN: u8 = 0;
/// The only one, as far as can be seen.
const ALONE: u8 = 1;
/// One too many.
const SECOND: u8 = 2;

impl Company {
    /// Whether another layer makes the spans, so that ours has to do nothing.
    pub(crate) fn is_second(&self) -> bool {
        self.place.load(Ordering::Relaxed) == SECOND
    }

    /// Ours comes on top of what is there already.
    pub(crate) fn look_below(&self, below: &dyn Subscriber, is_ours: impl FnOnce() -> bool) {
        if is_ours() || answers_extensions(below) {
            self.place.store(SECOND, Ordering::Relaxed);
        }
    }

    /// The subscriber is complete.
    pub(crate) fn is_in(&self, whole: &Dispatch) {
        let _ = self.whole.set(AssertUnwindSafe(whole.downgrade()));
    }

    /// The subscriber that ours is in, once it is complete.
    pub(crate) fn whole(&self) -> Option<Dispatch> {
        self.whole.get().and_then(|whole| whole.upgrade())
    }

    /// Looks, once, who is asked for a span that every layer below ours has seen and none above: the
    /// uppermost layer answers. `is_reachable` says whether the subscriber shows ours at all; one that
    /// can be reloaded is hidden.
    pub(crate) fn look_above(&self, span: &Id, is_reachable: impl FnOnce(&Dispatch) -> bool) {
        if self.place.load(Ordering::Relaxed) != UNKNOWN {
            return;
        }
        let Some(whole) = self.whole() else { return };
        let is_alone = !is_reachable(&whole)
            || asking(|| drop(get_otel_context(span, &whole))) == Asked::AndAnswered;
        let place = if is_alone { ALONE } else { SECOND };
        self.place.store(place, Ordering::Relaxed);
    }
}

/// Whether it is this module that asks a subscriber for its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    ByUs,
    /// And a layer of ours has answered.
    AndAnswered,
}

thread_local! {
    static ASKED: Cell<Asked> = const { Cell::new(Asked::No) };
}

fn asking(ask: impl FnOnce()) -> Asked {
    ASKED.set(Asked::ByUs);
    ask();
    ASKED.replace(Asked::No)
}

/// A layer of ours answers for a type of `tracing-opentelemetry`; says whether it was asked by somebody
/// else than this module.
pub(crate) fn answers_others() -> bool {
    if ASKED.get() == Asked::No {
        return true;
    }
    ASKED.set(Asked::AndAnswered);
    false
}

/// Whether a subscriber has a layer that the extension traits of `tracing-opentelemetry` find.
fn answers_extensions(subscriber: &dyn Subscriber) -> bool {
    #[expect(unsafe_code, reason = "the type is known by its id alone; nothing is read through it")]
    extensions_type().is_some_and(|id| {
        let mut is_there = false;
        // SAFETY: what is answered is only told from nothing.
        asking(|| is_there = unsafe { subscriber.downcast_raw(id) }.is_some());
        is_there
    })
}

/// The type that the extension traits of `tracing-opentelemetry` ask subscribers for.
fn extensions_type() -> Option<TypeId> {
    static FOUND: OnceLock<Option<TypeId>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let _ = get_otel_context(&Id::from_u64(1), &Dispatch::new(Probe));
        PROBED.take()
    })
}

thread_local! {
    static PROBED: Cell<Option<TypeId>> = const { Cell::new(None) };
}

/// A subscriber that has nothing and remembers what it was asked for.
struct Probe;

impl Subscriber for Probe {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::OFF)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    #[expect(unsafe_code, reason = "the only way to learn a type that is not public")]
    unsafe fn downcast_raw(&self, id: TypeId) -> Option<*const ()> {
        PROBED.set(Some(id));
        None
    }
}
