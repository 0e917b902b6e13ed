//! One producer in as few words as hold it exactly: five with at most one batch, eleven with up to five.
//!
//! The newest batch is kept in absolute values, each older one as its distance from the next newer, in a ring: an
//! append rewrites the head and one place of the ring, and nothing moves. Sequences of older batches are not kept,
//! because they follow from the newest one's as long as the client counted on. What does not fit these widths does not
//! fit a line at all ([`encode`] answers `None`), and the table keeps that producer as a whole [`ProducerEntry`]
//! elsewhere; so the widths are a matter of size, never of truth.
//!
//! | word | bits |
//! |---|---|
//! | 0 | first offset of the newest batch 48, records − 1 low 16 |
//! | 1 | its timestamp 48, flags 8, records − 1 high 4 |
//! | 2 | its last sequence 32, epoch 16, coordinator epoch 16 |
//! | 3 | our last append 48, low half of (last offset − first offset of the open transaction) 16 |
//! | 4 | last timestamp 48, high half 16 |
//! | 5–8 | older batch: offsets between it and the next newer 40, records − 1 20, timestamp distance high 4 |
//! | 9–10 | older batches: timestamp distance low 32 each |

use oncelog_formats::num::{sequence_add, sequence_sub};

use super::digest;
use crate::admit::Incoming;
use crate::producer::{BatchMeta, Forgotten, Known, ProducerEntry, Standing, Update, WINDOW};

/// Words of a line with at most one batch.
pub(super) const NARROW: usize = 5;
/// Words of a line with more.
pub(super) const WIDE: usize = 11;

const RING: usize = WINDOW - 1;
const COUNT: u64 = 7;
const RING_AT: u32 = 3;
const HAS_TXN: u64 = 1 << 5;
/// No batch has sequences, as those of coordinators.
const UNSEQUENCED: u64 = 1 << 6;
/// The producer does not fit: see elsewhere.
const ODD: u64 = 1 << 7;

/// The upper half of word 2 but for the epoch, where no marker was seen.
const NO_COORDINATOR: u64 = 0xffff << 48;

const LOW_48: u64 = (1 << 48) - 1;

/// What a batch in the ring is told by.
#[derive(Clone, Copy)]
struct Older {
    gap: u64,
    span: u64,
    timestamp_distance: i64,
}

/// Offsets and timestamp of a batch, which with the producer's id are its part of the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub first_offset: i64,
    pub last_offset: i64,
    pub timestamp: i64,
}

impl Place {
    pub fn of(batch: &BatchMeta) -> Self {
        Self { first_offset: batch.first_offset, last_offset: batch.last_offset, timestamp: batch.timestamp }
    }

    pub fn of_incoming(batch: &Incoming) -> Self {
        Self { first_offset: batch.first_offset, last_offset: batch.last_offset, timestamp: batch.max_timestamp }
    }

    fn step_back(self, older: Older) -> Self {
        let last_offset = self.first_offset - older.gap as i64 - 1;
        Self {
            first_offset: last_offset - older.span as i64,
            last_offset,
            timestamp: self.timestamp - older.timestamp_distance,
        }
    }
}

/// The line of an entry and how many of its words count; `None` if it does not fit.
pub(super) fn encode(entry: &ProducerEntry) -> Option<([u64; WIDE], usize)> {
    if entry.forgotten != Forgotten::Nothing {
        return None;
    }
    let mut line = [0; WIDE];
    let batches = entry.batches();
    let mut flags = batches.len() as u64;
    if let Some((newest, older)) = batches.split_last() {
        let span = span_of(newest)?;
        line[0] = fit_u48(newest.first_offset)? | (span & 0xffff) << 48;
        line[1] = fit_i48(newest.timestamp)? | (span >> 16) << 56;
        let unsequenced = newest.last_sequence == -1;
        flags |= if unsequenced { UNSEQUENCED } else { 0 };
        flags |= (older.len().saturating_sub(1) as u64) << RING_AT;
        let mut newer = newest;
        for (place, batch) in older.iter().enumerate().rev() {
            let expected = if unsequenced { -1 } else { sequence_sub(newer.first_sequence, 1) };
            if batch.last_sequence != expected {
                return None;
            }
            put_older(&mut line, place, distance(&Place::of(newer), &Place::of(batch))?);
            newer = batch;
        }
        if batches.iter().any(|b| b.first_sequence != sequence_sub(b.last_sequence, span_of(b).unwrap_or(0) as i32)) {
            return None;
        }
    }
    if let Some(first) = entry.txn_first_offset {
        flags |= HAS_TXN;
        let back = fit_txn(entry.last_offset(), first)?;
        line[3] |= (back & 0xffff) << 48;
        line[4] |= (back >> 16) << 48;
    }
    line[1] |= flags << 48;
    line[2] = pack_epochs(entry.last_sequence(), entry.epoch, entry.coordinator_epoch)?;
    line[3] |= fit_i48(entry.last_append_ms)?;
    line[4] |= fit_i48(entry.last_timestamp)?;
    Some((line, width(&line)))
}

