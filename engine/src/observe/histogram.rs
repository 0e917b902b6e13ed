//! Counts by size, in fixed classes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Classes with the upper bounds `bounds` and one above them.
#[derive(Debug)]
pub(crate) struct Histogram<const CLASSES: usize> {
    bounds: &'static [u64; CLASSES],
    counts: [AtomicU64; CLASSES],
    above: AtomicU64,
    sum: AtomicU64,
}

impl<const CLASSES: usize> Histogram<CLASSES> {
    pub fn new(bounds: &'static [u64; CLASSES]) -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, counts, above: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    pub fn record(&self, value: u64) {
        let class = self.bounds.partition_point(|bound| *bound < value);
        self.counts.get(class).unwrap_or(&self.above).fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Upper bounds with how many were not above each, as Prometheus wants them; how many in all; their sum.
    pub fn read(&self) -> (Vec<(u64, u64)>, u64, u64) {
        let mut total = 0;
        let mut classes = Vec::with_capacity(CLASSES);
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            total += count.load(Relaxed);
            classes.push((*bound, total));
        }
        (classes, total + self.above.load(Relaxed), self.sum.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_its_class_and_all_above() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21] {
            histogram.record(value);
        }
        assert_eq!(histogram.read(), (vec![(10, 2), (20, 4)], 5, 62));
    }
}
