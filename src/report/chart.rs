//! Charts as SVG inside a page. Their colours are those of the page's style, so that they follow it into the dark and onto paper.

use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

/// Units of a drawing for a pixel of the page at its usual size: plotters has whole units only, and a curve needs finer ones.
const UNITS: u32 = 4;

/// Plotters shows text smaller than it is told by this factor.
const FONT: f64 = 1.24 * 13.0 * UNITS as f64;

/// A colour of the page's style; `css` puts its name where plotters wrote the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Of text and axes.
    Ink,
    /// Of lines behind the data.
    Grid,
    /// Of what is there to compare with.
    Quiet,
    /// Of the data, from 0 on; there are [`SERIES`].
    Series(usize),
}

/// Colours that data may have. Where there are more curves they begin again, with another mark.
pub const SERIES: usize = 6;

impl Colour {
    fn number(self) -> u8 {
        match self {
            Colour::Ink => 0,
            Colour::Grid => 1,
            Colour::Quiet => 2,
            Colour::Series(at) => 3 + (at % SERIES) as u8,
        }
    }

    fn rgb(self) -> RGBColor {
        RGBColor(1, 0, self.number())
    }

    /// Its name in the style.
    fn name(self) -> String {
        match self {
            Colour::Ink => "var(--ink)".into(),
            Colour::Grid => "var(--grid)".into(),
            Colour::Quiet => "var(--quiet)".into(),
            Colour::Series(at) => format!("var(--series-{})", at % SERIES),
        }
    }

    fn line(self, width: u32) -> ShapeStyle {
        ShapeStyle { color: self.rgb().to_rgba(), filled: false, stroke_width: width * UNITS }
    }

    /// Of a stroke that is to be seen on a bar.
    pub(super) fn stroke(self) -> ShapeStyle {
        self.line(2)
    }

    fn area(self) -> ShapeStyle {
        self.rgb().filled()
    }
}

/// What marks the points of a curve, so that it is known without its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: a thin line only.
    None,
    /// Nothing: a line as thick as one with marks.
    Line,
    /// ●
    Circle,
    /// ■
    Square,
    /// ▲
    Triangle,
    /// ×
    Cross,
}

/// The marks of curves that differ in nothing else.
pub const MARKS: [Mark; 4] = [Mark::Circle, Mark::Square, Mark::Triangle, Mark::Cross];

/// One curve.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its colour.
    pub colour: Colour,
    /// Its mark.
    pub mark: Mark,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it measures.
    pub name: &'static str,
    /// From where to where.
    pub range: Range<f64>,
    /// The values that are written beside it.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// From 0 to 1.
    pub fn share(name: &'static str) -> Self {
        Axis { name, range: 0.0..1.0, ticks: [0.0, 0.25, 0.5, 0.75, 1.0].to_vec() }
    }

    /// Of whole numbers from 1 to at least 2.
    pub fn counted(name: &'static str, last: u32) -> Self {
        let last = last.max(2);
        let step = f64::from(last.div_ceil(8)).max(1.0);
        let ticks = std::iter::successors(Some(f64::from(last)), |at| Some(at - step));
        let mut ticks: Vec<f64> = ticks.take_while(|&at| at >= 1.0).collect();
        ticks.reverse();
        Axis { name, range: 1.0..f64::from(last), ticks }
    }

    /// From 0 to the next round number from `most` on.
    pub fn up_to(name: &'static str, most: f64) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let power = 10f64.powf(most.log10().floor());
        let step = [0.2, 0.5, 1.0, 2.0].map(|step| step * power).into_iter().find(|step| most / step <= 6.0);
        let step = step.unwrap_or(2.0 * power);
        let steps = (most / step).ceil().max(1.0);
        Axis { name, range: 0.0..steps * step, ticks: (0..=steps as u32).map(|at| f64::from(at) * step).collect() }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, _: H) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// A drawing with axes.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    /// What it shows, above it.
    pub title: &'a str,
    /// What there is to see, in words, for who cannot see it.
    pub told: String,
    /// The axis below.
    pub x: Axis,
    /// The axis on the left.
    pub y: Axis,
    /// Its width and height in pixels of the page, before it is made to fit.
    pub size: (u32, u32),
    /// Its curves. A later one lies over an earlier one.
    pub series: Vec<Series>,
    /// A place on the axis below that a line across stands for, and its name in the legend.
    pub place: Option<(f64, String)>,
}

