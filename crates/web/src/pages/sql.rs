//! SQL by hand: a statement, its rows, and the tables that there are beside it.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use throughline_store::{
    DEFAULT_SQL_TIMEOUT, MAX_SQL_TEXT_BYTES, SqlAnswer, SqlCut, SqlError, SqlKind, SqlQuery,
    SqlValue, SqlView, sql_functions, sql_views,
};
use throughline_trace::TraceId;

use crate::doors::Visitor;
use crate::failure::Failure;
use crate::form::{ShortForm, check_token};
use crate::format::{self, cut};
use crate::layout::{self, Nav};
use crate::params::{Params, query_string};
use crate::reads::Via;
use crate::sql::{self, value_text};
use crate::state::{App, Shared};

/// Most rows on the page.
const PAGE_ROWS: usize = 200;

/// Most rows of a file that is taken away.
const FILE_ROWS: usize = 50_000;

/// Largest form with a statement, bytes: each byte of it may be written as three.
pub(crate) const MAX_FORM_BYTES: usize = 3 * MAX_SQL_TEXT_BYTES + 1_024;

/// Most characters of a value on the page.
const CELL_CHARS: usize = 160;

/// Longest value that is kept on one line, characters.
const LINE_CHARS: usize = 48;

/// Statements to begin with.
const EXAMPLES: [(&str, &str); 6] = [
    (
        "Cost by model, last day",
        "SELECT model, count(*) AS calls, sum(input_tokens + output_tokens) AS tokens,\n       round(sum(cost_usd), 4) AS cost_usd\nFROM llm_calls\nWHERE start_unix_nano >= unix_nano('1d')\nGROUP BY model ORDER BY cost_usd DESC",
    ),
    (
        "Last failures",
        "SELECT iso(start_unix_nano) AS at, service, name, error_type, status_message, trace_id\nFROM spans WHERE status = 'error'\nORDER BY start_unix_nano DESC LIMIT 50",
    ),
    (
        "Slowest tools",
        "SELECT tool, count(*) AS runs, sum(status = 'error') AS failed,\n       round(quantile(duration_nano, 0.95) / 1e9, 3) AS p95_seconds\nFROM tool_calls\nWHERE start_unix_nano >= unix_nano('1d')\nGROUP BY tool ORDER BY p95_seconds DESC",
    ),
    (
        "Tokens by hour",
        "SELECT iso(start_unix_nano) AS hour, model, llm_calls, input_tokens, output_tokens, cost_usd\nFROM rollups\nWHERE resolution = '1h' AND level = 'model' AND start_unix_nano >= unix_nano('1d')\nORDER BY start_unix_nano DESC",
    ),
    (
        "Unsure decisions",
        "SELECT iso(time_unix_nano) AS at, agent, stage, action, confidence, reason, trace_id\nFROM decisions WHERE confidence < 0.6\nORDER BY time_unix_nano DESC LIMIT 50",
    ),
    (
        "Most expensive sessions",
        "SELECT session, traces, turns, round(cost_usd, 4) AS cost_usd, errors\nFROM sessions ORDER BY cost_nano_usd DESC LIMIT 20",
    ),
];

/// What is done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    Csv,
    Json,
}

/// The page's own form.
#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    token: String,
    query: String,
    form: Option<Form>,
}

/// `GET /sql`: the page; with `form` the answer as a file.
///
/// A statement in the address is run only where the browser says that our own page or the person asked
/// for it: everybody can make a link. Browsers say so over HTTPS and to this machine; where none does,
/// the statement stands in the form, and its button sends it.
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Failure> {
    params.expect_only(&[&["query", "form"]])?;
    let form = params.read("form", "csv or json", |text| match text {
        "csv" => Some(Form::Csv),
        "json" => Some(Form::Json),
        _ => None,
    })?;
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    // No foreign page can have a browser send such a key; a name and a password it can.
    let told = headers.get(header::AUTHORIZATION).and_then(|told| told.to_str().ok());
    let scheme = told.and_then(|told| told.split_whitespace().next());
    let is_by_key = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"));
    let is_asked = is_by_key || matches!(site, Some("same-origin" | "none"));
    let page = Page { visitor: &visitor, has_addresses: site.is_some() };
    match params.text("query") {
        Some(text) if is_asked => run(&app, &page, text, form).await,
        text => Ok(page.draw(text.unwrap_or_default(), None).into_response()),
    }
}

