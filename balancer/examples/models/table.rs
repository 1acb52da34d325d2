//! The report as a table: text for a terminal, Markdown for a document.

use super::report::{Attacked, Report, SystemReport};
use protocol::bytes::{FRAME_BYTES, Human};

/// A row of cells, the first of which is its head.
type Row = Vec<String>;

/// A table and its title.
struct Table {
    title: String,
    rows: Vec<Row>,
}

fn row(head: &str, reports: &[&SystemReport], cell: impl Fn(&SystemReport) -> String) -> Row {
    std::iter::once(head.to_owned()).chain(reports.iter().map(|report| cell(report))).collect()
}

fn tables(report: &Report) -> Vec<Table> {
    let reports: Vec<&SystemReport> = report.systems.iter().chain(&report.variants).collect();
    let mut all = vec![criteria(report, &reports), attacks(&reports), truth(report, &reports)];
    all.push(mitigation(report));
    all
}

fn criteria(report: &Report, reports: &[&SystemReport]) -> Table {
    let row = |head: &str, cell: &dyn Fn(&SystemReport) -> String| row(head, reports, cell);
    let bytes = |bytes: f64| format!("{bytes:.2} B");
    let time = |ns: f64| if ns < 1000.0 { format!("{ns:.0} ns") } else { format!("{:.1} µs", ns / 1000.0) };
    let rows = vec![
        row("criterion", &|r| r.system.clone()),
        row("1 enforces comprehensive limits", &|r| {
            let c = &r.comprehensive_limits;
            format!("{}: {:.0} % charged", c.verdict, c.measured.resident_charged_pct)
        }),
        row("2 code overhead, own + shared", &|r| {
            format!("{} + {} lines", r.code_overhead.own, r.code_overhead.shared)
        }),
        row("3 storage overhead, per frame", &|r| bytes(r.storage_overhead.bytes_per_frame)),
        row("  per zone of 2 MiB", &|r| bytes(r.storage_overhead.bytes_per_zone)),
        row("  per frame, worst mixture", &|r| bytes(r.storage_overhead.bytes_per_frame_fragmented)),
        row("  per frame, 8 guests share", &|r| bytes(r.storage_overhead.bytes_per_frame_shared)),
        row("4 run-time overhead, touch of 1 frame", &|r| time(r.run_time_overhead.touch_ns[&1])),
        row("  touch of 512", &|r| time(r.run_time_overhead.touch_ns[&512])),
        row("  share of 512 by an eighth", &|r| time(r.run_time_overhead.share_ns[&512])),
        row("  free of 512", &|r| time(r.run_time_overhead.free_ns[&512])),
        row("5 resize at run time", &|r| {
            let c = &r.resize_at_run_time;
            format!("{}: {}", c.verdict, time(c.measured["resize_ns"]))
        }),
        row("6 creation at run time", &|r| {
            let c = &r.creation_at_run_time;
            format!("{}: {}", c.verdict, time(c.measured["create_ns"]))
        }),
        row("  removal, 16 MiB still charged", &|r| time(r.creation_at_run_time.measured["destroy_ns"])),
        row("7 recognizes sharing", &|r| {
            let c = &r.recognizes_sharing;
            format!(
                "{}: {:.0} % wrong",
                c.verdict,
                c.measured.overcharged_pct.max(c.measured.undercharged_pct)
            )
        }),
        row("8 supports overcommit", &|r| {
            let c = &r.supports_overcommit;
            format!("{}: {:.0} % charged", c.verdict, c.measured.charged_pct)
        }),
        row("9 open to denial of service", &|r| r.denial_of_service.verdict.clone()),
    ];
    Table { title: format!("The nine criteria, seed {}", report.seed), rows }
}

fn attacks(reports: &[&SystemReport]) -> Table {
    let mut rows = vec![row("attack: outcome: charge of victim / attacker", reports, |r| r.system.clone())];
    for (index, attacked) in reports[0].denial_of_service.measured.attacks.iter().enumerate() {
        rows.push(row(attacked.attack.name(), reports, |report| {
            let attacked = &report.denial_of_service.measured.attacks[index];
            let Attacked { victim_charged_pct: victim, attacker_charged_pct: attacker, .. } = attacked;
            format!("{}: {victim:.0} / {attacker:.0} %", attacked.outcome.word())
        }));
    }
    Table {
        title: "Known attacks, and the charges of victim and attacker in percent of their true parts (100 is right)"
            .into(),
        rows,
    }
}

fn truth(report: &Report, reports: &[&SystemReport]) -> Table {
    let mut rows = vec![row("trace: over / under / to the pool", reports, |r| r.system.clone())];
    for (trace, events) in &report.events {
        rows.push(row(&format!("{trace}, {events} events"), reports, |report| {
            let difference = &report.against_truth[trace];
            format!(
                "{:.1} / {:.1} / {:.1} %",
                difference.overcharged_pct, difference.undercharged_pct, difference.pool_pct
            )
        }));
    }
    Table { title: "Overcharge and undercharge of containers against the truth".into(), rows }
}

fn mitigation(report: &Report) -> Table {
    let head = ["timed unshare", "limit", "before: highest, time above", "after: highest, time above"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for mitigation in &report.mitigation {
        let victim = |victim: &super::report::Victim| {
            let seconds = victim.over_limit_ms as f64 / 1000.0;
            // Frames are whole or nearly so.
            format!("{}, {seconds:.1} s", Human((victim.peak_frames * FRAME_BYTES as f64) as u64))
        };
        rows.push(vec![
            format!("{}, half-life {} s", mitigation.system, mitigation.half_life_ms / 1000),
            Human(mitigation.limit_frames * FRAME_BYTES).to_string(),
            victim(&mitigation.before),
            victim(&mitigation.after),
        ]);
    }
    Table {
        title: "The victim's charge that counts against its limit, without and with a grace".into(),
        rows,
    }
}

/// For a terminal.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for Table { title, rows } in tables(report) {
        text += &format!("{title}\n\n");
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
        for row in &rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            text += cells.join("  ").trim_end();
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// For a document.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    for Table { title, rows } in tables(report) {
        text += &format!("**{title}**\n\n");
        for (index, row) in rows.iter().enumerate() {
            text += &format!(
                "| {} |\n",
                row.iter().map(|cell| cell.trim_start()).collect::<Vec<_>>().join(" | ")
            );
            if index == 0 {
                text += &format!("|{}\n", "---|".repeat(row.len()));
            }
        }
        text.push('\n');
    }
    text
}
