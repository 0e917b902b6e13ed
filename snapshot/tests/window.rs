//! The window of remembered batches against a model that keeps everything, and several batches in one append.

use oncelog_snapshot::{
    AdmitOptions, BatchMeta, CompletedTxn, Incoming, Known, Marker, NO_EPOCH, Origin, ProducerEntry, Refusal,
    TxnStateConflict, Update, Verification, WINDOW,
};
use proptest::prelude::*;

const PRODUCER: i64 = 7;

fn options(origin: Origin) -> AdmitOptions {
    AdmitOptions { origin, verification_enabled: false, txn_version: Some(0), guard: None, now_ms: 77 }
}

fn data(epoch: i16, base_sequence: i32, first_offset: i64, count: i32) -> Incoming {
    Incoming {
        producer_id: PRODUCER,
        epoch,
        base_sequence,
        last_sequence: oncelog_formats::num::sequence_add(base_sequence, count - 1),
        first_offset,
        last_offset: first_offset + i64::from(count) - 1,
        max_timestamp: 5000 + first_offset,
        transactional: false,
        marker: None,
    }
}

fn marker(epoch: i16, offset: i64, marker: Marker) -> Incoming {
    Incoming {
        base_sequence: -1,
        last_sequence: -1,
        transactional: true,
        marker: Some(marker),
        ..data(epoch, 0, offset, 1)
    }
}

const COMMIT: Marker = Marker::EndTxn { commit: true, coordinator_epoch: 3, timestamp: 9000 };

/// The verdict with whole entries on both sides.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a test's")]
enum Verdict {
    Append { entry: ProducerEntry, completed: Option<CompletedTxn>, started_txn: bool, clears_verification: bool },
    Duplicate(BatchMeta),
    Refuse(Refusal),
}

fn admit(
    stored: Option<&ProducerEntry>,
    working: Option<&ProducerEntry>,
    verification: Option<&Verification>,
    batch: &Incoming,
    options: &AdmitOptions,
) -> Verdict {
    let look = |entry: &ProducerEntry| entry.look(batch.epoch, batch.base_sequence, batch.last_sequence, 0);
    let known = stored.map_or_else(Known::default, look);
    let standing = working.map(ProducerEntry::standing);
    match oncelog_snapshot::admit(&known, standing.as_ref(), verification, batch, options) {
        oncelog_snapshot::Verdict::Append { update, completed, started_txn, clears_verification } => {
            let entry = after(working.or(stored), &update);
            assert_eq!(entry.standing(), update.standing);
            Verdict::Append { entry, completed, started_txn, clears_verification }
        }
        oncelog_snapshot::Verdict::Duplicate(batch) => Verdict::Duplicate(batch),
        oncelog_snapshot::Verdict::Refuse(refusal) => Verdict::Refuse(refusal),
    }
}

fn after(before: Option<&ProducerEntry>, update: &Update) -> ProducerEntry {
    let mut entry = before.copied().unwrap_or_default();
    entry.apply(update);
    entry
}

fn appended(verdict: Verdict) -> ProducerEntry {
    match verdict {
        Verdict::Append { entry, .. } => entry,
        other => panic!("{other:?}"),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Data { count: i32 },
    NextEpoch,
    Marker { raises_epoch: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..5).prop_map(|count| Step::Data { count }),
        1 => Just(Step::NextEpoch),
        1 => any::<bool>().prop_map(|raises_epoch| Step::Marker { raises_epoch }),
    ]
}

/// All a producer ever wrote: (epoch, first sequence, last sequence, first offset, last offset) of each batch.
#[derive(Default)]
struct Model {
    epoch: i16,
    next_sequence: i32,
    next_offset: i64,
    written: Vec<(i16, BatchMeta)>,
    /// Batches of `written` from here on are of the epoch's present reign.
    reign_start: usize,
}

impl Model {
    fn raise_epoch(&mut self) {
        self.epoch += 1;
        self.next_sequence = 0;
        self.reign_start = self.written.len();
    }

