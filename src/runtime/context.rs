//! One stream of executions of an engine.

use std::sync::Arc;

use super::device_engine::DeviceEngine;
use super::error::RuntimeError;
use crate::cuda::{
    Begin, CudaError, DeviceMemory, Event, GraphExec, KernelArg, LaunchGeometry, PinnedMemory, PixelCorners,
    Stream, Strided, TensorMap,
};
use crate::engine::{self, ALIGNMENT, Arg, Binding, Launch, Memory, Pixels, Place};
use crate::ir::HostTensor;

/// Memory, stream and recorded graph of executions that happen one after the other. Several
/// contexts of one engine may run at once.
#[derive(Debug)]
pub struct ExecutionContext {
    engine: Arc<DeviceEngine>,
    stream: Stream,
    arena: DeviceMemory,
    workspace: DeviceMemory,
    /// Staging for all inputs, one after the other, and for all outputs.
    staged_inputs: PinnedMemory,
    staged_outputs: PinnedMemory,
    /// All launches; copies of inputs and outputs are not part of it.
    graph: GraphExec,
}

impl ExecutionContext {
    /// Allocates everything and records the launches.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn new(engine: &Arc<DeviceEngine>) -> Result<Self, RuntimeError> {
        let context = &engine.context;
        let program = &engine.program;
        let stream = Stream::new(context)?;
        let arena = DeviceMemory::new(context, program.arena_bytes)?;
        let workspace = DeviceMemory::new(context, program.workspace_bytes)?;
        stream.fill(&workspace, 0, workspace.len(), 0)?;
        let memories = Memories {
            engine,
            arena: &arena,
            workspace: &workspace,
        };
        let graph = GraphExec::record(&stream, |stream| {
            program
                .launches
                .iter()
                .try_for_each(|launch| memories.launch(stream, launch))
        })?;
        graph.upload(&stream)?;
        stream.synchronize()?;
        Ok(ExecutionContext {
            staged_inputs: PinnedMemory::new(context, staged_bytes(&program.inputs))?,
            staged_outputs: PinnedMemory::new(context, staged_bytes(&program.outputs))?,
            engine: Arc::clone(engine),
            stream,
            arena,
            workspace,
            graph,
        })
    }

    pub fn engine(&self) -> &DeviceEngine {
        &self.engine
    }

    /// Executes on `inputs`, in the engine's order, and gives the outputs.
    ///
    /// # Errors
    /// If inputs are not what the engine takes, or the device reports a fault.
    pub fn run(&mut self, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, RuntimeError> {
        self.write_inputs(inputs)?;
        self.graph.launch(&self.stream)?;
        self.read_outputs()
    }

    /// Puts inputs on the device, where they stay for any number of [`ExecutionContext::launch`].
    ///
    /// # Errors
    /// If inputs are not what the engine takes.
    pub fn write_inputs(&mut self, inputs: &[HostTensor]) -> Result<(), RuntimeError> {
        let engine = Arc::clone(&self.engine);
        check_inputs(engine.inputs(), inputs)?;
        // The last copies out of the staging memory may still be queued.
        self.stream.synchronize()?;
        let staged = self.staged_inputs.bytes_mut();
        for (span, tensor) in spans(&engine.program.inputs).zip(inputs) {
            staged[span..span + tensor.n_bytes()].copy_from_slice(tensor.bytes());
        }
        self.queue_uploads()
    }

    /// Queues copies of the staged inputs to the device.
    pub(super) fn queue_uploads(&self) -> Result<(), RuntimeError> {
        let places = &self.engine.program.inputs;
        for (span, place) in spans(places).zip(places) {
            self.stream
                .upload(&self.arena, place.offset, &self.staged_inputs, span, place.len)?;
        }
        Ok(())
    }

    /// Queues copies of the outputs to staging memory.
    pub(super) fn queue_downloads(&mut self) -> Result<(), RuntimeError> {
        let places = &self.engine.program.outputs;
        for (span, place) in spans(places).zip(places) {
            let memory = match place.memory {
                Memory::Arena => &self.arena,
                Memory::Weights => &self.engine.weights,
                Memory::Workspace => &self.workspace,
            };
            self.stream
                .download(&mut self.staged_outputs, span, memory, place.offset, place.len)?;
        }
        Ok(())
    }

    /// Queues one execution on the inputs that lie on the device.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn launch(&mut self) -> Result<(), RuntimeError> {
        Ok(self.graph.launch(&self.stream)?)
    }

    /// As [`ExecutionContext::launch`], kernel by kernel instead of as a recorded graph.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn launch_kernels(&mut self) -> Result<(), RuntimeError> {
        let memories = Memories {
            engine: &self.engine,
            arena: &self.arena,
            workspace: &self.workspace,
        };
        let launches = &self.engine.program.launches;
        launches
            .iter()
            .try_for_each(|launch| memories.launch(&self.stream, launch))?;
        Ok(())
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Waits for what is queued and gives the outputs of the last execution.
    ///
    /// # Errors
    /// If the device reports a fault.
    pub fn read_outputs(&mut self) -> Result<Vec<HostTensor>, RuntimeError> {
        self.queue_downloads()?;
        self.stream.synchronize()?;
        let staged = self.staged_outputs.bytes();
        let places = &self.engine.program.outputs;
        let outputs = spans(places)
            .zip(places)
            .zip(self.engine.outputs())
            .map(|((span, place), binding)| {
                HostTensor::from_bytes(binding.dtype, &binding.dims, &staged[span..span + place.len])
                    .expect("validate() compared the sizes of outputs and their places")
            });
        Ok(outputs.collect())
    }

    /// Microseconds on the device of each of `n` executions, one after the other.
    ///
    /// # Errors
    /// If the device reports a fault.
    pub fn time_us(&mut self, n: usize) -> Result<Vec<f64>, RuntimeError> {
        let context = &self.engine.context;
        let mut events = Vec::with_capacity(n + 1);
        for _ in 0..=n {
            events.push(Event::new(context)?);
        }
        events[0].record(&self.stream)?;
        for event in &events[1..] {
            self.graph.launch(&self.stream)?;
            event.record(&self.stream)?;
        }
        self.stream.synchronize()?;
        let pairs = events.windows(2).map(|pair| pair[1].elapsed_us(&pair[0]));
        Ok(pairs.collect::<Result<_, _>>()?)
    }

    /// Microseconds of launch number `launch` alone: the mean over a graph of `n` of it.
    ///
    /// # Errors
    /// If the device reports a fault.
    pub fn time_launch_us(&mut self, launch: usize, n: usize) -> Result<f64, RuntimeError> {
        let launch = &self.engine.program.launches[launch];
        let memories = Memories {
            engine: &self.engine,
            arena: &self.arena,
            workspace: &self.workspace,
        };
        let graph = GraphExec::record(&self.stream, |stream| {
            (0..n).try_for_each(|_| memories.launch(stream, launch))
        })?;
        graph.launch(&self.stream)?;
        let (start, end) = (
            Event::new(&self.engine.context)?,
            Event::new(&self.engine.context)?,
        );
        start.record(&self.stream)?;
        graph.launch(&self.stream)?;
        end.record(&self.stream)?;
        end.synchronize()?;
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let n = n as f64;
        Ok(end.elapsed_us(&start)? / n)
    }
}

