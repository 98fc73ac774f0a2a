//! The documents of all files, by kind and name, so that they can speak of one another.

use std::collections::{BTreeMap, BTreeSet};

use throughline_rules::nearest;

use super::alerts;
use super::indicators::{self, MetricSli};
use super::{MAX_SLO_FILE_BYTES, description};
use crate::slo::fields::{Fields, Text, text_of};
use crate::slo::mistake::{Report, Source};
use crate::slo::tree::{Place, Tree};

/// The version of the form that is read.
const API_VERSION: &str = "openslo/v1";

/// Longest name, characters: that of a DNS label, as OpenSLO says.
const MAX_NAME_CHARS: usize = 63;

/// What our annotations begin with.
const OUR_PREFIX: &str = "throughline.dev/";

/// Our annotations.
const OUR_ANNOTATIONS: [&str; 7] = [
    "throughline.dev/runbook",
    "throughline.dev/min-events",
    "throughline.dev/evaluation-threshold",
    "throughline.dev/evaluation-windows",
    "throughline.dev/evaluation-window",
    "throughline.dev/usual-alerts",
    "throughline.dev/notify",
];

/// OpenSLO's kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Slo,
    Sli,
    AlertPolicy,
    AlertCondition,
    AlertNotificationTarget,
    Service,
    DataSource,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Slo,
        Self::Sli,
        Self::AlertPolicy,
        Self::AlertCondition,
        Self::AlertNotificationTarget,
        Self::Service,
        Self::DataSource,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Slo => "SLO",
            Self::Sli => "SLI",
            Self::AlertPolicy => "AlertPolicy",
            Self::AlertCondition => "AlertCondition",
            Self::AlertNotificationTarget => "AlertNotificationTarget",
            Self::Service => "Service",
            Self::DataSource => "DataSource",
        }
    }
}

/// `metadata`.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    pub(super) name: Text,
    pub(super) display_name: String,
    annotations: BTreeMap<String, Text>,
}

impl Meta {
    /// One of our annotations.
    pub(super) fn annotation(&self, name: &str) -> Option<&Text> {
        self.annotations.get(name)
    }

    /// Reads `metadata`.
    pub(super) fn read(fields: &mut Fields, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = fields.need_fields("metadata", report)?;
        let name = fields.need_text("name", report);
        let display_name = fields.words("displayName", report);
        let mut annotations = BTreeMap::new();
        if let Some(given) = fields.fields("annotations", report) {
            for (key, value) in given.into_entries() {
                if key.name.starts_with(OUR_PREFIX) && !OUR_ANNOTATIONS.contains(&key.name.as_str())
                {
                    let hint = match nearest(&key.name, OUR_ANNOTATIONS) {
                        Some(name) => format!("did you mean `{name}`?"),
                        None => format!("known here: {}", OUR_ANNOTATIONS.join(", ")),
                    };
                    report.wrong(key.at, format!("unknown annotation `{}`", key.name), hint);
                } else if let Some(text) = text_of(&value, &key.name, report) {
                    annotations.insert(key.name, text);
                }
            }
        }
        // Labels are for others: any will do.
        drop(fields.take("labels"));
        fields.finish(report);
        let name = name?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let text = &name.text;
        if text.chars().count() > MAX_NAME_CHARS || !text.chars().all(is_name) {
            report.wrong(
                name.at,
                format!("expected a name of at most {MAX_NAME_CHARS} letters, digits, `-`, `_` and `.`, got `{text}`"),
                "what people shall read goes into displayName",
            );
            return None;
        }
        Some(Self { name, display_name, annotations })
    }
}

/// One document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) at: Place,
    pub(super) meta: Meta,
    pub(super) spec: Fields,
}

/// All documents, with those that are spoken of read once.
#[derive(Debug, Default)]
pub(super) struct Documents {
    all: BTreeMap<Kind, Vec<Document>>,
    used: BTreeSet<(Kind, String)>,
    indicators: BTreeMap<String, Option<MetricSli>>,
    policies: BTreeMap<String, Option<alerts::Policy>>,
    conditions: BTreeMap<String, Option<alerts::Condition>>,
    targets: BTreeMap<String, Option<String>>,
    sources: BTreeMap<String, Option<Text>>,
}

