//! The gateway: where each model name leads and in what shares, how models do, what keys have used.

use axum::extract::State;
use maud::{Markup, html};
use throughline_trace::{
    GatewayStanding, KeyStanding, RouteStanding, RouteTargetStanding, TargetStanding,
};

use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format;
use crate::icons::line_art;
use crate::layout::{self, Nav};
use crate::params::Params;
use crate::state::Shared;

const PATH: &str = "/gateway";

/// Colours of the shares of a route; the last is of all further targets.
const SHADES: usize = 6;

/// Nanoseconds in a millisecond.
const NANOS_PER_MS: u64 = 1_000_000;

/// The share of a limit from which it is shown as nearly used up.
const NEARLY: f64 = 0.9;

/// `GET /gateway`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[])?;
    let standing = (app.web.gateway)();
    let body = html! {
        div.head {
            h1 { "Gateway" }
            p.grow { "Where model names lead, how the models do, what keys have used" }
            div.tools { a.btn href="/api/v1/gateway" { "JSON" } }
        }
        div #gate hx-get=(PATH) hx-trigger="every 5s" hx-select="#gate" hx-swap="outerHTML" { (draw(&standing)) }
    };
    Ok(layout::page(&visitor, Nav::Gateway, "Gateway", body))
}

fn draw(of: &GatewayStanding) -> Markup {
    let GatewayStanding { routes, targets, keys, in_flight, max_in_flight } = of;
    html! {
        @if routes.is_empty() && targets.is_empty() {
            div.none { (line_art())
                p { "Nobody has asked a model here yet. Point " code { "OPENAI_BASE_URL" } " at " code { "/v1" } " of this address, or "
                    code { "ANTHROPIC_BASE_URL" } " at the address itself; " code { "gateway.routes" } " of the configuration names routes." }
            }
        } @else {
            p.soft.gateload { (format::count(*in_flight)) " of " (format::count(*max_in_flight)) " possible requests under way" }
            @for one in routes { (route(one)) }
            @if !targets.is_empty() { h2.part { "Models" } (models(targets)) }
        }
        @if !keys.is_empty() { h2.part { "Keys" } (used(keys)) }
    }
}

fn route(of: &RouteStanding) -> Markup {
    let total: u64 = of.targets.iter().map(|one| u64::from(one.weight)).sum();
    let share = |one: &RouteTargetStanding| match total {
        0 => 0.0,
        total => f64::from(one.weight) * 100.0 / total as f64,
    };
    let mut from = 0.0;
    let bars: Vec<(usize, f64, f64)> = of
        .targets
        .iter()
        .enumerate()
        .map(|(at, one)| {
            let began = from;
            from += share(one);
            (at.min(SHADES - 1), began, share(one))
        })
        .collect();
    html! {
        article.card.finding.route {
            div.title {
                h3.mono { (of.model) }
                @if of.name != of.model { span.soft { "route " (of.name) } }
                span.badge { (of.strategy.replace('_', " ")) }
                @if of.set_weights.is_some() { span.badge.decision title="They hold instead of those of the configuration" { "weights set by governance" } }
                @if let Some(ttl) = of.cache_ttl_secs { span.badge { "cache " (format::duration(ttl.saturating_mul(1_000 * NANOS_PER_MS))) } }
                @if of.has_contract { span.badge { "contract" } }
            }
            svg.split viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
                @for (shade, from, width) in bars {
                    rect class={ "shade" (shade) } x=(format!("{from:.2}")) width=(format!("{width:.2}")) height="4" {}
                }
            }
            ul.legs {
                @for (at, one) in of.targets.iter().enumerate() {
                    li {
                        span class={ "dot shade" (at.min(SHADES - 1)) } {}
                        b.num { (percent(share(one))) }
                        span.grow { (one.name) @if leads_elsewhere(one) { span.soft { " → " (place(one)) } } @else { span.soft { " at " (one.provider) } } }
                        @if one.weight != one.configured_weight { span.soft { "configured " (one.configured_weight) } }
                    }
                }
                @for one in &of.fallback {
                    li { span.dot.empty {} span.soft { "else" } span.grow { (one.name) span.soft { " → " (place(one)) } } }
                }
            }
        }
    }
}

fn percent(share: f64) -> String {
    match share.fract() {
        0.0 => format!("{share:.0} %"),
        _ => format!("{share:.1} %"),
    }
}

/// Whether the name of a target does not say its model already.
fn leads_elsewhere(of: &RouteTargetStanding) -> bool {
    of.model.as_deref().is_some_and(|model| model != of.name)
}

fn place(of: &RouteTargetStanding) -> String {
    match &of.model {
        Some(model) => format!("{}/{model}", of.provider),
        None => of.provider.clone(),
    }
}

fn models(targets: &[TargetStanding]) -> Markup {
    html! {
        div.sheet-list {
            table.list.sums aria-label="Models" {
                colgroup { col; col.w-m; col.w-m; col.w-m; }
                thead { tr {
                    th { "Model" }
                    th.num title="The smoothed time of its answers" { "Time" }
                    th.num title="As far as its answers told" { "Rate limit" }
                    th.num { "Breaker" }
                } }
                tbody { @for one in targets { (model(one)) } }
            }
        }
    }
}

