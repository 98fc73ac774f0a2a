//! Users: a list with totals, and one user as the conversation of its traces.

use axum::extract::State;
use maud::Markup;
use throughline_api::InPath;
use throughline_store::TraceFilter;

use super::sessions::{self, Group};
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::params::Params;
use crate::state::Shared;

const USERS: Group = Group {
    path: "/users",
    title: "Users",
    one: "user",
    param: "user",
    none: "No trace names a user here: set user.id on a span.",
    other: ("/sessions", "Sessions"),
    beside: ("Sessions", |user| &user.sessions),
};

/// `GET /users`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    let filter = sessions::chosen(&params, &visitor)?;
    let page = app.web.reader.users(&filter, params.text("cursor"), params.limit()?).await?;
    sessions::draw(&app, &visitor, &params, &USERS, &page).await
}

/// `GET /users/{user}`: its traces in the order in which they happened, each with what was asked and
/// what was answered.
pub(crate) async fn one(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(user): InPath<String>,
    params: Params,
) -> Result<Markup, Failure> {
    let filter = TraceFilter { user: Some(user.clone()), ..TraceFilter::default() };
    let totals = app.web.reader.users(&filter, None, 1).await?.items.into_iter().next();
    let totals = totals.ok_or_else(|| Failure::not_found(USERS.one, &user))?;
    sessions::conversation(&app, &visitor, &params, &USERS, (&filter, &totals)).await
}
