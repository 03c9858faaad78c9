//! A run as an SVG: acknowledged writes on top, the network and one lane per node below, steps as numbered lines.
//!
//! Readable on light and dark paper (it brings its own), without scripts or fonts from elsewhere. Height tells the roles apart as
//! well as colour does. All coordinates are printed with one decimal, so equal runs give equal bytes.

use super::lanes::{Lane, lanes};
use super::story::steps;
use crate::report::Report;
use crate::timeline::{Band, BandKind, State, Timeline};
use std::fmt::Write;

/// Width of the picture.
const WIDTH: f64 = 960.0;
/// Where time begins and ends.
const LEFT: f64 = 92.0;
const RIGHT: f64 = 944.0;
/// Height of the histogram.
const BARS: f64 = 56.0;
/// Width of a bar of the histogram, virtual microseconds.
const BIN_US: u64 = 100_000;
/// Height of a node's lane without faults, and of one row of faults below it.
const LANE: f64 = 26.0;
const FAULT_ROW: f64 = 15.0;

/// Colours and fonts; the dark ones follow the reader's system.
const STYLE: &str = "\
.bg{fill:#ffffff;stroke:#d0d4da}.t{fill:#1f2328}.s{fill:#59636e}.grid{stroke:#e3e6ea}.step{stroke:#59636e;stroke-dasharray:2 3}\
.ack{fill:#2da06a}.leader{fill:#2563c9}.follower{fill:#8fb4e8}.candidate{fill:#e2a01f}.learner{fill:#9b7fd4}.starting{fill:#b9c0c8}\
.down{fill:none;stroke:#c43d4b;stroke-dasharray:4 3}.paused{fill:url(#hatch)}.hatch{stroke:#7a828b}\
.cut{fill:#c43d4b}.disk{fill:#b5651d}.clock{fill:#0f7f86}.shade{fill:#c43d4b;opacity:.09}.unknown{stroke:#e2a01f}.refused{stroke:#c43d4b}\
.w{fill:#ffffff}text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:11px}.b{font-weight:600}\
@media(prefers-color-scheme:dark){.bg{fill:#161b22;stroke:#3d444d}.t{fill:#e6edf3}.s{fill:#9aa4ae}.grid{stroke:#2a3038}\
.step{stroke:#9aa4ae}.leader{fill:#4a8cf0}.follower{fill:#34537f}.starting{fill:#4b535c}.shade{opacity:.16}}";

/// Draws a run; nothing when its story was not kept.
pub fn draw(run: &Report) -> Option<String> {
    let timeline = run.timeline.as_ref()?;
    let mut pen = Pen {
        out: String::new(),
        y: 30.0,
        end_us: timeline.end_us.max(1),
    };
    let steps = steps(run);
    let lanes = lanes(timeline);
    pen.text(
        LEFT,
        19.0,
        "t b",
        &format!(
            "{}, seed {}: {} nodes, profile {}",
            run.scenario, run.seed, run.nodes, run.profile
        ),
    );
    let top = pen.y;
    pen.histogram(timeline);
    pen.network(timeline);
    for lane in &lanes {
        pen.lane(lane, timeline);
    }
    let bottom = pen.y;
    pen.steps(&steps, top, bottom);
    pen.axis(top, bottom);
    pen.legend();
    for (place, (at_us, words)) in steps.iter().enumerate() {
        pen.y += 16.0;
        let line = format!("{} · {:.1} s · {words}", place + 1, seconds(*at_us));
        pen.text(LEFT, pen.y, "s", &line);
    }
    Some(pen.framed(run))
}

/// What draws, and how far down it has come.
struct Pen {
    /// The elements so far.
    out: String,
    /// Where the next thing begins.
    y: f64,
    /// The end of time, virtual microseconds.
    end_us: u64,
}

impl Pen {
    /// Where a moment lies.
    fn x(&self, at_us: u64) -> f64 {
        LEFT + (RIGHT - LEFT) * (at_us.min(self.end_us) as f64 / self.end_us as f64)
    }

