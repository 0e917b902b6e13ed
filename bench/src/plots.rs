//! Figures as drawings: one for each suite and metric, a panel for each case, a bar for each system.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::report::{Figure, Metric, Role, number};

const WIDTH: i32 = 900;
const ROW: i32 = 18;
const MARGIN: i32 = 12;
/// Where bars begin, and how long the longest is.
const NAMES: i32 = 190;
const LONGEST: i32 = 520;

const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(120, 120, 120);

/// Draws everything measured into `folder`; the conditions stand under each drawing.
pub(crate) fn draw(folder: &Path, figures: &[Figure], conditions: &str) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    let mut drawings: Vec<(&str, Metric)> = Vec::new();
    for figure in figures {
        if !drawings.contains(&(figure.suite, figure.metric)) {
            drawings.push((figure.suite, figure.metric));
        }
    }
    for (suite, metric) in drawings {
        let of_drawing = |figure: &&Figure| figure.suite == suite && figure.metric == metric;
        let figures: Vec<_> = figures.iter().filter(of_drawing).collect();
        let path = folder.join(format!("{suite}-{}.svg", metric.name()));
        draw_one(&path, &figures, conditions).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    Ok(())
}

fn draw_one(path: &Path, figures: &[&Figure], conditions: &str) -> Result<(), Failure> {
    let mut cases: Vec<&str> = Vec::new();
    for figure in figures {
        if !cases.contains(&figure.case.as_str()) {
            cases.push(&figure.case);
        }
    }
    let rows = figures.len() + 2 * cases.len() + 3;
    let height = rows as i32 * ROW + 2 * MARGIN;
    let area = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let Some(first) = figures.first() else { return Ok(()) };
    let better = if first.metric.rises() { "more is better" } else { "less is better" };
    let text = |at: (i32, i32), words: &str, size: i32, color: &RGBColor, side: HPos| {
        let style = ("sans-serif", size).into_font().color(color).pos(Pos::new(side, VPos::Center));
        area.draw(&Text::new(words.to_owned(), at, style))
    };
    let mut y = MARGIN + ROW / 2;
    let title = format!("{}: {} ({}), {better}", first.suite, first.metric.name(), first.metric.unit());
    text((MARGIN, y), &title, 15, &INK, HPos::Left)?;
    y += ROW;
    for case in cases {
        y += ROW / 2;
        text((MARGIN, y), case, 13, &INK, HPos::Left)?;
        let of_case: Vec<_> = figures.iter().filter(|figure| figure.case == case).collect();
        let most = of_case.iter().map(|figure| figure.max).fold(f64::MIN_POSITIVE, f64::max);
        let at = |value: f64| NAMES + (value / most * f64::from(LONGEST)) as i32;
        for figure in of_case {
            y += ROW;
            text((NAMES - 8, y), figure.system, 12, &INK, HPos::Right)?;
            let bar = [(NAMES, y - 6), (at(figure.median), y + 6)];
            area.draw(&Rectangle::new(bar, color_of(figure).filled()))?;
            area.draw(&PathElement::new(vec![(at(figure.min), y), (at(figure.max), y)], INK))?;
            let value =
                if figure.runs == 0 { format!("{} (quoted)", number(figure.median)) } else { number(figure.median) };
            text((at(figure.max) + 8, y), &value, 12, &INK, HPos::Left)?;
        }
        y += ROW;
    }
    text((MARGIN, y + ROW / 2), conditions, 11, &FAINT, HPos::Left)?;
    text((MARGIN, y + ROW * 3 / 2), &runs_of(figures), 11, &FAINT, HPos::Left)?;
    Ok(area.present()?)
}

fn runs_of(figures: &[&Figure]) -> String {
    let runs = figures.iter().map(|figure| figure.runs).max().unwrap_or(0);
    format!("bars: median of {runs} runs taken in turns; lines: least to most")
}

fn color_of(figure: &Figure) -> RGBColor {
    match Role::of(figure.system) {
        Role::Engine if figure.system == "oncelog" => RGBColor(31, 119, 180),
        Role::Engine => RGBColor(140, 186, 219),
        Role::Raw => RGBColor(150, 150, 150),
        Role::Peer => RGBColor(236, 160, 92),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_names_every_case_system_and_value() {
        let folder = tempfile::tempdir().unwrap();
        let figure = |system, value| Figure::of("durable", "bytes=1 writers=2", system, Metric::AcksPerS, vec![value]);
        draw(folder.path(), &[figure("oncelog", 1234.0), figure("raw-uring", 617.0)], "some disk").unwrap();
        let text = fs::read_to_string(folder.path().join("durable-acks_per_s.svg")).unwrap();
        for words in ["bytes=1 writers=2", "oncelog", "raw-uring", "1234", "617", "some disk"] {
            assert!(text.contains(words), "{words}");
        }
    }
}
