//! Products of the sizes that models have: every variant is right, and how fast each is.

use std::sync::Arc;

use libtest_mimic::Failed;
use rtrt_codegen::compile::Cache;
use rtrt_codegen::cuda::{Context, Nvrtc};
use rtrt_codegen::ir::DType;
use rtrt_codegen::kernel::Arch;
use rtrt_codegen::tune::{self, Database, Effort, Ledger, Machine, Measurement, Outcome};

use crate::products::{self, CONV, Conv, Epilogue, Layout};
use crate::regions::Problem;

/// Rows, columns and terms, and how the columns' operand lies in memory.
const SIZES: &[(usize, usize, usize, Layout)] = &[
    (4096, 3072, 768, Layout::Turned),
    (4096, 768, 3072, Layout::Plain),
    (3152, 768, 768, Layout::Plain),
    (128, 768, 768, Layout::Plain),
    (384, 768, 3072, Layout::Plain),
    (2048, 2048, 2048, Layout::Turned),
    (25088, 256, 1024, Layout::Turned),
    (1024, 1024, 1024, Layout::Plain),
    (4096, 4096, 4096, Layout::Plain),
];

/// Images, pixels along each side, channels, filters, and stride of convolutions of three by
/// three cells.
const CONVOLUTIONS: &[(usize, usize, usize, usize, usize)] = &[
    (32, 56, 64, 64, 1),
    (32, 56, 128, 128, 2),
    (32, 28, 128, 128, 1),
    (32, 14, 256, 256, 1),
    (32, 7, 512, 512, 1),
    (1, 56, 64, 64, 1),
    (1, 14, 256, 256, 1),
];

/// Prints one line per variant: template, knobs, microseconds as predicted and as measured,
/// and floating-point operations per second.
pub fn products(context: &Arc<Context>, arch: Arch) -> Result<(), Failed> {
    for &(m, n, k, layout) in SIZES {
        for epilogue in [Epilogue::None, Epilogue::BiasResidualRelu] {
            let problem = products::matmul(DType::F16, (&[m, k], Layout::Plain), (&[k, n], layout), epilogue);
            print(context, arch, problem, 2 * m * n * k)?;
        }
    }
    Ok(())
}

/// As [`products`], for convolutions.
pub fn convolutions(context: &Arc<Context>, arch: Arch) -> Result<(), Failed> {
    for &(batch, size, channels, filters, stride) in CONVOLUTIONS {
        let shape = Conv {
            batch,
            size: [size; 2],
            channels,
            filters,
            stride,
            ..CONV
        };
        let problem = products::conv(DType::F16, shape, true, Epilogue::BiasResidualRelu);
        let outputs = batch * size.div_ceil(stride).pow(2) * filters;
        print(context, arch, problem, 2 * outputs * channels * 9)?;
    }
    Ok(())
}

fn print(context: &Arc<Context>, arch: Arch, problem: Problem, flops: usize) -> Result<(), Failed> {
    let mut wrong = Vec::new();
    println!("{}", problem.label);
    for entry in measured(context, arch, problem)? {
        let us = match &entry.outcome {
            Outcome::Timed { median_us, .. } => *median_us,
            Outcome::Slow { .. } => continue,
            Outcome::Wrong { .. } | Outcome::Unusable { .. } => {
                wrong.push(format!("{entry:?}"));
                continue;
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no exact count")]
        let tflops = flops as f64 / us / 1e6;
        println!(
            "  {us:9.2} us {tflops:6.1} TFLOP/s, predicted {:9.2} us: {} {}",
            entry.predicted_us, entry.template, entry.variant
        );
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n").into())
    }
}

/// What came of every variant, the fastest first.
fn measured(context: &Arc<Context>, arch: Arch, problem: Problem) -> Result<Vec<Measurement>, Failed> {
    let mut spec = problem.spec;
    spec.weights = [1].into();
    let problem = tune::Problem {
        workspace: true,
        incumbent: None,
        spec,
    };
    let effort = Effort {
        max_variants: 12,
        time: true,
        cold_weights: false,
        until: None,
    };
    let nvrtc = Nvrtc::get().map_err(ToString::to_string)?;
    let machine = Machine::new(context.info(), nvrtc.version().to_string(), arch);
    let mut database = Database::default();
    let mut ledger = Ledger::new(&machine, &mut database, None);
    tune::measure(
        &[problem],
        arch,
        context,
        &mut ledger,
        effort,
        &Cache::of_user(),
        &|_, _| {},
    )?;
    let mut found: Vec<Measurement> = database.measurements().cloned().collect();
    let us = |entry: &Measurement| entry.outcome.us().unwrap_or(0.0);
    found.sort_by(|a, b| us(a).total_cmp(&us(b)));
    Ok(found)
}
