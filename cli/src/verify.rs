//! `oncelog verify`: walks every file of a partition directory, read-only, and names each thing that is wrong by file,
//! byte and offset.
//!
//! It does not go through the engine's loading: what recovery repairs in memory would otherwise never be seen, and the
//! walk must not share a mistake with the code that it checks. The engine's own opening comes last, and its report is
//! added.

mod findings;
mod history;
mod indexes;
mod log_checkpoints;
mod segment;
mod window;

use crate::common::{CliError, CliResult, Outcome, Output, Place, byte_bar, open_overlaid};
use clap::Args;
use findings::Findings;
use history::History;
use indexes::{Aborted, Indexes};
use oncelog::{Device, DeviceKind};
use oncelog_device::{OpenMode, open_device};
use oncelog_formats::file_name::{Kind, Suffix, parse_file_name, segment_file_name};
use oncelog_formats::{checkpoint, clean_shutdown, epoch_checkpoint, partition_metadata, snapshot};
use segment::{SegmentWalk, Totals};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use window::Window;

/// Side files larger than this are not read.
const SIDE_FILE_LIMIT_BYTES: u64 = 1 << 30;

/// Checks every byte of a partition directory, changing and locking nothing.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Partition directory, for example data/events-0.
    pub dir: PathBuf,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// Runs `oncelog verify`.
pub fn run(args: &VerifyArgs) -> CliResult {
    let place = Place::existing(&args.dir)?;
    let device = open_device(DeviceKind::Blocking)?;
    let mut verify = Verify {
        place: &place,
        device,
        findings: Findings::default(),
        totals: Totals::default(),
        log: LogSeen::default(),
        promised: Promised::default(),
    };
    verify.all()?;
    verify.print(args.json)
}

/// What the walk learned about the whole log.
#[derive(Debug, Default)]
struct LogSeen {
    segments: usize,
    start: i64,
    end: i64,
}

/// What the files beside the partition said before the walk began.
#[derive(Debug, Default)]
struct Promised {
    clean: bool,
    log_start: Option<i64>,
    recovery_point: Option<i64>,
    high_watermark: Option<i64>,
}

struct Verify<'a> {
    place: &'a Place,
    device: Arc<dyn Device>,
    findings: Findings,
    totals: Totals,
    log: LogSeen,
    promised: Promised,
}

