//! A contract as it is negotiated: who offered what, whose turn it is, and which version is in force.
//!
//! ```text
//! proposed ──accept──▶ accepted (a version, in force)      the provider's turn: it measures, or a person
//!    │  ▲ ▲──────────┐                                     answers for it
//!    │  └ too few    │
//!    ├──counter─▶ countered ──accept──▶ accepted           the consumer's turn
//!    │               │ └──counter──▶ proposed
//!    └──reject───────┴──reject──▶ rejected
//! ```

use serde::{Deserialize, Serialize};
use throughline_trace::TraceId;

use super::answer::{Measured, Verdict, answer, explain};
use super::illegal::Illegal;
use super::terms::{DEFAULT_MEASURED_OVER_S, MEASURED_OVER_S, Terms};

/// Kind of the documents that keep contracts, each a [`Contract`].
pub const CONTRACT_KIND: &str = "contract";

/// Kind of the documents that keep their versions, each a [`Version`]; a document's version is the contract's.
pub const VERSION_KIND: &str = "contract_version";

/// Offers of one proposal at most: whoever has not agreed by then begins anew.
pub const MAX_OFFERS: usize = 20;

/// Versions of one contract at most.
pub const MAX_VERSIONS: u64 = 1_000;

/// Who says what the contract is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Owner {
    /// Those who negotiate it.
    #[default]
    Negotiated,
    /// A rule file: it is changed there only.
    File {
        /// Its name.
        file: String,
    },
}

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Who calls, and proposes.
    Consumer,
    /// Who is called, and answers.
    Provider,
}

impl Side {
    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Provider => "provider",
        }
    }
}

/// How a proposal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposalState {
    /// It waits for the provider, whose answer is measured.
    Proposed,
    /// It waits for the provider: there were too few calls to answer, and it is measured again.
    Insufficient,
    /// It waits for the consumer, who was offered something else.
    Countered,
    /// Both agreed: its last offer is a version.
    Accepted,
    /// One side ended it.
    Rejected,
    /// A rule file took the contract over before both agreed.
    Superseded,
}

impl ProposalState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Proposed,
        Self::Insufficient,
        Self::Countered,
        Self::Accepted,
        Self::Rejected,
        Self::Superseded,
    ];

    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Insufficient => "insufficient",
            Self::Countered => "countered",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Superseded => "superseded",
        }
    }

    /// Who may accept or counter now; `None` when it is over.
    pub fn turn(self) -> Option<Side> {
        match self {
            Self::Proposed | Self::Insufficient => Some(Side::Provider),
            Self::Countered => Some(Side::Consumer),
            Self::Accepted | Self::Rejected | Self::Superseded => None,
        }
    }
}

/// What a provider answered from what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// When, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// What was counted.
    pub measured: Measured,
    /// What follows from it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The same in words, with its numbers.
    pub told: String,
    /// Some of the traces with such calls.
    pub evidence: Vec<TraceId>,
}

/// Terms that one side offers the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// 1 for what was proposed first.
    pub number: u64,
    /// Whose offer.
    pub side: Side,
    /// What is offered.
    pub terms: Terms,
    /// Who offered it; empty when it was measured.
    pub by: String,
    /// When, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// What was measured of it, for an offer of the consumer.
    pub answer: Option<Answer>,
}

/// A proposal with all its offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// 1 for the first of its contract.
    pub number: u64,
    /// How it stands.
    pub state: ProposalState,
    /// Over how much of what is stored answers are measured, seconds.
    pub measured_over_s: u64,
    /// In their order; never empty.
    pub offers: Vec<Offer>,
    /// Who ended it; empty while it is open, and when it was measured.
    pub ended_by: String,
}

impl Proposal {
    /// The offer that waits for an answer, or was the last.
    pub fn last(&self) -> Option<&Offer> {
        self.offers.last()
    }