    fn remembered(&self) -> Vec<BatchMeta> {
        let reign: Vec<_> = self.written[self.reign_start..].iter().map(|&(_, meta)| meta).collect();
        reign[reign.len().saturating_sub(WINDOW)..].to_vec()
    }

    fn batch(&mut self, step: &Step) -> Incoming {
        let offset = self.next_offset;
        match *step {
            Step::Data { count } => {
                let batch = data(self.epoch, self.next_sequence, offset, count);
                self.next_sequence = oncelog_formats::num::sequence_add(batch.last_sequence, 1);
                self.written.push((self.epoch, meta_of(&batch)));
                self.next_offset += i64::from(count);
                batch
            }
            Step::NextEpoch => {
                self.raise_epoch();
                self.batch(&Step::Data { count: 1 })
            }
            Step::Marker { raises_epoch } => {
                if raises_epoch {
                    self.raise_epoch();
                }
                self.next_offset += 1;
                marker(self.epoch, offset, COMMIT)
            }
        }
    }
}

fn meta_of(batch: &Incoming) -> BatchMeta {
    BatchMeta {
        first_sequence: batch.base_sequence,
        last_sequence: batch.last_sequence,
        first_offset: batch.first_offset,
        last_offset: batch.last_offset,
        timestamp: batch.max_timestamp,
    }
}

fn retry_of(epoch: i16, meta: &BatchMeta, offset: i64) -> Incoming {
    data(epoch, meta.first_sequence, offset, (meta.last_offset - meta.first_offset + 1) as i32)
}

proptest! {
    #[test]
    fn five_newest_of_the_epoch_are_known_and_no_others(
        steps in prop::collection::vec(step(), 1..40),
        near_wrap in any::<bool>(),
    ) {
        let mut model = Model { next_sequence: if near_wrap { i32::MAX - 3 } else { 0 }, ..Model::default() };
        let mut entry: Option<ProducerEntry> = None;
        for step in [Step::Data { count: 1 }].iter().chain(&steps) {
            let batch = model.batch(step);
            let origin = if batch.marker.is_some() { Origin::Coordinator } else { Origin::Client };
            entry = Some(appended(admit(entry.as_ref(), None, None, &batch, &options(origin))));
        }
        let entry = entry.expect("steps");
        let remembered = model.remembered();
        prop_assert_eq!(entry.batches(), &remembered[..]);
        for (epoch, meta) in &model.written {
            let retry = retry_of(*epoch, meta, model.next_offset);
            match admit(Some(&entry), None, None, &retry, &options(Origin::Client)) {
                Verdict::Duplicate(found) => {
                    prop_assert_eq!(found, *meta);
                    prop_assert!(remembered.contains(meta));
                }
                Verdict::Refuse(_) => prop_assert!(!remembered.contains(meta)),
                Verdict::Append { .. } => prop_assert!(false, "stored twice: {:?}", retry),
            }
        }
    }

    #[test]
    fn a_set_leads_where_its_batches_one_by_one_lead(
        steps in prop::collection::vec(step(), 1..30),
        set_size in 1..9_usize,
    ) {
        let mut model = Model::default();
        let batches: Vec<_> = steps.iter().map(|step| model.batch(step)).collect();
        let options = options(Origin::Replication);
        let (mut single, mut stored): (Option<ProducerEntry>, Option<ProducerEntry>) = (None, None);
        for set in batches.chunks(set_size) {
            let mut working: Option<ProducerEntry> = None;
            for batch in set {
                single = Some(appended(admit(single.as_ref(), None, None, batch, &options)));
                working = Some(appended(admit(stored.as_ref(), working.as_ref(), None, batch, &options)));
            }
            stored = working;
        }
        prop_assert_eq!(stored, single);
    }
}

