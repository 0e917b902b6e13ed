//! Producers that were silent for too long are forgotten, a few at a time.
//!
//! The driver goes round the table in small steps, each with the lock to itself for some microseconds, and rests behind
//! each pass. Only the driver thread does this: who drives a log step by step says himself when somebody is forgotten.

use super::Shared;
use crate::error::Result;

/// Kafka looks for expired producers as often (`producer.id.expiration.check.interval.ms`).
const LONGEST_REST_MS: i64 = 600_000;
/// Of the time that a producer is kept, the part that passes between two passes at most.
const REST_SHARE: i64 = 16;
/// How soon a pass follows the last one where producers wait for room.
const HASTE_MS: i64 = 1_000;
/// Producers that one step forgets, about.
const STEP_PRODUCERS: usize = 64;
/// Steps that one round of the driver makes.
const ROUND_STEPS: usize = 32;

/// Where the driver is in its pass over the producers.
pub(crate) struct Sweep {
    /// The hash at which the next step begins; 0: a pass begins.
    from: u64,
    /// When the next pass may begin.
    not_before_ms: i64,
}

impl Sweep {
    /// Somebody waits for room: the next pass need not wait for its turn.
    pub fn hasten(&mut self, now_ms: i64) {
        self.not_before_ms = self.not_before_ms.min(now_ms.saturating_add(HASTE_MS));
    }
}

impl Default for Sweep {
    fn default() -> Self {
        Self { from: 0, not_before_ms: i64::MIN }
    }
}

impl Shared {
    /// One step; answers who was forgotten, and whether the pass goes on.
    pub(crate) fn sweep_producers(&self) -> Result<(Vec<i64>, bool)> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        state.check_usable()?;
        let expiration_ms = state.config.producer_id_expiration_ms;
        let from = state.sweep.from;
        if from == 0 {
            state.verifications.expire(now_ms, expiration_ms);
            let rest_ms = (expiration_ms / REST_SHARE).min(LONGEST_REST_MS);
            state.sweep.not_before_ms = now_ms.saturating_add(rest_ms);
        }
        let swept = state.producers.sweep(from, now_ms, expiration_ms, STEP_PRODUCERS);
        state.sweep.from = swept.next.unwrap_or(0);
        drop(state);
        let mut expired: Vec<i64> = swept.expired.into_iter().map(|(id, _)| id).collect();
        expired.sort_unstable();
        self.metrics.count_expired(expired.len());
        swept.spilled.iter().try_for_each(|spilled| self.bring_back(self.state.lock(), spilled))?;
        Ok((expired, swept.next.is_some()))
    }

    /// Some steps, if a pass is under way or due.
    pub(super) fn sweep_if_due(&self) -> Result<()> {
        let is_due = {
            let state = self.state.lock();
            state.sweep.from != 0 || state.sweep.not_before_ms <= self.clock.now_ms()
        };
        let mut left = if is_due { ROUND_STEPS } else { 0 };
        while left > 0 && self.sweep_producers()?.1 {
            left -= 1;
        }
        Ok(())
    }
}
