//! Parallel work that keeps the trace it was started in: what `rayon` has, carried.
//!
//! A thread of rayon that waits for one piece of work takes up another meanwhile, so raw work can
//! run in the middle of somebody else's trace. Work that is started here has its own.

use ::rayon::ThreadPool;

use crate::task::{Origin, carried_call};

/// `rayon::spawn` in the surroundings of this line.
#[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
pub fn spawn(work: impl FnOnce() + Send + 'static) {
    ::rayon::spawn(carried_call(work));
}

/// `rayon::join`, both in the surroundings of this line.
#[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
pub fn join<A, B>(left: impl FnOnce() -> A + Send, right: impl FnOnce() -> B + Send) -> (A, B)
where
    A: Send,
    B: Send,
{
    ::rayon::join(carried_call(left), carried_call(right))
}

/// `rayon::scope`, carried.
#[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
pub fn scope<'scope, R: Send>(work: impl for<'a> FnOnce(Scope<'a, 'scope>) -> R + Send) -> R {
    let origin = Origin::here();
    ::rayon::scope(move |inner| origin.run(|| work(Scope { inner })))
}

/// `Scope` of rayon, carried.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a, 'scope> {
    inner: &'a ::rayon::Scope<'scope>,
}

impl<'scope> Scope<'_, 'scope> {
    /// Starts work in the surroundings of this line.
    #[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
    pub fn spawn(self, work: impl for<'b> FnOnce(Scope<'b, 'scope>) + Send + 'scope) {
        let origin = Origin::here();
        self.inner.spawn(move |inner| origin.run(|| work(Scope { inner })));
    }
}

/// [`ThreadPool::install`], in the surroundings of this line.
#[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
pub fn install<R: Send>(pool: &ThreadPool, work: impl FnOnce() -> R + Send) -> R {
    pool.install(carried_call(work))
}

/// The closure of a parallel iterator in the surroundings of this line, wherever rayon calls it.
///
/// ```
/// use rayon::prelude::*;
/// use throughline::task::rayon::carry;
///
/// let lengths: Vec<usize> = ["one", "three"].par_iter().map(carry(|word: &&str| word.len())).collect();
/// assert_eq!(lengths, [3, 5]);
/// ```
pub fn carry<A, R>(work: impl Fn(A) -> R + Clone) -> impl Fn(A) -> R + Clone {
    let origin = Origin::here();
    move |item| origin.run(|| work(item))
}
