//! The document for a reader: the figures, not the batches.

use serde_json::{Map, Value};
use std::io::{self, Write};

/// Producers and transactions shown; the JSON form has all.
const LINES: usize = 20;

const OFFSETS: [&str; 6] = [
    "log_start_offset",
    "log_end_offset",
    "high_watermark",
    "last_stable_offset",
    "first_unstable_offset",
    "recovery_point",
];

/// Prints a summary of a document.
pub fn print(document: &Map<String, Value>, out: &mut impl Write) -> io::Result<()> {
    let shutdown = if document["clean"] == true { "clean" } else { "unclean" };
    writeln!(out, "{}  ({shutdown} shutdown)\n", text(&document["partition"]))?;
    for name in OFFSETS {
        writeln!(out, "  {:<24}{:>20}", name.replace('_', " "), text(&document[name]))?;
    }
    segments(&document["segments"], out)?;
    producers(document, out)?;
    transactions(document, out)?;
    for (title, name) in [("uncommitted readers", "read_uncommitted"), ("committed readers", "read_committed")] {
        let read = &document[name];
        write!(out, "\n{title}: {} records, sha256 {}", text(&read["count"]), text(&read["sha256"]))?;
        if let Some(error) = read.get("error") {
            write!(out, ", then: {}", text(error))?;
        }
    }
    writeln!(out)
}

fn segments(segments: &Value, out: &mut impl Write) -> io::Result<()> {
    let head = ["base", "next", "bytes", "batches", "index", "times", "aborted"];
    let rows = list(segments).iter().map(|segment| {
        let count = |name: &str| list(&segment[name]).len().to_string();
        vec![
            text(&segment["base_offset"]),
            text(&segment["next_offset"]),
            text(&segment["size"]),
            text(&segment["batch_count"]),
            count("offset_index"),
            count("time_index"),
            count("txn_index"),
        ]
    });
    table("segments", list(segments).len(), &head, rows, out)
}

fn producers(document: &Map<String, Value>, out: &mut impl Write) -> io::Result<()> {
    let producers = list(&document["producers_after_load"]);
    let head = ["producer", "epoch", "coord", "last sequence", "last offset", "batches", "open since"];
    let rows = producers.iter().map(|producer| {
        let batches = list(&producer["batches"]);
        let last = |name: &str| batches.last().map_or("-".to_owned(), |batch| text(&batch[name]));
        let open = match producer["current_txn_first_offset"].as_i64() {
            Some(first) if first >= 0 => first.to_string(),
            _ => "-".to_owned(),
        };
        vec![
            text(&producer["producer_id"]),
            text(&producer["epoch"]),
            text(&producer["coordinator_epoch"]),
            last("last_seq"),
            last("last_offset"),
            batches.len().to_string(),
            open,
        ]
    });
    table("producers", producers.len(), &head, rows, out)
}

fn transactions(document: &Map<String, Value>, out: &mut impl Write) -> io::Result<()> {
    let aborted = list(&document["aborted_transactions_from_start"]);
    let rows = aborted.iter().map(|txn| {
        ["producer_id", "first_offset", "last_offset", "last_stable_offset"].map(|name| text(&txn[name])).to_vec()
    });
    table("aborted transactions", aborted.len(), &["producer", "first", "last", "last stable"], rows, out)
}

/// A title with the count, a head and up to [`LINES`] rows, columns to the right.
fn table(
    title: &str,
    count: usize,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "\n{count} {title}")?;
    if count == 0 {
        return Ok(());
    }
    let head = head.iter().map(|&title| title.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows.take(LINES)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            write!(out, "  {cell:>width$}")?;
        }
        writeln!(out)?;
    }
    if count > LINES {
        writeln!(out, "  ... {} more", count - LINES)?;
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut_and_columns_line_up() {
        let mut out = Vec::new();
        let rows = (0..25).map(|i| vec![i.to_string(), "x".into()]);
        table("things", 25, &["number", "what"], rows, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2 + 1 + LINES + 1);
        assert_eq!((lines[2], lines[3]), ("  number  what", "       0     x"));
        assert_eq!(lines.last(), Some(&"  ... 5 more"));
    }
}
