//! Arguments of `throughline query`.

use clap::Args;
use throughline_store::{DEFAULT_SQL_ROWS, DEFAULT_SQL_TIMEOUT};

/// What to ask in SQL, and how to print it.
#[derive(Debug, Clone, Args)]
pub(crate) struct QueryArgs {
    /// One SELECT over the tables that --schema lists; `-` reads it from standard input
    #[arg(value_name = "SQL", required_unless_present = "schema")]
    pub(crate) sql: Option<String>,
    /// Print the tables, columns and functions
    #[arg(long, conflicts_with_all = ["sql", "server"])]
    pub(crate) schema: bool,
    /// Value of a parameter (`:name` in the statement): NAME=VALUE; may be repeated
    #[arg(long = "param", short = 'p', value_parser = parse_parameter, value_name = "NAME=VALUE")]
    pub(crate) parameters: Vec<(String, String)>,
    /// Ask a running server (http://127.0.0.1:4319) rather than the data directory
    #[arg(long, env = "THROUGHLINE_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// API key for that server, with the scope `read`
    #[arg(long, env = "THROUGHLINE_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// Most rows
    #[arg(long, short = 'n', default_value_t = DEFAULT_SQL_ROWS, value_name = "COUNT")]
    pub(crate) max_rows: usize,
    /// Longest that the statement may take (500ms, 30s)
    #[arg(
        long,
        default_value_t = DEFAULT_SQL_TIMEOUT.as_millis() as u64,
        hide_default_value = true,
        value_parser = super::parse_duration_ms,
        value_name = "DURATION"
    )]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) form: FormArgs,
}

/// In which form rows are printed; as a table when nothing is said.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub(crate) struct FormArgs {
    /// Print one JSON object, as /api/v1/sql answers it
    #[arg(long)]
    pub(crate) json: bool,
    /// Print one JSON object a row, by the names of the columns
    #[arg(long)]
    pub(crate) ndjson: bool,
    /// Print CSV with a line of names
    #[arg(long)]
    pub(crate) csv: bool,
}

fn parse_parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let name = name.strip_prefix([':', '@', '$']).unwrap_or(name);
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(format!("expected NAME=VALUE, got {text:?}")),
    }
}
