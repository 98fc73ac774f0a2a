//! Anchors: places outside the data directory that keep checkpoints of the audit log.
//!
//! What is still to be sent is what the database has beyond the anchor's last number, so that an
//! outage needs no spool of its own. An anchor that fails is tried again, ever more seldom.

mod file;
mod git;
mod http;
mod keeper;
mod s3;

use throughline_store::{AnchorLines, Checkpoint};

use crate::settings::{AnchorSettings, AnchorTarget};

pub(crate) use file::lines as lines_of;
pub(crate) use keeper::Keeper;
pub(crate) use s3::Place;

/// Hands checkpoints, oldest first, to an anchor. The error is what went wrong, for people.
async fn write(anchor: &AnchorSettings, checkpoints: &[Checkpoint]) -> Result<(), String> {
    match &anchor.target {
        AnchorTarget::File(path) => file::write(path.clone(), checkpoints.to_vec()).await,
        AnchorTarget::Git { repository, notes_ref, push } => {
            // The newest vouches for all before it, and the ref's history keeps those.
            match checkpoints.last() {
                Some(last) => git::write(repository, notes_ref, push.as_deref(), last).await,
                None => Ok(()),
            }
        }
        AnchorTarget::Http { url, method, headers } => {
            http::write(url, *method, headers, checkpoints).await
        }
        AnchorTarget::S3(place) => s3::write(place, checkpoints).await,
    }
}

/// What an anchor has, if it can be read back: `None` for an HTTP endpoint.
pub(crate) async fn read(anchor: &AnchorSettings) -> Result<Option<AnchorLines>, String> {
    let lines = match &anchor.target {
        AnchorTarget::File(path) => file::read(path.clone()).await?,
        AnchorTarget::Git { repository, notes_ref, .. } => git::read(repository, notes_ref).await?,
        AnchorTarget::S3(place) => s3::read(place).await?,
        AnchorTarget::Http { .. } => return Ok(None),
    };
    Ok(Some(AnchorLines { name: anchor.name.clone(), lines }))
}
