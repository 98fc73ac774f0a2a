//! A task that carries its trace, against one that does not.

use throughline::{Recorder, Telemetry, span, task};
use tokio::task::JoinHandle;

use crate::{Table, measured, ns_each, subscribe};

/// Tasks of one round.
pub(crate) const TASKS: u32 = 20_000;

/// Tasks that are started before the first is awaited.
const AT_ONCE: u32 = 100;

const RAW: fn() -> JoinHandle<()> = || tokio::spawn(async {});
const IN_SPAN: fn() -> JoinHandle<()> =
    || tokio::spawn(tracing::Instrument::in_current_span(async {}));
const CARRIED: fn() -> JoinHandle<()> = || task::spawn(async {});

async fn tasks(spawn: fn() -> JoinHandle<()>, count: u32) {
    for _ in 0..count / AT_ONCE {
        let tasks: Vec<_> = (0..AT_ONCE).map(|_| spawn()).collect();
        for task in tasks {
            let _ = task.await;
        }
    }
}

/// Some tasks of one of the contenders, with our layer, alone.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn alone(contender: &str, count: u32) -> anyhow::Result<()> {
    let spawn = match contender {
        "raw-task" => RAW,
        "in-span-task" => IN_SPAN,
        "carried-task" => CARRIED,
        other => anyhow::bail!("expected raw-task, in-span-task or carried-task, got {other}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let telemetry = Telemetry::builder().environment(false).recorder(&Recorder::new()).build()?;
    subscribe();
    let _in = telemetry.enter();
    runtime.block_on(span("outer").start().instrument(tasks(spawn, count)));
    Ok(())
}

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
            ns_each(TASKS, || runtime.block_on(outer.instrument(tasks(spawn, TASKS))))
        };
        let ([raw, in_span, carried], [still_raw, still_in_span, still_carried]) = measured([
            Box::new(|| round(RAW)),
            Box::new(|| round(IN_SPAN)),
            Box::new(|| round(CARRIED)),
        ]);
        table.ns(&format!("tokio::spawn and its end, with {what}"), raw);
        let added = [in_span - raw, still_in_span - still_raw];
        table.added("tracing's own in_current_span adds to it", added, "no target");
        let added = [carried - raw, still_carried - still_raw];
        table.added(&format!("task::spawn adds, with {what}"), added, "target 200");
    }
    Ok(())
}
