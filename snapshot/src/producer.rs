//! What one producer last did: epoch, open transaction, and its newest batches.
//!
//! Three views of one thing. The [`ProducerEntry`] is everything, 240 bytes, for snapshots, displays and models. A
//! verdict needs only the [`Standing`] and whether the batch repeats a remembered one ([`Known`]), and leads to an
//! [`Update`]; so the append path copies neither the remembered batches nor the entry, and the table may keep both as
//! it likes.

use oncelog_formats::num::{sequence_add, sequence_sub};
pub use oncelog_formats::snapshot::BatchMeta;

/// Batches remembered for each producer, as in Kafka.
pub const WINDOW: usize = 5;

/// The epoch of an entry that has none yet (Kafka's -1).
pub const NO_EPOCH: i16 = -1;

const NO_BATCH: BatchMeta =
    BatchMeta { first_sequence: -1, last_sequence: -1, first_offset: -1, last_offset: -1, timestamp: -1 };

/// What Kafka's rules have forgotten of a producer that is remembered here.
///
/// Kafka forgets at a load or a truncation what stood below the log start alone. Here it goes on to answer retries and
/// to fence; of what comes new, verdicts are Kafka's own, and what is meant for Kafka says what Kafka's own would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forgotten {
    /// Nothing.
    #[default]
    Nothing,
    /// All its batches; a marker or an open transaction of it is known.
    Batches,
    /// All of it; who may coordinate its transactions nobody knows then.
    Producer,
}

/// State of one producer id in one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerEntry {
    /// Epoch of the newest batch or marker; [`NO_EPOCH`] if none was seen.
    pub epoch: i16,
    /// Epoch of the coordinator that wrote the newest marker; -1 if none was seen.
    pub coordinator_epoch: i32,
    /// Timestamp of the newest batch (its maximum) or marker, in ms, as the log says; -1 if none.
    pub last_timestamp: i64,
    /// Our clock at the newest append, in ms. Decides expiry; no part of the digest.
    pub last_append_ms: i64,
    /// First offset of the open transaction.
    pub txn_first_offset: Option<i64>,
    /// What of this Kafka would not know.
    pub forgotten: Forgotten,
    batches: [BatchMeta; WINDOW],
    batch_count: u8,
}

impl Default for ProducerEntry {
    fn default() -> Self {
        Self {
            epoch: NO_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: -1,
            last_append_ms: -1,
            txn_first_offset: None,
            forgotten: Forgotten::Nothing,
            batches: [NO_BATCH; WINDOW],
            batch_count: 0,
        }
    }
}

/// What a verdict needs to know of a producer besides its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Epoch in force; [`NO_EPOCH`] if none was seen.
    pub epoch: i16,
    /// Epoch of the coordinator that wrote the newest marker; -1 if none was seen.
    pub coordinator_epoch: i32,
    /// Last sequence of the newest remembered batch, -1 without one.
    pub last_sequence: i32,
    /// Whether a batch of this epoch is remembered.
    pub has_batches: bool,
    /// Timestamp of the newest batch (its maximum) or marker, in ms; -1 if none.
    pub last_timestamp: i64,
    /// First offset of the open transaction.
    pub txn_first_offset: Option<i64>,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            epoch: NO_EPOCH,
            coordinator_epoch: -1,
            last_sequence: -1,
            has_batches: false,
            last_timestamp: -1,
            txn_first_offset: None,
        }
    }
}

impl Standing {
    /// Whether a transaction is open and `epoch` is the epoch in force.
    #[inline]
    pub fn has_open_txn_in(&self, epoch: i16) -> bool {
        self.txn_first_offset.is_some() && self.epoch == epoch
    }

    /// Whether a transaction is open or a marker was seen.
    #[inline]
    pub fn uses_transactions(&self) -> bool {
        self.coordinator_epoch >= 0 || self.txn_first_offset.is_some()
    }

    /// The sequence that must come next: 0 after none and after the largest.
    #[inline]
    pub fn next_sequence(&self) -> i32 {
        sequence_add(self.last_sequence, 1)
    }
}

/// What is known of a producer when one of its batches comes in. An unknown producer has the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Its standing.
    pub standing: Standing,
    /// The remembered batch that the incoming one repeats: same epoch, exactly the same sequences.
    pub repeated: Option<BatchMeta>,
    /// Kafka's rules have forgotten the producer: no sequence is expected of it.
    pub forgotten: bool,
    /// Of a forgotten producer: records of the incoming batch are among those of the remembered batches.
    pub overlaps: bool,
}

/// What an appended batch changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// The producer's standing afterwards.
    pub standing: Standing,
    /// The epoch changed: the batches before this one are forgotten.
    pub forgets: bool,
    /// The batch to remember; none for a marker.
    pub batch: Option<BatchMeta>,
    /// Our clock at the append, in ms.
    pub last_append_ms: i64,
}

impl ProducerEntry {
    /// What is known when a batch with these values comes in; `replayed_from`: see [`crate::ProducerTable::note_load`].
    /// Batches that Kafka's rules have forgotten answer retries and say nothing of what must come next.
    pub fn look(&self, epoch: i16, first_sequence: i32, last_sequence: i32, replayed_from: i64) -> Known {
        let mut standing = self.standing();
        match self.forgotten {
            Forgotten::Nothing => {}
            Forgotten::Batches => (standing.last_sequence, standing.has_batches) = (-1, false),
            Forgotten::Producer => standing.coordinator_epoch = -1,
        }
        // Of several with the same sequences Kafka finds the oldest, of those that its load has left it.
        let same = |b: &&BatchMeta| {
            epoch == self.epoch && b.first_sequence == first_sequence && b.last_sequence == last_sequence
        };
        let loaded = self.batches().iter().filter(|batch| batch.last_offset < replayed_from).count();
        let (lost, known) = self.batches().split_at(loaded.saturating_sub(1));
        let repeated = known.iter().find(same).or_else(|| lost.iter().rfind(same)).copied();
        let forgotten = self.forgotten == Forgotten::Producer;
        let overlaps = forgotten && epoch == self.epoch && self.holds_any_of(first_sequence, last_sequence);
        Known { standing, repeated, forgotten, overlaps }
    }

