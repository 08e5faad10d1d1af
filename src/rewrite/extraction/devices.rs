//! Rates of reference devices, for predicting times where none can be measured.
//!
//! Numbers are dense rates from data sheets; copy bandwidth is what a plain copy reaches.
//! Compiling for an arch without a device at hand assumes the reference device of that arch.

use crate::ir::DType;

/// What the analytic model knows of a device. Rates are peaks; times from them are lower
/// bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceRates {
    pub name: &'static str,
    /// Compute capability times ten: 75, 80, .. 120.
    pub sm: u32,
    pub n_sms: u32,
    /// DRAM copy bandwidth.
    pub bandwidth_gbps: f64,
    pub l2_mb: f64,
    /// Bandwidth of data that lies in L2.
    pub l2_gbps: f64,
    /// Matrix rates: f16/bf16 with f32 accumulation, and 8-bit kinds (0 where there are none).
    pub half_tflops: f64,
    pub byte_tflops: f64,
    /// Scalar rates.
    pub f32_tflops: f64,
    pub f64_tflops: f64,
    /// A dependent kernel in a replayed CUDA graph, beyond its own work.
    pub launch_us: f64,
}

impl DeviceRates {
    /// The reference device of an arch: the newest one that is not newer than `sm`.
    pub fn for_sm(sm: u32) -> &'static DeviceRates {
        let fitting = DEVICES.iter().rev().find(|device| device.sm <= sm);
        fitting.unwrap_or(&DEVICES[0])
    }

    /// Every reference device, by arch.
    pub fn all() -> &'static [DeviceRates] {
        &DEVICES
    }

    /// Multiply-add rate of a matrix product on elements of `dtype`, in flops per microsecond.
    pub fn matrix_rate(&self, dtype: DType) -> f64 {
        let tflops = match dtype {
            DType::F16 | DType::BF16 => self.half_tflops,
            DType::F64 | DType::I64 | DType::U64 => self.f64_tflops,
            DType::I8 | DType::U8 | DType::F8E4M3 | DType::F8E5M2 if self.byte_tflops > 0.0 => {
                self.byte_tflops
            }
            DType::F32
            | DType::I32
            | DType::U32
            | DType::I16
            | DType::U16
            | DType::I8
            | DType::U8
            | DType::I4
            | DType::U4
            | DType::I2
            | DType::U2
            | DType::F8E4M3
            | DType::F8E4M3Fnuz
            | DType::F8E5M2
            | DType::F8E5M2Fnuz
            | DType::F8E8M0
            | DType::F4E2M1
            | DType::Bool => self.f32_tflops,
        };
        tflops * 1e6
    }

    /// Scalar operations per microsecond.
    pub fn scalar_rate(&self) -> f64 {
        self.f32_tflops * 1e6
    }

    /// Microseconds to move `bytes`, which are read or written once by one kernel.
    pub fn move_us(&self, bytes: f64) -> f64 {
        // A kernel's operands were written just before it ran: what fits in half of L2 is there.
        self.stay_us(bytes, bytes)
    }

    /// Microseconds to read `bytes` of weights. Since the kernel ran last, all others have read
    /// theirs, `all` bytes together.
    pub fn weights_us(&self, bytes: f64, all: f64) -> f64 {
        self.stay_us(bytes, all.max(bytes))
    }

    /// Microseconds to move `bytes`, which share L2 with `beside`, themselves among them.
    fn stay_us(&self, bytes: f64, beside: f64) -> f64 {
        let fits = beside < self.l2_mb * 0.5e6;
        bytes / (1e3 * if fits { self.l2_gbps } else { self.bandwidth_gbps })
    }
}