    /// Whether somebody may still agree.
    pub fn is_open(&self) -> bool {
        self.state.turn().is_some()
    }
}

/// A contract as it stands. Its terms are kept by version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contract {
    /// Its name.
    pub name: String,
    /// Who says what it is.
    pub owner: Owner,
    /// The version that is watched; `None` while there is none.
    pub in_force: Option<u64>,
    /// The newest version; 0 for none.
    pub versions: u64,
    /// The proposal that was made last.
    pub proposal: Option<Proposal>,
}

/// Terms that were agreed. Its number, its moment and whose word it was are kept with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// What was agreed.
    pub terms: Terms,
    /// The proposal that led to it; `None` for a rule file.
    pub proposal: Option<u64>,
    /// The offer that was accepted; `None` for a rule file.
    pub offer: Option<u64>,
    /// The rule file; empty for a proposal.
    pub file: String,
    /// What was measured last before it was agreed; `None` when nothing was.
    pub evidence: Option<Answer>,
}

/// What is done about a contract.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The consumer proposes; over how many seconds it is measured.
    Propose(Terms, Option<u64>),
    /// The side whose turn it is agrees to an offer, the last where none is named.
    Accept(Option<u64>),
    /// The side whose turn it is offers something else.
    Counter(Terms, Option<u64>),
    /// Either side ends it.
    Reject(Option<u64>),
    /// What was measured of an offer of a proposal, with traces.
    Answer {
        /// The proposal.
        proposal: u64,
        /// Its offer.
        offer: u64,
        /// What was counted.
        measured: Measured,
        /// Some of the traces with such calls.
        evidence: Vec<TraceId>,
    },
    /// It is watched no longer.
    Withdraw,
    /// An earlier version is in force again.
    Restore(u64),
    /// A rule file holds it.
    Load(Terms, String),
    /// No rule file holds it any longer.
    Unload,
}

impl Contract {
    /// One that nobody has said anything about.
    pub fn new(name: &str) -> Self {
        let (owner, name) = (Owner::Negotiated, name.to_owned());
        Self { name, owner, in_force: None, versions: 0, proposal: None }
    }

    /// The proposal that somebody may still agree to.
    pub fn open(&self) -> Option<&Proposal> {
        self.proposal.as_ref().filter(|proposal| proposal.is_open())
    }

    /// Traces that the answer to the last proposal named: what a person goes by who answers it.
    pub fn evidence(&self) -> Vec<TraceId> {
        let offers = self.proposal.iter().flat_map(|proposal| proposal.offers.iter().rev());
        let mut answers = offers.filter_map(|offer| offer.answer.as_ref());
        answers.next().map(|answer| answer.evidence.clone()).unwrap_or_default()
    }

    /// Takes a step at a moment (nanoseconds since the Unix epoch), in somebody's name (empty for what was
    /// measured); `in_force` are the terms that hold. Answers the contract after it, with the version that it
    /// made, whose number is then [`Contract::versions`].
    ///
    /// # Errors
    /// [`Illegal`]; nothing has changed.
    pub fn step(
        mut self,
        step: Step,
        in_force: Option<&Terms>,
        (by, now_unix_nano): (&str, u64),
    ) -> Result<(Self, Option<Version>), Illegal> {
        if let Owner::File { file } = &self.owner
            && !matches!(step, Step::Load(..) | Step::Unload)
        {
            return Err(Illegal::OfFile { contract: self.name.clone(), file: file.clone() });
        }
        let version = match step {
            Step::Propose(terms, over_s) => {
                self.propose(terms, over_s, in_force, (by, now_unix_nano))?;
                None
            }
            Step::Accept(offer) => {
                self.is_last(offer)?;
                Some(self.agree(by)?)
            }
            Step::Counter(terms, offer) => {
                self.is_last(offer)?;
                self.counter(terms, (by, now_unix_nano))?;
                None
            }
            Step::Reject(offer) => {
                self.is_last(offer)?;
                self.end(ProposalState::Rejected, by)?;
                None
            }
            Step::Answer { proposal, offer, measured, evidence } => {
                self.answered(proposal, offer, (measured, evidence), now_unix_nano)?
            }
            Step::Withdraw => {
                self.in_force.take().ok_or(Illegal::NotInForce)?;
                None
            }
            Step::Restore(version) => {
                self.restore(version)?;
                None
            }
            Step::Load(terms, file) => self.load(terms, file, in_force)?,
            Step::Unload => {
                self.owner = Owner::Negotiated;
                self.in_force = None;
                None
            }
        };
        Ok((self, version))
    }

