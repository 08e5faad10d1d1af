//! One GPU as a place to try kernels: drawn operands, expected results, launches, times.

use std::sync::Arc;

use super::check::{Bound, bound, error_of};
use super::error::TuneError;
use super::problem::{Problem, Tactic};
use super::widen::{tensor_of_kind, widened};
use crate::cuda::{
    self, Begin, Context, CudaError, DeviceMemory, Event, Function, GraphExec, KernelArg, LaunchGeometry,
    Module, PixelCorners, Stream, Strided,
};
use crate::ir::{DType, Graph, HostTensor, PixelBox, TensorType, TiledView};
use crate::kernel::{Param, Source};
use crate::ops::random;
use crate::reference::{self, ReferenceError};

/// Launches in one timed graph, so that the graph's own start is a small part.
const LAUNCHES: usize = 20;
/// Most copies of a kernel's constant operands: one per launch.
const MAX_COPIES: usize = LAUNCHES;
/// What unwritten bytes hold: NaN in every float kind.
const POISON: u8 = 0xff;
/// What a problem is tried on.
pub enum Data<'a> {
    /// Random operands; `cold` ones that are constant are so many copies that they never are
    /// in L2.
    Drawn { cold: bool },
    /// These operands.
    Given(&'a [HostTensor]),
}

/// A device and queues on it.
pub struct Lab {
    context: Arc<Context>,
    stream: Stream,
    /// Of the other executions, where kernels are chosen for several at the same time.
    others: Vec<Stream>,
    /// As launches of an engine on this device begin.
    begin: Begin,
}

/// A problem with its operands on the device and the results it should have.
pub struct Bench {
    /// For each input, copies that launches take turns on.
    inputs: Vec<Vec<DeviceMemory>>,
    /// Of each execution; what is judged are those of the first one.
    outputs: Vec<Vec<DeviceMemory>>,
    /// All that outputs point to, with what nothing is written to.
    wanted: Vec<HostTensor>,
    types: Vec<TensorType>,
    bounds: Vec<Bound>,
}

impl Bench {
    /// Address of the copy of an input that a launch reads.
    fn input(&self, input: usize, turn: usize) -> u64 {
        let copies = &self.inputs[input];
        copies[turn % copies.len()].address()
    }
}

fn tensor_map(address: u64, view: &TiledView) -> Result<cuda::TensorMap, CudaError> {
    let tensor = Strided {
        address,
        element_bytes: view.element_bytes,
        dims: &view.dims,
        strides: &view.strides,
    };
    let pixels = view
        .pixels
        .map(|PixelBox { lower, upper, steps }| PixelCorners { lower, upper, steps });
    cuda::TensorMap::encode(tensor, &view.tile, pixels)
}

/// A kernel that is loaded and has its scratch memory.
pub struct Candidate {
    function: Function,
    geometry: LaunchGeometry,
    params: Vec<Param>,
    /// Of each execution.
    workspaces: Vec<DeviceMemory>,
    name: String,
}