impl Documents {
    /// Reads all files as far as `metadata`.
    pub(super) fn read(sources: &[Source<'_>], report: &mut Report<'_>) -> Self {
        let mut documents = Self::default();
        for (file, source) in sources.iter().enumerate() {
            let at = Place { file, byte: 0 };
            let bytes = source.text.len();
            if bytes > MAX_SLO_FILE_BYTES {
                report.wrong(
                    at,
                    format!("expected a file of at most {MAX_SLO_FILE_BYTES} bytes, got {bytes}"),
                    "divide it",
                );
                continue;
            }
            match Tree::documents(file, source.text) {
                Ok(trees) if trees.is_empty() => {
                    report.wrong(at, "expected an OpenSLO document, got an empty file", "");
                }
                Ok(trees) => trees.into_iter().for_each(|tree| documents.add(tree, report)),
                Err((at, words)) => report.wrong(at, words, ""),
            }
        }
        // Data sources first: whatever speaks of one needs its type.
        for source in documents.take(Kind::DataSource) {
            let (name, mut spec) = (source.meta.name.text, source.spec);
            description(&mut spec, report);
            let ty = spec.need_text("type", report);
            drop(spec.take("connectionDetails"));
            spec.finish(report);
            documents.sources.insert(name, ty);
        }
        documents
    }

    fn add(&mut self, tree: Tree, report: &mut Report<'_>) {
        let at = tree.at;
        let Some(mut fields) = Fields::of(tree, "an OpenSLO document", report) else { return };
        let Some(version) = fields.need_text("apiVersion", report) else { return };
        if version.text != API_VERSION {
            let hint = match version.text.as_str() {
                text if text.starts_with("openslo/") => "other versions of OpenSLO are not read",
                _ => "files of Sloth are brought over with `throughline slo import sloth FILE`",
            };
            report.wrong(
                version.at,
                format!("expected `apiVersion: {API_VERSION}`, got `{}`", version.text),
                hint,
            );
            return;
        }
        let Some(word) = fields.need_text("kind", report) else { return };
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == word.text) else {
            let known = Kind::ALL.map(Kind::as_str);
            let hint = match nearest(&word.text, known) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("kinds are {}", known.join(", ")),
            };
            report.wrong(word.at, format!("expected a kind of OpenSLO, got `{}`", word.text), hint);
            return;
        };
        let meta = Meta::read(&mut fields, report);
        let spec = match kind {
            Kind::Service => {
                Some(fields.fields("spec", report).unwrap_or_else(|| Fields::empty(at)))
            }
            _ => fields.need_fields("spec", report),
        };
        fields.finish(report);
        let (Some(meta), Some(spec)) = (meta, spec) else { return };
        let others = self.all.entry(kind).or_default();
        if kind != Kind::Slo && others.iter().any(|other| other.meta.name.text == meta.name.text) {
            let name = &meta.name.text;
            let kind = kind.as_str();
            report.wrong(
                meta.name.at,
                format!("the {kind} `{name}` is there twice"),
                "keep one of them",
            );
            return;
        }
        others.push(Document { at, meta, spec });
    }

    /// Takes all documents of a kind away, to be read.
    pub(super) fn take(&mut self, kind: Kind) -> Vec<Document> {
        self.all.remove(&kind).unwrap_or_default()
    }

    /// Notes that something speaks of a document.
    pub(super) fn is_used(&mut self, kind: Kind, name: &str) {
        self.used.insert((kind, name.to_owned()));
    }

    /// Takes the document that something speaks of, if it was not read yet.
    fn take_one(&mut self, kind: Kind, name: &str) -> Option<Document> {
        let all = self.all.get_mut(&kind)?;
        let at = all.iter().position(|document| document.meta.name.text == name)?;
        Some(all.remove(at))
    }

    /// Tells that a reference leads nowhere.
    fn is_missing(&self, kind: Kind, wanted: &Text, report: &mut Report<'_>) {
        let read: Vec<&String> = match kind {
            Kind::Sli => self.indicators.keys().collect(),
            Kind::AlertPolicy => self.policies.keys().collect(),
            Kind::AlertCondition => self.conditions.keys().collect(),
            Kind::AlertNotificationTarget => self.targets.keys().collect(),
            Kind::DataSource => self.sources.keys().collect(),
            _ => Vec::new(),
        };
        let unread = self.all.get(&kind).into_iter().flatten().map(|one| &one.meta.name.text);
        let known: Vec<&str> = read.into_iter().chain(unread).map(String::as_str).collect();
        let kind = kind.as_str();
        let hint = match nearest(&wanted.text, known.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None if known.is_empty() => format!("these files have no {kind}"),
            None => format!("known: {}", known.join(", ")),
        };
        let name = &wanted.text;
        report.wrong(
            wanted.at,
            format!("expected the name of an existing {kind}, got `{name}`"),
            hint,
        );
    }

    /// The type of a data source.
    pub(super) fn source_type(&mut self, wanted: &Text, report: &mut Report<'_>) -> Option<Text> {
        self.is_used(Kind::DataSource, &wanted.text);
        match self.sources.get(&wanted.text) {
            Some(found) => found.clone(),
            None => {
                self.is_missing(Kind::DataSource, wanted, report);
                None
            }
        }
    }

    /// An SLI that is a document of its own.
    pub(super) fn indicator(
        &mut self,
        wanted: &Text,
        report: &mut Report<'_>,
    ) -> Option<MetricSli> {
        self.is_used(Kind::Sli, &wanted.text);
        if let Some(document) = self.take_one(Kind::Sli, &wanted.text) {
            let read = indicators::read(document.spec, self, report);
            self.indicators.insert(wanted.text.clone(), read);
        }
        match self.indicators.get(&wanted.text) {
            Some(found) => found.clone(),
            None => {
                self.is_missing(Kind::Sli, wanted, report);
                None
            }
        }
    }

    /// A policy that is a document of its own.
    pub(super) fn policy(
        &mut self,
        wanted: &Text,
        report: &mut Report<'_>,
    ) -> Option<alerts::Policy> {
        self.is_used(Kind::AlertPolicy, &wanted.text);
        if let Some(document) = self.take_one(Kind::AlertPolicy, &wanted.text) {
            let read = alerts::policy(&document.meta, document.spec, self, report);
            self.policies.insert(wanted.text.clone(), read);
        }
        match self.policies.get(&wanted.text) {
            Some(found) => found.clone(),
            None => {
                self.is_missing(Kind::AlertPolicy, wanted, report);
                None
            }
        }
    }

    /// A condition that is a document of its own.
    pub(super) fn condition(
        &mut self,
        wanted: &Text,
        report: &mut Report<'_>,
    ) -> Option<alerts::Condition> {
        self.is_used(Kind::AlertCondition, &wanted.text);
        if let Some(document) = self.take_one(Kind::AlertCondition, &wanted.text) {
            let read = alerts::condition(document.spec, report);
            self.conditions.insert(wanted.text.clone(), read);
        }
        match self.conditions.get(&wanted.text) {
            Some(found) => found.clone(),
            None => {
                self.is_missing(Kind::AlertCondition, wanted, report);
                None
            }
        }
    }

    /// The receiver of a target that is a document of its own.
    pub(super) fn target(&mut self, wanted: &Text, report: &mut Report<'_>) -> Option<String> {
        self.is_used(Kind::AlertNotificationTarget, &wanted.text);
        if let Some(document) = self.take_one(Kind::AlertNotificationTarget, &wanted.text) {
            let read = alerts::target(document.spec, report);
            self.targets.insert(wanted.text.clone(), read);
        }
        match self.targets.get(&wanted.text) {
            Some(found) => found.clone(),
            None => {
                self.is_missing(Kind::AlertNotificationTarget, wanted, report);
                None
            }
        }
    }

    /// Reads what no SLO speaks of too, so that its mistakes are told, and says that nobody does.
    pub(super) fn check_rest(&mut self, report: &mut Report<'_>) {
        // Policies speak of conditions and targets, so they come first.
        for document in self.take(Kind::AlertPolicy) {
            self.is_idle(Kind::AlertPolicy, &document.meta.name, report);
            alerts::policy(&document.meta, document.spec, self, report);
        }
        for document in self.take(Kind::Sli) {
            self.is_idle(Kind::Sli, &document.meta.name, report);
            indicators::read(document.spec, self, report);
        }
        for document in self.take(Kind::AlertCondition) {
            self.is_idle(Kind::AlertCondition, &document.meta.name, report);
            alerts::condition(document.spec, report);
        }
        for document in self.take(Kind::AlertNotificationTarget) {
            self.is_idle(Kind::AlertNotificationTarget, &document.meta.name, report);
            alerts::target(document.spec, report);
        }
        for document in self.take(Kind::Service) {
            let mut spec = document.spec;
            description(&mut spec, report);
            spec.finish(report);
        }
    }

    fn is_idle(&self, kind: Kind, name: &Text, report: &mut Report<'_>) {
        if !self.used.contains(&(kind, name.text.clone())) {
            let (kind, name_text) = (kind.as_str(), &name.text);
            report.note(name.at, format!("no SLO uses the {kind} `{name_text}`"), "");
        }
    }
}
