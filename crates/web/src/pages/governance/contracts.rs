//! Contracts between services: what is in force, what is proposed and whose turn it is, with the buttons that
//! answer; and a page for each, with its versions.

use axum::extract::State;
use maud::{Markup, html};
use throughline_api::InPath;
use throughline_govern::contract::{Offer, Owner, Proposal, ProposalState, Side, Terms};

use super::{evidence, may_act, token};
use crate::contracts::{self as kept, Kept, KeptVersion};
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format;
use crate::governance::{Standing, remembered};
use crate::layout::{self, Nav};
use crate::params::Params;
use crate::state::Shared;

/// Before the name of a contract in the address of its page.
const PAGE: &str = "/governance/contracts/";

/// `GET /governance/contracts/{name}`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(name): InPath<String>,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[])?;
    let (governance, wanted) = (app.web.governance.governance.clone(), name.clone());
    let read = move || {
        let found = kept::one(&governance, &wanted)?;
        Ok((found, kept::versions(&governance, &wanted)?))
    };
    let (found, versions) = remembered(read).await?;
    let found = found.ok_or_else(|| Failure::not_found("contract", &name))?;
    let standing = app.web.governance.standing.borrow().clone();
    let now = visitor.now_unix_nano;
    let body = html! {
        div.head {
            h1 { (name) }
            p.grow { "A contract between two services, and its versions" }
            div.tools {
                a.btn href="/governance" { "All of governance" }
                a.btn href={ "/api/v1/contracts/" (name) } { "JSON" }
            }
        }
        (card(&found, &standing, &visitor))
        @if let Some(proposal) = found.contract.open().filter(|_| may_act(&visitor)) {
            @if let Some(offer) = proposal.last() { (counter(&found, proposal, offer, &visitor)) }
        }
        @if let Some(proposal) = &found.contract.proposal {
            h2.part { "Proposal " (proposal.number) } (offers(proposal, now))
        }
        h2.part { "Versions" }
        @if versions.is_empty() { p.soft { "Nothing was agreed yet." } } @else { (history(&found, &versions, &visitor)) }
    };
    Ok(layout::page(&visitor, Nav::Governance, &name, body))
}

