// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Bar charts, as SVG that any browser shows.

use std::fmt::Write;

use crate::measure::{Figures, precise};
use crate::report::{BASELINE, Results, Row};
use crate::table::time;

const WIDTH: f64 = 960.0;
/// Where the bars begin, and how much room there is for them; their figures follow them.
const LEFT: f64 = 190.0;
const ROOM: f64 = 660.0;
const BAR: f64 = 14.0;
const GAP: f64 = 8.0;
const TOP: f64 = 74.0;
const COLOURS: [&str; 5] = ["#1f77b4", "#ff7f0e", "#7f7f7f", "#2ca02c", "#9467bd"];

/// A chart with a logarithmic scale.
pub(crate) struct Chart {
    /// The file that it goes to.
    pub(crate) file: String,
    pub(crate) title: String,
    /// Where bars begin; `None`: at the left.
    origin: Option<f64>,
    spell: fn(f64) -> String,
    groups: Vec<Group>,
}

/// Bars that stand together; each has the name of its series.
struct Group {
    name: String,
    bars: Vec<(String, f64)>,
}

/// The charts of some results: rate and CPU on each kind of storage.
pub(crate) fn charts(results: &Results) -> Vec<Chart> {
    let storages = results.storages().into_iter();
    let both = storages.flat_map(|storage| [rate(results, storage), cpu(results, storage)]);
    both.filter(|chart| !chart.groups.is_empty()).collect()
}

fn rate(results: &Results, storage: &str) -> Chart {
    let value = |row: &Row| {
        let baseline = results.baseline(row)?;
        Some(Figures::median(&row.rounds)?.per_second / baseline.per_second)
    };
    Chart {
        file: format!("{storage}-rate.svg"),
        title: format!("Units per second to those of {BASELINE}, {storage}: more is better"),
        origin: Some(1.0),
        spell: |times| format!("{times:.2}x"),
        groups: groups(results, storage, &value),
    }
}

fn cpu(results: &Results, storage: &str) -> Chart {
    let value = |row: &Row| Figures::median(&row.rounds)?.cpu.filter(|cpu| *cpu > 0.0);
    Chart {
        file: format!("{storage}-cpu.svg"),
        title: format!("CPU of the registry for one unit, {storage}: less is better"),
        origin: None,
        spell: time,
        groups: groups(results, storage, &value),
    }
}

fn groups(results: &Results, storage: &str, value: &dyn Fn(&Row) -> Option<f64>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for row in results.rows.iter().filter(|row| row.storage == storage) {
        let Some(value) = value(row) else { continue };
        let bar = (row.registry.clone(), value);
        match groups.iter_mut().find(|group| group.name == row.work) {
            Some(group) => group.bars.push(bar),
            None => groups.push(Group { name: row.work.clone(), bars: vec![bar] }),
        }
    }
    groups
}

/// A logarithmic scale.
struct Scale {
    lowest: f64,
    highest: f64,
}

impl Scale {
    /// Over whole decades, or over less where that leaves most of it empty.
    fn over(values: impl Iterator<Item = f64> + Clone) -> Self {
        let lowest = values.clone().fold(f64::MAX, f64::min);
        let highest = values.fold(f64::MIN_POSITIVE, f64::max).max(lowest * 2.0);
        let steps = steps(lowest, highest);
        let within = |step: &&f64| **step <= lowest;
        let lowest = steps.iter().rev().find(within).copied().unwrap_or(lowest);
        Self { lowest, highest }
    }

    fn place(&self, value: f64) -> f64 {
        LEFT + ROOM * (value / self.lowest).log10() / (self.highest / self.lowest).log10()
    }

    fn marks(&self) -> Vec<f64> {
        let marks = steps(self.lowest, self.highest);
        marks.into_iter().filter(|mark| (self.lowest..=self.highest).contains(mark)).collect()
    }
}

/// Powers of ten around two values; of a short way 1, 2 and 5 of them.
fn steps(lowest: f64, highest: f64) -> Vec<f64> {
    let parts: &[f64] = if highest / lowest > 300.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    #[expect(clippy::cast_possible_truncation, reason = "a logarithm is small")]
    let decade = |value: f64| value.log10().floor() as i32;
    let decades = decade(lowest)..=decade(highest) + 1;
    decades.flat_map(|decade| parts.iter().map(move |part| part * 10_f64.powi(decade))).collect()
}

