//! Aborted transactions of segments whose `.txnindex` is missing or unreadable.
//!
//! Kafka takes a missing one for an empty one and then hands aborted records to readers of committed ones. Whether it
//! is right is not for the directory to say: where producers have used transactions the log is asked, in a pass of its
//! own, because it has to begin before the transactions that it is to find. What ended below the log start is left out:
//! nobody reads it, and Kafka's cleaner leaves it out too.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use oncelog_formats::txn_index::AbortedTxn;
use oncelog_snapshot::ProducerTable;

use super::{Opened, Recovery, View};
use crate::error::{Error, Result};
use crate::segment::incoming;
use crate::segment::pieces::{Pieces, Stretch};
use crate::segment::scan::scan_ahead;

impl Recovery<'_> {
    /// The aborted transactions of each segment that has to be asked.
    pub(super) fn find_aborted(&mut self, opened: &[Opened]) -> Result<BTreeMap<i64, Vec<AbortedTxn>>> {
        let mut found = BTreeMap::new();
        let lacks = |o: &&Opened| o.aborted.is_none() && o.base < self.starts.doubt;
        let (Some(first), Some(last)) = (opened.iter().find(lacks), opened.iter().rfind(lacks)) else {
            return Ok(found);
        };
        let (first, last) = (first.base, last.base);
        if self.newest_used.is_some() && !self.may_hold_transactions() {
            return Ok(found);
        }
        let mut from = i64::MIN;
        let mut view = View::default();
        if let Some((offset, loaded)) = self.newest_snapshot(i64::MIN, first)? {
            from = offset;
            view = View::from_table(offset, loaded.table);
        }
        let reads = |o: &&Opened| o.next_base.is_none_or(|next| next > from) && o.base <= last;
        let read: Vec<&Opened> = opened.iter().filter(reads).collect();
        let whole = |o: &&Opened| Stretch { file: o.file.clone(), range: 0..o.length };
        let stretches: Vec<Stretch> = read.iter().map(whole).collect();
        self.means.read_ahead(&stretches, |ahead| {
            for (stretch, segment) in read.iter().enumerate() {
                let mut list = aborted_in(&mut view, from, ahead, stretch, segment.base)?;
                list.retain(|aborted| aborted.last_offset >= self.bounds.log_start);
                if segment.aborted.is_none() {
                    found.insert(segment.base, list);
                }
            }
            Ok::<_, Error>(())
        })?;
        Ok(found)
    }

    pub fn may_hold_transactions(&self) -> bool {
        let transactions =
            |table: &ProducerTable| table.iter().any(|(_, p)| p.coordinator_epoch >= 0 || p.txn_first_offset.is_some());
        self.view.reach.transactional_from.is_some() || transactions(&self.kept)
    }
}

/// The transactions that a segment aborts. Batches below `from` are in the view already.
fn aborted_in(view: &mut View, from: i64, ahead: &Pieces<'_>, stretch: usize, base: i64) -> Result<Vec<AbortedTxn>> {
    let mut list = Vec::new();
    scan_ahead(ahead, stretch, base, |_, batch| {
        if batch.header().last_offset() >= from
            && let Some(batch) = incoming(&batch)?
            && let Ok(Some(aborted)) = view.apply(&batch, 0)
        {
            list.push(aborted);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(list)
}