/// What is being drawn on.
type Context<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

impl Chart<'_> {
    /// The drawing with its title and its legend.
    pub fn figure(&self) -> Markup {
        let mut legend: Vec<(Colour, Mark, &str)> =
            self.series.iter().map(|series| (series.colour, series.mark, series.name.as_str())).collect();
        if let Some((_, name)) = &self.place {
            legend.push((Colour::Ink, Mark::None, name));
        }
        figure(self.title, &self.drawing(), &legend)
    }

    /// The drawing alone.
    pub fn drawing(&self) -> Markup {
        let Chart { title, told, x, y, size, series, place } = self;
        svg(title, told, *size, |root| {
            let mut chart = axes(root, x, y, 64);
            if let Some((at, _)) = place {
                line(&mut chart, vec![(*at, y.range.start), (*at, y.range.end)], Colour::Ink.line(1));
            }
            for Series { colour, mark, points, .. } in series {
                let points: Vec<_> = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
                line(&mut chart, points.clone(), colour.line(if *mark == Mark::None { 1 } else { 2 }));
                // Of many points some are marked, the last one among them.
                let every = points.len().div_ceil(20).max(1);
                for point in points.into_iter().rev().step_by(every) {
                    self::mark(&mut chart, point, *colour, *mark);
                }
            }
        })
    }
}

/// A drawing with its title, and below it what its colours mean.
pub(super) fn figure(title: &str, drawing: &Markup, legend: &[(Colour, Mark, &str)]) -> Markup {
    html! {
        figure {
            figcaption { (title) }
            (drawing)
            @if !legend.is_empty() {
                ul.legend {
                    @for &(colour, mark, name) in legend {
                        li { (swatch(colour, mark)) (name) }
                    }
                }
            }
        }
    }
}

/// What a curve looks like.
fn swatch(colour: Colour, mark: Mark) -> Markup {
    let name = colour.name();
    let width = if mark == Mark::None { "1.5" } else { "2.5" };
    html! {
        svg viewBox="0 0 28 12" width="28" height="12" aria-hidden="true" {
            path d="M0 6H28" stroke=(name) stroke-width=(width) {}
            @match mark {
                Mark::None | Mark::Line => {}
                Mark::Circle => { circle cx="14" cy="6" r="4.5" fill=(name) {} }
                Mark::Square => { path d="M10 2h8v8h-8z" fill=(name) {} }
                Mark::Triangle => { path d="M14 0.5l5.5 10h-11z" fill=(name) {} }
                Mark::Cross => { path d="M10 2l8 8m0-8l-8 8" stroke=(name) stroke-width="2.5" {} }
            }
        }
    }
}

/// What `draw` draws, in an element that says in words what it shows.
pub(super) fn svg(
    title: &str,
    told: &str,
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>),
) -> Markup {
    let (width, height) = (size.0 * UNITS, size.1 * UNITS);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (width, height)).into_drawing_area();
        draw(&root);
        root.present().expect(INTO_TEXT);
    }
    // Its own first and last tag; the one around it here has the words as well.
    let inner = text.split_once('\n').map_or("", |(_, rest)| rest).trim_end().trim_end_matches("</svg>");
    let label = format!("{title}. {told}");
    html! {
        svg.chart viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(label) style=(format!("max-width:{}px", 5 * size.0 / 4)) {
            (PreEscaped(css(inner)))
        }
    }
}

/// Why a drawing does not fail: no file is written, and every coordinate is a number.
const INTO_TEXT: &str = "a drawing into a text";

/// The drawing with the names of colours for their numbers, and without what is so anyway.
fn css(drawing: &str) -> String {
    let colours = [Colour::Ink, Colour::Grid, Colour::Quiet].into_iter().chain((0..SERIES).map(Colour::Series));
    let named = colours.fold(drawing.replace(" opacity=\"1\"", ""), |text, colour| {
        text.replace(&format!("#0100{:02X}", colour.number()), &colour.name())
    });
    named.replace(" font-family=\"sans-serif\"", "")
}

