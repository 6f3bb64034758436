//! Samples as a picture: an SVG with a panel for each figure, and a line of blocks for a terminal.

use std::{fmt::Write as _, path::Path};

use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, DrawingArea, IntoDrawingArea as _, LineSeries, PathElement, RGBColor,
        SVGBackend, SeriesLabelPosition, WHITE,
    },
    series::DashedLineSeries,
    style::{Color as _, IntoFont as _},
};

use super::{sample::Sample, verdict::Growth};
use crate::{delays::rounded, error::Error, limit, report::number};

/// A figure over time, of those samples that have it.
struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// Lines that have an axis in common.
struct Panel {
    title: &'static str,
    lines: Vec<Line>,
}

/// Width of the picture, and height of each of its panels.
const SIZE: (u32, u32) = (1000, 210);

/// One for each line of a panel: told apart also by those who see no red or no green.
const COLOURS: [RGBColor; 2] = [RGBColor(0, 90, 181), RGBColor(220, 100, 0)];

/// Writes a picture. A line that is dashed shows where memory goes.
pub(super) fn svg(file: &Path, samples: &[Sample], rss: Option<&Growth>) -> Result<(), Error> {
    let panels = panels(samples);
    let height = SIZE.1 * u32::try_from(panels.len().max(1)).unwrap_or(1);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (SIZE.0, height)).into_drawing_area();
        let drawn = root.fill(&WHITE).and_then(|()| {
            let areas = root.split_evenly((panels.len().max(1), 1));
            for (index, (panel, area)) in panels.iter().zip(&areas).enumerate() {
                draw(panel, area, samples, rss.filter(|_| index == 0))?;
            }
            root.present()
        });
        drawn.map_err(|error| Error::failed(format!("drawing: {error}")))?;
    }
    std::fs::write(file, text)
        .map_err(|error| Error::failed(format!("{}: {error}", file.display())))
}

/// For a terminal.
pub(super) fn text(samples: &[Sample]) -> String {
    let mut text = String::new();
    for Panel { lines, .. } in panels(samples) {
        for Line { name, points } in lines {
            let values = || points.iter().map(|point| point.1);
            let [least, most] = [values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max)];
            let blocks = blocks(&points);
            let [least, most] = [least, most].map(number);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<26} {blocks} {least} to {most}");
        }
    }
    text
}

/// What there is to draw. Memory comes first; what nothing is known of is left out.
fn panels(samples: &[Sample]) -> Vec<Panel> {
    let line = |name, of: &dyn Fn(&Sample) -> Option<f64>| Line {
        name,
        points: thinned(samples.iter().filter_map(|one| Some((one.at_s, of(one)?))).collect()),
    };
    let count = |value: Option<u64>| value.map(|value| value as f64);
    let failures = samples
        .windows(2)
        .map(|pair| (pair[1].at_s, pair[1].failed.saturating_sub(pair[0].failed) as f64));
    let panels = [
        Panel {
            title: "memory of the server, MB",
            lines: vec![line("memory, MB", &|one| count(one.rss_bytes).map(|rss| rss / 1e6))],
        },
        Panel {
            title: "permits",
            lines: vec![
                line("permits held", &|one| count(one.permits_held)),
                line("permits waited for", &|one| count(one.permits_queued)),
            ],
        },
        Panel {
            title: "age of the oldest permit, s",
            lines: vec![line("oldest permit, s", &|one| one.oldest_permit_s)],
        },
        Panel {
            title: "descriptors of the server",
            lines: vec![
                line("descriptors", &|one| count(one.descriptors)),
                line("of them sockets", &|one| count(one.sockets)),
            ],
        },
        Panel {
            title: "requests, ms",
            lines: vec![
                line("requests, p50, ms", &|one| one.p50_ms),
                line("requests, p99, ms", &|one| one.p99_ms),
            ],
        },
        Panel {
            title: "requests that failed, of each sample",
            lines: vec![Line { name: "requests that failed", points: thinned(failures.collect()) }],
        },
    ];
    let known = panels.into_iter().map(|panel| Panel {
        lines: panel.lines.into_iter().filter(|line| line.points.len() > 1).collect(),
        ..panel
    });
    known.filter(|panel| !panel.lines.is_empty()).collect()
}

