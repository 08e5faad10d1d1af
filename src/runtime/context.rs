//! One stream of executions of an engine.

use std::sync::Arc;

use super::branches::Branches;
use super::device_engine::{DeviceEngine, LoadedProgram};
use super::error::RuntimeError;
use super::recent::Recent;
use crate::cuda::{
    Begin, CudaError, DeviceMemory, Event, GraphExec, KernelArg, LaunchGeometry, PinnedMemory, PixelCorners,
    Stream, Strided, TensorMap,
};
use crate::engine::{self, ALIGNMENT, Arg, Binding, Launch, Memory, Pixels, Place, Profile, Program};
use crate::ir::{HostTensor, TensorType};

/// Most graphs that a context keeps: of an engine with more profiles, those of the profiles used last.
pub const MAX_GRAPHS: usize = 16;

/// Memory, stream and recorded graphs of executions that happen one after the other. Several
/// contexts of one engine may run at once.
#[derive(Debug)]
pub struct ExecutionContext {
    engine: Arc<DeviceEngine>,
    stream: Stream,
    /// Large enough for every profile.
    arena: DeviceMemory,
    workspace: DeviceMemory,
    /// Staging for all inputs, one after the other, and for all outputs.
    staged_inputs: PinnedMemory,
    staged_outputs: PinnedMemory,
    graphs: Recent<Recorded>,
    /// Graphs are recorded on it, since work on the default stream cannot be.
    recorder: Stream,
    /// The profile of the inputs that were written last, and its program.
    profile: usize,
    loaded: Arc<LoadedProgram>,
}

/// All launches of a profile; copies of inputs and outputs are not part of it.
#[derive(Debug)]
struct Recorded {
    graph: GraphExec,
    loaded: Arc<LoadedProgram>,
}