/// The line of a producer that does not fit one.
pub(super) fn odd() -> [u64; WIDE] {
    let mut line = [0; WIDE];
    line[1] = ODD << 48;
    line
}

/// How many words of a line count.
pub(super) fn width(line: &[u64]) -> usize {
    if flags(line) & COUNT > 1 { WIDE } else { NARROW }
}

/// Whether the producer is to be found elsewhere; nothing else may be asked of such a line.
#[inline]
pub(super) fn is_odd(line: &[u64]) -> bool {
    flags(line) & ODD != 0
}

/// The whole entry.
pub(super) fn decode(line: &[u64]) -> ProducerEntry {
    let standing = standing(line);
    let mut entry = ProducerEntry::default();
    entry.epoch = standing.epoch;
    entry.coordinator_epoch = standing.coordinator_epoch;
    entry.last_timestamp = standing.last_timestamp;
    entry.last_append_ms = last_append_ms(line);
    entry.txn_first_offset = standing.txn_first_offset;
    let mut batches = [BatchMeta::default(); WINDOW];
    let mut count = 0;
    walk(line, |batch| {
        batches[count] = batch;
        count += 1;
        false
    });
    for batch in batches[..count].iter().rev() {
        entry.push_batch(*batch);
    }
    entry
}

/// All but the batches.
#[inline(always)]
pub(super) fn standing(line: &[u64]) -> Standing {
    Standing {
        epoch: (line[2] >> 32) as i16,
        coordinator_epoch: i32::from((line[2] >> 48) as i16),
        last_sequence: line[2] as i32,
        has_batches: flags(line) & COUNT > 0,
        last_timestamp: signed_48(line[4]),
        txn_first_offset: has_txn(line).then(|| txn_first_offset(line)),
    }
}

/// Where the open transaction began.
fn txn_first_offset(line: &[u64]) -> i64 {
    let last_offset = if flags(line) & COUNT > 0 { newest(line).last_offset } else { -1 };
    let back = line[3] >> 48 | (line[4] >> 48) << 16;
    last_offset - back as i64
}

/// What the standing adds to the digest.
#[inline]
pub(super) fn standing_term(producer_id: i64, line: &[u64]) -> u64 {
    let txn = if has_txn(line) { txn_first_offset(line) } else { -1 };
    digest::head_term(producer_id, line[2], signed_48(line[4]), txn)
}

/// Our clock at the newest append.
pub(super) fn last_append_ms(line: &[u64]) -> i64 {
    signed_48(line[3])
}

/// Whether a transaction is open.
pub(super) fn has_txn(line: &[u64]) -> bool {
    flags(line) & HAS_TXN != 0
}

/// What is known when a batch with these values comes in. Inlined, and made in one place: an answer that is put
/// together in memory is copied there too, in words that are read before their bytes have come, which takes 7 ns.
#[inline(always)]
pub(super) fn look(line: &[u64], epoch: i16, first_sequence: i32, last_sequence: i32) -> Known {
    let standing = standing(line);
    let follows = first_sequence == standing.next_sequence() && flags(line) & UNSEQUENCED == 0;
    let may_repeat = epoch == standing.epoch && !follows;
    let repeated = if may_repeat { look_back(line, first_sequence, last_sequence) } else { None };
    Known { standing, repeated, forgotten: false, overlaps: false }
}

