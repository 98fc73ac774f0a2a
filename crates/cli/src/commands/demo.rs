//! `throughline demo`.
use std::path::Path;

use crate::args::DemoArgs;
use crate::failure::Outcome;
use crate::settings::{ServeSettings, Settings};
use crate::spine::Spine;

/// Serves.
pub(crate) async fn run(
    settings: &Settings,
    serve: &ServeSettings,
    _data_dir: Option<&Path>,
    _args: &DemoArgs,
) -> Outcome {
    let (spine, events) = Spine::wire(settings, serve)?;
    spine.run(events).await
}