fn draw<'a>(
    panel: &Panel,
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    samples: &[Sample],
    trend: Option<&Growth>,
) -> Result<(), plotters::drawing::DrawingAreaErrorKind<std::io::Error>> {
    let end = samples.last().map_or(1.0, |last| last.at_s).max(1.0);
    let (unit, name) = if end >= 7200.0 { (3600.0, "hours") } else { (60.0, "minutes") };
    let values = panel.lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let most = values.fold(0.0, f64::max);
    // The names of the lines stand above them.
    let top = if most > 0.0 { most * 1.7 } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 15).into_font())
        .margin(8)
        .margin_right(24)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end / unit, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(name)
        .x_labels(12)
        .y_labels(5)
        .y_label_formatter(&|value| tick(*value))
        .x_label_formatter(&|value| tick(*value))
        .axis_desc_style(("sans-serif", 12))
        .label_style(("sans-serif", 12))
        .draw()?;
    for (line, colour) in panel.lines.iter().zip(COLOURS) {
        let points = line.points.iter().map(|(at, value)| (at / unit, *value));
        let drawn = chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        drawn.label(line.name).legend(move |(x, y)| {
            PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(2))
        });
    }
    if let Some(trend) = trend {
        let at =
            |hours: f64| (hours * 3600.0 / unit, (trend.at_begin + trend.per_hour * hours) / 1e6);
        let line = [at(0.0), at(end / 3600.0)];
        let dashes = DashedLineSeries::new(line, 6, 6, BLACK.mix(0.6).stroke_width(1));
        let drawn = chart.draw_series(dashes)?;
        drawn.label("trend").legend(|(x, y)| {
            PathElement::new(vec![(x, y), (x + 16, y)], BLACK.mix(0.6).stroke_width(1))
        });
    }
    if panel.lines.len() > 1 || trend.is_some() {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 12))
            .draw()?;
    }
    Ok(())
}

/// A number at an axis.
fn tick(value: f64) -> String {
    if value < 1000.0 { rounded(value).to_string() } else { number(value) }
}

/// No more points than are seen: of several the highest, which is what one looks for.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(limit::POINTS_MAX).max(1);
    points.chunks(each).filter_map(highest).collect()
}

fn highest(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    points.iter().copied().max_by(|one, other| one.1.total_cmp(&other.1))
}

/// Sixty blocks at most, as high as the highest point of their part of the time.
fn blocks(points: &[(f64, f64)]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const MOST: usize = 60;
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let parts = points.chunks(points.len().div_ceil(MOST).max(1)).filter_map(highest);
    let block = |(_, value): (f64, f64)| {
        let part = if most > 0.0 { value / most * 7.0 } else { 0.0 };
        BLOCKS[(part.round() as usize).min(7)]
    };
    parts.map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: u32) -> Vec<Sample> {
        let sample = |number: u32| Sample {
            at_s: f64::from(number) * 10.0,
            requests: (number * 10).into(),
            failed: (number / 4).into(),
            p50_ms: Some(1.0),
            p99_ms: Some(f64::from(number % 7)),
            rss_bytes: Some(20_000_000 + u64::from(number) * 1000),
            permits_held: (number > 2).then_some(number.into()),
            permits_queued: Some(0),
            ..Sample::default()
        };
        (0..count).map(sample).collect()
    }

    #[test]
    fn what_is_known_has_a_panel_and_what_is_not_has_none() {
        let titles = |samples: &[Sample]| {
            panels(samples).iter().map(|panel| panel.title).collect::<Vec<_>>()
        };
        let all = titles(&samples(30));
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(!all.iter().any(|title| title.contains("descriptors") || title.contains("age")));
        assert!(titles(&samples(1)).is_empty());
    }

    #[test]
    fn a_picture_is_written_however_many_samples_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("soak.svg");
        for count in [0, 1, 2, 30, 20_000] {
            let samples = samples(count);
            let rss = super::super::Verdict::of(&samples).rss;
            svg(&file, &samples, rss.as_ref()).unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
            assert_eq!(text.contains("memory of the server"), count > 1);
            assert!(text.len() < 400_000, "{} bytes", text.len());
        }
    }

    #[test]
    fn a_terminal_shows_blocks() {
        let text = text(&samples(600));
        let memory = text.lines().next().unwrap();
        assert!(memory.contains("memory, MB") && memory.contains(" 20 to 20.60"), "{memory}");
        assert_eq!(memory.chars().filter(|c| ('▁'..='█').contains(c)).count(), 60);
        let points: Vec<(f64, f64)> = (0..8_u32).map(|at| (0.0, f64::from(at))).collect();
        assert_eq!(blocks(&points), "▁▂▃▄▅▆▇█");
        assert_eq!(blocks(&[(0.0, 0.0); 3]), "▁▁▁");
    }
}