    fn propose(
        &mut self,
        terms: Terms,
        over_s: Option<u64>,
        in_force: Option<&Terms>,
        (by, at_unix_nano): (&str, u64),
    ) -> Result<(), Illegal> {
        if let Some(open) = self.open() {
            return Err(Illegal::Open(open.number));
        }
        if let (Some(version), Some(known)) = (self.in_force, in_force) {
            if *known == terms {
                return Err(Illegal::InForce(version));
            }
            same_parties(known, &terms)?;
        }
        let measured_over_s = over_s.unwrap_or(DEFAULT_MEASURED_OVER_S);
        if !(MEASURED_OVER_S.0..=MEASURED_OVER_S.1).contains(&measured_over_s) {
            return Err(Illegal::MeasuredOver(measured_over_s));
        }
        if self.versions >= MAX_VERSIONS {
            return Err(Illegal::Full { limit: MAX_VERSIONS, what: "versions of a contract" });
        }
        let number = self.proposal.as_ref().map_or(0, |last| last.number) + 1;
        let (by, side) = (by.to_owned(), Side::Consumer);
        let offer = Offer { number: 1, side, terms, by, at_unix_nano, answer: None };
        self.proposal = Some(Proposal {
            number,
            state: ProposalState::Proposed,
            measured_over_s,
            offers: vec![offer],
            ended_by: String::new(),
        });
        Ok(())
    }

    /// The open proposal, or why there is none.
    fn open_mut(&mut self) -> Result<&mut Proposal, Illegal> {
        let told = match &self.proposal {
            None => "none".to_owned(),
            Some(last) => format!("one that is {}", last.state.as_str()),
        };
        let open = self.proposal.as_mut().filter(|proposal| proposal.is_open());
        open.ok_or(Illegal::NothingOpen(told))
    }

    /// Whether the offer that somebody means is the last one of an open proposal.
    fn is_last(&mut self, offer: Option<u64>) -> Result<(), Illegal> {
        let expected = self.open_mut()?.offers.len() as u64;
        match offer {
            Some(got) if got != expected => Err(Illegal::OtherOffer { expected, got }),
            _ => Ok(()),
        }
    }

    fn agree(&mut self, by: &str) -> Result<Version, Illegal> {
        if self.versions >= MAX_VERSIONS {
            return Err(Illegal::Full { limit: MAX_VERSIONS, what: "versions of a contract" });
        }
        let proposal = self.open_mut()?;
        let told = "one without offers".to_owned();
        let last = proposal.offers.last().ok_or(Illegal::NothingOpen(told))?;
        let version = Version {
            terms: last.terms.clone(),
            proposal: Some(proposal.number),
            offer: Some(last.number),
            file: String::new(),
            evidence: proposal.offers.iter().rev().find_map(|offer| offer.answer.clone()),
        };
        proposal.state = ProposalState::Accepted;
        by.clone_into(&mut proposal.ended_by);
        self.versions += 1;
        self.in_force = Some(self.versions);
        Ok(version)
    }

