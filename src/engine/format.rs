//! The engine file, format version 2; version 1 is read too, see [`v1`].
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | magic `RTRTENG\n` |
//! | 8 | 4 | format version, little-endian |
//! | 12 | 4 | zero |
//! | 16 | 8 | length of the header in bytes, little-endian |
//! | 24 | 32 | SHA-256 of the header |
//! | 56 | n | header: [`Header`] as JSON, in declaration order |
//! | | | blobs, each at the next multiple of 256, zero bytes between; the last one ends the file |
//!
//! The header lists every blob with offset, length and SHA-256, so the digest at offset 24
//! pins the whole file. Nothing in the file is executed on the host. The reader checks every
//! length before it uses it, then [`validate`] proves the launch table.

use std::fs;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{ALIGNMENT, Blob, Engine, EngineError, Header, v1, validate};
use crate::aside;

const MAGIC: [u8; 8] = *b"RTRTENG\n";
const VERSION: u32 = 2;
const PREAMBLE_BYTES: usize = 56;
/// Headers are a few hundred kilobytes; a larger one is an attack or an accident.
const MAX_HEADER_BYTES: usize = 256 << 20;

/// Length, offset from the first blob, and digest of each blob; [`write`] adds the header.
pub fn blob_table(blobs: &[Vec<u8>]) -> Vec<Blob> {
    let digests: Vec<String> = blobs.par_iter().map(|blob| hex(&Sha256::digest(blob))).collect();
    let mut offset = 0;
    blobs
        .iter()
        .zip(digests)
        .map(|(blob, sha256)| {
            let entry = Blob {
                offset: offset as u64,
                len: blob.len() as u64,
                sha256,
            };
            offset = (offset + blob.len()).next_multiple_of(ALIGNMENT);
            entry
        })
        .collect()
}

/// Writes `engine` to `into`.
///
/// # Errors
/// As the writer's.
pub fn write(engine: &Engine, mut into: impl Write) -> std::io::Result<()> {
    let header = serde_json::to_vec(&engine.header)?;
    into.write_all(&MAGIC)?;
    into.write_all(&VERSION.to_le_bytes())?;
    into.write_all(&0u32.to_le_bytes())?;
    into.write_all(&(header.len() as u64).to_le_bytes())?;
    into.write_all(&Sha256::digest(&header))?;
    into.write_all(&header)?;
    let mut position = PREAMBLE_BYTES + header.len();
    for blob in &engine.blobs {
        let padding = position.next_multiple_of(ALIGNMENT) - position;
        into.write_all(&[0; ALIGNMENT][..padding])?;
        into.write_all(blob)?;
        position += padding + blob.len();
    }
    Ok(())
}

/// Saves `engine` as `path`: written aside first, so that a failure leaves nothing behind.
///
/// # Errors
/// If the folder cannot be written.
pub fn save(engine: &Engine, path: &Path) -> Result<(), EngineError> {
    let failed = |source| EngineError::File {
        action: "write",
        path: path.to_owned(),
        source,
    };
    aside::write_aside(path, |into| write(engine, into)).map_err(failed)
}