impl Lab {
    /// A place where `n_contexts` executions go on at the same time.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn new(context: &Arc<Context>, n_contexts: usize) -> Result<Self, CudaError> {
        let others = (1..n_contexts).map(|_| Stream::new(context));
        Ok(Lab {
            context: Arc::clone(context),
            stream: Stream::new(context)?,
            others: others.collect::<Result<_, _>>()?,
            begin: if context.info().sm >= 90 {
                Begin::WhenAllowed
            } else {
                Begin::AfterPredecessors
            },
        })
    }

    fn n_contexts(&self) -> usize {
        1 + self.others.len()
    }

    fn streams(&self) -> impl Iterator<Item = &Stream> {
        std::iter::once(&self.stream).chain(&self.others)
    }

    /// Runs the reference on the operands and puts everything on the device.
    ///
    /// # Errors
    /// If the reference fails or the device is out of memory.
    pub fn bench(&self, problem: &Problem, data: Data<'_>) -> Result<Bench, TuneError> {
        let body = &problem.spec.body;
        let (operands, wanted, cold) = match data {
            Data::Drawn { cold } => {
                let (operands, wanted) = drawn(body)?;
                (operands, wanted, cold)
            }
            Data::Given(operands) => (operands.to_vec(), wide_results(&widened(body), operands)?, false),
        };
        let mut inputs = Vec::new();
        for (number, operand) in operands.iter().enumerate() {
            // No launch of the same kernel for another layer finds its weights in cache.
            let n_copies = if cold && problem.spec.weights.contains(&number) {
                self.n_copies(operand.n_bytes())
            } else {
                1
            };
            let copies = (0..n_copies).map(|_| self.upload(operand.bytes()));
            inputs.push(copies.collect::<Result<Vec<_>, _>>()?);
        }
        let wanted = problem.spec.stored(wanted, POISON);
        let types = problem.spec.stored_types();
        let outputs = |_| {
            let outputs = types
                .iter()
                .map(|ty| DeviceMemory::new(&self.context, ty.n_bytes()));
            outputs.collect::<Result<Vec<_>, _>>()
        };
        let outputs = (0..self.n_contexts()).map(outputs);
        let narrowest = narrowest(body);
        Ok(Bench {
            inputs,
            outputs: outputs.collect::<Result<_, _>>()?,
            wanted,
            bounds: types
                .iter()
                .map(|ty| bound(ty.dtype, narrowest, problem.spec.options.tf32))
                .collect(),
            types,
        })
    }

    /// Enough copies to push each other out of L2.
    fn n_copies(&self, n_bytes: usize) -> usize {
        let l2_bytes = self.context.info().l2_bytes;
        (2 * l2_bytes).div_ceil(n_bytes.max(1)).clamp(1, MAX_COPIES)
    }

    fn upload(&self, bytes: &[u8]) -> Result<DeviceMemory, CudaError> {
        let memory = DeviceMemory::new(&self.context, bytes.len())?;
        self.stream.upload_now(&memory, 0, bytes)?;
        Ok(memory)
    }

    /// Loads a kernel.
    ///
    /// # Errors
    /// If the device refuses it, for want of shared memory above all.
    pub fn load(&self, tactic: &Tactic) -> Result<Candidate, CudaError> {
        let Source {
            name,
            launch,
            params,
            workspace_bytes,
            ..
        } = &tactic.source;
        let function = Module::load(&self.context, &tactic.cubin.bytes)?.function(name)?;
        if launch.smem_bytes > 0 {
            function.allow_dynamic_smem(launch.smem_bytes)?;
        }
        let workspace = |_| {
            let workspace = DeviceMemory::new(&self.context, *workspace_bytes)?;
            self.stream.fill(&workspace, 0, *workspace_bytes, 0)?;
            Ok(workspace)
        };
        let workspaces = (0..self.n_contexts()).map(workspace);
        Ok(Candidate {
            function,
            geometry: LaunchGeometry {
                grid: launch.grid,
                block: launch.block,
                smem_bytes: launch.smem_bytes,
            },
            params: params.clone(),
            workspaces: workspaces.collect::<Result<_, CudaError>>()?,
            name: name.clone(),
        })
    }

    /// Runs a kernel twice on poisoned outputs (the second run finds what the first left in
    /// its scratch memory); gives the largest relative error and whether it is within bounds.
    ///
    /// # Errors
    /// If the kernel faults.
    pub fn judge(&self, bench: &Bench, candidate: &Candidate) -> Result<(f64, bool), TuneError> {
        let mut worst = 0.0f64;
        let mut right = true;
        for _ in 0..2 {
            for output in &bench.outputs[0] {
                self.stream.fill(output, 0, output.len(), POISON)?;
            }
            self.launch(bench, candidate, (0, &self.stream), 0)
                .map_err(|error| fault(candidate, error))?;
            self.stream
                .synchronize()
                .map_err(|error| fault(candidate, error))?;
            for (number, wanted) in bench.wanted.iter().enumerate() {
                let error = error_of(&self.result(bench, number)?, wanted);
                worst = worst.max(error);
                right &= error <= bench.bounds[number].0;
            }
        }
        Ok((worst, right))
    }

    fn result(&self, bench: &Bench, number: usize) -> Result<HostTensor, CudaError> {
        let ty = &bench.types[number];
        let mut tensor = HostTensor::zeros(ty.dtype, &ty.dims());
        self.stream
            .download_now(tensor.bytes_mut(), &bench.outputs[0][number], 0)?;
        Ok(tensor)
    }

    /// Queues a launch in one of the executions.
    fn launch(
        &self,
        bench: &Bench,
        candidate: &Candidate,
        (own, stream): (usize, &Stream),
        turn: usize,
    ) -> Result<(), CudaError> {
        let args: Vec<KernelArg> = candidate
            .params
            .iter()
            .map(|param| {
                Ok(match param {
                    Param::Input(input) => KernelArg::Address(bench.input(*input, turn)),
                    Param::Output(output) => KernelArg::Address(bench.outputs[own][*output].address()),
                    Param::Workspace => KernelArg::Address(candidate.workspaces[own].address()),
                    Param::Dim(value) => KernelArg::I32(*value),
                    Param::TensorMap { input, view } => {
                        KernelArg::TensorMap(tensor_map(bench.input(*input, turn), view)?)
                    }
                })
            })
            .collect::<Result<_, CudaError>>()?;
        candidate
            .function
            .launch(stream, &candidate.geometry, self.begin, &args)
    }

    /// A graph of [`LAUNCHES`] launches for each of the executions.
    pub fn record(&self, bench: &Bench, candidate: &Candidate) -> Result<Vec<GraphExec>, CudaError> {
        let graph = |(own, stream): (usize, &Stream)| {
            GraphExec::record(stream, |_| {
                (0..LAUNCHES).try_for_each(|turn| self.launch(bench, candidate, (own, stream), turn))
            })
        };
        self.streams().enumerate().map(graph).collect()
    }

    /// Microseconds per launch of one replay, in which all executions go on at the same time.
    pub fn replay_us(&self, graphs: &[GraphExec]) -> Result<f64, CudaError> {
        let (start, end) = (Event::new(&self.context)?, Event::new(&self.context)?);
        start.record(&self.stream)?;
        for other in &self.others {
            other.wait(&start)?;
        }
        for (graph, stream) in graphs.iter().zip(self.streams()) {
            graph.launch(stream)?;
        }
        for other in &self.others {
            let done = Event::new(&self.context)?;
            done.record(other)?;
            self.stream.wait(&done)?;
        }
        end.record(&self.stream)?;
        end.synchronize()?;
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let launches = LAUNCHES as f64;
        Ok(end.elapsed_us(&start)? / launches)
    }
}

