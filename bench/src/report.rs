//! Figures out: one JSON object a line for programs, a table for people.

/// One figure over all runs of a system in a case.
pub(crate) struct Figure {
    suite: &'static str,
    case: String,
    system: &'static str,
    metric: &'static str,
    unit: &'static str,
    median: f64,
    min: f64,
    max: f64,
    runs: usize,
}

impl Figure {
    /// `values`: one a run, at least one.
    pub(crate) fn of(
        suite: &'static str,
        case: &str,
        system: &'static str,
        metric: &'static str,
        unit: &'static str,
        mut values: Vec<f64>,
    ) -> Self {
        values.sort_by(f64::total_cmp);
        let runs = values.len();
        let median = (values[(runs - 1) / 2] + values[runs / 2]) / 2.0;
        let case = case.to_owned();
        let (min, max) = (values[0], values[runs - 1]);
        Self { suite, case, system, metric, unit, median, min, max, runs }
    }
}

/// Where figures go.
pub(crate) struct Report {
    json: bool,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        if !json {
            println!("{:<26}{:<18}{:<12}{:>12}{:>12}{:>12}", "case", "system", "metric", "median", "min", "max");
        }
        Self { json }
    }

    pub(crate) fn add(&mut self, figure: &Figure) {
        let Figure { suite, case, system, metric, unit, median, min, max, runs } = figure;
        if self.json {
            let object = serde_json::json!({
                "suite": suite, "case": case, "system": system, "metric": metric, "unit": unit,
                "median": median, "min": min, "max": max, "runs": runs,
            });
            println!("{object}");
        } else {
            println!("{case:<26}{system:<18}{metric:<12}{median:>12.0}{min:>12.0}{max:>12.0}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let figure = Figure::of("s", "c", "x", "m", "u", vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((figure.median, figure.min, figure.max), (2.5, 1.0, 4.0));
        assert_eq!(figure.runs, 4);
    }
}
