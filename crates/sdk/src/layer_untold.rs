//! Spans of ours that the layer of `tracing-opentelemetry` has not been told of.
//!
//! What that layer keeps of a span costs as much as starting one, and is asked for by few: a child with an
//! explicit parent, a follower, a handle that is entered elsewhere, `OpenTelemetrySpanExt`. So of a span of
//! ours only its context is kept here, until the first of them asks.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use opentelemetry::Context;
use tracing::dispatcher::Dispatch;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::registry::LookupSpan;

/// Parts of the table, each under a lock of its own. A power of two.
const SHARDS: usize = 16;

/// The contexts of open spans of one subscriber, by their ids.
///
/// A shard is locked while one of its spans is told of: as long as that takes, the span cannot close.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    count: AtomicUsize,
    shards: [Shard; SHARDS],
}

#[derive(Debug, Default)]
struct Shard(Mutex<Contexts>);

type Contexts = HashMap<Id, Context, BuildHasherDefault<Spread>>;

impl Shard {
    fn open(&self) -> MutexGuard<'_, Contexts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Untold {
    /// Keeps the context of a span that is open.
    pub(crate) fn keep(&self, id: &Id, cx: Context) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.shard(id).open().insert(id.clone(), cx);
    }

    /// The span closes; says whether it was here.
    pub(crate) fn forget(&self, id: &Id) -> bool {
        if self.is_empty() {
            return false;
        }
        let forgotten = self.shard(id).open().remove(id);
        if forgotten.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        forgotten.is_some()
    }

    /// Tells of a span, if it is here.
    pub(crate) fn tell(&self, id: &Id, tell: impl FnOnce(&Id)) {
        if self.is_empty() {
            return;
        }
        let mut shard = self.shard(id).open();
        if let Some(cx) = shard.remove(id) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            let _attached = cx.attach();
            tell(id);
        }
    }

    /// Tells of all spans that are here.
    pub(crate) fn tell_all(&self, tell: impl Fn(&Id)) {
        if self.is_empty() {
            return;
        }
        for shard in &self.shards {
            let mut shard = shard.open();
            for (id, cx) in shard.drain() {
                self.count.fetch_sub(1, Ordering::Relaxed);
                let _attached = cx.attach();
                tell(&id);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn shard(&self, id: &Id) -> &Shard {
        let at = usize::try_from(id.into_u64() % SHARDS as u64).unwrap_or_default();
        &self.shards[at]
    }
}

/// Spreads the ids of spans, which are small numbers mostly.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // By 2^64 over the golden ratio, and the better half folded onto the other.
        let spread = (self.0 ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = spread ^ (spread >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Tells a layer that has been given another place than its own of a span of the subscriber `S`: it
/// keeps what it keeps at the span itself, where every layer of its kind finds it.
pub(crate) struct Mirror<S> {
    whole: Dispatch,
    id: Id,
    subscriber: PhantomData<fn() -> S>,
}

impl<S> Mirror<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    /// Has `layer` see that the span is made, in the context that is current.
    pub(crate) fn show<L>(layer: L, whole: &Dispatch, id: &Id, attributes: &Attributes<'_>)
    where
        L: tracing_subscriber::Layer<Self>,
    {
        let mirror = Self { whole: whole.clone(), id: id.clone(), subscriber: PhantomData };
        layer.with_subscriber(mirror).new_span(attributes);
    }
}

impl<'a, S> LookupSpan<'a> for Mirror<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    type Data = <S as LookupSpan<'a>>::Data;

    fn span_data(&'a self, id: &Id) -> Option<Self::Data> {
        self.whole.downcast_ref::<S>()?.span_data(id)
    }
}

impl<S: 'static> Subscriber for Mirror<S> {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        self.id.clone()
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn told(untold: &Untold) -> Vec<u64> {
        let told = RefCell::new(Vec::new());
        untold.tell_all(|id| told.borrow_mut().push(id.into_u64()));
        let mut told = told.into_inner();
        told.sort_unstable();
        told
    }

    #[test]
    fn a_span_is_told_of_once_and_not_when_it_has_closed() {
        let untold = Untold::default();
        for id in 1..=40 {
            untold.keep(&Id::from_u64(id), Context::new());
        }
        assert!(untold.forget(&Id::from_u64(7)) && !untold.forget(&Id::from_u64(7)));
        let mut times = 0;
        for _ in 0..2 {
            untold.tell(&Id::from_u64(9), |_| times += 1);
        }
        assert_eq!(times, 1);
        let rest: Vec<u64> = (1..=40).filter(|id| ![7, 9].contains(id)).collect();
        assert_eq!((told(&untold), told(&untold)), (rest, Vec::new()));
        assert!(untold.is_empty());
    }
}
