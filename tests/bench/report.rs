//! One page of results: Markdown, with two plots as SVG.

use std::{fmt::Write as _, path::Path, time::Duration};

use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, RGBColor, SVGBackend,
    SeriesLabelPosition, WHITE,
};

const BLUE: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const ORANGE: RGBColor = RGBColor(0xd9, 0x5f, 0x02);

/// What was measured, section by section.
#[derive(Default)]
pub struct Report {
    text: String,
}

/// A line of a plot.
pub struct Series<'a> {
    pub name: &'a str,
    pub points: Vec<(f64, f64)>,
}

// === impl Report ===

impl Report {
    /// Begins a section; it is printed, too.
    pub fn section(&mut self, title: &str, words: &str) {
        self.add(&format!("\n### {title}\n\n{words}\n"));
    }

    /// Adds a table.
    pub fn table(&mut self, header: &[&str], rows: &[Vec<String>]) {
        let mut table = String::from("\n");
        let _ = writeln!(table, "| {} |", header.join(" | "));
        let columns: Vec<_> =
            header.iter().enumerate().map(|(column, _)| if column == 0 { "---" } else { "---:" }).collect();
        let _ = writeln!(table, "| {} |", columns.join(" | "));
        for row in rows {
            assert_eq!(row.len(), header.len(), "{row:?}");
            let _ = writeln!(table, "| {} |", row.join(" | "));
        }
        self.add(&table);
    }

    /// Adds a paragraph.
    pub fn paragraph(&mut self, words: &str) {
        self.add(&format!("\n{words}\n"));
    }

    /// Adds what another one has.
    pub fn append(&mut self, other: &Self) {
        self.text.push_str(&other.text);
    }

    /// The page.
    pub fn text(&self) -> &str {
        self.text.trim_start()
    }

    /// An earlier page with the sections of this one in place of its own: a run can be of some scenarios only.
    pub fn merged_into(&self, earlier: &str) -> String {
        let sections = |page: &str| -> Vec<String> {
            page.split("\n### ").map(|section| section.trim_start_matches("### ").trim().to_owned()).collect()
        };
        let title = |section: &str| section.lines().next().unwrap_or_default().to_owned();
        let new = sections(self.text());
        let mut merged: Vec<_> = sections(earlier).into_iter().filter(|section| !section.is_empty()).collect();
        for section in new.into_iter().filter(|section| !section.is_empty()) {
            match merged.iter_mut().find(|old| title(old) == title(&section)) {
                Some(old) => *old = section,
                None => merged.push(section),
            }
        }
        merged.iter().map(|section| format!("### {section}")).collect::<Vec<_>>().join("\n\n")
    }

    fn add(&mut self, text: &str) {
        println!("{}", text.trim_end());
        self.text.push_str(text);
    }
}

/// Milliseconds with one digit.
pub fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// Mebibytes with one digit.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Draws lines over a logarithmic axis of counts.
pub fn plot(file: &Path, title: &str, (x, y): (&str, &str), series: &[Series<'_>]) {
    let points = || series.iter().flat_map(|series| series.points.iter().copied());
    let (least, most) = points().fold((f64::MAX, 0_f64), |(least, most), (x, _)| (least.min(x), most.max(x)));
    let highest = points().map(|(_, y)| y).fold(0_f64, f64::max) * 1.15;
    let area = SVGBackend::new(file, (760, 420)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((least * 0.8..most * 1.25).log_scale(), 0.0..highest)
        .unwrap();
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(WHITE)
        .draw()
        .unwrap();
    for (series, color) in series.iter().zip([BLUE, ORANGE]) {
        chart
            .draw_series(LineSeries::new(series.points.iter().copied(), color.stroke_width(2)))
            .unwrap()
            .label(series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(series.points.iter().map(|point| Circle::new(*point, 3, color.filled()))).unwrap();
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .unwrap();
    area.present().unwrap();
}
