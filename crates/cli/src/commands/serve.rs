//! `throughline serve`.

use crate::failure::Outcome;
use crate::settings::{ServeSettings, Settings};
use crate::spine::Spine;

/// Serves until somebody asks to stop.
pub(crate) async fn run(settings: &Settings, serve: &ServeSettings) -> Outcome {
    let (spine, events) = Spine::wire(settings, serve)?;
    spine.run(events).await
}
