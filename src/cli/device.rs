//! Where things run: `cpu` or `cuda:N`.

use super::doctor;
use super::failure::Failure;

/// What `--device` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The reference interpreter.
    Cpu,
    /// GPU number `n`.
    Cuda(usize),
}

impl Device {
    /// The device of an argument; without one the first GPU, else the CPU.
    pub fn of(argument: Option<&str>) -> Result<Self, Failure> {
        let text = argument.map_or_else(doctor::best_device, str::to_owned);
        let ordinal = match text.as_str() {
            "cpu" => return Ok(Device::Cpu),
            "cuda" => Some(0),
            other => other
                .strip_prefix("cuda")
                .map(|rest| rest.strip_prefix(':').unwrap_or(rest))
                .and_then(|number| number.parse().ok()),
        };
        ordinal
            .map(Device::Cuda)
            .ok_or_else(|| Failure::usage(format!("`--device {text}`: expected `cpu` or `cuda:N`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_cpu_or_numbered() {
        assert_eq!(Device::of(Some("cpu")).unwrap(), Device::Cpu);
        assert_eq!(Device::of(Some("cuda")).unwrap(), Device::Cuda(0));
        assert_eq!(Device::of(Some("cuda:3")).unwrap(), Device::Cuda(3));
        for wrong in ["gpu", "cuda:x", "cuda:-1", "cuda:", ""] {
            assert_eq!(Device::of(Some(wrong)).unwrap_err().exit, 2, "{wrong}");
        }
    }
}
