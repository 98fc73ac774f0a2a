//! The filter bar of lists, the chips that tell what is chosen, and the way to older pages.

use maud::{Markup, html};
use throughline_store::{FacetCount, Page};

use crate::format;
use crate::icons::icon;
use crate::params::Params;

/// Times back from now that the menu offers.
const SPANS_OF_TIME: [(&str, &str); 5] = [
    ("15m", "Last 15 min"),
    ("1h", "Last hour"),
    ("24h", "Last 24 h"),
    ("7d", "Last 7 days"),
    ("30d", "Last 30 days"),
];

/// The form around the fields; it changes the list as one types and keeps the address right. What
/// else depends on the fields stands in an element with the id `live`, or in a head with the id `head`.
pub(crate) fn form(action: &str, find: &Markup, more: &Markup) -> Markup {
    html! {
        form.filters method="get" action=(action) role="search"
            hx-get=(action) hx-target="#content" hx-select="#content" hx-swap="outerHTML"
            hx-select-oob="#live,#head" hx-push-url="true" hx-trigger="change, submit, input delay:300ms" hx-sync="this:replace" {
            (find)
            button.btn.toggle type="button" data-toggle { (icon("filter")) "Filter" }
            div.more { (more) }
            noscript { button.btn type="submit" { "Apply" } }
        }
    }
}

/// The text field that `/` goes to.
pub(crate) fn find(params: &Params, placeholder: &str) -> Markup {
    html! {
        label.find {
            (icon("search"))
            span.vh { (placeholder) }
            input.field type="search" name="q" data-find autocomplete="off" spellcheck="false"
                placeholder=(placeholder) value=[params.text("q")];
            kbd { "/" }
        }
    }
}

/// A menu of known values; a value of the address that is not among them is kept.
pub(crate) fn facet_menu(params: &Params, name: &str, all: &str, facets: &[FacetCount]) -> Markup {
    let chosen = params.text(name);
    let is_foreign = chosen.is_some_and(|chosen| facets.iter().all(|facet| facet.value != chosen));
    html! {
        select.field name=(name) aria-label=(name) {
            option value="" { (all) }
            @if let (true, Some(chosen)) = (is_foreign, chosen) {
                option value=(chosen) selected { (chosen) }
            }
            @for facet in facets {
                option value=(facet.value) selected[chosen == Some(facet.value.as_str())] {
                    (facet.value) " (" (format::short_count(facet.count)) ")"
                }
            }
        }
    }
}

/// A menu of fixed choices.
pub(crate) fn menu(params: &Params, name: &str, all: &str, choices: &[(&str, &str)]) -> Markup {
    let chosen = params.text(name);
    let is_foreign = chosen.is_some_and(|chosen| choices.iter().all(|(value, _)| *value != chosen));
    html! {
        select.field name=(name) aria-label=(name.replace('_', " ")) {
            option value="" { (all) }
            @if let (true, Some(chosen)) = (is_foreign, chosen) {
                option value=(chosen) selected { (chosen) }
            }
            @for (value, label) in choices {
                option value=(value) selected[chosen == Some(*value)] { (label) }
            }
        }
    }
}

/// The menu of times.
pub(crate) fn time_menu(params: &Params) -> Markup {
    menu(params, "since", "Any time", &SPANS_OF_TIME)
}

/// A small text field.
pub(crate) fn text_field(params: &Params, name: &str, placeholder: &str, class: &str) -> Markup {
    let value = params.text(name);
    html! {
        input class={ "field " (class) @if value.is_some() { " on" } } type="text" name=(name)
            placeholder=(placeholder) aria-label=(placeholder) value=[value] autocomplete="off" spellcheck="false";
    }
}

/// What is chosen, each with a way to take it back.
pub(crate) fn chips(params: &Params, path: &str, names: &[&str]) -> Markup {
    let chosen: Vec<_> = params.chosen(names).collect();
    html! {
        @if !chosen.is_empty() {
            div.chips {
                @for (name, value) in &chosen {
                    span.chip {
                        span.cut { (label(path, name)) " " (value) }
                        a href={ (path) (without(params, name)) } aria-label={ "Remove the filter " (label(path, name)) } {
                            (icon("close"))
                        }
                    }
                }
                @if chosen.len() > 1 { a.btn.bare href=(path) { "Clear all" } }
            }
        }
    }
}