#[test]
fn in_one_set_duplicates_are_looked_for_in_the_stored_entry_alone() {
    let client = options(Origin::Client);
    let first = appended(admit(None, None, None, &data(5, 3, 0, 2), &client));
    // Nothing was stored before the set: the same batch again is no duplicate, and any sequence will do.
    let again = appended(admit(None, Some(&first), None, &data(5, 3, 2, 2), &client));
    assert_eq!(again.batches().len(), 2);
    let jump = appended(admit(None, Some(&first), None, &data(5, 900, 2, 1), &client));
    assert_eq!(jump.last_sequence(), 900);
    // A stored producer's second batch must follow the first.
    let second = appended(admit(Some(&first), None, None, &data(5, 5, 2, 1), &client));
    let skipping = admit(Some(&first), Some(&second), None, &data(5, 7, 3, 1), &client);
    assert!(matches!(skipping, Verdict::Refuse(Refusal::OutOfOrderSequence { last_sequence: 5, .. })), "{skipping:?}");
    let repeated = admit(Some(&first), Some(&second), None, &data(5, 3, 3, 2), &client);
    assert!(matches!(repeated, Verdict::Duplicate(BatchMeta { first_offset: 0, last_offset: 1, .. })), "{repeated:?}");
}

#[test]
fn a_marker_without_records_registers_its_producer_and_changes_nothing_else() {
    let empty = marker(5, 9, Marker::Empty);
    let fresh = appended(admit(None, None, None, &empty, &options(Origin::Replication)));
    let mut registered = ProducerEntry::default();
    registered.last_append_ms = 77;
    assert_eq!(fresh, registered);
    assert_eq!(fresh.epoch, NO_EPOCH);
    // A registered entry without epoch is asked as little as none at all.
    let next = appended(admit(Some(&fresh), None, None, &data(3, 40, 10, 1), &options(Origin::Client)));
    assert_eq!(next.last_sequence(), 40);

    let open = Incoming { transactional: true, ..data(5, 0, 0, 1) };
    let open = appended(admit(None, None, None, &open, &options(Origin::Replication)));
    let kept = appended(admit(Some(&open), None, None, &marker(6, 9, Marker::Empty), &options(Origin::Replication)));
    assert_eq!(kept, open);
}

#[test]
fn other_control_records_are_refused_without_harm() {
    for origin in [Origin::Coordinator, Origin::RaftLeader, Origin::Replication] {
        let verdict = admit(None, None, None, &marker(5, 9, Marker::Other), &options(origin));
        assert_eq!(verdict, Verdict::Refuse(Refusal::UnexpectedControlRecord));
    }
}

#[test]
fn what_stands_in_a_log_can_be_absorbed() {
    let replication = options(Origin::Replication);
    let open = Incoming { transactional: true, ..data(5, 0, 0, 1) };
    let open = appended(admit(None, None, None, &open, &replication));
    let plain = data(5, 1, 1, 1);
    let conflict = TxnStateConflict::OpenTransaction;
    let refused = Verdict::Refuse(Refusal::InvalidTxnState { producer_id: PRODUCER, conflict });
    assert_eq!(admit(Some(&open), None, None, &plain, &replication), refused);
    let after = after(Some(&open), &oncelog_snapshot::absorb(&open.standing(), &plain, 78));
    assert_eq!((after.last_sequence(), after.txn_first_offset, after.last_append_ms), (1, Some(0), 78));
}

#[test]
fn a_transaction_may_be_finished_and_another_started_in_one_set() {
    let replication = options(Origin::Replication);
    let batch = |epoch, offset| Incoming { transactional: true, ..data(epoch, 0, offset, 2) };
    let open = appended(admit(None, None, None, &batch(5, 0), &replication));
    let Verdict::Append { entry, completed, started_txn, .. } =
        admit(None, Some(&open), None, &marker(6, 2, COMMIT), &replication)
    else {
        panic!()
    };
    let completed = completed.map(|txn| (txn.producer_id, txn.first_offset, txn.last_offset, txn.commit));
    assert_eq!((completed, started_txn), (Some((PRODUCER, 0, 2, true)), false));
    let verdict = admit(None, Some(&entry), None, &batch(6, 3), &replication);
    assert!(matches!(verdict, Verdict::Append { completed: None, started_txn: true, .. }), "{verdict:?}");
    assert_eq!(appended(verdict).txn_first_offset, Some(3));
}

