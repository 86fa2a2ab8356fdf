//! Calls that fail.
use crate::crash::CrashSummary;

/// Later.
///
/// # Errors
///
/// Later.
pub fn faults(_seed: u64) -> Result<CrashSummary, String> {
    Ok(CrashSummary::default())
}
