// SPDX-License-Identifier: Apache-2.0
//! A series as a picture (SVG): a panel for each thing, pods to the right, each panel from zero to its own most.

use std::fmt::Write;

use super::series::{COUNTED, Sample};

const COLUMNS: usize = 2;
const PANEL: (f64, f64) = (430.0, 130.0);
/// Left, top, right and bottom of the line within its panel.
const MARGIN: (f64, f64, f64, f64) = (60.0, 30.0, 15.0, 25.0);
const HEAD: f64 = 40.0;

/// Draws it under a title.
pub(crate) fn svg(title: &str, samples: &[Sample]) -> String {
    let memory = samples.iter().map(|sample| sample.memory_kib as f64 / 1024.0).collect();
    let mut panels: Vec<(String, Vec<f64>)> = vec![("memory of the daemon, MiB".to_owned(), memory)];
    for (n, name) in COUNTED.iter().enumerate() {
        panels.push(((*name).to_owned(), samples.iter().map(|sample| sample.counts[n] as f64).collect()));
    }
    let pods: Vec<f64> = samples.iter().map(|sample| f64::from(sample.pods)).collect();
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (PANEL.0 * COLUMNS as f64, HEAD + PANEL.1 * rows as f64);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"15\" y=\"25\" font-size=\"15\">{title}</text>\n"
    );
    for (n, (name, values)) in panels.iter().enumerate() {
        let (x, y) = ((n % COLUMNS) as f64 * PANEL.0, HEAD + (n / COLUMNS) as f64 * PANEL.1);
        let _ = writeln!(text, "<g transform=\"translate({x} {y})\">{}</g>", panel(name, &pods, values));
    }
    text.push_str("</svg>\n");
    text
}

fn panel(name: &str, pods: &[f64], values: &[f64]) -> String {
    let most = |values: &[f64]| values.iter().copied().fold(1.0, f64::max);
    let (most_pods, most_value) = (most(pods), most(values));
    let (left, top, right, bottom) = (MARGIN.0, MARGIN.1, PANEL.0 - MARGIN.2, PANEL.1 - MARGIN.3);
    let mut points = String::new();
    for (pod, value) in pods.iter().zip(values) {
        let x = left + pod / most_pods * (right - left);
        let y = bottom - value / most_value * (bottom - top);
        let _ = write!(points, "{x:.1},{y:.1} ");
    }
    let most_value =
        if most_value.fract() == 0.0 { format!("{most_value}") } else { format!("{most_value:.1}") };
    format!(
        "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{name}</text>\
         <path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#999\"/>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most_value}</text>\
         <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\">0</text>\
         <text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{most_pods} pods</text>\
         <polyline points=\"{}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"1.5\"/>",
        top - 8.0,
        left - 5.0,
        top + 5.0,
        left - 5.0,
        bottom + 14.0,
        points.trim_end(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_series_is_a_flat_line() {
        let sample = |pods| Sample { pods, memory_kib: 10 * 1024, counts: [7; COUNTED.len()] };
        let text = svg("t", &[sample(50), sample(100)]);
        assert_eq!(text.matches("<polyline").count(), COUNTED.len() + 1);
        // Half of the way and its end, at the top of the panel: it is the most that there is.
        assert_eq!(text.matches("points=\"237.5,30.0 415.0,30.0\"").count(), COUNTED.len() + 1, "{text}");
    }
}
