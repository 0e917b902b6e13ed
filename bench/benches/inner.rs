//! The inner parts on their own, in memory and on one thread: what the processor pays before any disk is asked.
//!
//! `cargo bench -p oncelog-bench`; a name behind it picks some. The suites of `oncelog-bench` measure the whole.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oncelog::{Ack, Append, DeviceKind, Engine, EngineOptions, Log, OpenOptions};
use oncelog_formats::offset_index::{self, OffsetEntry};
use oncelog_formats::{BatchBuilder, BatchView};
use oncelog_snapshot::{AdmitOptions, Incoming, Origin, ProducerTable, Verdict, admit};
use std::hint::black_box;
use std::time::{Duration, Instant};

const SIZES_BYTES: [usize; 3] = [100, 1024, 65536];

fn batch(producer_id: i64, sequence: i32, value_bytes: usize) -> Vec<u8> {
    let value: Vec<u8> = (0..value_bytes).map(|at| at as u8).collect();
    let mut builder = BatchBuilder::new().producer(producer_id, 0, sequence);
    builder.append(0, None, Some(&value), &[]);
    builder.build().expect("a plain batch")
}

/// Header read and checksum compared.
fn check(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse and check a batch");
    for bytes in SIZES_BYTES {
        let batch = batch(1, 0, bytes);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &batch, |b, batch| {
            b.iter(|| {
                let view = BatchView::new(black_box(batch)).expect("whole");
                view.verify_crc().expect("right");
                black_box(view.header().producer_id)
            });
        });
    }
    group.finish();
}

/// A batch built from one record.
fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode a batch");
    for bytes in SIZES_BYTES {
        let value = vec![7; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &value, |b, value| {
            b.iter(|| {
                let mut builder = BatchBuilder::new().producer(1, 0, 0);
                builder.append(0, None, Some(black_box(value)), &[]);
                builder.build()
            });
        });
    }
    group.finish();
}

/// The question about a retry, the verdict and the change to the table, over that many producers in a scattered order.
fn judge(c: &mut Criterion) {
    const STRIDE: i64 = 7_919;
    let mut group = c.benchmark_group("look, judge and apply");
    for producers in [1_i64, 1_000, 100_000] {
        let options = AdmitOptions {
            origin: Origin::Client,
            verification_enabled: false,
            txn_version: None,
            guard: None,
            now_ms: 0,
        };
        let mut table = ProducerTable::new();
        let mut turn = 0_i64;
        let mut one = move || {
            let (producer_id, sequence) = (turn * STRIDE % producers, (turn / producers) as i32);
            let incoming = Incoming {
                producer_id,
                epoch: 0,
                base_sequence: sequence,
                last_sequence: sequence,
                first_offset: turn,
                last_offset: turn,
                max_timestamp: 0,
                transactional: false,
                marker: None,
            };
            turn += 1;
            let (known, hint) = table.look(producer_id, 0, sequence, sequence);
            match admit(&known, None, None, &incoming, &options) {
                Verdict::Append { update, .. } => table.apply(producer_id, &update, hint),
                other => panic!("{other:?}"),
            }
        };
        (0..5 * producers).for_each(|_| one());
        group.bench_function(BenchmarkId::from_parameter(producers), |b| b.iter(&mut one));
    }
    group.finish();
}

/// The offset index of a full segment as bytes and back.
fn index(c: &mut Criterion) {
    let entries: Vec<_> = (0..10_000).map(|n| OffsetEntry { offset: n * 3, position: n as u32 * 4096 }).collect();
    let mut group = c.benchmark_group("offset index of 10,000 entries");
    group.bench_function("encode", |b| b.iter(|| offset_index::encode_all(0, black_box(&entries))));
    let bytes = offset_index::encode_all(0, &entries).expect("fits");
    group.bench_function("decode", |b| b.iter(|| offset_index::decode_all(0, black_box(&bytes))));
    group.finish();
}

/// Everything that an append does on the calling thread, into a disk that is memory.
fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append, accepted");
    for bytes in SIZES_BYTES {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            let mut builder = BatchBuilder::new();
            builder.append(0, None, Some(&vec![7; bytes]), &[]);
            let batch = builder.build().expect("a plain batch");
            b.iter_custom(|times| {
                let mut took = Duration::ZERO;
                let mut left = times;
                while left > 0 {
                    // A fresh log now and then: memory is the disk here.
                    let (_engine, log) = open();
                    let some = left.min((64 << 20) / bytes as u64);
                    let started = Instant::now();
                    for _ in 0..some {
                        log.append_wait(Append::client(&batch).ack(Ack::Accepted)).expect("stored");
                    }
                    took += started.elapsed();
                    left -= some;
                }
                took
            });
        });
    }
    group.finish();
}

fn open() -> (Engine, Log) {
    let options = EngineOptions { device_kind: DeviceKind::Memory, driver: false, ..EngineOptions::default() };
    let engine = Engine::open("bench", options).expect("memory");
    let log = engine.log("bench-0", OpenOptions::default()).expect("memory");
    (engine, log)
}

criterion_group!(inner, check, encode, judge, index, append);
criterion_main!(inner);
