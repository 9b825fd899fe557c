//! Lines over an axis, as SVG.

use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color as _, EmptyElement, IntoDrawingArea as _, IntoFont as _,
    LineSeries, PathElement, RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
};

use crate::Error;

const PLOT_SIZE: (u32, u32) = (720, 420);

/// Colours that are told apart by those who see few: Okabe and Ito's.
const PLOT_COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// How values lie on the axis below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    Linear,
    /// Each doubling is a step.
    Doubling,
    /// Each nine of a percentile is a step.
    Nines,
}

impl Axis {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Doubling => value.max(f64::MIN_POSITIVE).log2(),
            // All of it has no place on this axis: it stands where the last step ends.
            Self::Nines => (-(1.0 - value / 100.0).max(1e-5).log10()).max(0.0),
        }
    }

    fn label(self, place: f64) -> String {
        let value = match self {
            Self::Linear => place,
            Self::Doubling => place.exp2(),
            Self::Nines => return nines(place),
        };
        if value >= 10.0 || value.fract() == 0.0 {
            format!("{value:.0}")
        } else {
            format!("{value:.1}")
        }
    }
}

fn nines(place: f64) -> String {
    let digits = format!("{:.5}", 100.0 - 100.0 * 10f64.powf(-place));
    format!("{} %", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// A line of a plot.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// A picture of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plot {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    pub(super) across: &'static str,
    pub(super) up: &'static str,
    pub(super) axis: Axis,
    pub(super) series: Vec<Series>,
}

impl Plot {
    /// As a picture.
    pub(super) fn svg(&self) -> Result<String, Error> {
        let mut text = String::new();
        let drawn = self.draw(&mut text);
        drawn.map_err(|error| Error::Failed(format!("{}: {error}", self.file)))?;
        Ok(text)
    }

    fn draw(&self, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(text, PLOT_SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let points = || self.series.iter().flat_map(|series| &series.points);
        let places = || points().map(|(across, _)| self.axis.place(*across));
        let (left, right) = (
            places().fold(f64::INFINITY, f64::min),
            places().fold(f64::NEG_INFINITY, f64::max),
        );
        let top = points().map(|(_, up)| *up).fold(0.0, f64::max) * 1.1;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 18).into_font())
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(left..right.max(left + 1e-9), 0.0..top.max(1e-9))?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc(self.across)
            .y_desc(self.up)
            .x_label_formatter(&|place| self.axis.label(*place))
            .y_label_formatter(&|up| Axis::Linear.label(*up))
            .draw()?;
        for (series, colour) in self.series.iter().zip(PLOT_COLOURS.iter().cycle()) {
            let line = || {
                series
                    .points
                    .iter()
                    .map(|(across, up)| (self.axis.place(*across), *up))
            };
            chart
                .draw_series(LineSeries::new(line(), colour.stroke_width(2)))?
                .label(&series.name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
            chart.draw_series(
                line().map(|at| EmptyElement::at(at) + Circle::new((0, 0), 3, colour.filled())),
            )?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nine_is_a_step() {
        let places = [0.0, 90.0, 99.0, 99.9, 100.0].map(|percent| Axis::Nines.place(percent));
        for (place, step) in places.into_iter().zip([0.0, 1.0, 2.0, 3.0, 5.0]) {
            assert!((place - step).abs() < 1e-9, "{place}");
        }
        assert_eq!(Axis::Nines.label(3.0), "99.9 %");
        assert_eq!(Axis::Nines.label(0.0), "0 %");
        assert_eq!(Axis::Doubling.label(Axis::Doubling.place(64.0)), "64");
    }

    #[test]
    fn a_single_point_is_drawn_too() {
        let plot = Plot {
            file: "one.svg",
            title: "One",
            across: "n",
            up: "m",
            axis: Axis::Linear,
            series: vec![Series {
                name: "a".to_owned(),
                points: vec![(3.0, 4.0)],
            }],
        };
        assert!(plot.svg().unwrap().contains("circle"));
    }
}
