//! What is given up where device memory is bounded.

use super::{PipelineError, Settings};
use crate::engine::Engine;
use crate::plan::Thrift;

/// What `build` makes, giving up as little as the memory that `settings` allow takes, and what that is.
pub(super) fn within_memory(
    settings: &Settings,
    build: impl Fn(Thrift) -> Result<Engine, PipelineError>,
) -> Result<(Engine, Thrift), PipelineError> {
    let Some(most) = settings.max_memory else {
        return Ok((build(Thrift::None)?, Thrift::None));
    };
    let (mut least, mut kept) = (usize::MAX, 0);
    for thrift in [Thrift::None, Thrift::Order, Thrift::Workspace] {
        let engine = build(thrift)?;
        let bytes = engine.device_bytes();
        if bytes <= most {
            return Ok((engine, thrift));
        }
        least = least.min(bytes);
        kept = kept_bytes(&engine)?;
    }
    Err(PipelineError::Memory { most, least, kept })
}

/// Weights, and inputs and outputs, which are all there after the last launch.
fn kept_bytes(engine: &Engine) -> Result<usize, PipelineError> {
    let mut most = 0;
    for program in engine.header.every_program() {
        let ends = program?.live_bytes().and_then(|live| live.last().copied());
        most = most.max(ends.unwrap_or(0));
    }
    Ok(engine.header.weights_bytes() + most)
}
