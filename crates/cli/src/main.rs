//! The binary `throughline`: a table from command to function. Read [`spine`] first.

mod acting;
mod admission;
mod anchors;
mod args;
mod clickhouse;
mod commands;
mod config;
mod draw;
mod events;
mod failure;
mod gateway;
mod governing;
mod listen;
mod logging;
mod offered;
mod open_files;
mod opening;
mod redaction;
mod settings;
mod show;
mod spine;
mod table;
mod tls;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};

use crate::args::{Arguments, Color, Command, ServeArgs};
use crate::failure::Outcome;
use crate::logging::Logger;

/// Records are allocated on the threads of requests and freed on the store's, which glibc's allocator
/// pays for with locks and searches.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for queries and other blocking work. The store lets in fewer queries than that; the
/// runtime's own default of 512 would be memory for nothing.
const MAX_BLOCKING_THREADS: usize = 32;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(arguments: Arguments) -> Outcome {
    let Arguments { global, command } = arguments;
    match global.color {
        Color::Auto => anstream::ColorChoice::Auto,
        Color::Always => anstream::ColorChoice::AlwaysAnsi,
        Color::Never => anstream::ColorChoice::Never,
    }
    .write_global();
    let command = command.unwrap_or_else(|| Command::Serve(ServeArgs::default()));
    if let Command::Version(args) = &command {
        return commands::version::run(args);
    }
    let (config_file, config) = settings::read_config(&global)?;
    let settings = settings::resolve(&global, config_file, &config)?;
    logging::start(
        &settings,
        match command {
            Command::Serve(_) => Logger::Server,
            Command::Demo(_) => Logger::Demo,
            _ => Logger::Command,
        },
    )?;
    match command {
        Command::Serve(args) => {
            let serve = settings::resolve_serve(&args, &config)?;
            on_server_runtime(commands::serve::run(&settings, &serve))
        }
        Command::Demo(args) => {
            let serve = settings::resolve_serve(&args.serve, &config)?;
            let data_dir = global.data_dir.as_deref();
            on_server_runtime(commands::demo::run(&settings, &serve, data_dir, &args))
        }
        Command::Trace(args) => query_runtime()?.block_on(commands::trace::run(&settings, &args)),
        Command::Continuity(args) => {
            query_runtime()?.block_on(commands::continuity::run(&settings, &args))
        }
        Command::Traces(args) => query_runtime()?.block_on(commands::traces::run(&settings, &args)),
        Command::Decisions(args) => {
            query_runtime()?.block_on(commands::decisions::run(&settings, &args))
        }
        Command::Check(args) => {
            query_runtime()?.block_on(commands::check::run(&settings, &config.act, &args))
        }
        Command::Signals(args) => {
            let rules = governing::RuleFiles::new(config.governance.rules.clone());
            query_runtime()?.block_on(commands::signals::run(&settings, rules, &args))
        }
        Command::Slo(args) => query_runtime()?.block_on(commands::slo::run(&settings, &args)),
        Command::Query(args) => query_runtime()?.block_on(commands::query::run(&settings, &args)),
        Command::Audit(args) => {
            query_runtime()?.block_on(commands::audit::run(&settings, args.action))
        }
        Command::Store(args) => {
            query_runtime()?.block_on(commands::store::run(&settings, args.action))
        }
        Command::Backup(args) => commands::store::back(&settings, &args),
        Command::Restore(args) => commands::store::restore_into(&settings, &args),
        Command::Export(args) => query_runtime()?.block_on(commands::export::run(&settings, &args)),
        Command::Import(args) => query_runtime()?.block_on(commands::import::run(&args)),
        Command::Experiment(args) => {
            let rules = governing::RuleFiles::new(config.governance.rules.clone());
            commands::experiment::run(&settings, rules, args.action)
        }
        Command::Contract(args) => {
            query_runtime()?.block_on(commands::contract::run(&settings, args.action))
        }
        Command::Act(args) => {
            query_runtime()?.block_on(commands::act::run(&settings, &config.act, args.action))
        }
        Command::Keys(args) => commands::keys::run(&settings, args.action),
        Command::Version(args) => commands::version::run(&args),
    }
}

/// As many workers as there are cores.
fn on_server_runtime(work: impl Future<Output = Outcome>) -> Outcome {
    let mut builder = Builder::new_multi_thread();
    builder.thread_name("throughline").max_blocking_threads(MAX_BLOCKING_THREADS).enable_all();
    let runtime = builder.build()?;
    let outcome = runtime.block_on(work);
    // After a drain nothing is left to wait for; without one nobody wants to wait.
    runtime.shutdown_background();
    outcome
}

/// One thread is enough to ask one question.
fn query_runtime() -> Outcome<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