/// Reads and validates the engine file `path`.
///
/// # Errors
/// If the file cannot be read, or is not a valid engine.
pub fn load(path: &Path) -> Result<Engine, EngineError> {
    let bytes = fs::read(path).map_err(|source| EngineError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    read(&bytes)
}

/// Whether `bytes` begin like an engine file.
pub fn is_engine(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Reads and validates an engine.
///
/// # Errors
/// If the bytes are not a valid engine: wrong magic or version, a length that does not fit,
/// a digest that differs, or a launch table that reaches outside its memories.
pub fn read(bytes: &[u8]) -> Result<Engine, EngineError> {
    let header = read_header(bytes)?;
    let (header, end) = header;
    let blobs = read_blobs(bytes, &header, end)?;
    let engine = Engine { header, blobs };
    validate::validate(&engine)?;
    Ok(engine)
}

/// The header, and where it ends.
fn read_header(bytes: &[u8]) -> Result<(Header, usize), EngineError> {
    if !is_engine(bytes) {
        return Err(EngineError::NotAnEngine);
    }
    let damaged = |what: &str| EngineError::Damaged(what.to_owned());
    let preamble = bytes
        .get(..PREAMBLE_BYTES)
        .ok_or_else(|| damaged("it ends within the preamble"))?;
    let version = u32::from_le_bytes(array(&preamble[8..12]));
    if version != VERSION && version != v1::VERSION {
        return Err(EngineError::Version {
            found: version,
            known: VERSION,
        });
    }
    if preamble[12..16] != [0; 4] {
        return Err(damaged("reserved bytes of the preamble are not zero"));
    }
    let len = usize::try_from(u64::from_le_bytes(array(&preamble[16..24])))
        .ok()
        .filter(|&len| len <= MAX_HEADER_BYTES)
        .ok_or_else(|| damaged("the header claims an absurd length"))?;
    let end = PREAMBLE_BYTES + len;
    let text = bytes
        .get(PREAMBLE_BYTES..end)
        .ok_or_else(|| damaged("it ends within the header"))?;
    if Sha256::digest(text).as_slice() != &preamble[24..56] {
        return Err(damaged("the digest of the header differs"));
    }
    let header = match version {
        v1::VERSION => v1::header(text),
        _ => serde_json::from_slice(text),
    };
    let header =
        header.map_err(|error| EngineError::Invalid(format!("the header cannot be read: {error}")))?;
    Ok((header, end))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller took a slice of this length")
}

/// Copies the blobs out, proving that they cover the file without holes.
fn read_blobs(bytes: &[u8], header: &Header, header_end: usize) -> Result<Vec<Vec<u8>>, EngineError> {
    let damaged = |what: String| EngineError::Damaged(what);
    let first = header_end.next_multiple_of(ALIGNMENT);
    let mut end = header_end;
    let mut spans = Vec::with_capacity(header.blobs.len());
    for (number, blob) in header.blobs.iter().enumerate() {
        let start = end.next_multiple_of(ALIGNMENT);
        let stated = usize::try_from(blob.offset)
            .ok()
            .and_then(|offset| offset.checked_add(first));
        if stated != Some(start) {
            return Err(damaged(format!("blob {number} is not where it should be")));
        }
        let stop = usize::try_from(blob.len)
            .ok()
            .and_then(|len| start.checked_add(len))
            .filter(|&stop| stop <= bytes.len())
            .ok_or_else(|| damaged(format!("it ends within blob {number}")))?;
        if bytes[end..start].iter().any(|&byte| byte != 0) {
            return Err(damaged(format!("bytes before blob {number} are not zero")));
        }
        spans.push((number, start..stop, &blob.sha256));
        end = stop;
    }
    if end != bytes.len() {
        return Err(damaged("there are bytes after the last blob".to_owned()));
    }
    spans
        .into_par_iter()
        .map(|(number, span, sha256)| {
            let content = &bytes[span];
            if hex(&Sha256::digest(content)) != *sha256 {
                return Err(damaged(format!("the digest of blob {number} differs")));
            }
            Ok(content.to_vec())
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("strings can always grow");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    fn bytes_of(engine: &Engine) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(engine, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_is_read_back() {
        let engine = example(&["sm_87", "sm_90a"]);
        assert_eq!(read(&bytes_of(&engine)).unwrap(), engine);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = bytes_of(&example(&["sm_87"]));
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err(), "{len} bytes were accepted");
        }
    }

    #[test]
    fn every_flipped_byte_is_an_error() {
        let mut bytes = bytes_of(&example(&["sm_87"]));
        for position in 0..bytes.len() {
            bytes[position] ^= 0x41;
            assert!(read(&bytes).is_err(), "a change at {position} was accepted");
            bytes[position] ^= 0x41;
        }
    }

    #[test]
    fn appended_bytes_are_an_error() {
        let mut bytes = bytes_of(&example(&["sm_87"]));
        bytes.push(0);
        assert!(matches!(read(&bytes), Err(EngineError::Damaged(_))));
    }

    #[test]
    fn saving_leaves_nothing_behind_where_it_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.engine");
        save(&example(&["sm_87"]), &path).unwrap();
        assert_eq!(load(&path).unwrap(), example(&["sm_87"]));
        let missing = folder.path().join("missing/b.engine");
        assert!(matches!(
            save(&example(&["sm_87"]), &missing),
            Err(EngineError::File { .. })
        ));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
