//! A3: transactions of 100 puts, synced as in A.

use std::time::Instant;

use crate::Result;
use crate::engines::Engine;
use crate::measure::per_second;
use crate::workloads::Context;
use crate::workloads::puts::Puts;

const PUTS_PER_TXN: u32 = 100;

pub(super) fn run<E: Engine>(context: &Context<'_>, engine: &E) -> Result<()> {
    if !context.wants("A3") {
        return Ok(());
    }
    let mut puts = Puts::strided_for(context.data, context.scale.short);
    let start = Instant::now();
    engine.write(PUTS_PER_TXN, &mut puts)?;
    let rate = per_second(puts.count(), start.elapsed());
    context.report("A3", "txn100_puts", rate, "puts/s");
    Ok(())
}