#[inline(never)]
fn look_back(line: &[u64], first_sequence: i32, last_sequence: i32) -> Option<BatchMeta> {
    // Sequences in a line follow each other, so there is one at most.
    let mut found = None;
    walk(line, |batch| {
        if batch.first_sequence == first_sequence && batch.last_sequence == last_sequence {
            found = Some(batch);
        }
        found.is_some()
    });
    found
}

/// What a push did.
pub(super) struct Pushed {
    /// The batch that was forgotten.
    pub evicted: Option<Place>,
}

/// Takes over an update in place: the newest batch goes into the ring, the new one into the head. `None`, and nothing
/// changed, if that cannot be done with this line (too narrow, another epoch, values that do not fit): the caller
/// decodes, applies and encodes instead.
#[inline]
pub(super) fn push(line: &mut [u64], update: &Update) -> Option<Pushed> {
    let flags = flags(line);
    let Some(batch) = &update.batch else { return update_head(line, *update) };
    let line: &mut [u64; WIDE] = line.first_chunk_mut()?;
    let count = flags & COUNT;
    if update.forgets || flags & (ODD | UNSEQUENCED) != 0 || count == 0 {
        return None;
    }
    let (newest, added, standing) = (newest(line), Place::of(batch), &update.standing);
    let span = added.last_offset.wrapping_sub(added.first_offset) as u64;
    let follows = batch.first_sequence == sequence_add(line[2] as i32, 1)
        && batch.last_sequence == sequence_add(batch.first_sequence, span as i32)
        && batch.first_sequence >= 0;
    let back = match standing.txn_first_offset {
        Some(first) => batch.last_offset.wrapping_sub(first) as u64,
        None => 0,
    };
    if !follows || back >> 32 != 0 {
        return None;
    }
    let epochs = pack_epochs(batch.last_sequence, standing.epoch, standing.coordinator_epoch)?;
    let txn = if standing.txn_first_offset.is_some() { HAS_TXN } else { 0 };
    let head =
        Head { epochs, txn, back, last_append_ms: update.last_append_ms, last_timestamp: standing.last_timestamp };
    push_place(line, newest, added, &head)
}

/// Whether the batch is the plain next one of the producer: [`super::ProducerTable::follows`].
#[inline(always)]
pub(super) fn is_followed_by(line: &[u64], batch: &Incoming) -> bool {
    let before = if batch.base_sequence == 0 { i32::MAX } else { batch.base_sequence.wrapping_sub(1) };
    let epochs = u64::from(before as u32) | u64::from(batch.epoch as u16) << 32 | NO_COORDINATOR;
    let plain = !batch.transactional & (batch.base_sequence >= 0) & batch.marker.is_none();
    plain && line[2] == epochs && flags(line) & (ODD | HAS_TXN | UNSEQUENCED) == 0
}

/// What [`push`] does, for a batch that [`is_followed_by`] is true of.
#[inline(always)]
pub(super) fn follow(line: &mut [u64], batch: &Incoming, now_ms: i64) -> Option<Pushed> {
    let line: &mut [u64; WIDE] = line.first_chunk_mut()?;
    let added = Place::of_incoming(batch);
    let span = added.last_offset.wrapping_sub(added.first_offset);
    if batch.last_sequence != sequence_add(batch.base_sequence, span as i32) {
        return None;
    }
    let epochs = line[2] >> 32 << 32 | u64::from(batch.last_sequence as u32);
    let head = Head { epochs, txn: 0, back: 0, last_append_ms: now_ms, last_timestamp: batch.max_timestamp };
    push_place(line, newest(line), added, &head)
}

/// What the words of a head hold besides its batch.
struct Head {
    epochs: u64,
    /// [`HAS_TXN`] or 0.
    txn: u64,
    /// How far back the open transaction begins.
    back: u64,
    last_append_ms: i64,
    last_timestamp: i64,
}

