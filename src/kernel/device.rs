//! Rates of the device an architecture is tuned for, and analytic times.
//!
//! Sources and derivations of the numbers are listed in `templates/README.md`. A measured
//! time always replaces an analytic one; these only rank variants before they are compiled.

use super::source::Arch;

/// What the analytic model knows of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    pub name: &'static str,
    pub n_sms: u32,
    pub dram_gb_per_s: f64,
    pub l2_bytes: f64,
    pub l2_gb_per_s: f64,
    pub clock_ghz: f64,
    /// Floating-point operations per clock and SM with `f16` operands on tensor cores.
    pub tensor_flops_per_clk: f64,
    /// `f32` operations per clock and SM outside tensor cores.
    pub f32_flops_per_clk: f64,
    pub max_threads_per_sm: u32,
    pub max_blocks_per_sm: u32,
    pub smem_per_sm: u32,
    pub max_smem_per_block: u32,
}

const REGISTERS_PER_SM: usize = 65536;
/// Shared memory that the system takes for every block.
const RESERVED: usize = 1024;

impl Device {
    /// Blocks that an SM holds, of so many threads with so many registers each, and so much shared memory.
    pub fn blocks_per_sm(&self, threads: usize, registers: usize, smem_bytes: usize) -> usize {
        (REGISTERS_PER_SM / (registers.next_multiple_of(8) * threads).max(1))
            .min(self.smem_per_sm as usize / (smem_bytes + RESERVED))
            .min(self.max_threads_per_sm as usize / threads)
            .min(self.max_blocks_per_sm as usize)
    }

    /// Most registers of each of so many threads of a block.
    pub fn registers_for(threads: usize) -> usize {
        REGISTERS_PER_SM / threads
    }
}

/// Fixed cost of a dependent node of a CUDA graph, in microseconds.
pub const NODE_US: f64 = 1.2;

const T4: Device = Device {
    name: "T4",
    n_sms: 40,
    dram_gb_per_s: 320.0,
    l2_bytes: 4e6,
    l2_gb_per_s: 1200.0,
    clock_ghz: 1.35,
    tensor_flops_per_clk: 1024.0,
    f32_flops_per_clk: 128.0,
    max_threads_per_sm: 1024,
    max_blocks_per_sm: 16,
    smem_per_sm: 64 << 10,
    max_smem_per_block: 64 << 10,
};

const A100: Device = Device {
    name: "A100",
    n_sms: 108,
    dram_gb_per_s: 2039.0,
    l2_bytes: 40e6,
    l2_gb_per_s: 5500.0,
    clock_ghz: 1.41,
    tensor_flops_per_clk: 2048.0,
    f32_flops_per_clk: 128.0,
    max_threads_per_sm: 2048,
    max_blocks_per_sm: 32,
    smem_per_sm: 164 << 10,
    max_smem_per_block: 163 << 10,
};

const A10: Device = Device {
    name: "A10",
    n_sms: 72,
    dram_gb_per_s: 600.0,
    l2_bytes: 6e6,
    l2_gb_per_s: 2500.0,
    clock_ghz: 1.7,
    tensor_flops_per_clk: 1024.0,
    f32_flops_per_clk: 256.0,
    max_threads_per_sm: 1536,
    max_blocks_per_sm: 16,
    smem_per_sm: 100 << 10,
    max_smem_per_block: 99 << 10,
};

const ORIN: Device = Device {
    name: "AGX Orin",
    n_sms: 16,
    dram_gb_per_s: 204.8,
    l2_bytes: 4e6,
    l2_gb_per_s: 800.0,
    clock_ghz: 1.3,
    tensor_flops_per_clk: 2048.0,
    f32_flops_per_clk: 256.0,
    max_threads_per_sm: 1536,
    max_blocks_per_sm: 16,
    smem_per_sm: 164 << 10,
    max_smem_per_block: 163 << 10,
};

const L4: Device = Device {
    name: "L4",
    n_sms: 58,
    dram_gb_per_s: 300.0,
    l2_bytes: 48e6,
    l2_gb_per_s: 2500.0,
    clock_ghz: 1.7,
    tensor_flops_per_clk: 1024.0,
    f32_flops_per_clk: 256.0,
    max_threads_per_sm: 1536,
    max_blocks_per_sm: 24,
    smem_per_sm: 100 << 10,
    max_smem_per_block: 99 << 10,
};

const H200: Device = Device {
    name: "H200",
    n_sms: 132,
    dram_gb_per_s: 4300.0,
    l2_bytes: 50e6,
    l2_gb_per_s: 8000.0,
    clock_ghz: 1.75,
    tensor_flops_per_clk: 4096.0,
    f32_flops_per_clk: 256.0,
    max_threads_per_sm: 2048,
    max_blocks_per_sm: 32,
    smem_per_sm: 228 << 10,
    max_smem_per_block: 227 << 10,
};

const B200: Device = Device {
    name: "B200",
    n_sms: 148,
    dram_gb_per_s: 7600.0,
    l2_bytes: 126e6,
    l2_gb_per_s: 12000.0,
    clock_ghz: 1.85,
    tensor_flops_per_clk: 8192.0,
    f32_flops_per_clk: 256.0,
    max_threads_per_sm: 2048,
    max_blocks_per_sm: 32,
    smem_per_sm: 228 << 10,
    max_smem_per_block: 227 << 10,
};

const RTX_5090: Device = Device {
    name: "RTX 5090",
    n_sms: 170,
    dram_gb_per_s: 1790.0,
    l2_bytes: 96e6,
    l2_gb_per_s: 6000.0,
    clock_ghz: 2.4,
    tensor_flops_per_clk: 1024.0,
    f32_flops_per_clk: 256.0,
    max_threads_per_sm: 1536,
    max_blocks_per_sm: 24,
    smem_per_sm: 100 << 10,
    max_smem_per_block: 99 << 10,
};

impl Device {
    /// The reference device of an architecture; of the nearest older one for unknown ones.
    pub fn of(arch: Arch) -> &'static Device {
        match arch.sm {
            0..=79 => &T4,
            80..=85 => &A100,
            86 => &A10,
            87..=88 => &ORIN,
            89 => &L4,
            90..=99 => &H200,
            100..=119 => &B200,
            _ => &RTX_5090,
        }
    }

    /// Microseconds to move `bytes`: from L2 where they fit well, from DRAM elsewhere.
    pub fn memory_us(&self, bytes: f64) -> f64 {
        let rate = if bytes < self.l2_bytes * 0.25 {
            self.l2_gb_per_s * 0.6
        } else {
            self.dram_gb_per_s * 0.9
        };
        bytes / (rate * 1e3)
    }

    /// The same for a kernel of many blocks that reads what others have just written, which it finds in L2 if that
    /// holds all of it.
    pub fn passed_on_us(&self, bytes: f64) -> f64 {
        if bytes < self.l2_bytes * 0.8 {
            bytes / (self.l2_gb_per_s * 0.9 * 1e3)
        } else {
            self.memory_us(bytes)
        }
    }

    /// Share of the device that `n_blocks` of `threads` keep busy, in `0..=1`: memory-bound
    /// kernels reach full rate at about a thousand threads per SM.
    pub fn fill(&self, n_blocks: f64, threads: f64) -> f64 {
        let wanted = f64::from(self.n_sms) * f64::from(self.max_threads_per_sm.min(1024));
        (n_blocks * threads / wanted).clamp(0.01, 1.0)
    }
}