/// All contracts.
pub(super) fn cards(all: &[Kept], standing: &Standing, visitor: &Visitor) -> Markup {
    html! { @for one in all { (card(one, standing, visitor)) } }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn card(of: &Kept, standing: &Standing, visitor: &Visitor) -> Markup {
    let contract = &of.contract;
    let last = contract.proposal.as_ref().and_then(Proposal::last).map(|offer| &offer.terms);
    let attained = of.attained(standing);
    html! {
        article.card.finding.contract {
            div.title {
                h3 { a href={ (PAGE) (contract.name) } { (contract.name) } }
                @match contract.in_force {
                    Some(version) => span.badge.ok { "version " (version) },
                    None => span.badge { "not in force" },
                }
                @if let Some(terms) = of.terms.as_ref().or(last) {
                    span.soft { (terms.provider()) " for " (terms.consumer()) }
                }
                @if let Owner::File { file } = &contract.owner { span.soft title=(file) { "held by a rule file" } }
            }
            @if let Some(terms) = &of.terms {
                p { code { (terms.expect()) } }
                p {
                    @match attained {
                        Some(share) => { b.bad[share < terms.objective()] { (percent(share)) } " attained, " },
                        None => { "Not known what is attained, " }
                    }
                    (percent(terms.objective())) " agreed"
                }
            }
            @if let Some(proposal) = contract.open() { (open(of, proposal, visitor)) }
        }
    }
}

/// A proposal that waits for somebody.
fn open(of: &Kept, proposal: &Proposal, visitor: &Visitor) -> Markup {
    let Some(offer) = proposal.last() else { return html! {} };
    let (class, word) = state(proposal.state);
    let turn = match proposal.state.turn() {
        Some(Side::Consumer) => offer.terms.consumer(),
        _ => offer.terms.provider(),
    };
    // What led to the offer stands with the offer before it.
    let said = proposal.offers.iter().rev().find_map(|offer| offer.answer.as_ref());
    html! {
        div.proposal {
            p {
                span class=(class) { (word) } " "
                "offer " (offer.number) " of proposal " (proposal.number) " by the " (offer.side.as_str())
                ", waits for " b { (turn) }
            }
            p { code { (offer.terms.expect()) } " in " (percent(offer.terms.objective())) " of the calls" }
            @match said {
                Some(said) => p.soft { (said.told) },
                None => p.soft { "The answer is measured over " (format!("{} h", proposal.measured_over_s / 3_600)) " of what is stored." }
            }
            @if may_act(visitor) {
                div.answers {
                    (button(of, "accept", "Accept", Some(offer.number), visitor))
                    (button(of, "reject", "Reject", Some(offer.number), visitor))
                    a.btn href={ (PAGE) (of.contract.name) "#counter" } { "Counter …" }
                }
            }
        }
    }
}

fn state(state: ProposalState) -> (&'static str, &'static str) {
    match state {
        ProposalState::Proposed => ("badge", "proposed"),
        ProposalState::Insufficient => ("badge warn", "insufficient data"),
        ProposalState::Countered => ("badge plum", "countered"),
        ProposalState::Accepted => ("badge ok", "accepted"),
        ProposalState::Rejected => ("badge error", "rejected"),
        ProposalState::Superseded => ("badge", "superseded"),
    }
}

/// A button that takes a step; `number` is the offer or the version that is meant.
fn button(of: &Kept, step: &str, label: &str, number: Option<u64>, visitor: &Visitor) -> Markup {
    let class = if step == "accept" { "btn main" } else { "btn" };
    html! {
        form.inline method="post" action={ (PAGE) (of.contract.name) } {
            (token(visitor))
            input type="hidden" name="step" value=(step);
            @if let Some(number) = number { input type="hidden" name="number" value=(number); }
            button class=(class) type="submit" { (label) }
        }
    }
}

/// The form of a counter-offer.
fn counter(of: &Kept, proposal: &Proposal, offer: &Offer, visitor: &Visitor) -> Markup {
    let side = proposal.state.turn().map_or("", Side::as_str);
    html! {
        h2.part #counter { "Counter-offer of the " (side) }
        form.card.finding.offer method="post" action={ (PAGE) (of.contract.name) } {
            (token(visitor))
            input type="hidden" name="step" value="counter";
            input type="hidden" name="number" value=(offer.number);
            label { span { "Expected of a call" } textarea name="expect" rows="3" required { (offer.terms.expect()) } }
            label { span { "Share of the calls, between 0 and 1" } input.field name="objective" inputmode="decimal" required value=(offer.terms.objective()); }
            label { span { "Why" } input.field name="reason" maxlength="300"; }
            div.answers { button.btn.main type="submit" { "Offer" } }
        }
    }
}

fn by(who: &str) -> &str {
    if who.is_empty() { "measured" } else { who }
}

fn told(terms: &Terms) -> Markup {
    html! { code { (terms.expect()) } " in " (percent(terms.objective())) }
}

fn offers(proposal: &Proposal, now: u64) -> Markup {
    let (class, word) = state(proposal.state);
    html! {
        p { span class=(class) { (word) } @if !proposal.ended_by.is_empty() { " " span.soft { "by " (proposal.ended_by) } } }
        ol.events {
            @for offer in &proposal.offers {
                li {
                    div.when { (format::time(offer.at_unix_nano, now)) }
                    div.what {
                        p { b { "Offer " (offer.number) } " of the " (offer.side.as_str()) ", " (by(&offer.by)) }
                        p { (told(&offer.terms)) }
                        @if let Some(said) = &offer.answer { p.soft { (said.told) } (evidence(&said.evidence)) }
                    }
                }
            }
        }
    }
}

fn history(of: &Kept, versions: &[KeptVersion], visitor: &Visitor) -> Markup {
    let is_negotiated = of.contract.owner == Owner::Negotiated;
    let now = visitor.now_unix_nano;
    html! {
        ol.events {
            @for one in versions {
                @let is_in_force = of.contract.in_force == Some(one.number);
                li {
                    div.when { (format::time(one.at_unix_nano, now)) }
                    div.what {
                        p {
                            b { "Version " (one.number) } " "
                            @if is_in_force { span.badge.ok { "in force" } " " }
                            span.soft {
                                @if one.version.file.is_empty() {
                                    "agreed by " (by(&one.by))
                                    @if let (Some(proposal), Some(offer)) = (one.version.proposal, one.version.offer) { ", offer " (offer) " of proposal " (proposal) }
                                } @else { "of " (one.version.file) }
                            }
                        }
                        p { (told(&one.version.terms)) }
                        @if let Some(said) = &one.version.evidence { p.soft { (said.told) } (evidence(&said.evidence)) }
                        @if is_negotiated && may_act(visitor) {
                            div.answers {
                                @if is_in_force { (button(of, "withdraw", "Withdraw", None, visitor)) }
                                @else { (button(of, "restore", "Put in force again", Some(one.number), visitor)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use throughline_govern::contract::{Contract, Step};
    use throughline_trace::access::{ApiKey, Scope};

    use super::*;

    fn terms(objective: f64) -> Terms {
        let spec = json!({
            "consumer": "<shop>", "provider": "inventory", "when": "true",
            "expect": "response.latency_ms < 150", "objective": objective,
        });
        Terms::read("stock", &spec).expect("terms")
    }

    fn stock() -> Kept {
        let contract = Contract::new("stock");
        let step = Step::Propose(terms(0.99), None);
        let contract = contract.step(step, None, ("ada", 1)).expect("proposed").0;
        let step = Step::Counter(terms(0.9), Some(1));
        let contract = contract.step(step, None, ("bob", 2)).expect("countered").0;
        Kept { contract, at_unix_nano: 2, terms: None }
    }

    #[test]
    fn an_open_proposal_says_whose_turn_it_is_and_has_its_buttons() {
        let page = card(&stock(), &Standing::default(), &Visitor::default()).into_string();
        for told in [
            "not in force",
            "inventory for &lt;shop&gt;",
            "countered",
            "offer 2 of proposal 1 by the provider, waits for <b>&lt;shop&gt;</b>",
            "<code>response.latency_ms &lt; 150</code> in 90.00 % of the calls",
            "name=\"step\" value=\"accept\"><input type=\"hidden\" name=\"number\" value=\"2\"",
            "/governance/contracts/stock#counter",
        ] {
            assert!(page.contains(told), "{told} is not in {page}");
        }
    }

    #[test]
    fn whoever_may_not_act_sees_no_buttons() {
        let key = ApiKey {
            id: "k1".to_owned(),
            name: "reader".to_owned(),
            scopes: vec![Scope::Read],
            created_unix_nano: 1,
            revoked_unix_nano: None,
        };
        let visitor = Visitor { key: Some(key), ..Visitor::default() };
        let page = card(&stock(), &Standing::default(), &visitor).into_string();
        assert!(!page.contains("<form"), "{page}");
    }

    #[test]
    fn a_version_in_force_can_be_withdrawn_and_an_earlier_one_restored() {
        let (contract, version) =
            stock().contract.step(Step::Accept(None), None, ("ada", 3)).expect("agreed");
        let version = KeptVersion {
            number: 1,
            at_unix_nano: 3,
            by: "ada".to_owned(),
            version: version.expect("a version"),
        };
        let earlier = KeptVersion { number: 0, ..version.clone() };
        let of = Kept { contract, at_unix_nano: 3, terms: Some(terms(0.9)) };
        let page = history(&of, &[version, earlier], &Visitor::default()).into_string();
        for told in [
            "in force",
            "agreed by ada, offer 2 of proposal 1",
            "value=\"withdraw\"",
            "value=\"restore\"",
        ] {
            assert!(page.contains(told), "{told} is not in {page}");
        }
    }
}
