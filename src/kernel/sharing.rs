//! What a launch costs where several executions share a device.
//!
//! An execution alone waits for its launches and nothing else. One of several also waits while blocks of
//! the others have the room that its own need: so each launch is charged with the time in which it takes the whole
//! device, once for every other execution.

use super::device::Device;
use super::source::{Launch, Variant};

/// Registers of a thread where its template does not estimate them.
const USUAL_REGISTERS: usize = 96;

/// Microseconds of a launch of `variant` in one of `n_contexts` executions that go on at the same time.
#[expect(clippy::cast_precision_loss, reason = "a few contexts")]
pub fn shared_us(variant: &Variant, launch: &Launch, n_contexts: usize, device: &Device) -> f64 {
    let others = n_contexts.saturating_sub(1) as f64;
    variant.predicted_us * (1.0 + others * share(variant, launch, device))
}

/// Share of the device that the blocks of a launch take, in `0..=1`.
fn share(variant: &Variant, launch: &Launch, device: &Device) -> f64 {
    let n_blocks: f64 = launch.grid.iter().map(|&extent| f64::from(extent)).product();
    let n_threads: u32 = launch.block.iter().product();
    let threads = (n_threads as usize).max(1);
    let registers = variant
        .registers
        .unwrap_or(USUAL_REGISTERS)
        .clamp(1, Device::registers_for(threads).max(1));
    let resident = device
        .blocks_per_sm(threads, registers, launch.smem_bytes as usize)
        .max(1);
    let resident = u32::try_from(resident).expect("an SM holds few blocks");
    (n_blocks / (f64::from(resident) * f64::from(device.n_sms))).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::source::Arch;
    use crate::kernel::templates::variant;

    fn device() -> &'static Device {
        Device::of(Arch {
            sm: 90,
            specific: true,
        })
    }

    #[test]
    fn an_execution_alone_is_charged_with_its_own_time() {
        let variant = variant("t", &[], 5.0);
        let whole = Launch::in_a_row(1000, 1024, 200 << 10);
        assert_eq!(shared_us(&variant, &whole, 1, device()), 5.0);
        assert_eq!(shared_us(&variant, &whole, 4, device()), 20.0);
    }

    #[test]
    fn what_leaves_room_is_charged_with_what_it_takes() {
        let n_sms = 132;
        let us = |blocks, threads, smem_bytes, registers| {
            let launch = Launch::in_a_row(blocks, threads, smem_bytes);
            let variant = variant("t", &[], 10.0).with_registers(registers);
            shared_us(&variant, &launch, 2, device())
        };
        // Four blocks of 56 KB, two of 64 warps' registers, one of all threads.
        assert_eq!(us(n_sms, 128, 56 << 10, 64), 12.5);
        assert_eq!(us(n_sms / 2, 128, 56 << 10, 64), 11.25);
        assert_eq!(us(n_sms, 256, 0, 128), 15.0);
        assert_eq!(us(n_sms, 1024, 0, 32), 15.0);
        assert_eq!(us(n_sms, 384, 0, 168), 20.0);
    }
}
