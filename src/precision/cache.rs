//! `TensorRT`'s calibration cache: a header line, then `tensor: scale` with the bits of an `f32` in hex.
//!
//! ```text
//! TRT-8510-EntropyCalibration2
//! image: 3c010a14
//! conv1: 3d4ccccd
//! ```
//! The scale is that of a symmetric `i8`: the largest size over 127. Versions differ in the header
//! alone, which is therefore not compared with ours.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::method::Method;
use super::number::Number;

/// The version part of headers that are written here.
const VERSION: &str = "8510";

/// A cache that cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CacheError {
    #[error("its first line is `{found}`, expected one like `TRT-8510-EntropyCalibration2`")]
    Header { found: String },
    #[error("line {line} is `{found}`, expected `tensor: 3c010a14`")]
    Line { line: usize, found: String },
    #[error("line {line}: the scale of `{tensor}` is {scale}, expected a finite number that is not negative")]
    Scale { line: usize, tensor: String, scale: f32 },
}

/// Scales by tensor name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cache {
    /// The first line, as it was read or is to be written.
    pub header: String,
    pub scales: BTreeMap<String, f32>,
}

impl Cache {
    /// The cache of ranges chosen by `method`; what is not symmetric is widened to be so.
    pub fn of(ranges: &BTreeMap<String, (f64, f64)>, method: Method) -> Self {
        let calibrator = match method {
            Method::MinMax => "MinMaxCalibration",
            Method::Entropy => "EntropyCalibration2",
            // TensorRT's own name for what clips a share of the values.
            Method::Percentile(_) | Method::Mse => "LegacyCalibration",
        };
        let scale = |&range: &(f64, f64)| Number::Int8.scaling(range).scale;
        Cache {
            header: format!("TRT-{VERSION}-{calibrator}"),
            scales: ranges
                .iter()
                .map(|(name, range)| (name.clone(), scale(range)))
                .collect(),
        }
    }

    /// Least and greatest value by tensor.
    pub fn ranges(&self) -> BTreeMap<String, (f64, f64)> {
        let range = |&scale: &f32| (-127.0 * f64::from(scale), 127.0 * f64::from(scale));
        self.scales
            .iter()
            .map(|(name, scale)| (name.clone(), range(scale)))
            .collect()
    }

    /// Whether a file that begins so may be a cache.
    pub fn is_like(text: &[u8]) -> bool {
        text.starts_with(b"TRT-")
    }

    /// Reads a cache of any version.
    ///
    /// # Errors
    /// If the header or a line is not of the format.
    pub fn parse(text: &str) -> Result<Self, CacheError> {
        let mut lines = text.lines().enumerate();
        let header = lines.next().map_or("", |(_, line)| line).trim();
        if !is_header(header) {
            return Err(CacheError::Header {
                found: header.to_owned(),
            });
        }
        let mut scales = BTreeMap::new();
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let (tensor, scale) = entry(line).ok_or_else(|| CacheError::Line {
                line: number + 1,
                found: line.to_owned(),
            })?;
            if !scale.is_finite() || scale < 0.0 {
                return Err(CacheError::Scale {
                    line: number + 1,
                    tensor: tensor.to_owned(),
                    scale,
                });
            }
            scales.insert(tensor.to_owned(), scale);
        }
        Ok(Cache {
            header: header.to_owned(),
            scales,
        })
    }

    /// The text of the file.
    pub fn print(&self) -> String {
        let mut text = format!("{}\n", self.header);
        for (name, scale) in &self.scales {
            let _ = writeln!(text, "{name}: {:08x}", scale.to_bits());
        }
        text
    }
}

/// `TRT-<version>-<calibrator>`; the version is digits, in some releases with dots.
fn is_header(line: &str) -> bool {
    let mut parts = line.splitn(3, '-');
    let (Some("TRT"), Some(version), Some(calibrator)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    !version.is_empty()
        && version.chars().all(|c| c.is_ascii_digit() || c == '.')
        && calibrator.contains("Calibration")
}

/// Names may hold colons and blanks, scales may not.
fn entry(line: &str) -> Option<(&str, f32)> {
    let (name, hex) = line.rsplit_once(':')?;
    let hex = hex.trim();
    if name.is_empty() || hex.is_empty() || hex.len() > 8 {
        return None;
    }
    Some((name, f32::from_bits(u32::from_str_radix(hex, 16).ok()?)))
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "bits are kept")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let ranges: BTreeMap<String, (f64, f64)> = [
            ("image", (-1.0, 1.0)),
            ("a: b", (0.0, 6.0)),
            ("(Unnamed Layer* 12) [Shuffle]_output", (-3.5, 0.25)),
            ("zeros", (0.0, 0.0)),
        ]
        .map(|(name, range)| (name.to_owned(), range))
        .into();
        let cache = Cache::of(&ranges, Method::Entropy);
        assert_eq!(Cache::parse(&cache.print()).unwrap(), cache);
        assert_eq!(cache.print(), Cache::parse(&cache.print()).unwrap().print());
        let (low, high) = cache.ranges()["a: b"];
        assert!((high - 6.0).abs() < 1e-6 && (low + 6.0).abs() < 1e-6);
    }

    #[test]
    fn headers_of_all_versions_are_accepted() {
        for header in [
            "TRT-5105-EntropyCalibration",
            "TRT-7103-EntropyCalibration2",
            "TRT-8510-MinMaxCalibration",
            "TRT-8601-LegacyCalibration",
            "TRT-100300-EntropyCalibration2",
            "TRT-10.9.0-EntropyCalibration2",
        ] {
            let text = format!("{header}\nx: 3c010a14\r\n\ny: 0\n");
            let cache = Cache::parse(&text).unwrap();
            assert_eq!(cache.header, header);
            assert_eq!(cache.scales["x"], f32::from_bits(0x3c01_0a14));
            assert_eq!(cache.scales["y"], 0.0);
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let message = |text: &str| Cache::parse(text).unwrap_err().to_string();
        assert!(message("").starts_with("its first line is ``"));
        assert!(message("calibration\n").contains("`calibration`"));
        assert_eq!(
            message("TRT-8510-EntropyCalibration2\nx 3c010a14\n"),
            "line 2 is `x 3c010a14`, expected `tensor: 3c010a14`"
        );
        assert!(message("TRT-8510-EntropyCalibration2\nx: 3c010a14\ny: 7fc00000\n").starts_with("line 3:"));
        assert!(message("TRT-8510-EntropyCalibration2\nx: bf800000\n").contains("is -1"));
    }
}
