//! The files beside the batches: indexes, snapshots, texts, names.

use oncelog_formats::crc32c::{crc32c, crc32c_append};
use oncelog_formats::snapshot::{ENTRY_BYTES, HEADER_BYTES, SnapshotFile, Trailing};
use oncelog_formats::{
    checkpoint, clean_shutdown, epoch_checkpoint, file_name as names, offset_index as offsets,
    partition_metadata as meta, time_index as times, txn_index as txns,
};

use super::{Outcome, holds, same};

/// Base offsets to decode indexes at: the first, a usual one, one where offsets overflow.
const BASES: [i64; 3] = [0, 50, i64::MAX - 1000];

pub fn offset_index(input: &[u8]) -> Outcome {
    let mut any_clean = false;
    for base in BASES {
        let (entries, findings) = offsets::decode_all(base, input);
        let bytes = (entries.len() + findings.trimmed_zero_entries) * offsets::ENTRY_BYTES + findings.partial_bytes;
        same("every byte is an entry, trimmed or partial", &input.len(), &bytes)?;
        if findings.is_clean() {
            any_clean = true;
            same("a clean index encodes to itself", &Ok(input.to_vec()), &offsets::encode_all(base, &entries))?;
        }
    }
    Ok(any_clean)
}

pub fn time_index(input: &[u8]) -> Outcome {
    let mut any_clean = false;
    for base in BASES {
        let (entries, findings) = times::decode_all(base, input);
        let bytes = (entries.len() + findings.trimmed_zero_entries) * times::ENTRY_BYTES + findings.partial_bytes;
        same("every byte is an entry, trimmed or partial", &input.len(), &bytes)?;
        if findings.is_clean() {
            any_clean = true;
            same("a clean index encodes to itself", &Ok(input.to_vec()), &times::encode_all(base, &entries))?;
        }
    }
    Ok(any_clean)
}

pub fn txn_index(input: &[u8]) -> Outcome {
    let Ok((entries, findings)) = txns::decode_all(input) else {
        return Ok(false);
    };
    let whole = &input[..input.len() - findings.partial_bytes];
    same("the whole entries encode to themselves", &whole, &txns::encode_all(&entries).as_slice())?;
    Ok(true)
}

pub fn snapshot(input: &[u8]) -> Outcome {
    let Ok((file, trailing)) = SnapshotFile::decode_with_trailing(input) else {
        return Ok(false);
    };
    let bytes = file.encode();
    same("a decoded snapshot comes back", &Ok(file.clone()), &SnapshotFile::decode(&bytes))?;
    holds(
        "an extension is given if and only if it is whole",
        file.extension.is_some() == (trailing == Trailing::Extension),
    )?;
    if matches!(trailing, Trailing::Nothing | Trailing::Extension) {
        same("a snapshot without foreign bytes encodes to itself", &input, &bytes.as_slice())?;
    }
    Ok(true)
}

/// Makes the extension's checksum right, if one stands where it should, then Kafka's.
pub fn repair_snapshot(input: &mut [u8]) {
    let Some(count) = input.get(6..HEADER_BYTES).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes) else {
        return;
    };
    let start = usize::try_from(count).unwrap_or(0).saturating_mul(ENTRY_BYTES).saturating_add(HEADER_BYTES);
    if let Some((head, body)) = input.get_mut(start..).and_then(|bytes| bytes.split_first_chunk_mut::<20>()) {
        head[12..16].copy_from_slice(&(body.len() as u32).to_be_bytes());
        let crc = crc32c_append(crc32c(&head[..16]), body);
        head[16..].copy_from_slice(&crc.to_be_bytes());
    }
    let crc = crc32c(&input[6..]);
    input[..2].copy_from_slice(&[0, 1]);
    input[2..6].copy_from_slice(&crc.to_be_bytes());
}

pub fn epoch_checkpoint(input: &[u8]) -> Outcome {
    let Ok(entries) = epoch_checkpoint::parse(input) else {
        return Ok(false);
    };
    let text = epoch_checkpoint::format(&entries);
    same("decoded epochs come back", &Ok(entries), &epoch_checkpoint::parse(text.as_bytes()))?;
    Ok(true)
}

pub fn checkpoint(input: &[u8]) -> Outcome {
    let Ok(entries) = checkpoint::parse(input) else {
        return Ok(false);
    };
    let text = checkpoint::format(&entries).map_err(|error| format!("what was read cannot be written: {error}"))?;
    same("decoded offsets come back", &Ok(entries), &checkpoint::parse(text.as_bytes()))?;
    Ok(true)
}

pub fn partition_metadata(input: &[u8]) -> Outcome {
    let Ok(metadata) = meta::parse(input) else {
        return Ok(false);
    };
    same("decoded metadata comes back", &Ok(metadata), &meta::parse(meta::format(&metadata).as_bytes()))?;
    Ok(true)
}

pub fn clean_shutdown(input: &[u8]) -> Outcome {
    let Ok(mark) = clean_shutdown::parse(input) else {
        return Ok(false);
    };
    let back = clean_shutdown::parse(clean_shutdown::format(mark.broker_epoch).as_bytes());
    same("a decoded epoch comes back", &Ok(mark.broker_epoch), &back.map(|mark| mark.broker_epoch))?;
    Ok(true)
}

pub fn file_name(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else {
        return Ok(false);
    };
    let file = names::parse_file_name(text);
    if let Some(file) = file {
        same("a decoded name comes back", &Some(file), &names::parse_file_name(&file.to_string()))?;
    }
    let directory = names::parse_log_dir_name(text);
    if let Ok((topic, partition)) = directory {
        same("a directory's name encodes to itself", &Ok(text.to_owned()), &names::log_dir_name(topic, partition))?;
    }
    Ok(file.is_some() || directory.is_ok())
}
