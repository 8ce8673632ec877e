//! The times of calls as a picture: one bar for each contender in each case, from the median to
//! p99.9, with a mark at p99, on a logarithmic scale.

use std::fmt::Write as _;

use super::report::Measurement;

/// Sizes in pixels: a row, the names, the scale, and the margin around them.
const ROW: f64 = 18.0;
const NAMES: f64 = 420.0;
const SCALE: f64 = 560.0;
const AROUND: f64 = 30.0;

/// Colours of contenders, in the order in which they come up.
const COLOURS: [&str; 6] = ["#2563a8", "#c2571a", "#4d8b31", "#8a5aa8", "#777777", "#b03a56"];

/// The whole picture, an SVG document.
pub(super) fn svg(measurements: &[Measurement]) -> String {
    let decades = |us: f64| us.max(0.001).log10();
    let low = measurements.iter().map(|m| decades(m.p50_us)).fold(f64::MAX, f64::min).floor();
    let high = measurements.iter().map(|m| decades(m.p999_us)).fold(f64::MIN, f64::max).ceil();
    let at = |us: f64| NAMES + (decades(us) - low) / (high - low).max(1.0) * SCALE;
    #[allow(clippy::cast_precision_loss)]
    let height = measurements.len() as f64 * ROW + 2.0 * AROUND;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        NAMES + SCALE + AROUND
    );
    let mut decade = low;
    while decade <= high {
        let us = 10f64.powf(decade);
        let unit = match us {
            us if us < 1.0 => format!("{} ns", us * 1e3),
            us if us < 1e3 => format!("{us} us"),
            us if us < 1e6 => format!("{} ms", us / 1e3),
            us => format!("{} s", us / 1e6),
        };
        let (x, bottom) = (at(us), height - AROUND);
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "<path d=\"M{x} {AROUND}V{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{unit}</text>",
            AROUND - 8.0
        );
        decade += 1.0;
    }
    let mut names: Vec<&str> = Vec::new();
    let mut y = AROUND;
    for m in measurements {
        let name = m.contender.split(',').next().unwrap_or_default();
        let known = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        let colour = COLOURS[known % COLOURS.len()];
        let (p50, p99, p999) = (at(m.p50_us), at(m.p99_us), at(m.p999_us));
        let (text, middle, bar) = (y + 13.0, y + 6.0, y + 3.0);
        let _ = writeln!(
            out,
            "<text x=\"8\" y=\"{text}\">{}: {} ({})</text>\
             <rect x=\"{p50}\" y=\"{bar}\" width=\"{}\" height=\"12\" fill=\"{colour}\" \
             opacity=\"0.45\"/><circle cx=\"{p50}\" cy=\"{}\" r=\"5\" fill=\"{colour}\"/>\
             <path d=\"M{p99} {bar}v12\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            m.mode,
            m.case,
            m.contender,
            (p999 - p50).max(1.0),
            middle + 3.0
        );
        y += ROW;
    }
    let _ = writeln!(
        out,
        "<text x=\"8\" y=\"{}\">dot: median, line: p99, end: p99.9</text>\n</svg>",
        height - 10.0
    );
    out
}
