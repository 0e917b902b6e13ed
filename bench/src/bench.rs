//! One run of the program: cases one after the other, in each the systems in turn, round by round.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Instant;

use crate::Failure;
use crate::conditions::Conditions;
use crate::options::Options;
use crate::place::{Folder, Place};
use crate::plots;
use crate::report::{Figure, Measured, Metric, Report, Role};
use crate::suites::Suite;
use crate::systems;

/// What a suite works with.
pub(crate) struct Bench {
    pub(crate) options: Options,
    place: Place,
    conditions: Conditions,
    report: Report,
    bar: ProgressBar,
    suite: &'static str,
    began: Instant,
    systems: &'static [&'static str],
    ring: bool,
    quoted: Vec<Figure>,
}

impl Bench {
    pub(crate) fn new(options: Options, suites: &[&'static Suite]) -> Result<Self, Failure> {
        let place = Place::new(options.dir.as_deref())?;
        let conditions = Conditions::of(place.path());
        let report = Report::new(options.json);
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg} ({elapsed})")?);
        report.say(&bar, &conditions.to_string());
        let ring = systems::ring_is_allowed();
        if let Err(reason) = &ring
            && suites.iter().any(|suite| suite.systems.contains(&"raw-uring"))
        {
            eprintln!("oncelog-bench: no raw-uring on this machine: {reason}");
        }
        let (suite, began, systems) = ("", Instant::now(), &[][..]);
        let (ring, quoted) = (ring.is_ok(), Vec::new());
        Ok(Self { options, place, conditions, report, bar, suite, began, systems, ring, quoted })
    }

    pub(crate) fn begin(&mut self, suite: &'static Suite) {
        (self.suite, self.began, self.systems) = (suite.name, Instant::now(), suite.systems);
        self.bar.set_prefix(suite.name);
    }

    pub(crate) fn end(&mut self) {
        self.bar.set_message("");
        let took = self.began.elapsed().as_secs_f64();
        self.bar.suspend(|| eprintln!("oncelog-bench: {} took {took:.1} s", self.suite));
    }

    /// Compares all systems of the suite in one case (`key=value` pairs, in plain bytes and counts).
    pub(crate) fn compare(
        &mut self,
        case: &str,
        run: impl FnMut(&'static str, &Turn<'_>) -> Result<Measured, Failure>,
    ) -> Result<(), Failure> {
        self.compare_some(case, |_system| true, run)
    }

    /// The same for those systems of the suite that `takes_part`.
    pub(crate) fn compare_some(
        &mut self,
        case: &str,
        takes_part: impl Fn(&str) -> bool,
        mut run: impl FnMut(&'static str, &Turn<'_>) -> Result<Measured, Failure>,
    ) -> Result<(), Failure> {
        let quoted = std::mem::take(&mut self.quoted);
        let runs = |system: &str| quoted.iter().all(|quote| quote.system != system) && takes_part(system);
        let systems: Vec<_> = self.systems.iter().copied().filter(|s| self.wants(s) && runs(s)).collect();
        if systems.is_empty() || !self.wants_case(case) {
            return Ok(());
        }
        let rounds = self.options.rounds();
        let mut runs: Vec<Vec<Measured>> = vec![Vec::new(); systems.len()];
        self.bar.set_length((rounds * systems.len()) as u64);
        self.bar.set_position(0);
        for round in 0..rounds {
            for turn in 0..systems.len() {
                // Another one begins each round.
                let at = (turn + round) % systems.len();
                self.bar.set_message(format!("{case}: {}", systems[at]));
                let context = Turn { options: &self.options, place: &self.place };
                let measured = run(systems[at], &context).map_err(|why| format!("{case}, {}: {why}", systems[at]))?;
                runs[at].push(measured);
                self.bar.inc(1);
            }
        }
        let figures = systems.iter().zip(&runs).flat_map(|(system, runs)| self.figures(case, system, runs));
        let figures = figures.chain(quoted.into_iter().filter(|quote| self.wants(quote.system))).collect();
        self.report.add(&self.bar, figures);
        Ok(())
    }

    /// A figure measured elsewhere, to stand beside ours in the next comparison, which is that of `case`; its system is
    /// one of the suite's and does not run. The caller names the source in a comment.
    pub(crate) fn quote(&mut self, case: &str, system: &'static str, metric: Metric, value: f64) {
        self.quoted.push(Figure { runs: 0, ..Figure::of(self.suite, case, system, metric, vec![value]) });
    }

    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        match &self.options.plots {
            Some(folder) => plots::draw(folder, &self.report.figures, &self.conditions.to_string()),
            None => Ok(()),
        }
    }

    fn figures(&self, case: &str, system: &'static str, runs: &[Measured]) -> Vec<Figure> {
        let metrics = runs[0].iter().map(|(metric, _)| *metric);
        let of = |metric| {
            let values = runs.iter().filter_map(|run| run.iter().find(|(m, _)| *m == metric).map(|(_, value)| *value));
            Figure::of(self.suite, case, system, metric, values.collect())
        };
        metrics.map(of).collect()
    }

    fn wants(&self, system: &str) -> bool {
        let only = &self.options.only;
        (only.is_empty() || only.iter().any(|wanted| wanted == system)) && (self.ring || system != "raw-uring")
    }

    /// A folder for what the turns of several systems share.
    pub(crate) fn folder(&self, need_bytes: u64) -> Result<Folder, Failure> {
        self.place.folder(need_bytes)
    }

    /// Whether a case was asked for: for what is made ready in front of it.
    pub(crate) fn wants_case(&self, case: &str) -> bool {
        self.options.case.as_ref().is_none_or(|wanted| case.contains(wanted.as_str()))
    }
}

/// What one turn of one system may use.
pub(crate) struct Turn<'a> {
    pub(crate) options: &'a Options,
    place: &'a Place,
}

impl Turn<'_> {
    /// A fresh folder on the disk that is measured, with room for `need_bytes`; removed when dropped.
    pub(crate) fn folder(&self, need_bytes: u64) -> Result<Folder, Failure> {
        self.place.folder(need_bytes)
    }
}

/// Whether a system is another's product: those run without what only ours and the raw programs offer.
pub(crate) fn is_peer(system: &str) -> bool {
    Role::of(system) == Role::Peer
}