/// Axes with room for the names beside them, `left` pixels for those of the axis on the left.
pub(super) fn axes<'a>(root: &DrawingArea<SVGBackend<'a>, Shift>, x: &Axis, y: &Axis, left: u32) -> Context<'a> {
    let mut chart = ChartBuilder::on(root)
        .margin_top(10 * UNITS)
        .margin_right(16 * UNITS)
        .margin_left(2 * UNITS)
        .x_label_area_size(if x.name.is_empty() { 24 } else { 42 } * UNITS)
        .y_label_area_size(left * UNITS)
        .build_cartesian_2d(x.clone(), y.clone())
        .expect(INTO_TEXT);
    let font = ("sans-serif", FONT).into_font().color(&Colour::Ink.rgb());
    let digits = |ticks: &[f64]| {
        let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(1.0, f64::min);
        let is_whole = |scaled: f64| (scaled - scaled.round()).abs() <= 1e-6;
        (0..6).find(|&digits| is_whole(step * 10f64.powi(digits))).unwrap_or(3) as usize
    };
    let (x_digits, y_digits) = (digits(&x.ticks), digits(&y.ticks));
    chart
        .configure_mesh()
        .bold_line_style(Colour::Grid.line(1))
        .max_light_lines(0)
        .axis_style(Colour::Quiet.line(1))
        .label_style(font.clone())
        .axis_desc_style(font)
        .x_labels(x.ticks.len())
        .y_labels(y.ticks.len())
        .set_all_tick_mark_size(4 * UNITS)
        .x_label_formatter(&|at| format!("{at:.x_digits$}"))
        .y_label_formatter(&|at| format!("{at:.y_digits$}"))
        .x_desc(x.name)
        .y_desc(y.name)
        .draw()
        .expect(INTO_TEXT);
    chart
}

/// A line through `points`.
pub(super) fn line(chart: &mut Context<'_>, points: Vec<(f64, f64)>, style: ShapeStyle) {
    chart.draw_series([PathElement::new(points, style)]).expect(INTO_TEXT);
}

/// A mark at `point`.
pub(super) fn mark(chart: &mut Context<'_>, point: (f64, f64), colour: Colour, mark: Mark) {
    let units = UNITS as i32;
    let drawn = match mark {
        Mark::None | Mark::Line => Ok(()),
        Mark::Circle => chart.draw_series([Circle::new(point, 4 * units, colour.area())]).map(drop),
        Mark::Square => {
            let corner = 7 * units / 2;
            let square = Rectangle::new([(-corner, -corner), (corner, corner)], colour.area());
            chart.draw_series([EmptyElement::at(point) + square]).map(drop)
        }
        Mark::Triangle => chart.draw_series([TriangleMarker::new(point, 5 * units, colour.area())]).map(drop),
        Mark::Cross => chart.draw_series([Cross::new(point, 4 * units, colour.line(2))]).map(drop),
    };
    drawn.expect(INTO_TEXT);
}

/// A bar along the axis below.
pub(super) fn bar(chart: &mut Context<'_>, from: (f64, f64), to: (f64, f64), colour: Colour) {
    chart.draw_series([Rectangle::new([from, to], colour.area())]).expect(INTO_TEXT);
}

/// A name to the left of a place on the axis on the left; a long one is cut, as the table beside the drawing has all of it.
pub(super) fn name(root: &DrawingArea<SVGBackend<'_>, Shift>, chart: &Context<'_>, at: (f64, f64), name: &str) {
    const MOST: usize = 13;
    let cut = name.chars().count() > MOST;
    let shown: String = name.chars().take(if cut { MOST - 1 } else { MOST }).chain(cut.then_some('…')).collect();
    let (x, y) = chart.plotting_area().map_coordinate(&at);
    let style = ("sans-serif", FONT).into_font().color(&Colour::Ink.rgb()).pos(Pos::new(HPos::Right, VPos::Center));
    root.draw(&Text::new(shown, (x - 6 * UNITS as i32, y), style)).expect(INTO_TEXT);
}

#[cfg(test)]
mod tests;