    fn counter(&mut self, terms: Terms, (by, at): (&str, u64)) -> Result<(), Illegal> {
        let proposal = self.open_mut()?;
        if proposal.offers.len() >= MAX_OFFERS {
            return Err(Illegal::Full {
                limit: MAX_OFFERS as u64,
                what: "offers of a proposal: accept or reject the last",
            });
        }
        if let Some(last) = proposal.last() {
            if last.terms == terms {
                return Err(Illegal::Same(last.number));
            }
            same_parties(&last.terms, &terms)?;
        }
        let (side, state) = match proposal.state.turn() {
            Some(Side::Consumer) => (Side::Consumer, ProposalState::Proposed),
            _ => (Side::Provider, ProposalState::Countered),
        };
        proposal.offers.push(Offer {
            number: proposal.offers.len() as u64 + 1,
            side,
            terms,
            by: by.to_owned(),
            at_unix_nano: at,
            answer: None,
        });
        proposal.state = state;
        Ok(())
    }

    fn end(&mut self, state: ProposalState, by: &str) -> Result<(), Illegal> {
        let proposal = self.open_mut()?;
        proposal.state = state;
        by.clone_into(&mut proposal.ended_by);
        Ok(())
    }

    fn answered(
        &mut self,
        number: u64,
        offer: u64,
        (measured, evidence): (Measured, Vec<TraceId>),
        now: u64,
    ) -> Result<Option<Version>, Illegal> {
        self.is_last(Some(offer))?;
        let proposal = self.open_mut()?;
        let is_of_provider = proposal.state.turn() == Some(Side::Provider);
        if proposal.number != number || !is_of_provider {
            let (number, state) = (proposal.number, proposal.state.as_str());
            return Err(Illegal::NothingOpen(format!("proposal {number}, which is {state}")));
        }
        let Some(last) = proposal.offers.last_mut() else { return Ok(None) };
        let verdict = answer(&last.terms, &measured);
        let told = explain(&last.terms, &measured);
        let said = Answer { at_unix_nano: now, measured, verdict: verdict.clone(), told, evidence };
        last.answer = Some(said);
        match verdict {
            Verdict::Accept => return self.agree("").map(Some),
            Verdict::Counter { terms } => self.counter(terms, ("", now))?,
            Verdict::Insufficient { .. } => proposal.state = ProposalState::Insufficient,
            Verdict::Decline => self.end(ProposalState::Rejected, "")?,
        }
        Ok(None)
    }

    fn restore(&mut self, version: u64) -> Result<(), Illegal> {
        if !(1..=self.versions).contains(&version) {
            return Err(Illegal::NoVersion { newest: self.versions, got: version });
        }
        if self.in_force == Some(version) {
            return Err(Illegal::InForce(version));
        }
        self.in_force = Some(version);
        Ok(())
    }

    fn load(
        &mut self,
        terms: Terms,
        file: String,
        in_force: Option<&Terms>,
    ) -> Result<Option<Version>, Illegal> {
        if let Some(proposal) = self.proposal.as_mut().filter(|proposal| proposal.is_open()) {
            proposal.state = ProposalState::Superseded;
            file.clone_into(&mut proposal.ended_by);
        }
        self.owner = Owner::File { file: file.clone() };
        // The same words are the same version, whoever says them.
        if self.in_force.is_some() && in_force == Some(&terms) {
            return Ok(None);
        }
        if self.versions >= MAX_VERSIONS {
            return Err(Illegal::Full { limit: MAX_VERSIONS, what: "versions of a contract" });
        }
        self.versions += 1;
        self.in_force = Some(self.versions);
        Ok(Some(Version { terms, proposal: None, offer: None, file, evidence: None }))
    }
}

fn same_parties(known: &Terms, terms: &Terms) -> Result<(), Illegal> {
    let of = |terms: &Terms| (terms.consumer().to_owned(), terms.provider().to_owned());
    let (consumer, provider) = of(known);
    match of(terms) == (consumer.clone(), provider.clone()) {
        true => Ok(()),
        false => Err(Illegal::OtherParties { consumer, provider }),
    }
}
