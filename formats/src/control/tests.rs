use super::*;
use crate::batch::NO_SEQUENCE;

/// The one record of a control batch with this key and value, read.
fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<ControlRecord> {
    let mut builder = BatchBuilder::new().control(true);
    let bytes = builder.append(3, key, value, &[]).build()?;
    BatchView::new(&bytes)?.control()
}

#[test]
fn higher_versions_and_surplus_bytes_are_read_as_version_0() {
    let read = read(Some(&[0, 5, 0, 1, 9, 9]), Some(&[0, 5, 0, 0, 0, 7, 9])).unwrap();
    let marker = Some(EndTxnMarker { commit: true, coordinator_epoch: 7 });
    assert_eq!(read, ControlRecord { kind: ControlType::Commit, timestamp: 3, marker });
}

#[test]
fn short_negative_or_absent_fields_are_invalid() {
    const COMMIT: Option<&[u8]> = Some(&[0, 0, 0, 1]);
    const EPOCH_7: Option<&[u8]> = Some(&[0, 0, 0, 0, 0, 7]);
    assert!(read(COMMIT, EPOCH_7).is_ok());
    for (key, value, reason) in [
        (None, EPOCH_7, "short control key"),
        (Some(&[0, 0, 0][..]), EPOCH_7, "short control key"),
        (Some(&[0xff, 0xff, 0, 1]), EPOCH_7, "negative version of a control key"),
        (COMMIT, None, "short end-transaction marker"),
        (COMMIT, Some(&[0; 5]), "short end-transaction marker"),
        (COMMIT, Some(&[0x80, 0, 0, 0, 0, 7]), "negative version of an end-transaction marker"),
    ] {
        assert_eq!(read(key, value), Err(FormatError::InvalidRecord { reason }), "{key:?} {value:?}");
    }
}

#[test]
fn other_kinds_need_no_marker() {
    for id in [2i16, 3, 4, 5, 6, 337, -1] {
        let [high, low] = id.to_be_bytes();
        let record = read(Some(&[0, 0, high, low]), None).unwrap();
        assert_eq!((record.kind, record.kind.id(), record.marker), (ControlType::from_id(id), id, None));
        assert_eq!(record.kind.name() == "UNKNOWN", !(2..=6).contains(&id), "{id}");
    }
}

#[test]
fn batches_of_data_and_batches_without_records_have_no_control_record() {
    let mut data = BatchBuilder::new().producer(1, 0, NO_SEQUENCE);
    let data = data.append(0, Some(&[0, 0, 0, 1]), Some(&[0; 6]), &[]).build().unwrap();
    let reason = "no control batch";
    assert_eq!(BatchView::new(&data).unwrap().control(), Err(FormatError::InvalidRecord { reason }));
    let emptied = BatchBuilder::new().control(true).build().unwrap();
    let reason = "control batch without a record";
    assert_eq!(BatchView::new(&emptied).unwrap().control(), Err(FormatError::InvalidRecord { reason }));
}

#[test]
fn a_compacted_marker_of_81_bytes_keeps_its_time() {
    let builder = BatchBuilder::new().producer(1, 0, NO_SEQUENCE).transactional(true).control(true);
    let mut builder = builder.delete_horizon(1_700_086_400_000);
    builder.append(1_700_000_000_000, Some(&[0, 0, 0, 0]), Some(&[0; 6]), &[]);
    let bytes = builder.build().unwrap();
    let view = BatchView::new(&bytes).unwrap();
    assert_eq!((view.header().attributes, bytes.len()), (0x70, 81));
    let control = view.control().unwrap();
    assert_eq!((control.kind, control.timestamp), (ControlType::Abort, 1_700_000_000_000));
}