impl ExecutionContext {
    /// Allocates everything and records the launches, on a stream of its own.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn new(engine: &Arc<DeviceEngine>) -> Result<Self, RuntimeError> {
        ExecutionContext::on(engine, Stream::new(&engine.context)?)
    }

    /// As [`ExecutionContext::new`]; everything is queued on `stream`.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn on(engine: &Arc<DeviceEngine>, stream: Stream) -> Result<Self, RuntimeError> {
        let context = &engine.context;
        let needs = engine.needs();
        let arena = DeviceMemory::new(context, needs.arena_bytes)?;
        let workspace = DeviceMemory::new(context, needs.workspace_bytes)?;
        stream.fill(&workspace, 0, workspace.len(), 0)?;
        stream.synchronize()?;
        let mut own = ExecutionContext {
            staged_inputs: PinnedMemory::new(context, needs.input_bytes)?,
            staged_outputs: PinnedMemory::new(context, needs.output_bytes)?,
            engine: Arc::clone(engine),
            stream,
            arena,
            workspace,
            graphs: Recent::new(MAX_GRAPHS),
            recorder: Stream::new(context)?,
            profile: 0,
            loaded: engine.loaded(0)?,
        };
        let n_profiles = engine.n_profiles();
        for profile in (0..n_profiles).filter(|&profile| profile == 0 || n_profiles <= MAX_GRAPHS) {
            own.record(profile)?;
        }
        own.stream.synchronize()?;
        Ok(own)
    }

    /// Records the launches of a profile where its graph is not kept; then its graph is the last one used.
    fn record(&mut self, profile: usize) -> Result<&Recorded, RuntimeError> {
        let (engine, arena, workspace) = (&self.engine, &self.arena, &self.workspace);
        let (stream, recorder) = (&self.stream, &self.recorder);
        let record = || {
            let loaded = engine.loaded(profile)?;
            let memories = Memories {
                engine,
                loaded: &loaded,
                arena,
                workspace,
            };
            let branches = Branches::of(&engine.context, &loaded.program.launches)?;
            let graph = GraphExec::record(recorder, |stream| memories.launch_branches(stream, &branches))?;
            graph.upload(stream)?;
            Ok::<_, RuntimeError>(Recorded { graph, loaded })
        };
        self.graphs.get_or_make(profile, record)
    }

    pub fn engine(&self) -> &DeviceEngine {
        &self.engine
    }

    /// Inputs and outputs as they are bound now.
    pub fn profile(&self) -> &Profile {
        &self.loaded.profile
    }

    /// Inputs and outputs as profile number `profile` binds them.
    ///
    /// # Errors
    /// If there is no such profile, or the engine is damaged.
    pub fn profile_of(&self, profile: usize) -> Result<Profile, RuntimeError> {
        if profile == self.profile {
            return Ok(self.loaded.profile.clone());
        }
        self.engine.profile(profile)
    }

    /// The launches of the profile.
    pub fn program(&self) -> &Program {
        &self.loaded.program
    }

    /// Binds the dims as profile number `profile` does; inputs that were written are lost. Launches that were
    /// dropped for those of other profiles are recorded again. Programs of a range are computed then, and proven.
    ///
    /// # Errors
    /// If there is no such profile, the engine is damaged, or the device refuses.
    pub fn use_profile(&mut self, profile: usize) -> Result<(), RuntimeError> {
        if profile != self.profile {
            self.loaded = Arc::clone(&self.record(profile)?.loaded);
            self.profile = profile;
            // Kernels leave their counters in it zero, but those of another profile lie elsewhere.
            self.stream.fill(&self.workspace, 0, self.workspace.len(), 0)?;
        }
        Ok(())
    }

    /// Executes on `inputs`, in the engine's order, and gives the outputs.
    ///
    /// # Errors
    /// If inputs are of no profile, or the device reports a fault.
    pub fn run(&mut self, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, RuntimeError> {
        self.write_inputs(inputs)?;
        self.launch()?;
        self.read_outputs()
    }

    /// Queues an execution of profile number `profile`, and returns before it is done: `inputs` are read
    /// from where they lie on the device, and `outputs` written there, each of exactly the bytes of its
    /// binding. Allocates nothing, where the profile's graph is kept, and does not wait; executions of one context
    /// follow each other. Where data decides an extent, elements lie as in a tensor of the largest;
    /// [`ExecutionContext::output_dims`] tells how many there are.
    ///
    /// # Errors
    /// If there is no such profile, or the buffers are not as many or as large as its bindings.
    pub fn enqueue(
        &mut self,
        profile: usize,
        inputs: &[&DeviceMemory],
        outputs: &[&DeviceMemory],
    ) -> Result<(), RuntimeError> {
        let bound = self.profile_of(profile)?;
        check_buffers(&bound.inputs, inputs)?;
        check_buffers(&bound.outputs, outputs)?;
        self.use_profile(profile)?;
        let loaded = Arc::clone(&self.loaded);
        let program = &loaded.program;
        for (place, input) in program.inputs.iter().zip(inputs) {
            self.stream.copy(&self.arena, place.offset, input, 0, place.len)?;
        }
        self.launch()?;
        for (place, output) in program.outputs.iter().zip(outputs) {
            let memory = self.memories().memory(place.memory);
            self.stream.copy(output, 0, memory, place.offset, place.len)?;
        }
        Ok(())
    }

    /// Waits for what is queued and gives the dims of the outputs of the last execution: those of their
    /// bindings, but for extents that data decides.
    ///
    /// # Errors
    /// If the device reports a fault, or counts more than an output can hold.
    pub fn output_dims(&mut self) -> Result<Vec<Vec<usize>>, RuntimeError> {
        self.queue_downloads_from(self.profile().outputs.len())?;
        self.stream.synchronize()?;
        self.staged_dims()
    }

    /// Dims of the outputs by the counts in staging memory.
    fn staged_dims(&self) -> Result<Vec<Vec<usize>>, RuntimeError> {
        let (profile, staged) = (self.profile(), self.staged_outputs.bytes());
        let places = &self.program().outputs;
        let counts = spans(places).skip(profile.outputs.len());
        let counts: Vec<i64> = counts
            .map(|span| {
                staged[span..span + size_of::<i64>()]
                    .try_into()
                    .map(i64::from_le_bytes)
            })
            .collect::<Result<_, _>>()
            .expect("validate() has seen that counts are i64");
        if let Some(limit) = profile.exceeded(&counts) {
            return Err(RuntimeError::Limit {
                name: profile.counts[limit.count].name.clone(),
                most: limit.most,
                found: counts[limit.count],
            });
        }
        let dims = profile.outputs.iter().enumerate().map(|(output, binding)| {
            profile
                .true_dims(output, &counts)
                .map_err(|(axis, count)| RuntimeError::Count {
                    name: binding.name.clone(),
                    axis,
                    most: binding.dims[axis],
                    count,
                })
        });
        dims.collect()
    }

    /// Puts inputs on the device, where they stay for any number of [`ExecutionContext::launch`],
    /// and uses the profile of their types.
    ///
    /// # Errors
    /// If inputs are of no profile.
    pub fn write_inputs(&mut self, inputs: &[HostTensor]) -> Result<(), RuntimeError> {
        let types: Vec<TensorType> = inputs.iter().map(HostTensor::ty).collect();
        if !self.profile().takes(&types) {
            self.use_profile(self.engine.profile_for(&types)?)?;
        }
        // The last copies out of the staging memory may still be queued.
        self.stream.synchronize()?;
        let staged = self.staged_inputs.bytes_mut();
        let places = &self.loaded.program.inputs;
        for (span, tensor) in spans(places).zip(inputs) {
            staged[span..span + tensor.n_bytes()].copy_from_slice(tensor.bytes());
        }
        self.queue_uploads()
    }

    /// Queues copies of the staged inputs to the device.
    pub(super) fn queue_uploads(&self) -> Result<(), RuntimeError> {
        let places = &self.loaded.program.inputs;
        for (span, place) in spans(places).zip(places) {
            self.stream
                .upload(&self.arena, place.offset, &self.staged_inputs, span, place.len)?;
        }
        Ok(())
    }

    /// Queues copies of the outputs to staging memory.
    pub(super) fn queue_downloads(&mut self) -> Result<(), RuntimeError> {
        self.queue_downloads_from(0)
    }

    /// As [`Self::queue_downloads`], of outputs and counts from number `first` on.
    fn queue_downloads_from(&mut self, first: usize) -> Result<(), RuntimeError> {
        let places = &self.loaded.program.outputs;
        for (span, place) in spans(places).zip(places).skip(first) {
            let memories = Memories {
                engine: &self.engine,
                loaded: &self.loaded,
                arena: &self.arena,
                workspace: &self.workspace,
            };
            let memory = memories.memory(place.memory);
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
        self.record(self.profile)?;
        let recorded = self.graphs.last().expect("record() made it the last one");
        Ok(recorded.graph.launch(&self.stream)?)
    }

    /// As [`ExecutionContext::launch`], kernel by kernel instead of as a recorded graph.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn launch_kernels(&mut self) -> Result<(), RuntimeError> {
        Ok(self.memories().launch_all(&self.stream)?)
    }

    fn memories(&self) -> Memories<'_> {
        Memories {
            engine: &self.engine,
            loaded: &self.loaded,
            arena: &self.arena,
            workspace: &self.workspace,
        }
    }

    /// Waits for what is queued.
    ///
    /// # Errors
    /// If the device reports a fault.
    pub fn synchronize(&self) -> Result<(), RuntimeError> {
        Ok(self.stream.synchronize()?)
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Waits for what is queued and gives the outputs of the last execution, of as many elements as it made.
    ///
    /// # Errors
    /// If the device reports a fault, or counts more than an output can hold.
    pub fn read_outputs(&mut self) -> Result<Vec<HostTensor>, RuntimeError> {
        self.queue_downloads()?;
        self.stream.synchronize()?;
        let staged = self.staged_outputs.bytes();
        let places = &self.loaded.program.outputs;
        let dims = self.staged_dims()?;
        let outputs = spans(places)
            .zip(places)
            .zip(&self.profile().outputs)
            .zip(&dims)
            .map(|(((span, place), binding), dims)| {
                HostTensor::from_bytes(binding.dtype, &binding.dims, &staged[span..span + place.len])
                    .expect("validate() compared the sizes of outputs and their places")
                    .first(dims)
            });
        Ok(outputs.collect())
    }

    /// Microseconds on the device of each of `n` executions, one after the other.
    ///
    /// # Errors
    /// If the device reports a fault.
    pub fn time_us(&mut self, n: usize) -> Result<Vec<f64>, RuntimeError> {
        let context = Arc::clone(&self.engine.context);
        let mut events = Vec::with_capacity(n + 1);
        for _ in 0..=n {
            events.push(Event::new(&context)?);
        }
        events[0].record(&self.stream)?;
        for event in &events[1..] {
            self.launch()?;
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
        let launch = &self.program().launches[launch];
        let memories = self.memories();
        let graph = GraphExec::record(&self.stream, |stream| {
            (0..n).try_for_each(|_| memories.launch(stream, launch, memories.begin()))
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
    loaded: &'a LoadedProgram,
    arena: &'a DeviceMemory,
    workspace: &'a DeviceMemory,
}

impl<'a> Memories<'a> {
    fn memory(&self, memory: Memory) -> &'a DeviceMemory {
        match memory {
            Memory::Arena => self.arena,
            Memory::Weights => &self.engine.weights,
            Memory::Workspace => self.workspace,
        }
    }

    /// All launches one after the other.
    fn launch_all(&self, stream: &Stream) -> Result<(), CudaError> {
        let mut launches = self.loaded.program.launches.iter();
        launches.try_for_each(|launch| self.launch(stream, launch, self.begin()))
    }

    /// Every launch on its own stream; all of them begin and end with `stream`.
    fn launch_branches(&self, stream: &Stream, branches: &Branches) -> Result<(), CudaError> {
        branches.part(stream)?;
        for (number, launch) in self.loaded.program.launches.iter().enumerate() {
            let begin = branches.begin(number, stream)?.unwrap_or_else(|| self.begin());
            self.launch(branches.stream(number, stream), launch, begin)?;
            branches.end(number, stream)?;
        }
        branches.meet(stream)
    }

    /// When a launch may begin that needs nothing of other streams.
    fn begin(&self) -> Begin {
        if self.loaded.program.kernels_wait {
            Begin::WhenAllowed
        } else {
            Begin::AfterPredecessors
        }
    }

    fn launch(&self, stream: &Stream, launch: &Launch, begin: Begin) -> Result<(), CudaError> {
        let args: Vec<KernelArg> = launch
            .args
            .iter()
            .map(|arg| {
                Ok(match arg {
                    Arg::Reads(place) | Arg::Writes(place) => KernelArg::Address(self.address(place)),
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
        self.loaded.functions[launch.kernel].launch(stream, &geometry, begin, &args)
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
        self.memory(place.memory).address() + place.offset as u64
    }
}

fn check_buffers(bindings: &[Binding], buffers: &[&DeviceMemory]) -> Result<(), RuntimeError> {
    if bindings.len() != buffers.len() {
        return Err(RuntimeError::BufferCount {
            wanted: bindings.len(),
            found: buffers.len(),
        });
    }
    let wrong = bindings
        .iter()
        .zip(buffers)
        .find(|(binding, buffer)| binding.ty().n_bytes() != buffer.len());
    match wrong {
        None => Ok(()),
        Some((binding, buffer)) => Err(RuntimeError::BufferSize {
            name: binding.name.clone(),
            wanted: binding.ty().n_bytes(),
            found: buffer.len(),
        }),
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
