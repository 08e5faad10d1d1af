//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::pipeline::Observer;

/// Reports the stages of one command on stderr.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    quiet: bool,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len} {elapsed}")
                .expect("the progress template is well formed");
            bar.set_style(style);
            bar
        });
        Progress {
            bar,
            started: Instant::now(),
            quiet,
        }
    }
}

impl Observer for Progress {
    fn stage(&self, name: &str, n_steps: usize) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(n_steps as u64);
                bar.set_position(0);
                bar.set_message(name.to_owned());
            }
            None if self.quiet => {}
            None if n_steps > 0 => eprintln!(
                "[{:7.2}s] {name}: {n_steps}",
                self.started.elapsed().as_secs_f64()
            ),
            None => eprintln!("[{:7.2}s] {name}", self.started.elapsed().as_secs_f64()),
        }
    }

    fn step(&self, n_done: usize, n_steps: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(n_steps as u64);
            bar.set_position(n_done as u64);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