fn fault(candidate: &Candidate, source: CudaError) -> TuneError {
    TuneError::Device {
        kernel: candidate.name.clone(),
        source,
    }
}

/// What a widened body computes of operands of any width.
fn wide_results(wide: &Graph, operands: &[HostTensor]) -> Result<Vec<HostTensor>, ReferenceError> {
    let kinds = wide.inputs.iter().map(|&input| wide.ty(input).dtype);
    let operands: Vec<HostTensor> = operands
        .iter()
        .zip(kinds)
        .map(|(operand, dtype)| tensor_of_kind(operand, dtype))
        .collect();
    reference::run(wide, &operands)
}

/// Random operands of a body, and what it computes of them in wide arithmetic.
fn drawn(body: &Graph) -> Result<(Vec<HostTensor>, Vec<HostTensor>), ReferenceError> {
    let wide = widened(body);
    let run = |operands: &[HostTensor]| wide_results(&wide, operands);
    let types: Vec<&TensorType> = body.inputs.iter().map(|&input| body.ty(input)).collect();
    let operands: Vec<HostTensor> = types
        .iter()
        .zip(1..)
        .map(|(ty, seed)| random::drawn(ty, seed))
        .collect();
    if let Ok(wanted) = run(&operands) {
        return Ok((operands, wanted));
    }
    // Drawn integers may be no valid positions; zeros are wherever there is anything.
    let zeroed = |(operand, ty): (HostTensor, &&TensorType)| {
        if ty.dtype.is_float() {
            operand
        } else {
            HostTensor::zeros(ty.dtype, &ty.dims())
        }
    };
    let operands: Vec<HostTensor> = operands.into_iter().zip(&types).map(zeroed).collect();
    let wanted = run(&operands)?;
    Ok((operands, wanted))
}

/// The float kind of fewest bytes that any value of the body has.
fn narrowest(body: &Graph) -> DType {
    let kinds = body
        .values
        .iter()
        .filter_map(|value| Some(value.ty.as_ref()?.dtype));
    kinds
        .filter(|dtype| dtype.is_float())
        .min_by_key(|dtype| (dtype.size_bytes(), *dtype != DType::BF16))
        .unwrap_or(DType::F32)
}
