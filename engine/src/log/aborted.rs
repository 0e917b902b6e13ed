//! Which aborted transactions a committed read must be told of (Kafka's `collectAbortedTransactions`).

use super::state::State;

/// The transactions aborted in a read of the segment `base_offset` that began at offset `start` and ended at the byte
/// `upper_position`: producer id and first offset, in order of their markers. `None` if the segment has gone meanwhile.
///
/// The upper bound is as loose as Kafka's, by the offset index, so that both answer the same list. Kafka stops at the
/// first entry whose last stable offset is not below the bound; no transaction behind it begins below the bound, so
/// leaving that rule out changes no answer.
pub(super) fn aborted_in(state: &State, base_offset: i64, start: i64, upper_position: u64) -> Option<Vec<(i64, i64)>> {
    let segment = state.segments.get(&base_offset)?;
    let next_base = state.segments.range(base_offset + 1..).next().map(|(base, _)| *base);
    let upper = segment.index.offset_at_position(upper_position).or(next_base).unwrap_or_else(|| state.log_end());
    let mut found = Vec::new();
    state.aborted.overlapping(start.max(base_offset), upper, |txn| found.push((txn.producer_id, txn.first_offset)));
    Some(found)
}