/// What stands in a page of a list that has no items: `none` where nothing fits, something else where
/// older ones were not looked at yet. A page that is appended to others has nothing to say of itself
/// then, since the links below it do.
pub(crate) fn nothing<T>(
    params: &Params,
    path: &str,
    page: &Page<T>,
    none: &str,
) -> Option<Markup> {
    let (is_first, is_last) = (params.text("cursor").is_none(), page.next.is_none());
    if !page.items.is_empty() || !is_first && !is_last {
        return None;
    }
    let text = match (is_last, is_first) {
        (false, _) => "Nothing found so far; the search is not at its end.",
        (true, false) => "No older ones fit.",
        (true, true) => none,
    };
    let is_filtered = !params.with("cursor", None).is_empty();
    Some(html! {
        div.none {
            p { (text) }
            @if is_first && is_filtered { p { a.link href=(path) { "Clear the filters" } } }
        }
    })
}

/// The links below a list.
pub(crate) fn pager<T>(params: &Params, path: &str, page: &Page<T>, now_unix_nano: u64) -> Markup {
    let Page { items, next, search } = page;
    let (shown, next) = (items.len(), next.as_deref());
    let is_first = params.text("cursor").is_none();
    html! {
        div.pager #pager {
            span {
                @if let Some(until) = search.searched_until_unix_nano {
                    "Searched back to " (format::time(until, now_unix_nano)) "; older ones were not looked at yet. "
                }
                @if search.traces_cut > 0 {
                    (format::count(search.traces_cut)) " could not be searched whole (too large, or in part retired) and were left out. "
                }
                @if search.unindexed_spans > 0 {
                    (format::short_count(search.unindexed_spans)) " spans are not in the search index yet and were searched one by one. "
                }
                @if shown > 0 && next.is_none() { "There are no older ones." }
            }
            div.tools {
                @if !is_first { a.btn href={ (path) (params.with("cursor", None)) } { "Newest" } }
                @if let Some(next) = next {
                    @let older = format!("{path}{}", params.with("cursor", Some(next)));
                    // What an empty first page says is not to stand above what is found then.
                    @let swap = if shown == 0 && is_first { "innerHTML" } else { "beforeend" };
                    a.btn href=(older) hx-get=(older) hx-select="#rows > *" hx-target="#rows"
                        hx-swap=(swap) hx-select-oob="#pager" {
                        @if search.searched_until_unix_nano.is_some() { "Search on" } @else { "Older" }
                    }
                }
            }
        }
    }
}

fn without(params: &Params, name: &str) -> String {
    params.with(name, None)
}

fn label(path: &str, name: &str) -> String {
    match name {
        "q" if path == "/traces" => "query:".to_owned(),
        "q" => "contains".to_owned(),
        "min_duration" => "≥".to_owned(),
        "max_duration" => "≤".to_owned(),
        "min_confidence" => "confidence ≥".to_owned(),
        "max_confidence" => "confidence ≤".to_owned(),
        "trace_id" => "trace".to_owned(),
        other => format!("{}:", other.replace('_', " ")),
    }
}

#[cfg(test)]
mod tests {
    use throughline_store::SearchExtent;

    use super::*;

    /// What a list of numbers says that has so many of them, and stopped or not.
    fn drawn(query: &str, items: usize, is_stopped: bool) -> (Option<String>, String) {
        let params = Params::of_query(query);
        let until = is_stopped.then_some(1);
        let page = Page {
            items: vec![0; items],
            next: is_stopped.then(|| "l2x".to_owned()),
            search: SearchExtent { searched_until_unix_nano: until, ..SearchExtent::default() },
        };
        let nothing = nothing(&params, "/logs", &page, "No record fits.");
        let pager = pager(&params, "/logs", &page, 2).into_string();
        (nothing.map(|markup| markup.into_string()), pager)
    }

    #[test]
    fn a_page_that_stopped_empty_is_no_end() {
        let (nothing, pager) = drawn("q=x", 0, true);
        assert!(nothing.unwrap().contains("Nothing found so far"));
        assert!(pager.contains("Search on") && pager.contains("hx-swap=\"innerHTML\""), "{pager}");
        // What is appended says nothing of itself, and takes nothing away.
        let (nothing, pager) = drawn("q=x&cursor=l2y", 0, true);
        assert_eq!(nothing, None);
        assert!(pager.contains("Search on") && pager.contains("hx-swap=\"beforeend\""), "{pager}");
        let (nothing, pager) = drawn("q=x&cursor=l2y", 0, false);
        assert!(nothing.unwrap().contains("No older ones fit."));
        assert!(!pager.contains("Search on"));
        assert!(drawn("q=x", 0, false).0.unwrap().contains("No record fits."));
        assert_eq!(drawn("q=x", 1, true).0, None);
    }
}
