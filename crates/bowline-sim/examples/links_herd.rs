//! Draws 200 links that lose their service at once, for `docs/links.md`:
//! `cargo run -p bowline-sim --example links_herd -- docs/links-herd.svg [SAMPLES.csv]`.
//!
//! What is drawn is a run of the real keepers in a simulated world, once with the default budget of a host and once
//! without any. The same seed draws the same picture.

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
};

use bowline_sim::links::herd::{self, Herd, Stampede};
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, DrawingArea, IntoDrawingArea as _, LineSeries, PathElement, RGBColor,
        SVGBackend, SeriesLabelPosition, WHITE,
    },
    series::DashedLineSeries,
    style::{Color as _, IntoFont as _},
};

/// The run that is drawn.
const SEED: u64 = 1;

/// How long before the loss the picture begins, and how long it is, in seconds.
const BEFORE: usize = 10;
const SECONDS: usize = 130;

/// Width, and height of each of three panels.
const SIZE: (u32, u32) = (1000, 220);

/// Told apart also by those who see no red or no green.
const WITH: RGBColor = RGBColor(0, 90, 181);
const WITHOUT: RGBColor = RGBColor(220, 100, 0);

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(picture), samples) = (words.next(), words.next()) else {
        return Err("usage: links_herd PICTURE.svg [SAMPLES.csv]".into());
    };
    let herd = Herd::default();
    let with = herd::run(SEED, &herd);
    let without = herd::run(SEED, &Herd { budget: None, ..herd.clone() });
    fs::write(&picture, draw(&herd, &with, &without)?)?;
    if let Some(samples) = samples {
        fs::write(samples, csv(&herd, &with, &without)?)?;
    }
    let mut out = io::stdout().lock();
    for (name, it) in [("with a budget", &with), ("without", &without)] {
        let (most, refused) = (it.most_in_a_second, it.refused.iter().sum::<u32>());
        let back = it.back_after.map_or(f64::NAN, |back| back.as_secs_f64());
        let all = it.attempts[seconds(&herd)].iter().sum::<u32>();
        writeln!(
            out,
            "{name}: {all} attempts, at most {most} in a second, {refused} refused, all back after {back:.0} s"
        )?;
    }
    Ok(())
}

/// The part of a run that is shown.
fn seconds(herd: &Herd) -> std::ops::Range<usize> {
    let lost = usize::try_from(herd.lost.as_secs()).unwrap_or(BEFORE);
    let first = lost.saturating_sub(BEFORE);
    first..first + SECONDS
}

fn csv(herd: &Herd, with: &Stampede, without: &Stampede) -> Result<String, Box<dyn Error>> {
    let mut text = "second,attempts_with_budget,refused_with_budget,live_with_budget,\
                    attempts_without,refused_without,live_without\n"
        .to_owned();
    for (index, second) in seconds(herd).enumerate() {
        let of = |it: &Stampede| [it.attempts[second], it.refused[second], it.live[second]];
        let ([a, b, c], [d, e, f]) = (of(with), of(without));
        let at = i64::try_from(index)? - i64::try_from(BEFORE)?;
        writeln!(text, "{at},{a},{b},{c},{d},{e},{f}")?;
    }
    Ok(text)
}

/// Values, one a second, from the loss on.
struct Line<'a> {
    name: &'a str,
    colour: RGBColor,
    values: &'a [u32],
}

fn draw(herd: &Herd, with: &Stampede, without: &Stampede) -> Result<String, Box<dyn Error>> {
    let shown = seconds(herd);
    let line = |name, colour, values| Line { name, colour, values };
    let budget = herd.budget.map_or(0, |(per_second, _)| per_second);
    let panels = [
        (
            format!(
                "{} links lose their service at once: attempts per second without a budget",
                herd.links
            ),
            vec![line("without a budget", WITHOUT, &without.attempts[shown.clone()])],
            None,
        ),
        (
            format!("attempts per second with the default budget of {budget} a second"),
            vec![line("with a budget", WITH, &with.attempts[shown.clone()])],
            Some(budget),
        ),
        (
            format!("links that are live; the service is down for {} s", herd.down.as_secs()),
            vec![
                line("with a budget", WITH, &with.live[shown.clone()]),
                line("without a budget", WITHOUT, &without.live[shown]),
            ],
            None,
        ),
    ];
    let mut text = String::new();
    {
        let height = SIZE.1 * u32::try_from(panels.len())?;
        let root = SVGBackend::with_string(&mut text, (SIZE.0, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let areas = root.split_evenly((panels.len(), 1));
        for ((title, lines, bound), area) in panels.iter().zip(&areas) {
            panel(area, title, lines, *bound)?;
        }
        root.present()?;
    }
    Ok(text)
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    lines: &[Line<'_>],
    bound: Option<u32>,
) -> Result<(), Box<dyn Error>> {
    let most = lines.iter().flat_map(|line| line.values).max().copied().unwrap_or(1);
    let (from, to) = (-(BEFORE as f64), (SECONDS - BEFORE) as f64);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15).into_font())
        .margin(8)
        .margin_right(24)
        .x_label_area_size(38)
        .y_label_area_size(52)
        .build_cartesian_2d(from..to, 0.0..f64::from(most) * 1.2)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("seconds after the loss")
        .x_labels(14)
        .y_labels(5)
        .y_label_formatter(&|value| format!("{value:.0}"))
        .x_label_formatter(&|value| format!("{value:.0}"))
        .axis_desc_style(("sans-serif", 12))
        .label_style(("sans-serif", 12))
        .draw()?;
    for Line { name, colour, values } in lines {
        // Steps, since each is a count of a whole second.
        let points = values.iter().enumerate().flat_map(|(second, value)| {
            let at = from + second as f64;
            [(at, f64::from(*value)), (at + 1.0, f64::from(*value))]
        });
        let drawn = chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        let colour = *colour;
        drawn.label(*name).legend(move |(x, y)| {
            PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(2))
        });
    }
    if let Some(bound) = bound {
        let line = [(from, f64::from(bound)), (to, f64::from(bound))];
        let style = BLACK.mix(0.6).stroke_width(1);
        let drawn = chart.draw_series(DashedLineSeries::new(line, 6, 6, style))?;
        drawn
            .label("the budget")
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], style));
    }
    if lines.len() > 1 || bound.is_some() {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 12))
            .draw()?;
    }
    Ok(())
}
