//! Headers of format version 3: programs of all shapes are listed.

use super::Header;

pub const VERSION: u32 = 3;

/// The header as it is now: what came later may be left out.
///
/// # Errors
/// If the text is no header of version 3.
pub fn header(text: &[u8]) -> Result<Header, serde_json::Error> {
    serde_json::from_slice(text)
}

#[cfg(test)]
mod tests {
    use super::super::{Code, read, write};

    #[test]
    fn files_of_version_3_are_read_and_saved_as_of_this_version() {
        let engine = read(include_bytes!("../../tests/engines/v3.engine")).unwrap();
        assert_eq!(engine.header.archs(), ["sm_80", "sm_90a"]);
        assert_eq!(engine.code_for(120, 1).map(|found| found.1), Some(Code::Ptx));
        let programs = &engine.header.programs;
        assert!(programs.iter().all(|program| program.tensors.is_some()));
        let mut bytes = Vec::new();
        write(&engine, &mut bytes).unwrap();
        assert_eq!(read(&bytes).unwrap(), engine);
    }

    #[test]
    fn files_of_version_3_that_state_problems_are_read() {
        let engine = read(include_bytes!("../../tests/engines/v3_problems.engine")).unwrap();
        let program = &engine.header.programs[0];
        assert!(!program.problems.is_empty());
        assert!(program.launches.iter().all(|launch| launch.task.is_some()));
    }
}