/// `POST /sql`: the form of the page, where the address cannot be believed.
pub(crate) async fn ask(
    State(app): State<Shared>,
    visitor: Visitor,
    headers: HeaderMap,
    ShortForm(asked): ShortForm<Asked>,
) -> Result<Response, Failure> {
    check_token(&app, &headers, &asked.token)?;
    let has_addresses = headers.contains_key("sec-fetch-site");
    run(&app, &Page { visitor: &visitor, has_addresses }, &asked.query, asked.form).await
}

async fn run(
    app: &App,
    page: &Page<'_>,
    text: &str,
    form: Option<Form>,
) -> Result<Response, Failure> {
    let max_rows = if form.is_some() { FILE_ROWS } else { PAGE_ROWS };
    let query = SqlQuery { max_rows, ..SqlQuery::new(text) };
    let answer = sql::ask(app, page.visitor, Via::Page, query).await;
    match form {
        Some(form) => {
            let answer = answer.map_err(|error| sql::failure(&error))?;
            let _turn = app.turns.take().await?;
            Ok(to_file(&answer, form))
        }
        None => {
            let status = match &answer {
                Ok(_) => StatusCode::OK,
                Err(error) => sql::failure(error).status,
            };
            Ok((status, page.draw(text, Some(&answer))).into_response())
        }
    }
}

fn to_file(answer: &SqlAnswer, form: Form) -> Response {
    let (kind, name, text) = match form {
        Form::Csv => {
            ("text/csv; charset=utf-8", "attachment; filename=\"query.csv\"", sql::sql_csv(answer))
        }
        Form::Json => (
            "application/json",
            "attachment; filename=\"query.json\"",
            sql::sql_json(answer).to_string(),
        ),
    };
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(name));
    response
}

/// The page as one person's browser gets it.
struct Page<'a> {
    visitor: &'a Visitor,
    /// The browser says where addresses come from: forms may make addresses, which can be kept.
    has_addresses: bool,
}

impl Page<'_> {
    fn draw(&self, text: &str, answer: Option<&Result<SqlAnswer, SqlError>>) -> Markup {
        let rows = text.lines().count().clamp(6, 18);
        let body = html! {
            div.head {
                h1 { "SQL" }
                p.grow { "One SELECT over everything that is stored; it only reads" }
            }
            div.sqlpage {
                div.asked {
                    (self.form("card box sqlform", &html! {
                        label.vh for="statement" { "Statement" }
                        textarea.mono #statement name="query" rows=(rows) spellcheck="false"
                            autocapitalize="off" autocomplete="off" required placeholder="SELECT …" { (text) }
                        div.run {
                            button.btn.main type="submit" { "Run" }
                            span.muted { "at most " (DEFAULT_SQL_TIMEOUT.as_secs()) " s and " (PAGE_ROWS) " rows here" }
                        }
                    }))
                    @match answer {
                        None => (examples()),
                        Some(Ok(answer)) => (self.result(text, answer)),
                        Some(Err(error)) => (mistake(text, error)),
                    }
                }
                (schema())
            }
        };
        layout::page(self.visitor, Nav::Sql, "SQL", body)
    }

    /// A form that runs a statement.
    fn form(&self, class: &str, fields: &Markup) -> Markup {
        let token = self.visitor.form_token.as_ref().filter(|_| !self.has_addresses);
        html! {
            form class=(class) method=(if self.has_addresses { "get" } else { "post" }) action="/sql" {
                @if let Some(token) = token { input type="hidden" name="token" value=(token); }
                (fields)
            }
        }
    }

    fn result(&self, text: &str, answer: &SqlAnswer) -> Markup {
        let now_unix_nano = self.visitor.now_unix_nano;
        html! {
            div.sqlsum {
                p.grow {
                    b { (format::count(answer.rows.len() as u64)) @if answer.rows.len() == 1 { " row" } @else { " rows" } }
                    " in " (sql::millis(answer.elapsed)) " ms"
                    @match answer.cut {
                        Some(SqlCut::Rows) => ", and there are more: take them as a file, or group them",
                        Some(SqlCut::Bytes) => ", and there are more: this is all that an answer may hold",
                        None => "",
                    }
                    @if answer.is_sampled {
                        ". Sampling took spans or log records of what was read: weight counts and sums with sampling_weight"
                    }
                }
                (self.form("tools", &html! {
                    input type="hidden" name="query" value=(text);
                    button.btn type="submit" name="form" value="csv" { "CSV" }
                    button.btn type="submit" name="form" value="json" { "JSON" }
                }))
            }
            div.sheet-list.scroll {
                table.plain.sqlrows aria-label="Rows" {
                    thead { tr {
                        @for column in &answer.columns {
                            th.num[is_number(column.kind)] title=[column.kind.map(SqlKind::as_str)] { (cut(&column.name, CELL_CHARS)) }
                        }
                    } }
                    tbody {
                        @for row in &answer.rows {
                            tr {
                                @for (value, column) in row.iter().zip(&answer.columns) {
                                    td.num[is_number(value.kind())] { (cell(&column.name, value, now_unix_nano)) }
                                }
                            }
                        }
                        @if answer.rows.is_empty() {
                            tr { td colspan=(answer.columns.len()) { div.none { p { "No row fits." } } } }
                        }
                    }
                }
            }
        }
    }
}

