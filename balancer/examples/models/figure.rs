//! The report as a figure: SVG, made of rectangles and text. A crate for charts would be larger than this.

use super::report::{Report, SystemReport};
use std::fmt::Write;

const BAR: f64 = 15.0;
const PANEL_WIDTH: f64 = 430.0;
const LABELS: f64 = 120.0;
const MARGIN: f64 = 24.0;
/// Colours that can be distinguished with red-green colour blindness as well (Okabe and Ito).
const COLORS: [&str; 4] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"];

/// A group of bars for each system.
struct Panel {
    title: &'static str,
    unit: &'static str,
    series: Vec<&'static str>,
    /// By system, by series.
    values: Vec<Vec<f64>>,
    /// Longer bars are cut here; their text shows the value.
    cap: f64,
}

impl Panel {
    fn height(&self) -> f64 {
        let bars = self.values.len() * self.series.len();
        58.0 + bars as f64 * BAR + self.values.len() as f64 * 8.0
    }

    fn draw(&self, names: &[&str], left: f64, top: f64, svg: &mut String) {
        let largest = self.values.iter().flatten().fold(0.0f64, |max, value| max.max(value.min(self.cap)));
        let scale = (PANEL_WIDTH - LABELS - 70.0) / largest.max(f64::MIN_POSITIVE);
        text(svg, left, top + 14.0, "title", self.title);
        let mut legend = left;
        for (series, color) in self.series.iter().zip(COLORS) {
            rect(svg, legend, top + 24.0, 10.0, 10.0, color);
            text(svg, legend + 14.0, top + 33.0, "note", series);
            legend += 24.0 + 6.5 * series.len() as f64;
        }
        let mut y = top + 46.0;
        for (name, values) in names.iter().zip(&self.values) {
            text(svg, left, y + BAR * values.len() as f64 / 2.0 + 4.0, "label", name);
            for (value, color) in values.iter().zip(COLORS) {
                let length = value.min(self.cap) * scale;
                rect(svg, left + LABELS, y + 1.0, length.max(1.0), BAR - 3.0, color);
                let cut = if *value > self.cap { "→ " } else { "" };
                let digits = usize::from(*value < 10.0) + usize::from(*value < 1.0 && *value > 0.0);
                text(
                    svg,
                    left + LABELS + length + 5.0,
                    y + BAR - 4.0,
                    "note",
                    &format!("{cut}{value:.digits$} {}", self.unit),
                );
                y += BAR;
            }
            y += 8.0;
        }
    }
}

/// The panels of the figure.
fn panels(report: &Report, reports: &[&SystemReport]) -> [Panel; 4] {
    let each =
        |values: &dyn Fn(&SystemReport) -> Vec<f64>| reports.iter().map(|report| values(report)).collect();
    [
        Panel {
            title: "Against the truth, mixed trace",
            unit: "%",
            series: vec!["overcharged", "undercharged", "to the pool"],
            values: each(&|r| {
                let d = &r.against_truth["mixed"];
                vec![d.overcharged_pct, d.undercharged_pct, d.pool_pct]
            }),
            cap: 100.0,
        },
        Panel {
            title: "What a victim is charged, of its true part (100 % is right)",
            unit: "%",
            series: report.systems[0]
                .denial_of_service
                .measured
                .attacks
                .iter()
                .map(|a| a.attack.name())
                .collect(),
            values: each(&|r| {
                r.denial_of_service.measured.attacks.iter().map(|a| a.victim_charged_pct).collect()
            }),
            cap: 250.0,
        },
        Panel {
            title: "Storage per frame of 4 KiB",
            unit: "B",
            series: vec!["whole blocks", "worst mixture", "8 share"],
            values: each(&|r| {
                let s = &r.storage_overhead;
                vec![s.bytes_per_frame, s.bytes_per_frame_fragmented, s.bytes_per_frame_shared]
            }),
            cap: 10.0,
        },
        Panel {
            title: "Time of an event on a run of 512 frames",
            unit: "ns",
            series: vec!["touch", "share", "free"],
            values: each(&|r| {
                let t = &r.run_time_overhead;
                vec![t.touch_ns[&512], t.share_ns[&512], t.free_ns[&512]]
            }),
            cap: 2000.0,
        },
    ]
}

/// The figure.
#[must_use]
pub fn figure(report: &Report) -> String {
    let reports: Vec<&SystemReport> = report.systems.iter().chain(&report.variants).collect();
    let names: Vec<&str> = reports.iter().map(|report| report.system.as_str()).collect();
    let panels = panels(report, &reports);
    let row_height = |row: &[Panel]| row.iter().map(Panel::height).fold(0.0f64, f64::max);
    let height: f64 = panels.chunks(2).map(row_height).sum::<f64>() + 2.0 * MARGIN;
    let width = 2.0 * PANEL_WIDTH + 3.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n\
         <style>text {{ font-family: sans-serif; font-size: 12px; fill: #222 }} \
         .title {{ font-size: 14px; font-weight: bold }} .note {{ font-size: 11px }}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut top = MARGIN;
    for row in panels.chunks(2) {
        for (column, panel) in row.iter().enumerate() {
            panel.draw(&names, MARGIN + column as f64 * (PANEL_WIDTH + MARGIN), top, &mut svg);
        }
        top += row_height(row);
    }
    svg += "</svg>\n";
    svg
}

fn rect(svg: &mut String, x: f64, y: f64, width: f64, height: f64, fill: &str) {
    writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
    )
    .expect("a string takes everything");
}

/// Only our own names and numbers: they need not be escaped.
fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>")
        .expect("a string takes everything");
}
