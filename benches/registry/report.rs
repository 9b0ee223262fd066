//! Tables, and the same as JSON.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::{changes::Changes, cost::Cost, leave::Leave};

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) costs: Vec<Cost>,
    pub(crate) changes: Option<Changes>,
    pub(crate) leave: Option<Leave>,
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        let header = [
            "case",
            "heartbeats",
            "full fetches",
            "registrations",
            "MiB",
            "of bare",
            "of bare",
            "of java",
            "of java",
            "of java",
            "of java",
        ];
        table.load_style(presets::NOTHING).set_header(header);
        for cost in &self.costs {
            let instances = cost.case.split('/').nth(1).unwrap_or_default();
            let beside = |server: &str| {
                let name = format!("{server}/{instances}");
                self.costs.iter().find(|other| other.case == name && cost.case.starts_with("hopvine"))
            };
            let ratio = |server, figure: fn(&Cost) -> f64| {
                beside(server).map_or_else(String::new, |other| format!("{:.2}", figure(cost) / figure(other)))
            };
            table.add_row([
                cost.case.clone(),
                format!("{:.0}", cost.heartbeats_per_cpu_s),
                format!("{:.0}", cost.fetches_per_cpu_s),
                format!("{:.0}", cost.registrations_per_cpu_s),
                format!("{:.0}", cost.rss_mib),
                ratio("bare", |cost| cost.heartbeats_per_cpu_s),
                ratio("bare", |cost| cost.fetches_per_cpu_s),
                ratio("java", |cost| cost.heartbeats_per_cpu_s),
                ratio("java", |cost| cost.fetches_per_cpu_s),
                ratio("java", |cost| cost.registrations_per_cpu_s),
                ratio("java", |cost| cost.rss_mib),
            ]);
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        let mut text = String::new();
        if !self.costs.is_empty() {
            text += "per second of the server's processor time, and resident memory; ratios: heartbeats and fetches of bare; heartbeats, fetches, registrations and memory of java\n";
            let _ = writeln!(text, "{table}");
        }
        if let Some(changes) = &self.changes {
            let _ = writeln!(
                text,
                "changes: {:.0} a second at 1000 instances, {:.0} deltas read and {:.1} MiB pushed a second, cost {:.3} s of processor time a second",
                changes.changed, changes.deltas, changes.pushed_mib, changes.cpu_s
            );
        }
        if let Some(leave) = &self.leave {
            let _ = writeln!(
                text,
                "leave: every one of 10 clients knows of it after {:.1} ms (median), {:.1} ms (99 of 100)",
                leave.p50_ms, leave.p99_ms
            );
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        let costs = self.costs.iter().map(|cost| {
            json!({
                "case": cost.case,
                "heartbeats_per_cpu_s": round(cost.heartbeats_per_cpu_s),
                "fetches_per_cpu_s": round(cost.fetches_per_cpu_s),
                "registrations_per_cpu_s": round(cost.registrations_per_cpu_s),
                "rss_mib": round(cost.rss_mib),
            })
        });
        let changes = self.changes.iter().map(|changes| {
            json!({
                "case": "changes/1000",
                "cpu_s_per_s": round(changes.cpu_s),
                "changes_per_s": round(changes.changed),
                "deltas_per_s": round(changes.deltas),
                "pushed_mib_per_s": round(changes.pushed_mib),
            })
        });
        let leave = self
            .leave
            .iter()
            .map(|leave| json!({ "case": "leave", "p50_ms": round(leave.p50_ms), "p99_ms": round(leave.p99_ms) }));
        json!({ "cases": costs.chain(changes).chain(leave).collect::<Vec<_>>() })
    }
}
