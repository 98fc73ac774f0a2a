//! The frame of every page.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::assets;
use crate::doors::Visitor;
use crate::icons::{icon, mark};

/// Settings of htmx that a strict content security policy needs, and nothing from elsewhere.
const HTMX_CONFIG: &str = r#"{"includeIndicatorStyles":false,"allowEval":false,"allowScriptTags":false,"selfRequestsOnly":true,"historyCacheSize":0,"refreshOnHistoryMiss":true,"defaultSettleDelay":0}"#;

/// Entries of the rail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nav {
    Overview,
    Traces,
    Decisions,
    Governance,
    Gateway,
    Logs,
    Series,
    Sql,
    Store,
    Setup,
    /// A page outside the rail.
    None,
}

const RAIL: [(Nav, &str, &str, &str); 10] = [
    (Nav::Overview, "/overview", "overview", "Overview"),
    (Nav::Traces, "/traces", "traces", "Traces"),
    (Nav::Decisions, "/decisions", "decisions", "Decisions"),
    (Nav::Governance, "/governance", "governance", "Govern"),
    (Nav::Gateway, "/gateway", "gateway", "Gateway"),
    (Nav::Logs, "/logs", "logs", "Logs"),
    (Nav::Series, "/series", "series", "Metrics"),
    (Nav::Sql, "/sql", "sql", "SQL"),
    (Nav::Store, "/store", "store", "Store"),
    (Nav::Setup, "/setup", "setup", "Send data"),
];

/// The colour theme that a person chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    Light,
    Dark,
}

impl Theme {
    /// The theme that the cookie names.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        match text {
            "light" => Some(Self::Light),
            "dark" => Some(Self::Dark),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// A whole page with the rail.
pub(crate) fn page(visitor: &Visitor, nav: Nav, title: &str, body: Markup) -> Markup {
    document(
        visitor,
        title,
        &html! {
            body {
                a.skip href="#main" { "Skip to content" }
                (rail(visitor, nav))
                main #main { (damage(visitor)) (body) }
            }
        },
    )
}

/// Every page says what it cannot show.
fn damage(visitor: &Visitor) -> Markup {
    html! {
        @if !visitor.damaged_segments.is_empty() {
            div.notice role="alert" { (icon("alert")) p {
                "Damaged, and not shown on any page: what arrived in "
                (visitor.damaged_segments.join(", "))
                ". Restore it from a backup; " code { "throughline store verify" } " says what is wrong."
            } }
        }
    }
}

/// A whole page without the rail: signing in.
pub(crate) fn bare_page(visitor: &Visitor, title: &str, body: Markup) -> Markup {
    document(visitor, title, &html! { body { main.door #main { (body) } } })
}

fn document(visitor: &Visitor, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-theme=[visitor.theme.map(Theme::as_str)] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover";
                meta name="htmx-config" content=(HTMX_CONFIG);
                meta name="theme-color" media="(prefers-color-scheme: light)" content="#f6f5f1";
                meta name="theme-color" media="(prefers-color-scheme: dark)" content="#101211";
                title { (title) " · Throughline" }
                link rel="icon" type="image/svg+xml" href=(assets::url("mark.svg"));
                link rel="preload" as="font" type="font/woff2" crossorigin href=(assets::url("geist.woff2"));
                link rel="stylesheet" href=(assets::url("app.css"));
                script defer src=(assets::url("htmx.js")) {}
                script defer src=(assets::url("app.js")) {}
            }
            (body)
        }
    }
}

fn rail(visitor: &Visitor, nav: Nav) -> Markup {
    html! {
        nav.rail aria-label="Main" {
            a.brand href="/traces" aria-label="Throughline" title="Throughline" { (mark()) }
            ul {
                @for (entry, href, image, label) in RAIL {
                    li {
                        a href=(href) aria-current=[(entry == nav).then_some("page")] {
                            (icon(image)) span { (label) }
                        }
                    }
                }
            }
            div.foot {
                button.theme type="button" data-theme-toggle aria-label="Switch between light and dark" {
                    (themed("sun")) (themed("moon")) span { "Theme" }
                }
                @if let Some(token) = &visitor.form_token {
                    form.out method="post" action="/logout" {
                        input type="hidden" name="token" value=(token);
                        button type="submit" title=(signed_in_as(visitor)) { (icon("out")) span { "Sign out" } }
                    }
                }
            }
        }
    }
}

fn themed(name: &str) -> Markup {
    PreEscaped(icon(name).into_string().replacen(
        "class=\"ic\"",
        &format!("class=\"ic {name}\""),
        1,
    ))
}

fn signed_in_as(visitor: &Visitor) -> String {
    visitor
        .key
        .as_ref()
        .map_or_else(String::new, |key| format!("signed in with the key {}", key.name))
}

/// A button that copies `text`.
pub(crate) fn copy_button(label: &str, text: &str) -> Markup {
    html! {
        button.copy type="button" data-copy=(text) aria-label=(label) title=(label) {
            (classed("sheet")) (classed("tick"))
        }
    }
}

/// A button that copies the text of the nearest `[data-text]` around it.
pub(crate) fn copy_near(label: &str) -> Markup {
    html! {
        button.copy type="button" data-copy-near aria-label=(label) title=(label) {
            (classed("sheet")) (classed("tick"))
        }
    }
}

fn classed(name: &str) -> Markup {
    themed(name)
}

/// The switch of live events. The script connects to `url` and hands what comes to the list.
pub(crate) fn live_switch(url: &str) -> Markup {
    html! {
        button.btn.livebtn type="button" data-live=(url) aria-pressed="true"
            title="Show what arrives at once (p)" {
            span.dot {} span.word { "Live" }
        }
    }
}
