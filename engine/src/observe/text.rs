//! The counters in Prometheus' text form.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use super::Source;
use super::histogram::Histogram;
use crate::log::{ProducerUsage, Shared};

/// Clients that are named for having made producers; each is a series of its own to whoever collects them.
const CREATORS_SHOWN: usize = 10;

/// One log at one moment.
struct Snapshot<'a> {
    log: &'a Shared,
    labels: String,
    size_bytes: u64,
    segments: usize,
    log_start: i64,
    log_end: i64,
    durable: i64,
    high_watermark: i64,
    last_stable: i64,
    usage: ProducerUsage,
    spilled_blocks: usize,
    open_transactions: usize,
    followers: usize,
    read_only: bool,
    latched: bool,
}

impl<'a> Snapshot<'a> {
    fn of(log: &'a Shared) -> Self {
        let mut state = log.state.lock();
        Self {
            log,
            labels: format!("topic=\"{}\",partition=\"{}\"", log.topic, log.partition),
            size_bytes: state.segments.values().map(|segment| segment.size).sum(),
            segments: state.segments.len(),
            log_start: state.log_start,
            log_end: state.log_end(),
            durable: state.progress.durable_offset,
            high_watermark: state.high_watermark,
            last_stable: state.last_stable(),
            usage: state.producer_usage(log.clock.now_ms()),
            spilled_blocks: state.producers.spilled(),
            open_transactions: state.txns.ongoing().count(),
            followers: state.followers.len(),
            read_only: state.read_only.is_some(),
            latched: state.latch.is_some(),
        }
    }
}

/// The text, family by family.
struct Text<'a> {
    out: String,
    logs: Vec<Snapshot<'a>>,
}

