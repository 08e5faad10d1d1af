//! Contexts of one engine: on several threads, for several shapes, and queued on buffers of the caller.

use std::env;
use std::path::Path;

use libtest_mimic::Failed;
use rtrt_codegen::cuda::{DeviceMemory, Stream};
use rtrt_codegen::engine::{self, Engine};
use rtrt_codegen::ir::{DType, HostTensor};
use rtrt_codegen::ops::random::drawn;
use rtrt_codegen::pipeline::{self, Selection};
use rtrt_codegen::reference;
use rtrt_codegen::runtime::{DeviceEngine, ExecutionContext, RuntimeError};
use rtrt_codegen::testing::graphs;
use rtrt_codegen::tune;

use super::{built, built_for, check_outputs, context, inputs_of, rows};

/// Two contexts on two threads, with different inputs.
pub fn contexts() -> Result<(), Failed> {
    let graph = graphs::core(3, 12);
    let engine = built(&graph, DType::F32, &Selection::Predicted)?;
    let loaded = DeviceEngine::load(&engine, &context()?)?;
    let run = |seed: u64| -> Result<(), String> {
        let inputs: Vec<HostTensor> = graph
            .inputs
            .iter()
            .zip(seed..)
            .map(|(&input, seed)| drawn(graph.ty(input), seed))
            .collect();
        let wanted = reference::run(&graph, &inputs).map_err(|error| error.to_string())?;
        let mut context = ExecutionContext::new(&loaded).map_err(|error| error.to_string())?;
        for _ in 0..50 {
            let found = context.run(&inputs).map_err(|error| error.to_string())?;
            let error = found
                .iter()
                .zip(&wanted)
                .map(|(a, b)| tune::error_of(a, b))
                .fold(0.0, f64::max);
            if error > 1e-4 {
                return Err(format!("seed {seed} is off by {error:.2e}"));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = [10, 20, 30]
            .into_iter()
            .map(|seed| scope.spawn(move || run(seed)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("the thread does not panic"))
    })?;
    Ok(())
}

/// One engine for several shapes, in an order that changes the shape every time.
pub fn profiles() -> Result<(), Failed> {
    let sizes = [1, 7, 64, 130, 2, 33, 256, 16, 5, 128];
    let graphs = sizes.map(rows);
    let engine = built_for(&graphs, DType::F16, &Selection::Predicted)?;
    let mut context = pipeline::execution(&engine, 0)?;
    for round in 0..3 {
        for (graph, size) in graphs.iter().zip(sizes) {
            let inputs = inputs_of(graph);
            let wanted = reference::run(graph, &inputs)?;
            let case = format!("round {round}, {size} rows");
            check_outputs(&context.run(&inputs)?, &wanted, 2e-3, &case)?;
        }
    }
    let other = HostTensor::zeros(DType::F32, &[3, 384]);
    match context.run(&[other]) {
        Err(RuntimeError::InputType { wanted, .. })
            if wanted == "one of 10 shapes within f32[1 to 256,384]" =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}").into()),
    }
}

/// Eight threads, each with a context of its own, give the same bits a thousand times.
pub fn threads() -> Result<(), Failed> {
    let engine = built(&rows(64), DType::F16, &Selection::Predicted)?;
    threads_agree_on(&engine, 1000)
}

/// The same for engine files, so that a sanitizer sees whole networks.
pub fn threads_on_file(path: &Path) -> Result<(), Failed> {
    let n_rounds = match env::var("RTRT_TEST_ROUNDS") {
        Ok(text) => text.parse()?,
        Err(_) => 1000,
    };
    threads_agree_on(&engine::load(path)?, n_rounds)
}

fn threads_agree_on(engine: &Engine, n_rounds: usize) -> Result<(), Failed> {
    let loaded = DeviceEngine::load(engine, &context()?)?;
    let bindings = &loaded.header().profiles[0].inputs;
    let inputs: Vec<HostTensor> = bindings
        .iter()
        .zip(1..)
        .map(|(binding, seed)| drawn(&binding.ty(), seed))
        .collect();
    let first = ExecutionContext::new(&loaded)?.run(&inputs)?;
    let run = || -> Result<(), String> {
        let mut context = ExecutionContext::new(&loaded).map_err(|error| error.to_string())?;
        for number in 0..n_rounds {
            if context.run(&inputs).map_err(|error| error.to_string())? != first {
                return Err(format!("execution {number} differs"));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("no thread panics");
        threads.into_iter().try_for_each(join)
    })?;
    Ok(())
}

/// Executions on buffers and a stream of the caller, queued one after the other without waiting.
pub fn enqueued() -> Result<(), Failed> {
    let graphs = [7, 64].map(rows);
    let engine = built_for(&graphs, DType::F16, &Selection::Predicted)?;
    let cuda = context()?;
    let loaded = DeviceEngine::load(&engine, &cuda)?;
    let (own, uploads) = (Stream::new(&cuda)?, Stream::new(&cuda)?);
    let mut context = ExecutionContext::on(&loaded, own)?;
    let mut expected = Vec::new();
    for (profile, graph) in graphs.iter().enumerate().cycle().take(10) {
        let inputs = inputs_of(graph);
        let wanted = ExecutionContext::new(&loaded)?.run(&inputs)?;
        let from = DeviceMemory::new(&cuda, inputs[0].n_bytes())?;
        uploads.upload_now(&from, 0, inputs[0].bytes())?;
        expected.push((
            profile,
            from,
            DeviceMemory::new(&cuda, wanted[0].n_bytes())?,
            wanted,
        ));
    }
    for (profile, from, to, _) in &expected {
        context.enqueue(*profile, &[from], &[to])?;
    }
    context.synchronize()?;
    for (_, _, to, wanted) in &expected {
        let mut found = vec![0; to.len()];
        uploads.download_now(&mut found, to, 0)?;
        if found != wanted[0].bytes() {
            return Err("an enqueued execution differs".into());
        }
    }
    let (_, from, to, _) = &expected[0];
    match context.enqueue(1, &[from], &[to]) {
        Err(RuntimeError::BufferSize { .. }) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}
