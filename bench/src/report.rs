//! Figures out: one JSON object a line for programs, tables with ratios for people.

use indicatif::ProgressBar;

/// What a figure says. The names are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    AcksPerS,
    MbPerS,
    NsPerOp,
    P50Us,
    P99Us,
    P999Us,
    Bytes,
    BytesPerProducer,
    Ms,
    CpuUsPerAck,
}

impl Metric {
    pub(crate) const ALL: [Self; 10] = [
        Self::AcksPerS,
        Self::MbPerS,
        Self::NsPerOp,
        Self::P50Us,
        Self::P99Us,
        Self::P999Us,
        Self::BytesPerProducer,
        Self::Bytes,
        Self::Ms,
        Self::CpuUsPerAck,
    ];

    pub(crate) fn name(self) -> &'static str {
        self.words().0
    }

    pub(crate) fn unit(self) -> &'static str {
        self.words().1
    }

    /// Whether more is better.
    pub(crate) fn rises(self) -> bool {
        matches!(self, Self::AcksPerS | Self::MbPerS)
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::AcksPerS => ("acks_per_s", "1/s"),
            Self::MbPerS => ("mb_per_s", "MB/s"),
            Self::NsPerOp => ("ns_per_op", "ns"),
            Self::P50Us => ("p50_us", "us"),
            Self::P99Us => ("p99_us", "us"),
            Self::P999Us => ("p999_us", "us"),
            Self::Bytes => ("bytes", "bytes"),
            Self::BytesPerProducer => ("bytes_per_producer", "bytes"),
            Self::Ms => ("ms", "ms"),
            Self::CpuUsPerAck => ("cpu_us_per_ack", "us"),
        }
    }
}

/// What one run came to.
pub(crate) type Measured = Vec<(Metric, f64)>;

/// What a system is to the comparison; its name says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Engine,
    Raw,
    Peer,
}

impl Role {
    pub(crate) fn of(system: &str) -> Self {
        match system {
            _ if system.starts_with("oncelog") => Self::Engine,
            _ if system.starts_with("raw-") => Self::Raw,
            _ => Self::Peer,
        }
    }
}

/// One figure over all runs of a system in a case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub(crate) suite: &'static str,
    pub(crate) case: String,
    pub(crate) system: &'static str,
    pub(crate) metric: Metric,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// 0 for a figure that was measured elsewhere and is only quoted.
    pub(crate) runs: usize,
}

impl Figure {
    /// `values`: one a run, at least one.
    pub(crate) fn of(
        suite: &'static str,
        case: &str,
        system: &'static str,
        metric: Metric,
        mut values: Vec<f64>,
    ) -> Self {
        values.sort_by(f64::total_cmp);
        let runs = values.len();
        let median = (values[(runs - 1) / 2] + values[runs / 2]) / 2.0;
        let (min, max) = (values[0], values[runs - 1]);
        Self { suite, case: case.to_owned(), system, metric, median, min, max, runs }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let Self { suite, case, system, metric, median, min, max, runs } = self;
        serde_json::json!({
            "suite": suite, "case": case, "system": system, "metric": metric.name(), "unit": metric.unit(),
            "median": median, "min": min, "max": max, "runs": runs,
        })
    }
}

/// Where figures go.
pub(crate) struct Report {
    json: bool,
    pub(crate) figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, figures: Vec::new() }
    }

    /// A line for people.
    pub(crate) fn say(&self, bar: &ProgressBar, line: &str) {
        if !self.json {
            bar.suspend(|| println!("{line}"));
        }
    }

    /// All figures of one case.
    pub(crate) fn add(&mut self, bar: &ProgressBar, figures: Vec<Figure>) {
        let lines =
            if self.json { figures.iter().map(|figure| figure.json().to_string()).collect() } else { table(&figures) };
        bar.suspend(|| lines.iter().for_each(|line| println!("{line}")));
        self.figures.extend(figures);
    }
}

