//! Aborted transactions of segments whose `.txnindex` is missing or unreadable.
//!
//! Kafka takes a missing one for an empty one and then hands aborted records to readers of committed ones. Whether it is
//! right is not for the directory to say: where producers have used transactions the log is asked, in a pass of its own,
//! because it has to begin before the transactions that it is to find. What ended below the log start is left out: nobody
//! reads it, and Kafka's cleaner leaves it out too.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use oncelog_formats::txn_index::AbortedTxn;
use oncelog_snapshot::ProducerTable;

use super::{Opened, Recovery, View};
use crate::error::Result;
use crate::segment::incoming;
use crate::segment::scan::scan;

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
        let read = opened.iter().filter(|o| o.next_base.is_none_or(|next| next > from) && o.base <= last);
        for segment in read {
            let mut list = Vec::new();
            scan(&*segment.file, 0, segment.length, segment.base, |_, batch| {
                if batch.header().last_offset() >= from
                    && let Some(batch) = incoming(&batch)?
                    && let Ok(Some(aborted)) = view.apply(&batch, 0)
                    && aborted.last_offset >= self.bounds.log_start
                {
                    list.push(aborted);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if segment.aborted.is_none() {
                found.insert(segment.base, list);
            }
        }
        Ok(found)
    }

    pub fn may_hold_transactions(&self) -> bool {
        let transactions =
            |table: &ProducerTable| table.iter().any(|(_, p)| p.coordinator_epoch >= 0 || p.txn_first_offset.is_some());
        self.view.reach.transactional_from.is_some() || transactions(&self.kept)
    }
}