/// Where launches find their operands.
struct Memories<'a> {
    engine: &'a DeviceEngine,
    arena: &'a DeviceMemory,
    workspace: &'a DeviceMemory,
}

impl Memories<'_> {
    fn launch(&self, stream: &Stream, launch: &Launch) -> Result<(), CudaError> {
        let args: Vec<KernelArg> = launch
            .args
            .iter()
            .map(|arg| {
                Ok(match arg {
                    Arg::Pointer(place) => KernelArg::Address(self.address(place)),
                    Arg::I32(value) => KernelArg::I32(*value),
                    Arg::TensorMap(map) => KernelArg::TensorMap(self.tensor_map(map)?),
                })
            })
            .collect::<Result<_, CudaError>>()?;
        let geometry = LaunchGeometry {
            grid: launch.grid,
            block: launch.block,
            smem_bytes: launch.smem_bytes,
        };
        let begin = if self.engine.program.kernels_wait {
            Begin::WhenAllowed
        } else {
            Begin::AfterPredecessors
        };
        self.engine.functions[launch.kernel].launch(stream, &geometry, begin, &args)
    }

    fn tensor_map(&self, map: &engine::TensorMap) -> Result<TensorMap, CudaError> {
        let tensor = Strided {
            address: self.address(&map.place),
            element_bytes: map.element_bytes,
            dims: &map.dims,
            strides: &map.strides,
        };
        let pixels = map
            .pixels
            .map(|Pixels { lower, upper, steps }| PixelCorners { lower, upper, steps });
        TensorMap::encode(tensor, &map.tile, pixels)
    }

    fn address(&self, place: &Place) -> u64 {
        let memory = match place.memory {
            Memory::Arena => self.arena,
            Memory::Weights => &self.engine.weights,
            Memory::Workspace => self.workspace,
        };
        memory.address() + place.offset as u64
    }
}

/// Offsets of tensors that are staged one after the other.
fn spans(places: &[Place]) -> impl Iterator<Item = usize> {
    places.iter().scan(0, |next, place| {
        let span = *next;
        *next += place.len.next_multiple_of(ALIGNMENT);
        Some(span)
    })
}

fn staged_bytes(places: &[Place]) -> usize {
    places
        .iter()
        .map(|place| place.len.next_multiple_of(ALIGNMENT))
        .sum()
}

fn check_inputs(bindings: &[Binding], inputs: &[HostTensor]) -> Result<(), RuntimeError> {
    if bindings.len() != inputs.len() {
        return Err(RuntimeError::InputCount {
            wanted: bindings.len(),
            found: inputs.len(),
        });
    }
    for (binding, input) in bindings.iter().zip(inputs) {
        if binding.ty() != input.ty() {
            return Err(RuntimeError::InputType {
                name: binding.name.clone(),
                wanted: binding.ty(),
                found: input.ty(),
            });
        }
    }
    Ok(())
}