impl Verify<'_> {
    fn all(&mut self) -> CliResult<()> {
        // Before the log is walked: beside a living engine the checkpoints move on, and so does the log.
        self.load_checkpoints()?;
        let mut history = History::new(self.promised.log_start.unwrap_or(0), self.promised.clean);
        history.compacted = self.checkpoint_offset(checkpoint::CLEANER).is_some();
        self.load_side_files(&mut history)?;
        self.load_log_checkpoints(&mut history)?;
        let snapshots: Vec<(i64, String)> = history.snapshots.keys().cloned().collect();
        self.walk_segments(&mut history)?;
        history.compare_snapshots(i64::MAX, &mut self.findings);
        if let Some((offset, file)) = snapshots.last().filter(|(offset, _)| *offset > self.log.end) {
            self.findings.problem(
                file,
                None,
                Some(self.log.end),
                format_args!("covers offsets up to {offset}, but the log ends before"),
            );
        }
        self.check_orphans()?;
        self.check_checkpoints();
        self.ask_the_engine();
        Ok(())
    }

    fn segments(&mut self) -> CliResult<Vec<(i64, u64)>> {
        let mut segments = Vec::new();
        for entry in self.device.list(&self.place.directory)? {
            match parse_file_name(&entry.name) {
                Some(name) if name.suffix != Suffix::None => {
                    self.findings.note(&entry.name, None, None, "left over; the next opening removes it");
                }
                Some(name) if name.kind == Kind::Log && !entry.is_directory => {
                    segments.push((name.base_offset, entry.length_bytes))
                }
                _ => {}
            }
        }
        segments.sort_unstable();
        if segments.is_empty() {
            let reason = "holds no segment; give the partition directory, for example data/events-0";
            return Err(CliError::Refused(format!("{}: {reason}", self.place.directory.display())));
        }
        Ok(segments)
    }

    /// Indexes whose segment is not there, before the first that is. An interrupted removal leaves such, a clean stop
    /// does not.
    fn check_orphans(&mut self) -> CliResult<()> {
        let names: BTreeMap<String, bool> = self
            .device
            .list(&self.place.directory)?
            .into_iter()
            .map(|entry| (entry.name, entry.is_directory))
            .collect();
        let from = self.promised.log_start.unwrap_or(0);
        for name in names.keys() {
            let Some(parsed) = parse_file_name(name).filter(|parsed| parsed.suffix == Suffix::None) else { continue };
            let is_index = matches!(parsed.kind, Kind::OffsetIndex | Kind::TimeIndex | Kind::TxnIndex);
            let log = segment_file_name(parsed.base_offset, Kind::Log);
            if is_index && names.get(&log) != Some(&false) && (from..self.log.start).contains(&parsed.base_offset) {
                let offset = Some(parsed.base_offset);
                let what = format_args!("stands without {log}: a segment is missing");
                match self.promised.clean {
                    true => self.findings.problem(name, None, offset, what),
                    false => self.findings.note(name, None, offset, what),
                }
            }
        }
        Ok(())
    }

    fn walk_segments(&mut self, history: &mut History) -> CliResult<()> {
        let segments = self.segments()?;
        let bar = byte_bar(segments.iter().map(|(_, length)| length).sum(), "verify");
        self.log =
            LogSeen { segments: segments.len(), start: segments[0].0.max(history.log_start), end: segments[0].0 };
        let mut gaps = Vec::new();
        for (number, &(base_offset, _)) in segments.iter().enumerate() {
            let next_base = segments.get(number + 1).map(|(base_offset, _)| *base_offset);
            let file = segment_file_name(base_offset, Kind::Log);
            if base_offset < self.log.end {
                let what = format!("begins below offset {}, where the segment before ends", self.log.end);
                self.findings.problem(&file, Some(0), Some(base_offset), what);
            } else if base_offset > self.log.end {
                gaps.push((file.clone(), self.log.end, base_offset));
            }
            let next_offset = self.walk_segment((base_offset, next_base), history, &|bytes| bar.inc(bytes))?;
            history.check_sealed(base_offset, next_offset, &mut self.findings);
            self.log.end = next_offset.max(self.log.end);
        }
        bar.finish_and_clear();
        for (file, from, to) in gaps {
            let what = format!("no records at offsets {from} to {}, between this segment and the one before", to - 1);
            if history.compacted {
                self.findings.note(&file, Some(0), Some(from), what);
            } else {
                self.findings.problem(
                    &file,
                    Some(0),
                    Some(from),
                    format_args!("{what}: nothing else here was compacted, so a segment is missing"),
                );
            }
        }
        Ok(())
    }

    fn walk_segment(
        &mut self,
        (base_offset, next_base): (i64, Option<i64>),
        history: &mut History,
        advance: &dyn Fn(u64),
    ) -> CliResult<i64> {
        let file = &segment_file_name(base_offset, Kind::Log);
        // Its side files are written behind it, and somebody may be writing to it now.
        let unsettled = !self.promised.clean
            && next_base.is_none_or(|next_base| self.promised.recovery_point.is_none_or(|point| point < next_base));
        let mut indexes = Indexes::new(unsettled);
        let name = segment_file_name(base_offset, Kind::OffsetIndex);
        match self.side_file(&name)? {
            Some(bytes) => indexes.load_offsets(name, base_offset, &bytes, &mut self.findings),
            None => self.findings.note(&name, None, Some(base_offset), "there is none; the next opening rebuilds it"),
        }
        let name = segment_file_name(base_offset, Kind::TimeIndex);
        if let Some(bytes) = self.side_file(&name)? {
            indexes.load_times(name, base_offset, &bytes, &mut self.findings);
        }
        let name = segment_file_name(base_offset, Kind::TxnIndex);
        let stored = Aborted { bytes: self.side_file(&name)?, file: name, unsettled, log_start: history.log_start };
        let window = Window::new(self.device.open(&self.place.directory.join(file), OpenMode::Read)?)?;
        let (findings, totals) = (&mut self.findings, &mut self.totals);
        let walk = SegmentWalk { file, base_offset, unsettled, window, indexes, findings, totals };
        let next_offset = walk.run(history, advance)?;
        let seen = std::mem::take(&mut history.aborted);
        stored.check(&seen, history.saw_everything(), &mut self.findings);
        Ok(next_offset)
    }

    fn side_file(&self, name: &str) -> CliResult<Option<Vec<u8>>> {
        Ok(self.device.read_small(&self.place.directory.join(name), SIDE_FILE_LIMIT_BYTES)?)
    }

    fn load_side_files(&mut self, history: &mut History) -> CliResult<()> {
        for entry in self.device.list(&self.place.directory)? {
            let Some(name) = parse_file_name(&entry.name) else { continue };
            if name.kind != Kind::Snapshot || name.suffix != Suffix::None {
                continue;
            }
            let bytes = self.side_file(&entry.name)?.unwrap_or_default();
            match snapshot::SnapshotFile::decode_with_trailing(&bytes) {
                Ok((file, trailing)) => {
                    if trailing == snapshot::Trailing::Damaged {
                        self.findings.problem(&entry.name, None, None, "what stands behind Kafka's entries is damaged");
                    }
                    let sealed = file.extension.as_ref().and_then(|extension| extension.sealed);
                    history.sealed.extend(sealed.map(|sealed| (sealed.base_offset, (entry.name.clone(), sealed))));
                    history.snapshots.insert((name.base_offset, entry.name), file.entries);
                }
                Err(error) => self.findings.problem(&entry.name, None, Some(name.base_offset), error),
            }
        }
        if let Some(bytes) = self.side_file(epoch_checkpoint::FILE_NAME)? {
            match epoch_checkpoint::parse(&bytes) {
                Ok(epochs) => history.epochs = epochs,
                Err(error) => self.findings.problem(epoch_checkpoint::FILE_NAME, None, None, error),
            }
        }
        if let Some(bytes) = self.side_file(partition_metadata::FILE_NAME)? {
            match partition_metadata::parse(&bytes) {
                Ok(metadata) if partition_metadata::format(&metadata).as_bytes() == bytes => {}
                Ok(_) => self.findings.problem(
                    partition_metadata::FILE_NAME,
                    None,
                    None,
                    "not written the way it is always written",
                ),
                Err(error) => self.findings.problem(partition_metadata::FILE_NAME, None, None, error),
            }
        }
        Ok(())
    }

    /// What a checkpoint file beside the partition says about it.
    fn checkpoint_offset(&mut self, name: &str) -> Option<i64> {
        let read = self.device.read_small(&self.place.data_directory.join(name), SIDE_FILE_LIMIT_BYTES);
        let parsed = match read {
            Ok(None) => return None,
            Ok(Some(bytes)) => checkpoint::parse(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let ours = |(topic, partition, _): &(String, i32, i64)| format!("{topic}-{partition}") == self.place.name;
        match parsed {
            Ok(entries) => entries.into_iter().find(ours).map(|(.., offset)| offset),
            Err(error) => {
                self.findings.problem(&format!("../{name}"), None, None, error);
                None
            }
        }
    }

    fn load_checkpoints(&mut self) -> CliResult<()> {
        self.promised.log_start = self.checkpoint_offset(checkpoint::LOG_START);
        self.promised.recovery_point = self.checkpoint_offset(checkpoint::RECOVERY_POINT);
        self.promised.high_watermark = self.checkpoint_offset(checkpoint::HIGH_WATERMARK);
        let path = self.place.data_directory.join(clean_shutdown::FILE_NAME);
        if let Some(bytes) = self.device.read_small(&path, SIDE_FILE_LIMIT_BYTES)? {
            self.promised.clean = true;
            if let Err(error) = clean_shutdown::parse(&bytes) {
                self.findings.problem(&format!("../{}", clean_shutdown::FILE_NAME), None, None, error);
            }
        }
        Ok(())
    }

    fn check_checkpoints(&mut self) {
        for (name, offset) in [
            (checkpoint::LOG_START, self.promised.log_start),
            (checkpoint::RECOVERY_POINT, self.promised.recovery_point),
            (checkpoint::HIGH_WATERMARK, self.promised.high_watermark),
        ] {
            if let Some(offset) = offset.filter(|offset| *offset > self.log.end) {
                let what = format!("says offset {offset}, but the log ends at {}: records are missing", self.log.end);
                self.findings.problem(&format!("../{name}"), None, Some(self.log.end), what);
            }
        }
    }

    /// Opens the log in memory: what the engine would not open, or open only in part, is wrong too.
    fn ask_the_engine(&mut self) {
        match open_overlaid(self.place) {
            Ok((_engine, log)) => {
                for damage in &log.report().damage {
                    let file =
                        damage.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                    self.findings.problem(
                        &file,
                        Some(damage.position),
                        Some(damage.offset),
                        format_args!("the engine: {}", damage.reason),
                    );
                }
                for repaired in &log.report().repaired {
                    self.findings.note(".", None, None, repaired);
                }
            }
            Err(error) => self.findings.problem(".", None, None, format_args!("the log does not open: {error}")),
        }
    }

    fn print(&self, json: bool) -> CliResult {
        let mut output = Output::new();
        let problems = self.findings.problems();
        let Totals { batches, records, bytes } = self.totals;
        let LogSeen { segments, start, end } = self.log;
        if json {
            output.line(json!({
                "ok": problems == 0, "problems": problems, "segments": segments, "batches": batches, "records": records,
                "bytes": bytes, "log_start_offset": start, "log_end_offset": end, "findings": self.findings.json(),
            }))?;
        } else {
            for finding in self.findings.iter() {
                output.line(finding)?;
            }
            let verdict = if problems == 0 { "nothing wrong".to_owned() } else { format!("{problems} problems") };
            output.line(format_args!(
                "{}: {segments} segments, {batches} batches, {records} records, {bytes} bytes, offsets {start} to {end}: {verdict}",
                self.place.directory.display()
            ))?;
        }
        output.flush()?;
        Ok(if problems == 0 { Outcome::Fine } else { Outcome::Wrong })
    }
}
