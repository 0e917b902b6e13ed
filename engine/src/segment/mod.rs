//! One segment file: walking its batches, knowing nothing of the log around it.

pub(crate) mod pieces;
pub(crate) mod scan;
pub(crate) mod take;
pub(crate) mod walk;

use oncelog_formats::BatchView;
use oncelog_formats::batch::NO_PRODUCER_ID;
use oncelog_formats::control::ControlType;
use oncelog_snapshot::{Incoming, Marker};

use crate::error::Result;

/// What the producer state needs to know of a batch; `None` for one without a producer id.
pub(crate) fn incoming(view: &BatchView<'_>) -> Result<Option<Incoming>> {
    let header = view.header();
    if header.producer_id <= NO_PRODUCER_ID {
        return Ok(None);
    }
    let marker = if header.is_control() { Some(marker(view)) } else { None };
    Ok(Some(Incoming {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        last_sequence: header.last_sequence(),
        first_offset: header.base_offset,
        last_offset: header.last_offset(),
        max_timestamp: header.max_timestamp,
        transactional: header.is_transactional(),
        marker,
    }))
}

/// A control batch whose record cannot be read ends no transaction: it counts as one of another type.
fn marker(view: &BatchView<'_>) -> Marker {
    if view.header().record_count == 0 {
        return Marker::Empty;
    }
    match view.control() {
        Ok(control) if matches!(control.kind, ControlType::Abort | ControlType::Commit) => match control.marker {
            Some(end) => Marker::EndTxn {
                commit: end.commit,
                coordinator_epoch: end.coordinator_epoch,
                timestamp: control.timestamp,
            },
            None => Marker::Other,
        },
        _ => Marker::Other,
    }
}
