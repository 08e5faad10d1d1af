//! Headers of format version 2: nothing is said of when tensors are alive. The file has no room for a
//! signature, and digests of blobs are plain SHA-256s.

use serde_json::Value;

use super::Header;

pub const VERSION: u32 = 2;

/// The header as it is now.
///
/// # Errors
/// If the text is no header of version 2.
pub fn header(text: &[u8]) -> Result<Header, serde_json::Error> {
    upgraded(serde_json::from_slice(text)?)
}

/// What version 2 says, as it is said now: what came later may be left out.
///
/// # Errors
/// If it is no header of version 2.
pub fn upgraded(header: Value) -> Result<Header, serde_json::Error> {
    serde_json::from_value(header)
}

#[cfg(test)]
mod tests {
    use super::super::{read, write};

    /// A file that version 0.1.0 wrote, its weights zeroed and its kernels cut short.
    const FILE: &[u8] = include_bytes!("../../tests/engines/v2.engine");

    #[test]
    fn files_of_version_2_are_read() {
        let engine = read(FILE).unwrap();
        let header = &engine.header;
        assert_eq!(header.archs(), ["sm_80", "sm_90a"]);
        assert_eq!(header.profiles[1].inputs[0].dims, [4, 1, 8, 8]);
        assert!(header.programs.iter().all(|program| program.tensors.is_none()));
    }

    #[test]
    fn files_of_version_2_are_saved_as_of_this_version() {
        let engine = read(FILE).unwrap();
        let mut bytes = Vec::new();
        write(&engine, &mut bytes).unwrap();
        assert_eq!(read(&bytes).unwrap(), engine);
    }
}
