use super::*;
use oncelog_formats::BatchBuilder;
use oncelog_formats::batch::stamp;

const NOW: u64 = 5_000_000_000;

/// Batches of two records each, from `first` on, of about `bytes` each.
fn batches(first: i64, count: i64, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for number in 0..count {
        let mut builder = BatchBuilder::new();
        for _ in 0..2 {
            builder.append(0, None, Some(&vec![b'x'; bytes / 2]), &[]);
        }
        let mut batch = builder.build().unwrap();
        stamp(&mut batch, first + 2 * number, 0).unwrap();
        all.extend(batch);
    }
    all
}

struct Writer {
    tail: Tail,
    budget: Arc<Budget>,
    pool: Arc<BufferPool>,
    base_offset: i64,
    position: u64,
    next_offset: i64,
}

impl Writer {
    fn new(limit_bytes: usize) -> Self {
        let (budget, pool) = (Budget::new(limit_bytes), Arc::new(BufferPool::new(1 << 20)));
        let tail = Tail::new(budget.clone(), pool.clone());
        Self { tail, budget, pool, base_offset: 0, position: 0, next_offset: 0 }
    }

    /// A group of `count` batches; answers its bytes.
    fn write(&mut self, count: i64, bytes: usize, now_ns: u64) -> Vec<u8> {
        let data = batches(self.next_offset, count, bytes);
        let mut buffer = Lent::take(&self.pool, 100 + data.len());
        buffer.buffer_mut().as_mut_slice()[100..100 + data.len()].copy_from_slice(&data);
        let end_offset = self.next_offset + 2 * count;
        let range = 100..100 + data.len();
        let written = Written { base_offset: self.base_offset, position: self.position, end_offset, buffer, range };
        self.tail.push(written, now_ns);
        self.position += data.len() as u64;
        self.next_offset = end_offset;
        data
    }

    /// Everything from `wanted` on, and where in the file it begins.
    fn read(&self, wanted: i64) -> Option<(u64, Vec<u8>)> {
        let pieces = self.tail.since(self.base_offset, wanted, usize::MAX)?;
        let from = pieces[0].locate(wanted);
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
        Some((pieces[0].position + from as u64, all[from..].to_vec()))
    }
}

#[test]
fn every_offset_is_found_at_its_batch_in_large_and_small_groups() {
    let mut writer = Writer::new(64 << 20);
    let mut file = Vec::new();
    for round in 0..40 {
        file.extend(writer.write(1 + round % 3, if round % 7 == 3 { 40_000 } else { 900 }, NOW));
    }
    let mut starts = Vec::new();
    let mut at = 0;
    while let Ok(header) = BatchHeader::parse(&file[at..]) {
        starts.push(at);
        at += header.size_bytes();
    }
    for wanted in 0..writer.next_offset {
        let (position, bytes) = writer.read(wanted).unwrap();
        assert_eq!(position as usize, starts[wanted as usize / 2], "offset {wanted}");
        assert!(bytes == file[position as usize..], "offset {wanted}");
    }
    assert!(writer.read(writer.next_offset).is_none());
}

#[test]
fn a_large_group_is_shared_and_goes_back_to_the_pool() {
    let mut writer = Writer::new(64 << 20);
    writer.write(1, 40_000, NOW);
    let one = writer.tail.since(0, 0, 1).unwrap().remove(0).bytes.clone();
    let other = writer.tail.since(0, 1, 1).unwrap().remove(0).bytes.clone();
    assert_eq!(one.as_ptr(), other.as_ptr());
    writer.tail.clear();
    assert!(writer.tail.since(0, 0, 1).is_none() && writer.budget.held_bytes() == 0);
    let address = one.as_ptr().addr() - 100;
    assert_ne!(writer.pool.take(60_000).as_slice().as_ptr().addr(), address, "a reader still holds it");
    drop((one, other));
    assert_eq!(writer.pool.take(60_000).as_slice().as_ptr().addr(), address);
}

#[test]
fn the_budget_and_the_time_bound_what_is_kept() {
    let mut writer = Writer::new(256 << 10);
    for _ in 0..20 {
        writer.write(1, 40_000, NOW);
        assert!(writer.budget.held_bytes() <= 256 << 10);
    }
    assert!(writer.read(0).is_none(), "the oldest went");
    assert!(writer.read(38).is_some());
    assert_eq!(writer.read(37).map(|(_, bytes)| bytes.len()), writer.read(36).map(|(_, bytes)| bytes.len()));
    writer.tail.expire(NOW + KEEP_NS);
    assert!(writer.read(38).is_some());
    writer.tail.expire(NOW + KEEP_NS + 1);
    assert!(writer.read(38).is_none() && writer.budget.held_bytes() == 0);
    let small = writer.next_offset;
    writer.write(1, 100, 2 * NOW);
    assert!(writer.read(small).is_some() && writer.read(small - 1).is_none());
    writer.tail.expire(2 * NOW + KEEP_NS + 1);
    assert!(writer.read(small).is_none() && writer.budget.held_bytes() == 0);
    let mut none = Writer::new(0);
    none.write(1, 40_000, NOW);
    assert!(none.read(0).is_none());
}

#[test]
fn a_hole_is_never_read_over() {
    let mut writer = Writer::new(64 << 20);
    writer.write(2, 900, NOW);
    writer.position += 500;
    writer.next_offset += 4;
    let behind = writer.next_offset;
    writer.write(2, 40_000, NOW);
    assert!(writer.read(0).is_none() && writer.read(behind - 1).is_none());
    assert!(writer.read(behind).is_some());
    // The next segment begins anew and leaves the one before alone.
    let (old_base, old_position) = (writer.base_offset, writer.position);
    (writer.base_offset, writer.position) = (writer.next_offset, 0);
    writer.write(1, 900, NOW);
    assert_eq!(writer.read(writer.base_offset).unwrap().0, 0);
    assert_eq!(writer.read(behind).unwrap().0, 0, "nothing of another segment, and this one begins here");
    writer.base_offset = old_base;
    assert!(writer.read(behind).unwrap().1.len() as u64 <= old_position);
}