/// Puts a batch into the head and `newest`, which is there, into the ring. `None`, and nothing changed, if it does not
/// fit.
#[inline(always)]
fn push_place(line: &mut [u64; WIDE], newest: Place, added: Place, head: &Head) -> Option<Pushed> {
    let flags = flags(line);
    let count = flags & COUNT;
    let span = added.last_offset.wrapping_sub(added.first_offset) as u64;
    // No sum of what stands in a line and what fits one leaves 64 bits, and what does not fit is found by its own term.
    let older = Older {
        gap: added.first_offset.wrapping_sub(newest.last_offset).wrapping_sub(1) as u64,
        span: (newest.last_offset - newest.first_offset) as u64,
        timestamp_distance: added.timestamp.wrapping_sub(newest.timestamp),
    };
    let fits = (span < 1 << 20)
        & fits_u48(added.first_offset)
        & fits_i48(added.timestamp)
        & fits_i48(head.last_append_ms)
        & fits_i48(head.last_timestamp)
        & (older.gap < 1 << 40)
        & (older.timestamp_distance.wrapping_add(1 << 35) as u64 >> 36 == 0);
    if !fits {
        return None;
    }
    // From here on nothing can fail.
    let full = count == WINDOW as u64;
    let ring = ((flags >> RING_AT) as usize + 1) % RING;
    let evicted = if full { Some(oldest(line, newest, ring)) } else { None };
    put_older(line, ring, older);
    let count = if full { count } else { count + 1 };
    let flags = count | (ring as u64) << RING_AT | head.txn;
    line[0] = added.first_offset as u64 | (span & 0xffff) << 48;
    line[1] = added.timestamp as u64 & LOW_48 | flags << 48 | (span >> 16) << 56;
    line[2] = head.epochs;
    line[3] = head.last_append_ms as u64 & LOW_48 | (head.back & 0xffff) << 48;
    line[4] = head.last_timestamp as u64 & LOW_48 | (head.back >> 16) << 48;
    Some(Pushed { evicted })
}

/// An update without a batch.
fn update_head(line: &mut [u64], update: Update) -> Option<Pushed> {
    let flags = flags(line);
    let standing = &update.standing;
    if update.forgets || flags & ODD != 0 || (standing.txn_first_offset.is_some() && flags & COUNT == 0) {
        return None;
    }
    let last_offset = newest(line).last_offset;
    let back = standing.txn_first_offset.map_or(Some(0), |first| fit_txn(last_offset, first))?;
    let epochs = pack_epochs(line[2] as i32, standing.epoch, standing.coordinator_epoch)?;
    let (append, timestamp) = (fit_i48(update.last_append_ms)?, fit_i48(standing.last_timestamp)?);
    line[2] = epochs;
    line[3] = append | (back & 0xffff) << 48;
    line[4] = timestamp | (back >> 16) << 48;
    let txn = if standing.txn_first_offset.is_some() { HAS_TXN } else { 0 };
    line[1] = line[1] & !(HAS_TXN << 48) | txn << 48;
    Some(Pushed { evicted: None })
}

/// Calls `visit` with each batch, newest first, until it answers true.
fn walk(line: &[u64], mut visit: impl FnMut(BatchMeta) -> bool) {
    let flags = flags(line);
    let count = (flags & COUNT) as usize;
    if count == 0 {
        return;
    }
    let ring = (flags >> RING_AT) as usize % RING;
    let mut place = newest(line);
    let mut last_sequence = line[2] as i32;
    for k in 0..count {
        let span = (place.last_offset - place.first_offset) as i32;
        let first_sequence = sequence_sub(last_sequence, span);
        let Place { first_offset, last_offset, timestamp } = place;
        if visit(BatchMeta { first_sequence, last_sequence, first_offset, last_offset, timestamp }) || k + 1 == count {
            return;
        }
        let line: &[u64; WIDE] = line.first_chunk().expect("two batches make a line wide");
        place = place.step_back(older_at(line, (ring + RING - k) % RING));
        last_sequence = if flags & UNSEQUENCED != 0 { -1 } else { sequence_sub(first_sequence, 1) };
    }
}

#[inline]
fn flags(line: &[u64]) -> u64 {
    line[1] >> 48 & 0xff
}

#[inline]
fn newest(line: &[u64]) -> Place {
    let first_offset = (line[0] & LOW_48) as i64;
    let span = line[0] >> 48 | (line[1] >> 56) << 16;
    Place { first_offset, last_offset: first_offset + span as i64, timestamp: signed_48(line[1]) }
}

