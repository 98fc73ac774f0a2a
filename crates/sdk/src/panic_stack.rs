//! Where a panic came from, for the span that it ends (`error.stack`, requirement R4.3). It stays
//! with whoever reads the telemetry: no answer to a caller has it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::sync::Once;

/// Bytes of a stack on a span at most.
const STACK_MAX_BYTES: usize = 16 * 1024;

thread_local! {
    /// The stack of the thread's last panic, until a span has it.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Listens to the panics of the process from now on, before the hook that is there. The panic's
/// message is left out: it may quote anything.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    // While it panics a thread may not change the hook.
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            // Whether there is more than the place, `RUST_BACKTRACE` says.
            let trace = Backtrace::capture();
            let stack = match trace.status() {
                BacktraceStatus::Captured => format!("panicked at {place}\n{trace}"),
                _ => format!("panicked at {place}"),
            };
            // A thread that ends has none any more.
            let _ = LAST.try_with(|last| last.replace(Some(stack)));
            others(info);
        }));
    });
}

/// The stack of the panic that unwinds this thread, for the innermost span: once.
pub(crate) fn take() -> Option<String> {
    let mut stack = LAST.try_with(RefCell::take).ok().flatten()?;
    stack.truncate(stack.floor_char_boundary(STACK_MAX_BYTES));
    Some(stack)
}
