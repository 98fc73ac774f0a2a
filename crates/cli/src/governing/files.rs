//! Rules from files and folders, and what changes of them while the server runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use throughline_govern::slo::{Indicator, Source};
use throughline_govern::{RuleObserver, Rules, read_rules, rego_files};
use throughline_store::{ControlError, Governance};

use crate::failure::{Failure, Outcome};

/// Files of rules at most.
const MAX_RULE_FILES: usize = 2_000;

/// Where the guide is.
const HINT: &str = "docs/governance.md tells what rules may say; `throughline slo check FILES` reads SLOs without a server";

/// Kind and name of the document with the rules that no file holds.
const KEPT: (&str, &str) = ("rules", "built-in");

/// Rules that no file holds: those of the demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleText {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Where rules come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuleFiles {
    /// Files, and folders whose `.yaml` and `.yml` files are meant.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) texts: Vec<RuleText>,
    /// The `.rego` files that they speak of.
    beside: Vec<PathBuf>,
    /// What was read last, by file.
    known: Vec<(PathBuf, Option<SystemTime>, u64)>,
    /// What they said when they were read last.
    said: Vec<RuleText>,
    /// Whether they could not be listed the last time.
    is_lost: bool,
}

impl RuleFiles {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, ..Self::default() }
    }

    /// Keeps the rules that no file holds, for commands beside the server.
    pub(crate) fn keep(&self, governance: &Governance) -> Result<(), ControlError> {
        let (kind, name) = KEPT;
        let known = governance.document(kind, name)?;
        let body = serde_json::to_string(&self.texts).unwrap_or_default();
        let is_kept = known.as_ref().map_or(self.texts.is_empty(), |known| known.body == body);
        if !is_kept {
            let version = known.map_or(0, |known| known.version);
            // Whoever was quicker is another server on the same data, with its own.
            governance.write_document(kind, name, version, "", &body)?;
        }
        Ok(())
    }

    /// Adds the rules that no file holds, as the server had them that ran last.
    pub(crate) fn with_kept(mut self, governance: &Governance) -> Result<Self, ControlError> {
        let (kind, name) = KEPT;
        if let Some(kept) = governance.document(kind, name)? {
            self.texts.extend(kept.read::<Vec<RuleText>>()?);
        }
        Ok(self)
    }

    /// Reads all of them.
    pub(crate) fn read(&mut self) -> Outcome<Rules> {
        self.read_all().map_err(|error| Failure::usage(error).hint(HINT))
    }

    /// What they say if they changed since they were read last.
    pub(crate) fn changed(&mut self) -> Option<Result<Rules, String>> {
        let now = self.list().map(|mut files| {
            files.extend(self.beside.iter().cloned());
            marks(&files)
        });
        match now {
            Ok(now) if now == self.known => {
                self.is_lost = false;
                None
            }
            Ok(_) => {
                self.is_lost = false;
                Some(self.read_all())
            }
            // Told once, not with every round.
            Err(error) => (!std::mem::replace(&mut self.is_lost, true)).then_some(Err(error)),
        }
    }

    fn read_all(&mut self) -> Result<Rules, String> {
        let files = self.list()?;
        // Before the texts: what changes while they are read is a change.
        self.known = marks(&files);
        let mut texts = self.texts.clone();
        for file in &files {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            texts.push(RuleText { name: file.display().to_string(), text });
        }
        let beside = texts.iter().flat_map(|one| {
            rego_files(&one.text).into_iter().map(|name| Path::new(&one.name).with_file_name(name))
        });
        let beside: BTreeSet<PathBuf> = beside.collect();
        for file in &beside {
            // One that is not there is told by the rule that names it, with its place.
            let Ok(text) = std::fs::read_to_string(file) else { continue };
            texts.push(RuleText { name: file.display().to_string(), text });
        }
        self.beside = beside.into_iter().collect();
        self.known.extend(marks(&self.beside));
        let sources: Vec<Source<'_>> =
            texts.iter().map(|one| Source { name: &one.name, text: &one.text }).collect();
        let rules = read_rules(&sources).map_err(|error| error.to_string())?;
        rules.notes.iter().for_each(|note| tracing::warn!(note, "a rule will surprise"));
        self.said = texts;
        Ok(rules)
    }

    /// What they said when they were last read and could be meant.
    pub(crate) fn said(&self) -> &[RuleText] {
        &self.said
    }

    fn list(&self) -> Result<Vec<PathBuf>, String> {
        let mut found = Vec::new();
        for path in &self.paths {
            let fails = |error: std::io::Error| {
                format!("expected a file or folder with rules, got {}: {error}", path.display())
            };
            if path.is_dir() {
                let mut inside = Vec::new();
                for entry in std::fs::read_dir(path).map_err(fails)? {
                    inside.push(entry.map_err(fails)?.path());
                }
                inside.retain(|file| is_rules(file));
                inside.sort();
                found.extend(inside);
            } else {
                std::fs::metadata(path).map_err(fails)?;
                found.push(path.clone());
            }
        }
        if found.len() > MAX_RULE_FILES {
            let got = found.len();
            return Err(format!("expected at most {MAX_RULE_FILES} files with rules, got {got}"));
        }
        Ok(found)
    }
}

fn is_rules(file: &Path) -> bool {
    file.is_file()
        && file
            .extension()
            .and_then(|ext| ext.to_str())
            .is_some_and(|ext| matches!(ext, "yaml" | "yml"))
}

fn marks(files: &[PathBuf]) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let mark = |file: &PathBuf| {
        let about = std::fs::metadata(file).ok();
        let length = about.as_ref().map_or(0, std::fs::Metadata::len);
        (file.clone(), about.and_then(|about| about.modified().ok()), length)
    };
    files.iter().map(mark).collect()
}

/// Who counts spans for these rules, and for what is counted beside them.
pub(crate) fn observer(rules: &Rules, beside: Vec<Arc<Indicator>>) -> RuleObserver {
    let objectives = rules.slos.iter().flat_map(|slo| &slo.objectives);
    RuleObserver::new(objectives.map(|objective| objective.indicator.clone()).chain(beside))
}
