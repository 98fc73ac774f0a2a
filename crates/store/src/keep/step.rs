//! The steps in which another file takes the place of a segment: packing and retiring are the same
//! but for what they write.

use crate::keep::KeepError;

/// A step, which a kill may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The other file is written under a name that nobody reads.
    Write,
    /// It gets its name, under which it says nothing as long as the segment is there.
    Rename,
    /// The manifest notes what is about to happen.
    Announce,
    /// The segment is unlinked: readers move to the other file.
    Unlink,
    UnlinkSideFiles,
    /// The manifest notes that it has happened.
    Record,
}

impl Step {
    pub(crate) const ALL: [Self; 6] = [
        Self::Write,
        Self::Rename,
        Self::Announce,
        Self::Unlink,
        Self::UnlinkSideFiles,
        Self::Record,
    ];

    /// Does all of them in their order; answers what they did.
    pub(crate) fn run<D: Default>(
        mut step: impl FnMut(Self, &mut D) -> Result<(), KeepError>,
    ) -> Result<D, KeepError> {
        let mut done = D::default();
        Self::ALL.into_iter().try_for_each(|one| step(one, &mut done))?;
        Ok(done)
    }
}