fn examples() -> Markup {
    html! {
        section.card.box.samples {
            h2 { "To begin with" }
            @for (title, text) in EXAMPLES {
                a.sample href={ "/sql" (query_string([("query", text)].into_iter())) } {
                    b { (title) }
                    pre { (text) }
                }
            }
        }
    }
}

fn mistake(text: &str, error: &SqlError) -> Markup {
    let failure = sql::failure(error);
    html! {
        section.card.box.sqlmistake role="alert" {
            h2 { (failure.message) }
            @if let SqlError::Syntax { line_and_column: Some((line, column)), .. } = error {
                @if let Some(line) = text.lines().nth(line.saturating_sub(1)) {
                    pre { (pointed(line, *column)) }
                }
            }
            @if !failure.hint.is_empty() { p.muted { "Hint: " (marked(&failure.hint)) "." } }
        }
    }
}

/// Characters of a long line that are shown before the place.
const BEFORE_PLACE: usize = 60;

/// A line with a mark below a column, which is counted from 1.
fn pointed(line: &str, column: usize) -> String {
    let from = column.saturating_sub(BEFORE_PLACE + 1);
    let shown: String = line.chars().skip(from).take(2 * BEFORE_PLACE).collect();
    format!("{shown}\n{}^", " ".repeat(column.saturating_sub(from + 1)))
}

fn is_number(kind: Option<SqlKind>) -> bool {
    matches!(kind, Some(SqlKind::Integer | SqlKind::Real))
}

/// A value; ids of traces lead there, and times say what they are.
fn cell(column: &str, value: &SqlValue, now_unix_nano: u64) -> Markup {
    match value {
        SqlValue::Null => html! { span.muted title="null" { "–" } },
        SqlValue::Text(id) if column == "trace_id" && id.parse::<TraceId>().is_ok() => {
            html! { a.link.line href={ "/traces/" (id) } { (id) } }
        }
        SqlValue::Integer(nanos) if column.ends_with("unix_nano") && *nanos > 0 => {
            let at = nanos.unsigned_abs();
            html! {
                time datetime=(format::rfc3339(at)) title={ (format::absolute(at)) ", " (format::relative(at, now_unix_nano)) } { (nanos) }
            }
        }
        value => {
            let text = value_text(value);
            let is_short = text.chars().nth(LINE_CHARS).is_none();
            html! { span.line[is_short] { (cut(&text, CELL_CHARS)) } }
        }
    }
}

fn schema() -> Markup {
    let (own, others) = sql_functions();
    html! {
        aside.card.box.sqlschema aria-label="Tables" {
            h2 { "Tables" }
            @for view in sql_views() { (table(&view)) }
            h2 { "Functions" }
            dl {
                @for (call, about) in own { dt.mono { (call) } dd.soft { (marked(about)) } }
            }
            details {
                summary { "of SQLite" }
                p.mono.soft { (others.join(", ")) }
            }
        }
    }
}

/// A text whose words in backticks are code.
fn marked(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn table(view: &SqlView) -> Markup {
    html! {
        details {
            summary { b.mono { (view.name) } }
            p.soft { (marked(view.about)) }
            dl {
                @for column in &view.columns {
                    dt.mono { (column.name) " " small.muted { (column.kind.as_str()) } }
                    dd.soft { (marked(column.about)) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_below_its_column() {
        assert_eq!(pointed("SELECT nope", 8), "SELECT nope\n       ^");
        let long = format!("SELECT {}nope", "a, ".repeat(60));
        let shown = pointed(&long, 188);
        let (line, mark) = shown.split_once('\n').unwrap();
        assert_eq!(&line[mark.len() - 1..mark.len() + 3], "nope");
    }
}
