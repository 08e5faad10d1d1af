//! CUDA graphs: work recorded once and launched as a whole.

use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys;

use super::context::{Context, warn_on_drop};
use super::error::{CudaError, check};
use super::stream::Stream;

/// An instantiated graph.
#[derive(Debug)]
pub struct GraphExec {
    context: Arc<Context>,
    handle: sys::CUgraphExec,
}

// SAFETY: graph handles are not bound to a thread; launches take `&self` but the driver
// forbids concurrent launches of one graph, which `!Sync` rules out.
unsafe impl Send for GraphExec {}

impl GraphExec {
    /// Records what `work` queues on `stream`, without executing it.
    ///
    /// The buffers and modules used must outlive the graph. `work` may not allocate,
    /// synchronise or copy pageable memory.
    pub fn record(
        stream: &Stream,
        work: impl FnOnce(&Stream) -> Result<(), CudaError>,
    ) -> Result<Self, CudaError> {
        let context = Arc::clone(stream.context());
        context.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is live and not capturing: only this function captures.
        check("cuStreamBeginCapture", unsafe {
            sys::cuStreamBeginCapture_v2(stream.handle, mode)
        })?;
        let worked = work(stream);
        // Capture must end whether `work` succeeded or not, else the stream stays unusable.
        let graph = CapturedGraph::end(stream);
        worked?;
        graph?.instantiate(context)
    }

    /// Queues one execution of the whole graph.
    pub fn launch(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: both handles are live.
        check("cuGraphLaunch", unsafe {
            sys::cuGraphLaunch(self.handle, stream.handle)
        })
    }

    /// Moves the graph to the device ahead of its first launch.
    pub fn upload(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: both handles are live.
        check("cuGraphUpload", unsafe {
            sys::cuGraphUpload(self.handle, stream.handle)
        })
    }
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        warn_on_drop(self.context.bind());
        // SAFETY: destroys the handle made by `instantiate`, once.
        warn_on_drop(check("cuGraphExecDestroy", unsafe {
            sys::cuGraphExecDestroy(self.handle)
        }));
    }
}

/// A recorded graph before instantiation.
struct CapturedGraph(sys::CUgraph);

impl CapturedGraph {
    fn end(stream: &Stream) -> Result<Self, CudaError> {
        let mut graph: sys::CUgraph = ptr::null_mut();
        // SAFETY: the stream is live and in capture mode.
        check("cuStreamEndCapture", unsafe {
            sys::cuStreamEndCapture(stream.handle, &raw mut graph)
        })?;
        Ok(CapturedGraph(graph))
    }

    fn instantiate(self, context: Arc<Context>) -> Result<GraphExec, CudaError> {
        let mut handle: sys::CUgraphExec = ptr::null_mut();
        // SAFETY: the graph is live until the end of this function.
        check("cuGraphInstantiate", unsafe {
            sys::cuGraphInstantiateWithFlags(&raw mut handle, self.0, 0)
        })?;
        Ok(GraphExec { context, handle })
    }
}

impl Drop for CapturedGraph {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: destroys the graph made by the capture, once.
            warn_on_drop(check("cuGraphDestroy", unsafe { sys::cuGraphDestroy(self.0) }));
        }
    }
}