/// One line a system, one column a metric, and below how the engine stands to the better raw program and the best peer.
fn table(figures: &[Figure]) -> Vec<String> {
    let Some(first) = figures.first() else { return Vec::new() };
    let (mut systems, mut metrics) = (Vec::new(), Vec::new());
    for figure in figures {
        if !systems.contains(&figure.system) {
            systems.push(figure.system);
        }
        if !metrics.contains(&figure.metric) {
            metrics.push(figure.metric);
        }
    }
    let find = |system: &str, metric| figures.iter().find(|f| f.system == system && f.metric == metric);
    let cell_of = |system: &str, metric| find(system, metric).map(cell).unwrap_or_default();
    let width_of = |metric: Metric| {
        let cells = systems.iter().map(|system| cell_of(system, metric).len());
        cells.chain([metric.name().len()]).max().unwrap_or(0) + 2
    };
    let line = |head: &str, cells: &dyn Fn(Metric) -> String| {
        let cells = metrics.iter().map(|&metric| format!("{:>1$}", cells(metric), width_of(metric)));
        format!("  {head:<22}{}", cells.collect::<String>())
    };
    let mut lines = vec![String::new(), format!("{} {}", first.suite, first.case)];
    lines.push(line("system", &|metric| metric.name().to_owned()));
    lines.extend(systems.iter().map(|system| line(system, &|metric| cell_of(system, metric))));
    for (role, words) in [(Role::Raw, "of the better raw"), (Role::Peer, "of the best peer")] {
        let ratios: Vec<_> = metrics.iter().filter_map(|&metric| ratio(figures, metric, role)).collect();
        if !ratios.is_empty() {
            lines.push(format!("  oncelog {words}: {}", ratios.join(", ")));
        }
    }
    lines
}

fn cell(figure: &Figure) -> String {
    match figure.runs {
        0 => format!("{} quoted", number(figure.median)),
        1 => number(figure.median),
        _ => format!("{} [{}-{}]", number(figure.median), number(figure.min), number(figure.max)),
    }
}

fn ratio(figures: &[Figure], metric: Metric, role: Role) -> Option<String> {
    let of = |figure: &&Figure| figure.metric == metric;
    let ours = figures.iter().filter(of).find(|figure| figure.system == "oncelog")?;
    let others = figures.iter().filter(of).filter(|figure| Role::of(figure.system) == role);
    let best = best_of(others, metric)?;
    Some(format!("{} {:.2} ({})", metric.name(), ours.median / best.median, best.system))
}

fn best_of<'a>(figures: impl Iterator<Item = &'a Figure>, metric: Metric) -> Option<&'a Figure> {
    let by_median = |a: &&Figure, b: &&Figure| a.median.total_cmp(&b.median);
    if metric.rises() { figures.max_by(by_median) } else { figures.min_by(by_median) }
}

/// Few digits, as many as mean something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(system: &'static str, metric: Metric, values: Vec<f64>) -> Figure {
        Figure::of("s", "c=1", system, metric, values)
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let figure = figure("x", Metric::Ms, vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((figure.median, figure.min, figure.max), (2.5, 1.0, 4.0));
        assert_eq!(figure.runs, 4);
    }

    #[test]
    fn the_better_one_is_the_higher_rate_and_the_lower_latency() {
        let figures = [
            figure("oncelog", Metric::AcksPerS, vec![90.0]),
            figure("raw-uring", Metric::AcksPerS, vec![100.0]),
            figure("raw-pwritev2", Metric::AcksPerS, vec![50.0]),
            figure("oncelog", Metric::P99Us, vec![30.0]),
            figure("raw-uring", Metric::P99Us, vec![20.0]),
            figure("raw-pwritev2", Metric::P99Us, vec![10.0]),
            figure("okaywal", Metric::AcksPerS, vec![45.0]),
        ];
        assert_eq!(ratio(&figures, Metric::AcksPerS, Role::Raw).unwrap(), "acks_per_s 0.90 (raw-uring)");
        assert_eq!(ratio(&figures, Metric::P99Us, Role::Raw).unwrap(), "p99_us 3.00 (raw-pwritev2)");
        assert_eq!(ratio(&figures, Metric::AcksPerS, Role::Peer).unwrap(), "acks_per_s 2.00 (okaywal)");
        assert_eq!(ratio(&figures, Metric::P99Us, Role::Peer), None);
    }

    #[test]
    fn a_line_of_json_has_the_keys_that_others_read() {
        let line = figure("oncelog", Metric::P99Us, vec![1.5]).json().to_string();
        assert_eq!(
            line,
            r#"{"suite":"s","case":"c=1","system":"oncelog","metric":"p99_us","unit":"us","median":1.5,"min":1.5,"max":1.5,"runs":1}"#
        );
    }
}
