//! The mark and the icons, drawn as SVG that takes the colour of its text.

use maud::{Markup, PreEscaped};

/// The mark: one continuous line through its nodes, the last of them the decision.
pub(crate) fn mark() -> Markup {
    PreEscaped(include_str!("../assets/mark-inline.svg").to_owned())
}

/// The line of the mark drawn wide, for empty pages.
pub(crate) fn line_art() -> Markup {
    PreEscaped(
        r##"<svg class="art" viewBox="0 0 168 56" fill="none" stroke="currentColor" stroke-width="2" aria-hidden="true"><path d="M2 40H30C52 40 48 14 70 14H92C112 14 108 40 130 40H166" opacity=".45"/><circle cx="30" cy="40" r="5" fill="var(--paper)"/><circle cx="81" cy="14" r="5" fill="var(--paper)"/><path d="M130 33l7 7-7 7-7-7z" fill="currentColor" stroke="none"/></svg>"##
            .to_owned(),
    )
}

/// An icon of 20 × 20 by name.
pub(crate) fn icon(name: &str) -> Markup {
    let shape = match name {
        "traces" => r#"<path d="M3 5h5.5M3 10h3.5M8 10h6M11 15h6M10 5h2"/>"#,
        "overview" => r#"<path d="M3.500 16.500v-6M8 16.500v-10M12.500 16.500v-4M17 16.500v-13"/>"#,
        "decisions" => r#"<path d="M10 3l4 4-4 4-4-4zM10 11v3M5 17h10M10 14v3"/>"#,
        "governance" => r#"<path d="M10 3v14M4 6h12M4 6l-2 6h4zM16 6l-2 6h4zM6.500 17h7"/>"#,
        "gateway" => {
            r#"<path d="M3 10h4M7 10c4 0 3-5.500 7-5.500h3M7 10h10M7 10c4 0 3 5.500 7 5.500h3"/>"#
        }
        "logs" => r#"<path d="M4 5h12M4 10h12M4 15h7"/>"#,
        "series" => r#"<path d="M3 15l4-6 3.5 3.5L17 5M3 17.5h14"/>"#,
        "sql" => {
            r#"<ellipse cx="10" cy="5" rx="6" ry="2.500"/><path d="M4 5v10c0 1.400 2.700 2.500 6 2.500s6-1.100 6-2.500V5M4 10c0 1.400 2.700 2.500 6 2.500s6-1.100 6-2.500"/>"#
        }
        "store" => r#"<path d="M4 4h12v4H4zM4 12h12v4H4zM7 6h.5M7 14h.5"/>"#,
        "setup" => r#"<path d="M3 10h9M9 6l4 4-4 4M16.5 4v12"/>"#,
        "search" => r#"<circle cx="9" cy="9" r="5.2"/><path d="M13 13l4 4"/>"#,
        "sun" => {
            r#"<circle cx="10" cy="10" r="3.4"/><path d="M10 2.5v2M10 15.500v2M2.500 10h2M15.500 10h2M4.700 4.700l1.400 1.400M13.900 13.900l1.400 1.400M15.300 4.700l-1.400 1.400M6.100 13.900l-1.400 1.400"/>"#
        }
        "moon" => r#"<path d="M16 11.800A6.500 6.500 0 018.200 4 6.500 6.500 0 1016 11.800z"/>"#,
        "out" => r#"<path d="M8 4H4v12h4M8 10h9M14 7l3 3-3 3"/>"#,
        "sheet" => {
            r#"<rect x="7" y="7" width="9" height="9" rx="1.5"/><path d="M4 13V5.500A1.500 1.500 0 015.500 4H13"/>"#
        }
        "tick" => r#"<path d="M4 10.500l4 4 8-9"/>"#,
        "close" => r#"<path d="M5 5l10 10M15 5L5 15"/>"#,
        "link" => {
            r#"<path d="M8.500 11.500a3 3 0 004.200 0l3-3a3 3 0 00-4.200-4.200l-1 1M11.500 8.500a3 3 0 00-4.200 0l-3 3a3 3 0 004.200 4.200l1-1"/>"#
        }
        "filter" => r#"<path d="M3 5h14M6 10h8M8.500 15h3"/>"#,
        "alert" => r#"<path d="M10 3l7.500 13h-15zM10 8v4M10 14v.5"/>"#,
        "fold" => r#"<path d="M6 3l4 4 4-4M6 17l4-4 4 4"/>"#,
        "unfold" => r#"<path d="M6 7l4-4 4 4M6 13l4 4 4-4"/>"#,
        "fit" => r#"<path d="M3 4v12M17 4v12M6 10h8M8 8l-2 2 2 2M12 8l2 2-2 2"/>"#,
        "plus" => r#"<path d="M10 4v12M4 10h12"/>"#,
        "minus" => r#"<path d="M4 10h12"/>"#,
        "right" => r#"<path d="M8 5l5 5-5 5"/>"#,
        _ => "",
    };
    PreEscaped(format!(r#"<svg class="ic" viewBox="0 0 20 20" aria-hidden="true">{shape}</svg>"#))
}