    /// Adds an element.
    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        writeln!(self.out, "{element}").ok();
    }

    fn text(&mut self, x: f64, y: f64, class: &str, words: &str) {
        let words = escape(words);
        self.put(format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{words}</text>"#
        ));
    }

    /// Words that end at the left edge of time.
    fn label(&mut self, y: f64, words: &str) {
        let (x, words) = (LEFT - 8.0, escape(words));
        self.put(format_args!(
            r#"<text class="t" x="{x:.1}" y="{y:.1}" text-anchor="end">{words}</text>"#
        ));
    }

    fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), title: &str) {
        let (width, title) = (width.max(0.8), escape(title));
        self.put(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"><title>{title}</title></rect>"#
        ));
    }

    fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.put(format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    /// Acknowledged writes per bin, and below them a row of ticks for what clients were refused or never told.
    fn histogram(&mut self, timeline: &Timeline) {
        let bins = bins(&timeline.acknowledged_us, self.end_us);
        let most = bins.iter().copied().max().unwrap_or(0).max(1);
        let floor = self.y + 10.0 + BARS;
        self.label(floor - BARS + 8.0, &format!("{most} writes"));
        self.label(floor, "0");
        for (place, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            let from = place as u64 * BIN_US;
            let height = BARS * *count as f64 / most as f64;
            let width = (self.x(from + BIN_US) - self.x(from) - 0.6).max(0.6);
            let title = format!("{:.1} s: {count} writes acknowledged", seconds(from));
            self.rect(
                "ack",
                (self.x(from), floor - height),
                (width, height),
                &title,
            );
        }
        self.line("grid", (LEFT, floor + 0.5), (RIGHT, floor + 0.5));
        for (class, moments) in [
            ("unknown", &timeline.unknown_us),
            ("refused", &timeline.refused_us),
        ] {
            for at_us in moments {
                let x = self.x(*at_us);
                self.line(class, (x, floor + 4.0), (x, floor + 12.0));
            }
        }
        self.label(floor + 12.0, "no success");
        self.y = floor + 22.0;
    }

    /// The network's lane, and its shade over everybody.
    fn network(&mut self, timeline: &Timeline) {
        let cuts: Vec<&Band> = timeline
            .bands
            .iter()
            .filter(|band| band.kind == BandKind::Cut)
            .collect();
        if cuts.is_empty() {
            return;
        }
        self.label(self.y + 11.0, "network");
        for cut in cuts {
            self.fault(cut, self.y);
        }
        self.y += FAULT_ROW + 8.0;
    }

    /// One node.
    fn lane(&mut self, lane: &Lane, timeline: &Timeline) {
        let middle = self.y + LANE / 2.0;
        self.label(middle + 4.0, &lane.name);
        for span in &lane.spans {
            let (class, height) = look(span.state);
            let (x, width) = (
                self.x(span.from_us),
                self.x(span.to_us) - self.x(span.from_us),
            );
            let title = format!(
                "{} is {class} from {:.2} s to {:.2} s",
                lane.name,
                seconds(span.from_us),
                seconds(span.to_us)
            );
            self.rect(class, (x, middle - height / 2.0), (width, height), &title);
        }
        self.y += LANE + 2.0;
        let mut rows: Vec<f64> = Vec::new();
        for band in timeline.bands.iter().filter(|band| band.place == lane.name) {
            // Words need room: a band takes the first row that is free where it begins.
            let from = self.x(band.from_us);
            let to = self
                .x(band.to_us)
                .max(from + 8.0 + 6.0 * band.words.chars().count() as f64);
            let row = rows
                .iter()
                .position(|end| *end <= from)
                .unwrap_or(rows.len());
            if row == rows.len() {
                rows.push(to);
            } else {
                rows[row] = to;
            }
            self.fault(band, self.y + row as f64 * FAULT_ROW);
        }
        self.y += rows.len() as f64 * FAULT_ROW + 6.0;
    }

    /// A fault: a bar for as long as it lasts, with its words in it or beside it.
    fn fault(&mut self, band: &Band, y: f64) {
        let class = match band.kind {
            BandKind::Cut => "cut",
            BandKind::Disk => "disk",
            BandKind::Clock => "clock",
        };
        let (x, end) = (self.x(band.from_us), self.x(band.to_us));
        let width = (end - x).max(2.5);
        let title = format!(
            "{}, from {:.2} s to {:.2} s",
            band.words,
            seconds(band.from_us),
            seconds(band.to_us)
        );
        self.rect(class, (x, y), (width, 13.0), &title);
        let room = 6.4 * band.words.chars().count() as f64 + 8.0;
        if width >= room {
            self.text(x + 4.0, y + 10.5, "w", &band.words);
        } else if x + width + room > RIGHT {
            let words = escape(&band.words);
            let at = x - 4.0;
            self.put(format_args!(
                r#"<text class="t" x="{at:.1}" y="{:.1}" text-anchor="end">{words}</text>"#,
                y + 10.5
            ));
        } else {
            self.text(x + width + 4.0, y + 10.5, "t", &band.words);
        }
    }

    /// Numbered lines where the scenario's steps began.
    fn steps(&mut self, steps: &[(u64, &str)], top: f64, bottom: f64) {
        let mut last = f64::MIN;
        for (place, (at_us, _)) in steps.iter().enumerate() {
            let x = self.x(*at_us);
            // Behind everything else, so it goes to the front of the document.
            let line = format!(
                "<line class=\"step\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\n"
            );
            self.out.insert_str(0, &line);
            // Numbers of steps that come close after each other stand side by side.
            let at = if x - last < 9.0 { last + 9.0 } else { x };
            last = at;
            let number = place + 1;
            self.put(format_args!(
                r#"<text class="t b" x="{at:.1}" y="{:.1}" text-anchor="middle">{number}</text>"#,
                top + 6.0
            ));
        }
    }

    /// Seconds along the bottom.
    fn axis(&mut self, top: f64, bottom: f64) {
        let mut marks = String::new();
        let every = if self.end_us > 40_000_000 { 5 } else { 2 };
        for second in (0..=self.end_us / 1_000_000).step_by(every) {
            let x = self.x(second * 1_000_000);
            // Behind everything else, so it goes to the front of the document.
            writeln!(
                marks,
                r#"<line class="grid" x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{bottom:.1}"/>"#,
                top + 10.0
            )
            .ok();
            self.put(format_args!(
                r#"<text class="s" x="{x:.1}" y="{:.1}" text-anchor="middle">{second} s</text>"#,
                bottom + 13.0
            ));
        }
        self.out.insert_str(0, &marks);
        self.y = bottom + 22.0;
    }

    /// What the colours mean.
    fn legend(&mut self) {
        let mut x = LEFT;
        let y = self.y + 8.0;
        let states = [
            State::Leader,
            State::Follower,
            State::Candidate,
            State::Learner,
            State::Starting,
            State::Down,
            State::Paused,
        ];
        for state in states {
            let (class, height) = look(state);
            self.rect(class, (x, y - height / 2.0), (18.0, height), class);
            self.text(x + 23.0, y + 4.0, "s", class);
            x += 33.0 + 6.2 * class.len() as f64;
        }
        let (mut x, y) = (LEFT, y + 19.0);
        for (class, words) in [
            ("cut", "network cut"),
            ("disk", "disk fault"),
            ("clock", "clock fault"),
        ] {
            self.rect(class, (x, y - 6.0), (10.0, 12.0), words);
            self.text(x + 14.0, y + 4.0, "s", words);
            x += 30.0 + 6.4 * words.len() as f64;
        }
        for (class, words) in [("unknown", "outcome unknown"), ("refused", "refused")] {
            self.line(class, (x + 2.0, y - 5.0), (x + 2.0, y + 5.0));
            self.text(x + 7.0, y + 4.0, "s", words);
            x += 24.0 + 6.6 * words.len() as f64;
        }
        self.y += 36.0;
    }

    /// The whole document.
    fn framed(self, run: &Report) -> String {
        let height = self.y + 12.0;
        let (inner_width, inner_height) = (WIDTH - 1.0, height - 1.0);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\">\n\
             <title>{}, seed {}</title>\n<style>{STYLE}</style>\n\
             <defs><pattern id=\"hatch\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
             <line class=\"hatch\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"5\" stroke-width=\"3\"/></pattern></defs>\n\
             <rect class=\"bg\" x=\"0.5\" y=\"0.5\" width=\"{inner_width:.0}\" height=\"{inner_height:.0}\" rx=\"6\"/>\n{}</svg>\n",
            escape(&run.scenario),
            run.seed,
            self.out
        )
    }
}

/// Class and height of a state's bar.
fn look(state: State) -> (&'static str, f64) {
    match state {
        State::Leader => ("leader", 20.0),
        State::Follower => ("follower", 10.0),
        State::Candidate => ("candidate", 14.0),
        State::Learner => ("learner", 6.0),
        State::Starting | State::Resumed => ("starting", 4.0),
        State::Down => ("down", 10.0),
        State::Paused => ("paused", 14.0),
    }
}

/// How many moments fall into each bin.
fn bins(moments: &[u64], end_us: u64) -> Vec<u64> {
    let mut bins =
        vec![0; usize::try_from(end_us / BIN_US + 1).expect("a run is shorter than an age")];
    for at_us in moments {
        let place = usize::try_from(at_us / BIN_US).expect("a run is shorter than an age");
        if let Some(bin) = bins.get_mut(place) {
            *bin += 1;
        }
    }
    bins
}

/// Virtual seconds.
fn seconds(at_us: u64) -> f64 {
    at_us as f64 / 1e6
}

/// Text as XML wants it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
