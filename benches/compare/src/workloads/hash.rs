//! E: the whole history hashed in revision order.
//!
//! revtree makes etcd's HashKV, which takes in fewer bytes but decides for each revision whether
//! it counts; peers run CRC-32C over all they stored. The rate is over the same bytes for all.

use std::time::Instant;

use crate::Result;
use crate::engines::Engine;
use crate::measure::per_second;
use crate::workloads::{Context, RECORD_BYTES};

pub(super) fn run<E: Engine>(context: &Context<'_>, engine: &E) -> Result<()> {
    if !context.wants("E") {
        return Ok(());
    }
    let bytes = context.data.put_count() * RECORD_BYTES;
    for threads in [1, 2] {
        let start = Instant::now();
        if engine.hash(threads)?.is_some() {
            let rate = per_second(bytes, start.elapsed()) / 1e6;
            context.report("E", &format!("hash_{threads}t"), rate, "MB/s");
        }
    }
    Ok(())
}