impl Chart {
    /// The picture.
    pub(crate) fn svg(&self) -> String {
        let bars = || self.groups.iter().flat_map(|group| &group.bars);
        let scale = Scale::over(bars().map(|(_, value)| *value).chain(self.origin));
        let mut series: Vec<&str> = Vec::new();
        for (name, _) in bars() {
            if !series.contains(&name.as_str()) {
                series.push(name);
            }
        }
        let colour = |name: &str| {
            let place = series.iter().position(|known| *known == name).unwrap_or_default();
            COLOURS[place % COLOURS.len()]
        };
        let height = TOP + precise(bars().count() as u64) * BAR + precise(self.groups.len() as u64) * GAP;
        let mut svg = Svg::new(&self.title, height + GAP);
        svg.text(10.0, 20.0, "start", 15, &self.title);
        for (name, place) in series.iter().zip(0..) {
            let x = LEFT + 150.0 * f64::from(place);
            svg.bar(x, 32.0, 12.0, colour(name));
            svg.text(x + 18.0, 43.0, "start", 12, name);
        }
        for mark in scale.marks() {
            svg.line(scale.place(mark), TOP - 6.0, height);
            svg.text(scale.place(mark), TOP - 10.0, "middle", 11, &(self.spell)(mark));
        }
        let begin = scale.place(self.origin.unwrap_or(scale.lowest));
        let mut y = TOP;
        for group in &self.groups {
            svg.text(LEFT - 10.0, y + BAR - 3.0, "end", 12, &group.name);
            for (name, value) in &group.bars {
                let end = scale.place(*value);
                svg.bar(begin.min(end), y, (end - begin).abs().max(1.0), colour(name));
                svg.text(begin.max(end) + 4.0, y + BAR - 3.0, "start", 11, &(self.spell)(*value));
                y += BAR;
            }
            y += GAP;
        }
        svg.end()
    }
}

struct Svg(String);

impl Svg {
    fn new(title: &str, height: f64) -> Self {
        let mut svg = Self(String::from(concat!(
            "<!--\nSPDX-FileCopyrightText: The Stowage authors\n",
            "SPDX-License-Identifier: EUPL-1.2\n-->\n"
        )));
        svg.add(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
             font-family=\"sans-serif\">\n<title>{}</title>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>",
            escaped(title)
        ));
        svg
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{element}").expect("a String takes everything");
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, size: u32, text: &str) {
        let text = escaped(text);
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{text}</text>"
        ));
    }

    fn bar(&mut self, x: f64, y: f64, width: f64, colour: &str) {
        let height = BAR - 2.0;
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
        ));
    }

    fn line(&mut self, x: f64, from: f64, to: f64) {
        self.add(format_args!(
            "<path d=\"M{x:.1} {from:.1}V{to:.1}\" stroke=\"#cccccc\" stroke-width=\"1\"/>"
        ));
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(origin: Option<f64>) -> Chart {
        let bars = |values: [f64; 2]| {
            let [ours, theirs] = values;
            vec![("stowage".to_owned(), ours), ("a < b".to_owned(), theirs)]
        };
        Chart {
            file: "a.svg".to_owned(),
            title: "A & B".to_owned(),
            origin,
            spell: |value| format!("{value:.1}x"),
            groups: vec![
                Group { name: "one".to_owned(), bars: bars([10.0, 0.5]) },
                Group { name: "two".to_owned(), bars: bars([1.0, 100.0]) },
            ],
        }
    }

    fn bars(svg: &str, colour: &str) -> Vec<(f64, f64)> {
        let of = |line: &str, name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
            rest.split('"').next().unwrap().parse::<f64>().unwrap()
        };
        let bars = svg.lines().filter(|line| line.contains(colour)).skip(1);
        bars.map(|bar| (of(bar, "x"), of(bar, "width"))).collect()
    }

    #[test]
    fn bars_are_as_long_as_the_logarithm_of_their_figures() {
        let svg = chart(None).svg();
        // From 0.5 to 100.
        let decade = ROOM / 200_f64.log10();
        let [ten, one] = bars(&svg, COLOURS[0])[..] else { unreachable!("two bars of a series: {svg}") };
        assert!((ten.1 - one.1 - decade).abs() < 0.2, "{ten:?} {one:?}");
        assert_eq!(bars(&svg, COLOURS[1])[1], (LEFT, ROOM));
    }

    #[test]
    fn bars_begin_at_their_origin() {
        let svg = chart(Some(1.0)).svg();
        let (ours, theirs) = (bars(&svg, COLOURS[0]), bars(&svg, COLOURS[1]));
        // What is less goes to the left of it.
        assert!((theirs[0].0 + theirs[0].1 - ours[0].0).abs() < 0.2, "{ours:?} {theirs:?}");
    }

    #[test]
    fn names_are_escaped() {
        let svg = chart(None).svg();
        assert!(svg.contains("<title>A &amp; B</title>") && svg.contains(">a &lt; b</text>"), "{svg}");
    }
}
