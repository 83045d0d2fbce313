// SPDX-License-Identifier: Apache-2.0
//! Answers of the admin API as tables for people.

use std::io::{self, Write};

use serde_json::Value;

/// A column: its title, and the path of members that leads to its value.
pub type Column = (&'static str, &'static str);

/// Prints rows under the titles of columns, as wide as their longest value.
///
/// # Errors
/// Standard output cannot be written to.
pub fn print(columns: &[Column], rows: &[Value]) -> io::Result<()> {
    let lines = lines(columns, rows);
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn lines(columns: &[Column], rows: &[Value]) -> Vec<String> {
    let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let of_row = |row: &Value| columns.iter().map(|(_, path)| shown(found(row, path))).collect::<Vec<_>>();
    let cells: Vec<Vec<String>> = std::iter::once(titles).chain(rows.iter().map(of_row)).collect();
    let width = |index: usize| cells.iter().map(|row| row[index].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    cells.iter().map(line).collect()
}

fn found<'v>(row: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(row, |value, name| &value[name])
}

/// A value in a cell, without characters that steer a terminal.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_their_longest_value() {
        let rows =
            [json!({"id": "a", "of": {"x": 1}}), json!({"id": "long\u{1b}", "of": {"x": null}, "models": ["m", "n"]})];
        let columns = [("ID", "id"), ("X", "of.x"), ("MODELS", "models")];
        assert_eq!(lines(&columns, &rows), ["ID     X  MODELS", "a      1  -", "long?  -  m,n"]);
    }
}