#[test]
fn a_guard_is_cleared_by_the_batch_it_was_given_for() {
    let pending = Verification { guard: 4, epoch: 5, lowest_sequence: 0, bumps_epoch: true, created_ms: 0 };
    let clears = |batch: &Incoming| match admit(None, None, Some(&pending), batch, &options(Origin::Replication)) {
        Verdict::Append { clears_verification, .. } => clears_verification,
        other => panic!("{other:?}"),
    };
    assert!(!clears(&data(5, 0, 0, 1)));
    assert!(clears(&Incoming { transactional: true, ..data(5, 0, 0, 1) }));
    assert!(!clears(&marker(5, 0, COMMIT)));
    assert!(clears(&marker(4, 0, COMMIT)));
}

/// An entry of epoch 3 with batches of these sequences, one behind the other from offset 10 on.
fn with_batches(sequences: &[(i32, i32)]) -> ProducerEntry {
    let mut entry = ProducerEntry::default();
    entry.set_epoch(3);
    let mut first_offset = 10;
    for &(first_sequence, last_sequence) in sequences {
        let last_offset = first_offset + i64::from(last_sequence - first_sequence);
        entry.push_batch(BatchMeta { first_sequence, last_sequence, first_offset, last_offset, timestamp: 1 });
        first_offset = last_offset + 1;
    }
    entry
}

/// What Kafka's rules have forgotten still answers retries and keeps out what is fenced or stored; of all else they
/// would know nothing.
#[test]
fn a_forgotten_producer_is_judged_as_a_new_one_but_for_what_is_stored() {
    let entry = with_batches(&[(10, 14), (15, 19)]);
    let forgotten = entry.forget();
    let judge = |epoch, sequence, count| {
        admit(Some(&forgotten), None, None, &data(epoch, sequence, 100, count), &options(Origin::Client))
    };
    assert_eq!(judge(3, 15, 5), Verdict::Duplicate(entry.batches()[1]));
    assert!(matches!(judge(2, 0, 1), Verdict::Refuse(Refusal::InvalidProducerEpoch { .. })));
    for (sequence, count) in [(19, 1), (19, 2), (13, 4), (10, 1), (9, 2), (0, 100), (i32::MAX, 12)] {
        let verdict = judge(3, sequence, count);
        assert!(matches!(verdict, Verdict::Refuse(Refusal::OutOfOrderSequence { .. })), "{sequence}, {count}");
    }
    for (sequence, count) in [(20, 2), (27, 2), (8, 2), (i32::MAX - 3, 4), (i32::MAX, 11)] {
        let batches = appended(judge(3, sequence, count)).batches().to_vec();
        let firsts: Vec<i32> = batches.iter().map(|batch| batch.first_sequence).collect();
        assert_eq!(firsts, [10, 15, sequence], "the window goes on");
    }
    assert_eq!(appended(judge(4, 17, 2)).batches().len(), 1);
    let asked = |entry: &ProducerEntry| {
        oncelog_snapshot::Verifications::new().start(7, &entry.asked_standing(), 0, 2, false, 77)
    };
    assert_eq!((asked(&forgotten), asked(&entry).is_err()), (Ok(Some(1)), true), "a guard for an older epoch");
}

/// Sequences can come again: a coordinator's carry none, and replicas take any.
#[test]
fn of_batches_with_the_same_sequences_kafka_finds_the_oldest_that_it_knows() {
    let entry = with_batches(&[(0, 1), (5, 5), (0, 1), (0, 1)]);
    let found = |replayed_from| entry.look(3, 0, 1, replayed_from).repeated.map(|batch| batch.first_offset);
    // The newest before the replay is that of the snapshot.
    assert_eq!([0, 12, 13, 15, 99].map(|from| found(from).unwrap()), [10, 10, 13, 13, 15]);
    let forgotten = with_batches(&[(0, 1), (0, 1), (5, 5)]);
    assert_eq!(
        forgotten.look(3, 0, 1, 99).repeated,
        Some(forgotten.batches()[1]),
        "the newest of those that Kafka lost"
    );
}