    /// Whether a remembered batch holds any of these sequences.
    fn holds_any_of(&self, first_sequence: i32, last_sequence: i32) -> bool {
        let holds = |(first, last), sequence| sequence_sub(sequence, first) <= sequence_sub(last, first);
        self.batches().iter().filter(|b| b.last_sequence >= 0).any(|b| {
            let stored = (b.first_sequence, b.last_sequence);
            holds(stored, first_sequence) || holds((first_sequence, last_sequence), b.first_sequence)
        })
    }

    /// The standing that a verification is asked for in: of a producer that Kafka's rules have forgotten nothing is
    /// known.
    pub fn asked_standing(&self) -> Standing {
        if self.forgotten == Forgotten::Producer { Standing::default() } else { self.standing() }
    }

    /// All but the batches.
    pub fn standing(&self) -> Standing {
        Standing {
            epoch: self.epoch,
            coordinator_epoch: self.coordinator_epoch,
            last_sequence: self.last_sequence(),
            has_batches: self.batch_count > 0,
            last_timestamp: self.last_timestamp,
            txn_first_offset: self.txn_first_offset,
        }
    }

    /// Takes over what an append changed.
    pub fn apply(&mut self, update: &Update) {
        if update.forgets {
            self.batches = [NO_BATCH; WINDOW];
            self.batch_count = 0;
        }
        self.epoch = update.standing.epoch;
        self.coordinator_epoch = update.standing.coordinator_epoch;
        self.last_timestamp = update.standing.last_timestamp;
        self.txn_first_offset = update.standing.txn_first_offset;
        self.last_append_ms = update.last_append_ms;
        if let Some(batch) = update.batch {
            self.push_batch(batch);
        }
        self.forgotten = match self.forgotten {
            Forgotten::Batches | Forgotten::Producer if update.batch.is_none() && self.batch_count > 0 => {
                Forgotten::Batches
            }
            _ => Forgotten::Nothing,
        };
    }

    /// The remembered batches, oldest first; at most [`WINDOW`].
    pub fn batches(&self) -> &[BatchMeta] {
        &self.batches[..usize::from(self.batch_count)]
    }

    /// The newest remembered batch.
    pub fn last_batch(&self) -> Option<&BatchMeta> {
        self.batches().last()
    }

    /// Last sequence of the newest remembered batch, -1 without one.
    pub fn last_sequence(&self) -> i32 {
        self.last_batch().map_or(-1, |batch| batch.last_sequence)
    }

    /// Last offset of the newest remembered batch, -1 without one.
    pub fn last_offset(&self) -> i64 {
        self.last_batch().map_or(-1, |batch| batch.last_offset)
    }

    /// The remembered batch that a retry with these values repeats: same epoch, exactly the same sequences.
    pub fn find_batch(&self, epoch: i16, first_sequence: i32, last_sequence: i32) -> Option<&BatchMeta> {
        if epoch != self.epoch {
            return None;
        }
        self.batches().iter().find(|b| b.first_sequence == first_sequence && b.last_sequence == last_sequence)
    }

    /// Takes over `epoch`; another one than before (also a lower one) forgets the batches.
    pub fn set_epoch(&mut self, epoch: i16) {
        if epoch != self.epoch {
            self.batches = [NO_BATCH; WINDOW];
            self.batch_count = 0;
            self.epoch = epoch;
        }
    }

    /// What is left of a producer that Kafka's rules forget.
    pub fn forget(mut self) -> Self {
        (self.txn_first_offset, self.forgotten) = (None, Forgotten::Producer);
        self
    }

    /// The same producer with `older` batches before its own, as far as the window reaches.
    pub fn with_older<'a>(&self, older: impl IntoIterator<Item = &'a BatchMeta>) -> Self {
        let mut richer = Self { batches: [NO_BATCH; WINDOW], batch_count: 0, ..*self };
        for batch in older.into_iter().copied().chain(self.batches().iter().copied()) {
            richer.push_batch(batch);
        }
        richer
    }

    /// Remembers `batch` as the newest; the oldest goes if there are [`WINDOW`] already.
    pub fn push_batch(&mut self, batch: BatchMeta) {
        let count = usize::from(self.batch_count);
        if count == WINDOW {
            self.batches.copy_within(1.., 0);
            self.batches[WINDOW - 1] = batch;
        } else {
            self.batches[count] = batch;
            self.batch_count += 1;
        }
    }
}

/// The descriptor of a data batch. Its first sequence is counted back from the last one, as Kafka does: a batch without
/// sequences (-1) gets one that no client can send.
#[inline]
pub fn batch_meta(last_sequence: i32, first_offset: i64, last_offset: i64, timestamp: i64) -> BatchMeta {
    let delta = i32::try_from(last_offset.saturating_sub(first_offset)).unwrap_or(i32::MAX);
    let first_sequence = sequence_sub(last_sequence, delta);
    BatchMeta { first_sequence, last_sequence, first_offset, last_offset, timestamp }
}