#[inline]
fn older_at(line: &[u64; WIDE], place: usize) -> Older {
    let (word, half) = (line[NARROW + place], line[NARROW + RING + place / 2] >> (place % 2 * 32) & 0xffff_ffff);
    let distance = (word >> 60) << 32 | half;
    Older {
        gap: word & ((1 << 40) - 1),
        span: word >> 40 & ((1 << 20) - 1),
        timestamp_distance: ((distance << 28) as i64) >> 28,
    }
}

#[inline]
fn put_older(line: &mut [u64; WIDE], place: usize, older: Older) {
    let distance = older.timestamp_distance as u64;
    line[NARROW + place] = older.gap | older.span << 40 | (distance >> 32 & 0xf) << 60;
    let (half, shift) = (&mut line[NARROW + RING + place / 2], place % 2 * 32);
    *half = *half & !(0xffff_ffff << shift) | (distance & 0xffff_ffff) << shift;
}

/// The oldest of five batches, whose place in the ring is `place`: behind the newest by the sum of all distances, in
/// whatever order they are added up.
#[inline]
fn oldest(line: &[u64; WIDE], newest: Place, place: usize) -> Place {
    let (mut offsets, mut spans, mut timestamps_high) = (0, 0, 0);
    for word in &line[NARROW..NARROW + RING] {
        offsets += word & ((1 << 40) - 1);
        spans += word >> 40 & ((1 << 20) - 1);
        timestamps_high += *word as i64 >> 60;
    }
    let halves = |word: u64| (word & 0xffff_ffff) + (word >> 32);
    let timestamps_low = halves(line[NARROW + RING]) + halves(line[NARROW + RING + 1]);
    let span = line[NARROW + place] >> 40 & ((1 << 20) - 1);
    let first_offset = newest.first_offset - (offsets + spans) as i64 - RING as i64;
    Place {
        first_offset,
        last_offset: first_offset + span as i64,
        timestamp: newest.timestamp - (timestamps_high << 32) - timestamps_low as i64,
    }
}

/// From a batch back to the one before it, if it fits.
#[inline]
fn distance(newer: &Place, older: &Place) -> Option<Older> {
    let gap = newer.first_offset.checked_sub(older.last_offset)?.checked_sub(1)?;
    let span = older.last_offset.checked_sub(older.first_offset)?;
    let timestamp_distance = newer.timestamp.checked_sub(older.timestamp)?;
    let fits = (0..1 << 40).contains(&gap)
        && (0..1 << 20).contains(&span)
        && (-(1 << 35)..1 << 35).contains(&timestamp_distance);
    fits.then_some(Older { gap: gap as u64, span: span as u64, timestamp_distance })
}

#[inline]
fn span_of(batch: &BatchMeta) -> Option<u64> {
    let span = batch.last_offset.checked_sub(batch.first_offset)?;
    (0..1 << 20).contains(&span).then_some(span as u64)
}

#[inline]
fn fit_txn(last_offset: i64, first_offset: i64) -> Option<u64> {
    u32::try_from(last_offset.checked_sub(first_offset)?).ok().map(u64::from)
}

#[inline]
fn fit_u48(value: i64) -> Option<u64> {
    fits_u48(value).then_some(value as u64)
}

#[inline]
fn fit_i48(value: i64) -> Option<u64> {
    fits_i48(value).then_some(value as u64 & LOW_48)
}

#[inline]
fn fits_u48(value: i64) -> bool {
    value as u64 >> 47 == 0
}

#[inline]
fn fits_i48(value: i64) -> bool {
    value.wrapping_add(1 << 47) as u64 >> 48 == 0
}

#[inline]
fn signed_48(word: u64) -> i64 {
    ((word << 16) as i64) >> 16
}

#[inline]
fn pack_epochs(last_sequence: i32, epoch: i16, coordinator_epoch: i32) -> Option<u64> {
    let coordinator_epoch = i16::try_from(coordinator_epoch).ok()?;
    let sixteen = |epoch: i16| u64::from(epoch as u16);
    Some(u64::from(last_sequence as u32) | sixteen(epoch) << 32 | sixteen(coordinator_epoch) << 48)
}
