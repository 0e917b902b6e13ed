//! How many producers a log may know, and who made them lately.
//!
//! A client that takes a new producer id with each start, or for each request, fills the table of everybody. Nobody is
//! forgotten for it: beyond `max_producers` a client's batch under an id that the log does not know is refused, and
//! those it knows go on. Forgetting whoever was silent for longest was not chosen, since his retry would be stored
//! twice.
//!
//! Who took the ids is counted by the name that came with the append, in windows of an hour, with the space-saving
//! method (Metwally, Agrawal, El Abbadi, 2005): a name that finds no room takes over the place and the count of the
//! rarest one. So memory has a bound whatever the names are, and whoever took more than his share of a window is in it.
//! Only an append that makes a producer pays for it.

use std::collections::BTreeMap;

use super::state::State;
use crate::error::{Error, Result};

/// How long one window counts.
const WINDOW_MS: i64 = 3_600_000;
/// Names that a window counts.
const NAMES: usize = 32;
/// Of a longer name so much is kept.
const NAME_CHARS: usize = 64;

/// A client that made producers lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creator {
    /// The name that came with its appends ([`crate::Append::client_id`]), at most 64 characters of it; empty for all
    /// that gave none.
    pub client_id: String,
    /// At least so many producers are its own.
    pub at_least: u64,
    /// And no more than these: equal unless more than 32 names made producers within an hour.
    pub at_most: u64,
}

/// What a log's producers take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerUsage {
    /// Producers that the log remembers.
    pub producers: usize,
    /// Memory that they take, nearly.
    pub memory_bytes: usize,
    /// File space that those take who are out of memory.
    pub spilled_bytes: u64,
    /// How often some of those, up to 64 neighbours, were read back since the log was opened.
    pub returned_blocks: u64,
    /// Producers that appends made since the log was opened.
    pub created: u64,
    /// Who made those of the last one to two hours, most first.
    pub creators: Vec<Creator>,
}

#[derive(Debug, Default)]
struct Window {
    begun_ms: i64,
    /// Name, how often at most, and how much of that may be others'.
    names: Vec<(String, u64, u64)>,
}

impl Window {
    fn note(&mut self, name: String, count: u64) {
        if let Some(known) = self.names.iter_mut().find(|known| known.0 == name) {
            known.1 += count;
        } else if self.names.len() < NAMES {
            self.names.push((name, count, 0));
        } else if let Some(rarest) = self.names.iter_mut().min_by_key(|known| known.1) {
            *rarest = (name, rarest.1 + count, rarest.1);
        }
    }

    /// A name that is not here was counted no more often.
    fn unseen(&self) -> u64 {
        if self.names.len() < NAMES { 0 } else { self.names.iter().map(|known| known.1).min().unwrap_or(0) }
    }
}

/// Who made producers, in this window and the one before.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    created: u64,
    windows: [Window; 2],
}

impl Accounts {
    /// `client_id` made so many producers.
    pub fn note(&mut self, client_id: &str, count: u64, now_ms: i64) {
        self.created += count;
        self.turn(now_ms);
        self.windows[0].note(client_id.chars().take(NAME_CHARS).collect(), count);
    }

    pub fn created(&self) -> u64 {
        self.created
    }

    /// Most first.
    pub fn creators(&mut self, now_ms: i64) -> Vec<Creator> {
        self.turn(now_ms);
        let mut found: BTreeMap<&str, [Option<(u64, u64)>; 2]> = BTreeMap::new();
        for (at, window) in self.windows.iter().enumerate() {
            for (name, most, excess) in &window.names {
                found.entry(name).or_default()[at] = Some((most - excess, *most));
            }
        }
        let unseen = self.windows.each_ref().map(|window| (0, window.unseen()));
        let mut creators: Vec<Creator> = found
            .into_iter()
            .map(|(name, counts)| {
                let [now, before] = [0, 1].map(|at| counts[at].unwrap_or(unseen[at]));
                Creator { client_id: name.to_owned(), at_least: now.0 + before.0, at_most: now.1 + before.1 }
            })
            .collect();
        creators.sort_by_key(|creator| std::cmp::Reverse((creator.at_most, creator.at_least)));
        creators
    }

    /// Begins another window if it is time for one.
    fn turn(&mut self, now_ms: i64) {
        let age_ms = now_ms.saturating_sub(self.windows[0].begun_ms);
        if (0..WINDOW_MS).contains(&age_ms) {
            return;
        }
        let [now, before] = &mut self.windows;
        let old = std::mem::replace(now, Window { begun_ms: now_ms, names: Vec::new() });
        *before = if age_ms < 2 * WINDOW_MS { old } else { Window::default() };
    }
}

impl State {
    /// A client's batch of a producer that this log does not know needs room for one more.
    pub(in crate::log) fn check_producer_limit(&mut self, producer_id: i64, now_ms: i64) -> Result<()> {
        let limit = self.config.max_producers;
        let is_full = i64::try_from(self.producers.len()).is_ok_and(|producers| producers >= limit);
        if !is_full || self.producers.get(producer_id).is_some() {
            return Ok(());
        }
        self.sweep.hasten(now_ms);
        Err(Error::TooManyProducers { producer_id, limit })
    }

    pub(crate) fn producer_usage(&mut self, now_ms: i64) -> ProducerUsage {
        ProducerUsage {
            producers: self.producers.len(),
            memory_bytes: self.producers.bytes_now(),
            spilled_bytes: self.spill.file_bytes(),
            returned_blocks: self.spill.returned_blocks(),
            created: self.accounts.created(),
            creators: self.accounts.creators(now_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(accounts: &mut Accounts, now_ms: i64) -> Vec<(String, u64, u64)> {
        accounts.creators(now_ms).into_iter().map(|c| (c.client_id, c.at_least, c.at_most)).collect()
    }

    #[test]
    fn few_names_are_counted_exactly_and_leave_after_two_windows() {
        let mut accounts = Accounts::default();
        let begun_ms = 50 * WINDOW_MS;
        accounts.note("a", 2, begun_ms);
        accounts.note("b", 3, begun_ms);
        accounts.note("a", 4, begun_ms + WINDOW_MS);
        assert_eq!(told(&mut accounts, begun_ms + WINDOW_MS), [("a".into(), 6, 6), ("b".into(), 3, 3)]);
        assert_eq!(told(&mut accounts, begun_ms + 2 * WINDOW_MS), [("a".into(), 4, 4)]);
        assert_eq!(told(&mut accounts, begun_ms + 4 * WINDOW_MS), []);
        assert_eq!(accounts.created(), 9);
    }

    #[test]
    fn among_many_names_the_busiest_is_found_and_the_bounds_are_true() {
        let mut accounts = Accounts::default();
        let mut real: BTreeMap<String, u64> = BTreeMap::new();
        for number in 0..5_000_u64 {
            // Every tenth is of one client; the other names hardly ever come twice.
            let name = if number % 10 == 0 { "busy".into() } else { format!("client {}", number * 7919 % 3001) };
            accounts.note(&name, 1, number as i64 * 1000);
            *real.entry(name).or_default() += 1;
        }
        let told = told(&mut accounts, 5_000_000);
        assert_eq!(told[0].0, "busy", "{told:?}");
        assert!(told.len() <= 2 * NAMES);
        for (name, at_least, at_most) in told {
            assert!((at_least..=at_most).contains(&real[&name]), "{name}: {at_least}..={at_most}, {}", real[&name]);
        }
    }
}
