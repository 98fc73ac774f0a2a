//! A task that carries its trace, against one that does not.

use throughline::{Recorder, Telemetry, span, task};
use tokio::task::JoinHandle;

use crate::{Table, medians, ns_each, subscribe};

/// Tasks of one round.
pub(crate) const TASKS: u32 = 20_000;

/// Tasks that are started before the first is awaited.
const AT_ONCE: u32 = 100;

pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let telemetry = Telemetry::builder().environment(false).recorder(&Recorder::new()).build()?;
    for (what, has_layer) in [("no tracing layer", false), ("one", true)] {
        if has_layer {
            subscribe();
        }
        let _in = telemetry.enter();
        let outer = span("outer").start();
        let round = |spawn: fn() -> JoinHandle<()>| {
            ns_each(TASKS, || {
                runtime.block_on(outer.instrument(async {
                    for _ in 0..TASKS / AT_ONCE {
                        let tasks: Vec<_> = (0..AT_ONCE).map(|_| spawn()).collect();
                        for task in tasks {
                            let _ = task.await;
                        }
                    }
                }));
            })
        };
        let [raw, in_span, carried] = medians([
            Box::new(|| round(|| tokio::spawn(async {}))),
            Box::new(|| round(|| tokio::spawn(tracing::Instrument::in_current_span(async {})))),
            Box::new(|| round(|| task::spawn(async {}))),
        ]);
        table.ns(&format!("tokio::spawn and its end, with {what}"), raw);
        table.ns("tracing's own in_current_span adds to it", in_span - raw);
        let added = carried - raw;
        table.row(&format!("task::spawn adds, with {what}"), format!("{added:.0} ns (target 200)"));
    }
    Ok(())
}
