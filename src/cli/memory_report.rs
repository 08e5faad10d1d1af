//! What the arena of a program holds at every launch, as text, JSON and a picture.

use std::fmt::Write;

use serde::Serialize;

use super::failure::Failure;
use super::out;
use crate::engine::{Program, Resident};

/// The memory of one program.
#[derive(Serialize)]
pub struct MemoryReport {
    pub arch: String,
    pub profile: usize,
    pub arena_bytes: usize,
    /// Name of the kernel of each launch.
    pub launches: Vec<String>,
    /// Bytes in use at each launch, and after the last one.
    pub live_bytes: Vec<usize>,
    /// The first launch at which most bytes are in use.
    pub peak: usize,
    /// In use from launch `first` to launch `last`.
    pub tensors: Vec<Resident>,
}

impl MemoryReport {
    /// None for engines of versions that do not say.
    pub fn of(program: &Program) -> Option<Self> {
        let live_bytes = program.live_bytes()?;
        let most = live_bytes.iter().max()?;
        let launches = program.launches.iter();
        Some(MemoryReport {
            arch: program.arch.clone(),
            profile: program.profile,
            arena_bytes: program.arena_bytes,
            launches: launches
                .map(|launch| program.kernels[launch.kernel].name.clone())
                .collect(),
            peak: live_bytes.iter().position(|bytes| bytes == most)?,
            live_bytes,
            tensors: program.tensors.clone()?,
        })
    }

    fn title(&self) -> String {
        format!(
            "memory of {} profile {}: arena of {} bytes, at most {} in use, {}",
            self.arch,
            self.profile,
            self.arena_bytes,
            self.live_bytes[self.peak],
            self.step_name(self.peak)
        )
    }

    fn step_name(&self, step: usize) -> String {
        match self.launches.get(step) {
            Some(kernel) => format!("at launch {step}, {kernel}"),
            None => "after the last launch".to_owned(),
        }
    }

    fn alive(&self, step: usize) -> impl Iterator<Item = &Resident> {
        self.tensors.iter().filter(move |tensor| tensor.is_alive(step))
    }

    /// A line per launch: bytes in use, and by what; the peak is marked.
    pub fn print(&self) -> Result<(), Failure> {
        out::line(&format!("\n{}", self.title()))?;
        for (step, live) in self.live_bytes.iter().enumerate() {
            let mark = if step == self.peak { '*' } else { ' ' };
            let name = if step < self.launches.len() {
                step.to_string()
            } else {
                "end".to_owned()
            };
            let alive: Vec<String> = self.alive(step).map(label).collect();
            out::line(&format!("{mark}{name:>4} {live:>12}  {}", alive.join(", ")))?;
        }
        Ok(())
    }

    /// The section of a page: a picture of the arena, launches from left to right and offsets upwards, and
    /// the same as a table.
    fn html(&self) -> String {
        let mut html = format!("<h2>{}</h2>\n{}", escaped(&self.title()), self.picture());
        html += "<table><tr><th>launch<th>bytes in use<th>kernel<th>alive\n";
        for (step, live) in self.live_bytes.iter().enumerate() {
            let alive: Vec<String> = self.alive(step).map(|tensor| escaped(&label(tensor))).collect();
            let kernel = self.launches.get(step).map_or("(end)", String::as_str);
            let class = if step == self.peak { " class=peak" } else { "" };
            let _ = writeln!(
                html,
                "<tr{class}><td>{step}<td>{live}<td>{}<td>{}",
                escaped(kernel),
                alive.join(", ")
            );
        }
        html + "</table>\n"
    }

    /// Tensors are boxes over the launches during which they are in use.
    fn picture(&self) -> String {
        const WIDTH: f64 = 1000.0;
        const HEIGHT: f64 = 320.0;
        let column = WIDTH / as_f64(self.live_bytes.len());
        let scale = HEIGHT / as_f64(self.arena_bytes.max(1));
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\">\n");
        let _ = writeln!(
            svg,
            "<rect class=peak x={:.2} y=0 width={column:.2} height={HEIGHT} />",
            as_f64(self.peak) * column
        );
        for tensor in &self.tensors {
            let height = as_f64(tensor.n_bytes()) * scale;
            let _ = writeln!(
                svg,
                "<rect class=tensor x={:.2} y={:.2} width={:.2} height={height:.2}><title>{}</title></rect>",
                as_f64(tensor.first) * column,
                HEIGHT - as_f64(tensor.offset) * scale - height,
                as_f64(tensor.last - tensor.first + 1) * column,
                escaped(&format!(
                    "{}, {} bytes at {}, launches {} to {}",
                    label(tensor),
                    tensor.n_bytes(),
                    tensor.offset,
                    tensor.first,
                    tensor.last
                ))
            );
        }
        svg + "</svg>\n"
    }
}

const STYLE: &str = "\
body { font: 14px sans-serif; margin: 2em }
svg { width: 100%; border: 1px solid #888 }
rect.tensor { fill: #7aa6d8; stroke: #fff }
rect.peak, tr.peak { fill: #f6c6b8; background: #f6c6b8 }
td, th { padding: 0 1em; text-align: left; vertical-align: top }
";

/// A page without scripts that shows the memory of every program.
pub fn page(model: &str, reports: &[&MemoryReport]) -> String {
    let title = escaped(&format!("Memory of {model}"));
    let sections: String = reports.iter().map(|report| report.html()).collect();
    format!(
        "<!doctype html>\n<meta charset=utf-8>\n<title>{title}</title>\n<style>\n{STYLE}</style>\n<h1>{title}</h1>\n{sections}"
    )
}

/// `conv1: f16[1,64,56,56]`.
fn label(tensor: &Resident) -> String {
    format!("{}: {}", tensor.tensor.name, tensor.tensor.ty())
}

/// Names come from models, and may hold anything.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[expect(clippy::cast_precision_loss, reason = "drawn in a thousand pixels")]
fn as_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::example;

    fn report(change: impl FnOnce(&mut Program)) -> MemoryReport {
        let mut engine = example(&["sm_87"]);
        change(&mut engine.header.programs[0]);
        MemoryReport::of(&engine.header.programs[0]).unwrap()
    }

    #[test]
    fn the_peak_is_where_most_is_alive() {
        let report = report(|program| program.tensors.as_mut().unwrap()[0].first = 1);
        assert_eq!((report.live_bytes.as_slice(), report.peak), (&[16, 32][..], 1));
        assert!(
            report
                .title()
                .ends_with("at most 32 in use, after the last launch")
        );
    }

    #[test]
    fn pages_hold_no_markup_of_a_model() {
        let report = report(|program| {
            program.tensors.as_mut().unwrap()[0].tensor.name = "<script>&".to_owned();
        });
        let page = page("a<b", &[&report]);
        assert!(
            page.contains("&lt;script&gt;&amp;: f32[4], 16 bytes at 0, launches 0 to 1"),
            "{page}"
        );
        assert!(!page.contains("<script>") && !page.contains("a<b"));
    }
}
