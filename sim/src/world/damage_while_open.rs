//! A disk that goes bad under an open log: every read, every look for a time and every truncation is right or says so.

use oncelog::{Error, Isolation, Read};

use super::World;
use super::damage::{Planted, is_of, names, read_around};
use crate::oracle::fact::compare;

impl World {
    /// Damages a segment and looks at everything; answers what was planted.
    pub(super) fn damage_while_open(&mut self, at: usize) -> Vec<Planted> {
        self.sync(at);
        if self.is_done() {
            return Vec::new();
        }
        let planted = self.damage_segment(at, false);
        let files = self.affected(at, &planted);
        let mut checked = self.check_reads(at, &files).and_then(|()| self.check_times(at, &files));
        if checked.is_ok() && !planted.is_empty() && self.random.percent(50) {
            checked = self.truncate_beside_damage(at, &files);
        }
        self.hold(at, checked.map_err(|reason| format!("{reason}; damaged while open: {planted:?}")));
        planted
    }

    /// Forwards in one go, then each batch by itself from the last one on, so that the index has to find it.
    fn check_reads(&self, at: usize, files: &[String]) -> Result<(), String> {
        let (log, oracle) = (self.log(at), &self.partitions[at].oracle);
        let start = log.log_start_offset();
        let facts = oracle.from(start);
        let mut unread = read_around(&log, facts, false)?;
        for fact in facts.iter().rev() {
            for offset in [fact.last_offset, fact.first_offset.max(start)] {
                match log.read(Read { isolation: Isolation::LogEnd, max_bytes: 1, ..Read::from(offset) }) {
                    Ok(fetched) => {
                        if let Some(wrong) = compare(std::slice::from_ref(fact), &fetched.data, true).1 {
                            return Err(format!("a read from {offset}: {wrong}"));
                        }
                    }
                    Err(Error::Damaged(damage)) => unread.push((fact.clone(), *damage)),
                    Err(error) => return Err(format!("a read from {offset} failed with {error}")),
                }
            }
        }
        match unread.iter().find(|(fact, damage)| !names(damage, fact, files)) {
            Some((fact, damage)) => Err(format!("{fact} is said to be damaged by {damage}")),
            None => Ok(()),
        }
    }

    /// Every look for a time is right, or says that one of these files is damaged.
    pub(super) fn check_times(&self, at: usize, files: &[String]) -> Result<(), String> {
        let (log, oracle) = (self.log(at), &self.partitions[at].oracle);
        let state = log.describe().map_err(|error| format!("a description: {error}"))?;
        if state.segments.first().is_none_or(|first| first.base_offset < state.log_start_offset) {
            // See `look_up_time`.
            return Ok(());
        }
        for fact in oracle.from(oracle.start()) {
            for timestamp in [fact.timestamp, fact.timestamp + 1] {
                let (answer, expected) =
                    (log.offset_for_timestamp(timestamp), oracle.at_time(timestamp, log.log_start_offset()));
                match answer {
                    Ok(answer) if answer == expected => {}
                    Err(Error::Damaged(damage)) if is_of(&damage, files) => {}
                    answer => return Err(format!("time {timestamp} was answered {answer:?} instead of {expected:?}")),
                }
            }
        }
        Ok(())
    }

    /// A truncation leaves what lies below it, or refuses to go on.
    fn truncate_beside_damage(&mut self, at: usize, files: &[String]) -> Result<(), String> {
        let log = self.log(at);
        let facts = self.partitions[at].oracle.from(log.log_start_offset());
        let Some(chosen) = facts.get(self.random.clone().index(facts.len())) else { return Ok(()) };
        let offset = self.random.pick(&[chosen.first_offset, chosen.last_offset]);
        self.oracle(at).truncating(offset);
        match log.truncate_to(offset) {
            Ok(_) => {
                self.oracle(at).truncated(offset);
                self.check_reads(at, files)
            }
            Err(Error::Damaged(damage)) if is_of(&damage, files) => Ok(()),
            Err(error) => Err(format!("a truncation to {offset} failed with {error}")),
        }
    }
}
