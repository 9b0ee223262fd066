//! The table, and the same as JSON.

use std::collections::HashMap;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use crate::measure::Measured;

pub(crate) fn table(measured: &[Measured]) -> String {
    let by_name: HashMap<&str, &Measured> = measured.iter().map(|case| (case.case.as_str(), case)).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "case",
        "ns",
        "instructions",
        "allocations",
        "bytes",
        "ns, ratio",
        "instructions, ratio",
        "to",
    ]);
    for case in measured {
        let beside = case.beside.as_deref().and_then(|name| by_name.get(name));
        let instructions = case.instructions.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let ratio = beside.map_or_else(String::new, |beside| format!("{:.2}", case.ns / beside.ns));
        let counted = beside.and_then(|beside| Some(case.instructions? as f64 / beside.instructions? as f64));
        table.add_row([
            case.case.clone(),
            format!("{:.0}", case.ns),
            instructions,
            format!("{:.1}", case.allocs),
            format!("{:.0}", case.bytes),
            ratio,
            counted.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            beside.map_or_else(String::new, |beside| beside.case.clone()),
        ]);
    }
    for column in 1..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\n")
}

pub(crate) fn json(measured: &[Measured]) -> String {
    let round = |value: f64| (value * 10.0).round() / 10.0;
    let cases: Vec<_> = measured
        .iter()
        .map(|case| {
            json!({
                "case": case.case,
                "ns": round(case.ns),
                "instructions": case.instructions,
                "allocs": round(case.allocs),
                "bytes": round(case.bytes),
            })
        })
        .collect();
    json!({ "cases": cases }).to_string()
}
