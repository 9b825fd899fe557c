//! A storm of resumes, with the replay window and without.

use super::Parts;
use crate::Error;
use crate::output::Progress;
use crate::scenario::resume::{self, ResumeLoad};
use crate::stack::Places;

/// Measures both storms.
pub(crate) async fn measure(
    places: &Places,
    parts: &mut Parts,
    progress: &Progress,
) -> Result<(), Error> {
    let both = resume::measure_both(places, &ResumeLoad::default(), progress).await?;
    let (with, without) = (&both.with_window, &both.without_window);
    parts.put("resumePostgresMicros", with.processor.postgres);
    parts.put("windowlessResumePostgresMicros", without.processor.postgres);
    parts.put("resumes", with.resumes);
    parts.put("windowlessResumes", without.resumes);
    parts.put("resumeMicros", with.processor.service());
    parts.put("windowlessResumeMicros", without.processor.service());
    Ok(())
}