/// What all logs and the engine around them tell.
pub(crate) fn text<'a>(
    logs: impl Iterator<Item = &'a Shared>,
    device: &str,
    tail_bytes: usize,
    ahead: usize,
) -> String {
    let mut text = Text { out: String::new(), logs: logs.map(Snapshot::of).collect() };
    text.appends();
    text.commits();
    text.reads();
    text.offsets();
    text.recovery();
    let (logs, late) = (text.logs.len(), text.logs.iter().filter(|log| log.log.late.counts().0 > 0).count());
    let name = "kafka_server_replicamanager_partitionswithlatetransactionscount";
    text.family(name, "gauge", "Logs with a transaction open for too long.");
    text.sample(name, "", late);
    text.family("oncelog_logs", "gauge", "Open logs.");
    text.sample("oncelog_logs", "", logs);
    text.family("oncelog_tail_bytes", "gauge", "Memory that holds what was just written.");
    text.sample("oncelog_tail_bytes", "", tail_bytes);
    text.family("oncelog_read_ahead_streams", "gauge", "Readers who are read ahead of.");
    text.sample("oncelog_read_ahead_streams", "", ahead);
    text.family("oncelog_device_info", "gauge", "Always 1; the label says which device is in use and how it writes.");
    text.sample("oncelog_device_info", &format!("device=\"{}\"", escaped(device)), 1);
    text.out
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl Text<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _infallible = match labels {
            "" => writeln!(self.out, "{name} {value}"),
            labels => writeln!(self.out, "{name}{{{labels}}} {value}"),
        };
    }

    /// One value a log.
    fn each<V: Display>(&mut self, name: &str, kind: &str, help: &str, value: impl Fn(&Snapshot<'_>) -> V) {
        self.family(name, kind, help);
        let values: Vec<_> = self.logs.iter().map(|log| (log.labels.clone(), value(log).to_string())).collect();
        for (labels, value) in values {
            self.sample(name, &labels, value);
        }
    }

    /// Some values a log, told apart by one more label.
    fn by<L: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        values: impl Fn(&Snapshot<'_>) -> Vec<(L, u64)>,
    ) {
        self.family(name, kind, help);
        let all: Vec<_> = self.logs.iter().map(|log| (log.labels.clone(), values(log))).collect();
        for (labels, values) in all {
            for (told_apart, value) in values {
                self.sample(name, &format!("{labels},{label}=\"{told_apart}\""), value);
            }
        }
    }

    fn histogram<const CLASSES: usize>(
        &mut self,
        name: &str,
        help: &str,
        of: impl Fn(&Shared) -> &Histogram<CLASSES>,
        unit: impl Fn(u64) -> f64,
    ) {
        self.family(name, "histogram", help);
        let all: Vec<_> = self.logs.iter().map(|log| (log.labels.clone(), of(log.log).read())).collect();
        for (labels, (classes, count, sum)) in all {
            for (bound, below) in classes {
                self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{}\"", unit(bound)), below);
            }
            self.sample(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), count);
            self.sample(&format!("{name}_sum"), &labels, unit(sum));
            self.sample(&format!("{name}_count"), &labels, count);
        }
    }

    fn appends(&mut self) {
        self.each("kafka_server_brokertopicmetrics_bytesin_total", "counter", "Bytes of batches stored.", |log| {
            log.log.metrics.appended_bytes.load(Relaxed)
        });
        self.each(
            "kafka_server_brokertopicmetrics_messagesin_total",
            "counter",
            "Records stored, control records included.",
            |log| log.log.metrics.appended_records.load(Relaxed),
        );
        self.by("oncelog_appends_total", "counter", "Appends answered, by what became of them.", "outcome", |log| {
            let metrics = &log.log.metrics;
            vec![("appended", metrics.appends.load(Relaxed)), ("duplicate", metrics.duplicates.load(Relaxed))]
        });
        self.by(
            "oncelog_appends_refused_total",
            "counter",
            "Appends refused, by Kafka's name of the error.",
            "error",
            |log| log.log.metrics.refused.lock().iter().map(|(name, count)| (*name, *count)).collect(),
        );
        self.each(
            "oncelog_space_waits_total",
            "counter",
            "Times that space had to be prepared while somebody waited.",
            |log| log.log.metrics.space_waits.load(Relaxed),
        );
        self.each("oncelog_rolls_total", "counter", "Segments sealed.", |log| log.log.metrics.rolls.load(Relaxed));
    }

    fn commits(&mut self) {
        self.histogram(
            "oncelog_commit_seconds",
            "Time that one group took on the device, with its sync if somebody waited for one.",
            |log| &log.metrics.commit_ns,
            seconds,
        );
        self.histogram(
            "oncelog_group_appends",
            "Appends that went to the device together.",
            |log| &log.metrics.group_appends,
            |n| n as f64,
        );
    }

    fn reads(&mut self) {
        self.each(
            "kafka_server_brokertopicmetrics_bytesout_total",
            "counter",
            "Bytes of batches handed to readers.",
            |log| log.log.metrics.read_bytes.iter().map(|bytes| bytes.load(Relaxed)).sum::<u64>(),
        );
        self.by(
            "oncelog_read_bytes_total",
            "counter",
            "Bytes of batches handed to readers, by where they were found.",
            "source",
            |log| {
                let of = |source| log.log.metrics.read_bytes[source as usize].load(Relaxed);
                vec![("tail", of(Source::Tail)), ("file", of(Source::File))]
            },
        );
        self.by(
            "oncelog_reads_total",
            "counter",
            "Reads answered with batches, by where they were found.",
            "source",
            |log| {
                let of = |source| log.log.metrics.reads[source as usize].load(Relaxed);
                vec![("tail", of(Source::Tail)), ("file", of(Source::File))]
            },
        );
        self.each("oncelog_followers_waiting", "gauge", "Followers that wait for more.", |log| log.followers);
    }

    fn offsets(&mut self) {
        self.each("kafka_log_log_size", "gauge", "Bytes of batches in the log.", |log| log.size_bytes);
        self.each("kafka_log_log_numlogsegments", "gauge", "Segments.", |log| log.segments);
        self.each("kafka_log_log_logstartoffset", "gauge", "First offset that may be read.", |log| log.log_start);
        self.each("kafka_log_log_logendoffset", "gauge", "Offset that the next record gets.", |log| log.log_end);
        self.each("oncelog_durable_offset", "gauge", "Everything below survives the loss of power.", |log| log.durable);
        self.each("oncelog_high_watermark", "gauge", "Readers see up to here.", |log| log.high_watermark);
        self.each("oncelog_last_stable_offset", "gauge", "Committed readers see up to here.", |log| log.last_stable);
        self.each(
            "kafka_cluster_partition_laststableoffsetlag",
            "gauge",
            "Offsets between the last stable offset and the high watermark.",
            |log| log.high_watermark - log.last_stable,
        );
        self.each("oncelog_producers", "gauge", "Producers remembered.", |log| log.usage.producers);
        self.each("oncelog_producer_bytes", "gauge", "Memory that the producers take.", |log| log.usage.memory_bytes);
        let help = "Producers that appends made.";
        self.each("oncelog_producers_created_total", "counter", help, |log| log.usage.created);
        let help = "Producers made in the last one to two hours, by those who made most.";
        self.by("oncelog_producers_created_lately", "gauge", help, "client", |log| {
            let most = log.usage.creators.iter().take(CREATORS_SHOWN);
            most.map(|creator| (escaped(&creator.client_id), creator.at_most)).collect()
        });
        let help = "Producers forgotten because they were silent for too long.";
        self.each("oncelog_producers_expired_total", "counter", help, |log| log.log.metrics.expired.load(Relaxed));
        let help = "Blocks of up to 64 producers that are out of memory.";
        self.each("oncelog_producer_blocks_spilled", "gauge", help, |log| log.spilled_blocks);
        let help = "Length of the file that they stand in.";
        self.each("oncelog_producer_spilled_bytes", "gauge", help, |log| log.usage.spilled_bytes);
        let help = "Times that such a block was read back.";
        self.each("oncelog_producer_blocks_returned_total", "counter", help, |log| log.usage.returned_blocks);
        self.each("oncelog_open_transactions", "gauge", "Transactions open.", |log| log.open_transactions);
        self.each("oncelog_late_transactions", "gauge", "Transactions open for too long.", |log| {
            log.log.late.counts().0
        });
        let help = "Transactions that were ever found open for too long.";
        self.each("oncelog_late_transactions_total", "counter", help, |log| log.log.late.counts().1);
        self.each("oncelog_read_only", "gauge", "1 if damage was found and the log takes no appends.", |log| {
            u8::from(log.read_only)
        });
        self.each(
            "oncelog_latched",
            "gauge",
            "1 after a failed write or sync, until the log is opened again.",
            |log| u8::from(log.latched),
        );
    }

    fn recovery(&mut self) {
        self.each("oncelog_open_seconds", "gauge", "Time that opening the log took.", |log| {
            log.log.report.duration_ms / 1e3
        });
        self.each("oncelog_open_scanned_bytes", "gauge", "Bytes read and checked when it was opened.", |log| {
            log.log.report.bytes_scanned
        });
        self.each("oncelog_open_scanned_batches", "gauge", "Batches read and checked when it was opened.", |log| {
            log.log.report.batches_scanned
        });
        self.each(
            "oncelog_open_replayed_batches",
            "gauge",
            "Batches applied to the producers when it was opened.",
            |log| log.log.report.batches_replayed,
        );
        self.each("oncelog_open_cut_tails", "gauge", "Torn tails cut off when it was opened.", |log| {
            log.log.report.cut.len()
        });
        self.each("oncelog_open_damages", "gauge", "Damages found when it was opened.", |log| {
            log.log.report.damage.len()
        });
    }
}