/// By rising arch; the last one of an arch is its reference.
static DEVICES: [DeviceRates; 9] = [
    DeviceRates {
        name: "T4",
        sm: 75,
        n_sms: 40,
        bandwidth_gbps: 280.0,
        l2_mb: 4.0,
        l2_gbps: 900.0,
        half_tflops: 65.0,
        byte_tflops: 130.0,
        f32_tflops: 8.1,
        f64_tflops: 0.25,
        launch_us: 2.5,
    },
    DeviceRates {
        name: "A100",
        sm: 80,
        n_sms: 108,
        bandwidth_gbps: 1800.0,
        l2_mb: 40.0,
        l2_gbps: 4500.0,
        half_tflops: 312.0,
        byte_tflops: 624.0,
        f32_tflops: 19.5,
        f64_tflops: 9.7,
        launch_us: 1.8,
    },
    DeviceRates {
        name: "A10",
        sm: 86,
        n_sms: 72,
        bandwidth_gbps: 540.0,
        l2_mb: 6.0,
        l2_gbps: 1800.0,
        half_tflops: 125.0,
        byte_tflops: 250.0,
        f32_tflops: 31.2,
        f64_tflops: 0.49,
        launch_us: 1.8,
    },
    DeviceRates {
        name: "AGX Orin",
        sm: 87,
        n_sms: 16,
        bandwidth_gbps: 180.0,
        l2_mb: 4.0,
        l2_gbps: 600.0,
        half_tflops: 42.0,
        byte_tflops: 85.0,
        f32_tflops: 5.3,
        f64_tflops: 0.08,
        launch_us: 4.0,
    },
    DeviceRates {
        name: "L4",
        sm: 89,
        n_sms: 58,
        bandwidth_gbps: 270.0,
        l2_mb: 48.0,
        l2_gbps: 1500.0,
        half_tflops: 121.0,
        byte_tflops: 242.0,
        f32_tflops: 30.3,
        f64_tflops: 0.47,
        launch_us: 1.8,
    },
    DeviceRates {
        name: "H100",
        sm: 90,
        n_sms: 132,
        bandwidth_gbps: 3000.0,
        l2_mb: 50.0,
        l2_gbps: 5500.0,
        half_tflops: 800.0,
        byte_tflops: 1600.0,
        f32_tflops: 66.9,
        f64_tflops: 33.5,
        launch_us: 1.1,
    },
    DeviceRates {
        name: "H200",
        sm: 90,
        n_sms: 132,
        bandwidth_gbps: 4200.0,
        l2_mb: 60.0,
        l2_gbps: 5500.0,
        half_tflops: 800.0,
        byte_tflops: 1600.0,
        f32_tflops: 66.9,
        f64_tflops: 33.5,
        launch_us: 1.1,
    },
    DeviceRates {
        name: "B200",
        sm: 100,
        n_sms: 148,
        bandwidth_gbps: 7000.0,
        l2_mb: 126.0,
        l2_gbps: 9000.0,
        half_tflops: 2000.0,
        byte_tflops: 4000.0,
        f32_tflops: 80.0,
        f64_tflops: 40.0,
        launch_us: 1.1,
    },
    DeviceRates {
        name: "RTX 5090",
        sm: 120,
        n_sms: 170,
        bandwidth_gbps: 1600.0,
        l2_mb: 96.0,
        l2_gbps: 5000.0,
        half_tflops: 209.0,
        byte_tflops: 419.0,
        f32_tflops: 104.8,
        f64_tflops: 1.6,
        launch_us: 1.5,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arch_has_its_newest_reference() {
        assert_eq!(DeviceRates::for_sm(90).name, "H200");
        assert_eq!(DeviceRates::for_sm(87).name, "AGX Orin");
        assert_eq!(DeviceRates::for_sm(103).name, "B200");
        assert_eq!(DeviceRates::for_sm(53).name, "T4");
        assert!(DEVICES.windows(2).all(|pair| pair[0].sm <= pair[1].sm));
    }

    #[test]
    fn small_tensors_move_at_the_speed_of_l2() {
        let device = DeviceRates::for_sm(90);
        assert!(device.move_us(1e6) < device.move_us(1e9) / 1e3);
    }

    #[test]
    fn weights_stay_in_l2_where_all_of_them_do() {
        let device = DeviceRates::for_sm(87);
        assert!(device.weights_us(1e6, 1e6) < device.weights_us(1e6, 1e8));
        assert!((device.weights_us(1e6, 1e8) - device.weights_us(3e6, 1e8) / 3.0).abs() < 1e-9);
    }
}