fn model(of: &TargetStanding) -> Markup {
    let none = html! { span.muted { "–" } };
    let time = |ms: u64| format::duration(ms.saturating_mul(NANOS_PER_MS));
    html! {
        tr {
            td.p-name { span.name.mono title=(of.name) { (of.name) } }
            td.num data-label="Time" { @match of.latency_ms { Some(ms) => (format::duration((ms * 1e6) as u64)), None => (none) } }
            td.num data-label="Rate limit" { @match of.used_up_for_ms { Some(ms) => span.badge.warn { "used up for " (time(ms)) }, None => span.muted { "free" } } }
            td.num data-label="Breaker" { @match (of.breaker, of.opens_in_ms) {
                (Some("open"), Some(ms)) => span.badge.error { "open for " (time(ms)) },
                (Some("half_open"), _) => span.badge.warn { "half open" },
                (Some(_), _) => span.badge.ok { "closed" },
                (None, _) => (none),
            } }
        }
    }
}

fn used(keys: &[KeyStanding]) -> Markup {
    html! {
        div.sheet-list {
            table.list.sums aria-label="Keys" {
                colgroup { col; col.w-m; col.w-m; col.w-m; col.w-m; }
                thead { tr {
                    th { "Key" } th.num { "Requests this minute" } th.num { "Tokens this minute" }
                    th.num { "Spent today" } th.num { "Spent this month" }
                } }
                tbody { @for one in keys { (key(one)) } }
            }
        }
    }
}

fn key(of: &KeyStanding) -> Markup {
    let counted = |used: u64, limit: Option<u64>| {
        of_limit(used as f64, limit.map(|limit| limit as f64), &|number| {
            format::count(number as u64)
        })
    };
    html! {
        tr {
            td.p-name {
                span.name title=(of.name) { (of.name) }
                @if !of.models.is_empty() { " " span.soft { (of.models.join(", ")) } }
            }
            td.num data-label="Requests" { (counted(of.requests, of.requests_per_minute)) }
            td.num data-label="Tokens" { (counted(of.tokens, of.tokens_per_minute)) }
            td.num data-label="Today" { (of_limit(of.usd_today, of.usd_per_day, &format::cost)) }
            td.num data-label="Month" { (of_limit(of.usd_this_month, of.usd_per_month, &format::cost)) }
        }
    }
}

/// What was used of a limit, with a bar; without one the number alone.
fn of_limit(used: f64, limit: Option<f64>, text: &dyn Fn(f64) -> String) -> Markup {
    let Some(limit) = limit else { return html! { (text(used)) } };
    let share = if limit > 0.0 { (used / limit).clamp(0.0, 1.0) } else { 1.0 };
    let class = match share {
        share if share >= 1.0 => "score bad",
        share if share >= NEARLY => "score some",
        _ => "score",
    };
    html! {
        span class=(class) {
            span { (text(used)) span.soft { " of " (text(limit)) } }
            svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
                rect.track width="100" height="4" {}
                rect.bar width=(format!("{:.1}", share * 100.0)) height="4" {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, weight: u32, configured_weight: u32) -> RouteTargetStanding {
        let model = Some("gpt-4o".to_owned());
        let provider = "one".to_owned();
        RouteTargetStanding { name: name.to_owned(), provider, model, configured_weight, weight }
    }

    #[test]
    fn shares_are_those_that_hold_and_say_who_set_them() {
        let set = throughline_trace::RouteWeights::new("chat", 3, [("a", 95), ("b", 5)]).unwrap();
        let route = RouteStanding {
            name: "chat".to_owned(),
            model: "smart".to_owned(),
            strategy: "weighted",
            targets: vec![target("a", 995, 1), target("b", 5, 1)],
            fallback: vec![target("c", 1, 1)],
            set_weights: Some(set),
            cache_ttl_secs: Some(600),
            has_contract: false,
        };
        let page =
            draw(&GatewayStanding { routes: vec![route], ..Default::default() }).into_string();
        for expected in [
            "99.5 %",
            "0.5 %",
            "weights set by governance",
            "configured 1",
            "one/gpt-4o",
            "else",
            "cache 10 m 00 s",
        ] {
            assert!(page.contains(expected), "{expected}: {page}");
        }
    }

    #[test]
    fn a_limit_that_is_used_up_is_shown_as_that() {
        let page = of_limit(2.0, Some(2.0), &format::cost).into_string();
        assert!(page.contains("score bad") && page.contains("width=\"100.0\""), "{page}");
        assert!(!of_limit(2.0, None, &format::cost).into_string().contains("svg"));
    }

    #[test]
    fn an_empty_page_says_how_to_begin() {
        assert!(draw(&GatewayStanding::default()).into_string().contains("OPENAI_BASE_URL"));
    }
}
