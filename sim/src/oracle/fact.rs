//! One batch that was given offsets, and how stored bytes are held against it. Reads batches by their byte positions
//! (storage.md 1.1) rather than through a parser that the engine uses as well.

use oncelog::Ack;

/// Base offset, length and leader epoch stand before this byte and are stamped; all behind it must stay as sent.
pub(crate) const STAMPED_BYTES: usize = 16;

/// What a batch is to its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records.
    Data { transactional: bool },
    /// The end of a transaction.
    Marker { commit: bool, coordinator_epoch: i32 },
}

impl Kind {
    pub(crate) fn is_transactional(self) -> bool {
        self != Self::Data { transactional: false }
    }

    pub(crate) fn is_marker(self) -> bool {
        matches!(self, Self::Marker { .. })
    }
}

/// One batch that was given offsets.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    /// -1 for a batch of nobody.
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) kind: Kind,
    pub(crate) timestamp: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) first_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) appended_ms: i64,
    /// The bytes as they were sent.
    pub(crate) sent: Vec<u8>,
    /// The strongest answer given so far.
    pub(crate) level: Ack,
    /// How its transaction ended: committed or not, and the offset of the marker.
    pub(crate) ended: Option<(bool, i64)>,
}

impl Fact {
    pub(crate) fn records(&self) -> i64 {
        self.last_offset - self.first_offset + 1
    }

    /// What committed readers do with it; `None` while nobody knows.
    pub(crate) fn is_visible(&self) -> Option<bool> {
        match self.kind {
            Kind::Data { transactional: false } => Some(true),
            Kind::Data { transactional: true } => self.ended.map(|(commit, _)| commit),
            Kind::Marker { .. } => Some(false),
        }
    }
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { producer_id, epoch, first_sequence, last_sequence, first_offset, last_offset, level, .. } = self;
        write!(f, "offsets {first_offset}..={last_offset} of producer {producer_id} epoch {epoch} ")?;
        write!(f, "sequences {first_sequence}..={last_sequence}, acknowledged {level:?}")
    }
}

/// The stored bytes must begin with exactly these facts, once each and in this order; how many of them did, and the
/// first difference. `whole`: all of them must be there.
pub(crate) fn compare(facts: &[Fact], mut data: &[u8], whole: bool) -> (usize, Option<String>) {
    for (count, fact) in facts.iter().enumerate() {
        if data.is_empty() && !whole {
            return (count, None);
        }
        let Some((offset, length)) = frame(data) else { return (count, Some(format!("not found: {fact}"))) };
        if offset != fact.first_offset {
            return (count, Some(format!("found a batch at offset {offset} instead of {fact}")));
        }
        if length != fact.sent.len() || data.get(STAMPED_BYTES..length) != fact.sent.get(STAMPED_BYTES..) {
            return (count, Some(format!("other bytes than were sent: {fact}")));
        }
        if data[12..16] != fact.leader_epoch.to_be_bytes() {
            return (count, Some(format!("another leader epoch than {}: {fact}", fact.leader_epoch)));
        }
        data = &data[length..];
    }
    match data.len() {
        0 => (facts.len(), None),
        more => (facts.len(), Some(format!("{more} bytes behind the last batch"))),
    }
}

/// First offset and length in bytes of the batch in front.
pub(crate) fn frame(data: &[u8]) -> Option<(i64, usize)> {
    let offset = i64::from_be_bytes(*data.first_chunk()?);
    let length = i32::from_be_bytes(*data.get(8..)?.first_chunk()?);
    Some((offset, usize::try_from(length).ok()? + 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn fact(first_offset: i64) -> Fact {
        let mut sent = vec![first_offset as u8; 80];
        sent[..8].copy_from_slice(&first_offset.to_be_bytes());
        sent[8..12].copy_from_slice(&68i32.to_be_bytes());
        sent[12..16].copy_from_slice(&3i32.to_be_bytes());
        Fact {
            producer_id: 1,
            epoch: 0,
            first_sequence: first_offset as i32,
            last_sequence: first_offset as i32,
            kind: Kind::Data { transactional: false },
            timestamp: 0,
            leader_epoch: 3,
            first_offset,
            last_offset: first_offset,
            appended_ms: 0,
            sent,
            level: Ack::Written,
            ended: None,
        }
    }

    fn difference(order: &[i64]) -> String {
        let facts: Vec<Fact> = (0..3).map(fact).collect();
        let data: Vec<u8> = order.iter().flat_map(|&at| facts[at as usize].sent.clone()).collect();
        compare(&facts, &data, true).1.unwrap_or_default()
    }

    #[test]
    fn lost_doubled_and_swapped_batches_are_found() {
        assert_eq!(difference(&[0, 1, 2]), "");
        assert!(difference(&[0, 1]).starts_with("not found: offsets 2"));
        assert!(difference(&[0, 1, 1, 2]).starts_with("found a batch at offset 1"));
        assert!(difference(&[0, 2, 1]).starts_with("found a batch at offset 2"));
        assert!(difference(&[0, 1, 2, 2]).starts_with("80 bytes behind"));
    }

    #[test]
    fn a_changed_byte_or_leader_epoch_is_found() {
        let facts = [fact(0)];
        let mut data = facts[0].sent.clone();
        data[15] = 4;
        assert!(compare(&facts, &data, true).1.is_some());
        data[15] = 3;
        assert!(compare(&facts, &data, true).1.is_none());
        data[70] ^= 1;
        assert!(compare(&facts, &data, true).1.is_some());
    }
}
