//! Threads that keep the trace they were started in: what [`std::thread`] has, carried.

use std::io;
use std::thread::{JoinHandle, ScopedJoinHandle};

use crate::task::carried_call;

/// [`std::thread::spawn`] in the surroundings of this line.
///
/// # Panics
/// When the system refuses a thread, as `std::thread::spawn` does; [`Builder::spawn`] says so.
#[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
pub fn spawn<F, T>(work: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    std::thread::spawn(carried_call(work))
}

/// [`std::thread::Builder`], carried.
#[derive(Debug)]
#[must_use = "a thread starts with `spawn`"]
pub struct Builder {
    inner: std::thread::Builder,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A thread as the system makes it.
    pub fn new() -> Self {
        Self { inner: std::thread::Builder::new() }
    }

    /// The thread's name.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { inner: self.inner.name(name.into()) }
    }

    /// The stack's size, bytes.
    pub fn stack_size(self, bytes: usize) -> Self {
        Self { inner: self.inner.stack_size(bytes) }
    }

    /// Starts the thread in the surroundings of this line.
    ///
    /// # Errors
    /// When the system refuses a thread.
    #[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
    pub fn spawn<F, T>(self, work: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.inner.spawn(carried_call(work))
    }

    /// Starts the thread within a [`scope`], in the surroundings of this line.
    ///
    /// # Errors
    /// When the system refuses a thread.
    #[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: Scope<'scope, 'env>,
        work: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.inner.spawn_scoped(scope.inner, carried_call(work))
    }
}

/// [`std::thread::scope`], carried.
///
/// ```
/// use throughline::task::thread;
///
/// let words = ["one", "two"];
/// let lengths = thread::scope(|scope| {
///     let threads = words.map(|word| scope.spawn(move || word.len()));
///     threads.map(|thread| thread.join().unwrap_or_default())
/// });
/// assert_eq!(lengths, [3, 3]);
/// ```
#[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
pub fn scope<'env, F, T>(work: F) -> T
where
    F: for<'scope> FnOnce(Scope<'scope, 'env>) -> T,
{
    std::thread::scope(|inner| work(Scope { inner }))
}

/// [`std::thread::Scope`], carried.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'scope, 'env: 'scope> {
    inner: &'scope std::thread::Scope<'scope, 'env>,
}

impl<'scope> Scope<'scope, '_> {
    /// Starts a thread in the surroundings of this line.
    ///
    /// # Panics
    /// When the system refuses a thread, as [`std::thread::Scope::spawn`] does.
    #[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
    pub fn spawn<F, T>(self, work: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.inner.spawn(carried_call(work))
    }
}
