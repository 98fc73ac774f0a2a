//! `audit:` of the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// `audit:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuditConfig {
    /// File with the audit key.
    pub(crate) key_file: Option<PathBuf>,
    /// Files with earlier audit keys, of which records remain.
    pub(crate) previous_key_files: Vec<PathBuf>,
    /// Seconds between two checkpoints, when there is something new.
    pub(crate) checkpoint_interval_secs: Option<u64>,
    /// Records after which a checkpoint is made before its time.
    pub(crate) checkpoint_count: Option<u64>,
    /// Seconds between two verifications by the server; 0 for none.
    pub(crate) verify_interval_secs: Option<u64>,
    /// Days after which decisions are removed; never when left out.
    pub(crate) retention_days: Option<u64>,
    /// Days after which reads of decisions are removed.
    pub(crate) reads_retention_days: Option<u64>,
    /// Where checkpoints are kept besides.
    pub(crate) anchors: Vec<AnchorConfig>,
}

/// One of `audit.anchors`: exactly one of `file`, `git`, `http` and `s3` says which kind it is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AnchorConfig {
    /// What it is called in metrics and reports.
    pub(crate) name: Option<String>,
    /// A file on another disk, to which lines are appended.
    pub(crate) file: Option<PathBuf>,
    /// A git repository that gets notes.
    pub(crate) git: Option<PathBuf>,
    /// The ref of the notes.
    pub(crate) notes_ref: Option<String>,
    /// The remote to which the notes are pushed.
    pub(crate) push: Option<String>,
    /// An address that checkpoints are sent to; `{number}` in it becomes the chain number.
    pub(crate) http: Option<String>,
    /// How they are sent.
    pub(crate) method: Option<HttpMethod>,
    /// Headers that go along.
    pub(crate) headers: BTreeMap<String, String>,
    /// A bucket of an object store, and what names in it begin with: `s3://bucket/prefix`.
    pub(crate) s3: Option<String>,
    /// The region of the bucket; that of the environment when it is left out.
    pub(crate) region: Option<String>,
    /// The address of an object store that is not AWS's.
    pub(crate) endpoint: Option<String>,
    /// A file with credentials in AWS's form.
    pub(crate) credentials_file: Option<PathBuf>,
}

/// How a checkpoint is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) enum HttpMethod {
    /// A service that takes them in.
    #[default]
    #[serde(rename = "POST", alias = "post")]
    Post,
    /// An object store.
    #[serde(rename = "PUT", alias = "put")]
    Put,
}

impl AuditConfig {
    /// The paths, which are relative to the file.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let anchors = self.anchors.iter_mut();
        let of_anchors =
            anchors.flat_map(|of| [&mut of.file, &mut of.git, &mut of.credentials_file]);
        let of_anchors = of_anchors.flatten();
        self.key_file.iter_mut().chain(&mut self.previous_key_files).chain(of_anchors)
    }
}
