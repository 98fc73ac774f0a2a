//! `cargo run --release -p throughline-bench-sdk [spans|tasks|streams]`: what the SDK costs in an agent's process, against
//! the bare OpenTelemetry layer of `tracing`, against `fastrace`, and against the same work without
//! it. Figures are printed, never asserted: machines are noisy. What is compared runs in turns, so
//! that a change of the machine's pace meets all of it, and the median of the rounds counts.
//!
//! `… alone WHAT TURNS` does one of them so often and says nothing, for a program that counts its
//! instructions: `bench/sdk-instructions.sh`.

mod alone;
mod conditions;
mod spans;
mod streams;
mod tasks;

use std::time::Instant;

use tracing_subscriber::layer::SubscriberExt as _;

/// Rounds of each measurement; the median counts.
const ROUNDS: usize = 31;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("alone") {
        return alone::run(arguments.next(), arguments.next());
    }
    let mut table = Table::default();
    let wanted = |what: &str| std::env::args().skip(1).all(|arg| arg == what);
    if wanted("spans") {
        spans::measure(&mut table)?;
    }
    if wanted("tasks") {
        tasks::measure(&mut table)?;
    }
    if wanted("streams") {
        streams::measure(&mut table)?;
    }
    table.print();
    Ok(())
}

/// One round of a measurement: nanoseconds of one turn.
type Round<'a> = Box<dyn FnMut() -> f64 + 'a>;

/// Nanoseconds of one turn of each: the medians of rounds that take turns, and the rounds that a
/// tenth of all are faster than, which nobody disturbed.
fn measured<const N: usize>(mut contenders: [Round<'_>; N]) -> ([f64; N], [f64; N]) {
    let mut rounds = [const { Vec::new() }; N];
    for round in 0..=ROUNDS {
        for (contender, taken) in contenders.iter_mut().zip(&mut rounds) {
            let ns = contender();
            // The first round warms caches and the allocator up.
            if round > 0 {
                taken.push(ns);
            }
        }
    }
    for taken in &mut rounds {
        taken.sort_by(f64::total_cmp);
    }
    let at =
        |place: usize| rounds.each_ref().map(|taken| taken.get(place).copied().unwrap_or(f64::NAN));
    (at(ROUNDS / 2), at(ROUNDS / 10))
}

/// Nanoseconds of one turn of `work`, which does `turns` of them.
fn ns_each(turns: u32, work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e9 / f64::from(turns)
}

/// Our layer for the whole process from here on, as an agent has it: a subscriber of one thread, as
/// the spans are measured with, makes `tracing` look for it at every turn.
fn subscribe() {
    let subscriber = tracing_subscriber::registry().with(throughline::layer());
    // An error means that it is there already.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// What was measured, in the order of measuring.
#[derive(Default)]
struct Table {
    rows: Vec<(String, String)>,
}

impl Table {
    fn row(&mut self, what: &str, figure: String) {
        self.rows.push((what.to_owned(), figure));
    }

    /// What something adds to what it is measured beside.
    fn added(&mut self, what: &str, [median, undisturbed]: [f64; 2], target: &str) {
        let figure = format!("{median:.0} ns, undisturbed {undisturbed:.0} ns ({target})");
        self.row(what, figure);
    }

    fn ns(&mut self, what: &str, ns: f64) {
        self.row(what, format!("{ns:.0} ns"));
    }

    #[expect(clippy::print_stdout, reason = "the table is what the program is for")]
    fn print(&self) {
        println!("{}", conditions::text());
        for (what, figure) in &self.rows {
            println!("{what:<56} {figure}");
        }
    }
}
