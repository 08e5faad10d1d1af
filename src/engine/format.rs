//! The engine file, format version 4; versions 1 to 3 are read too, see `v1.rs`, `v2.rs` and `v3.rs`.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | magic `RTRTENG\n` |
//! | 8 | 4 | format version, little-endian |
//! | 12 | 4 | zero |
//! | 16 | 8 | length of the header in bytes, little-endian |
//! | 24 | 32 | SHA-256 of the header |
//! | 56 | 96 | ed25519 public key and signature of the bytes before, or zero: [`signature`] |
//! | 152 | n | header: [`Header`] as JSON, in declaration order |
//! | | | blobs, each at the next multiple of 256, zero bytes between; the last one ends the file |
//!
//! Files of several programs say what launches compute in a table (`told.rs`). Programs of a range are formulas of
//! its extents ([`shared`](super::shared)). The header lists every blob with offset, length and digest (`pages.rs`),
//! so the digest at offset 24 pins the whole file, and so does the signature. Weights that were stripped are listed, and not in the
//! file. Blobs are weights, cubins, PTX, sources, and the graphs of problems, which only `tune` reads.
//! Nothing in the file is executed on the host. The reader checks the signature first, and every
//! length before it uses it; then [`validate`] proves the launch table.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::pages::{Hash, digests, plain_digests};
use super::signature::{self, PublicKey, SIGNATURE_BYTES, SecretKey};
use super::source::Source;
use super::{ALIGNMENT, Content, Engine, EngineError, Header, blob_table, told, v1, v2, v3, validate};
use crate::aside;
use crate::hex::hex;

const MAGIC: [u8; 8] = *b"RTRTENG\n";
const VERSION: u32 = 4;
/// What all versions begin with.
const PREAMBLE_BYTES: usize = 56;
/// Headers take 60 to 80 KB for each program of a large model; a larger one than this is an attack or an accident.
const MAX_HEADER_BYTES: usize = 256 << 20;

/// Writes `engine` to `into`.
///
/// # Errors
/// As the writer's, and if it has too many programs for one file.
pub fn write(engine: &Engine, into: impl Write) -> std::io::Result<()> {
    write_signed(engine, None, into)
}

/// As [`write()`], signed where there is a key.
///
/// # Errors
/// As the writer's.
pub fn write_signed(
    engine: &Engine,
    signer: Option<&SecretKey>,
    mut into: impl Write,
) -> std::io::Result<()> {
    let header = serde_json::to_vec(&*told::folded(&engine.header))?;
    check_size(header.len(), MAX_HEADER_BYTES, engine.header.programs.len())?;
    let mut preamble = MAGIC.to_vec();
    preamble.extend(VERSION.to_le_bytes());
    preamble.extend(0u32.to_le_bytes());
    preamble.extend((header.len() as u64).to_le_bytes());
    preamble.extend(Sha256::digest(&header));
    into.write_all(&preamble)?;
    into.write_all(&signer.map_or([0; SIGNATURE_BYTES], |key| key.sign(&preamble)))?;
    into.write_all(&header)?;
    let mut position = PREAMBLE_BYTES + SIGNATURE_BYTES + header.len();
    let stored = engine.blobs.iter().enumerate();
    for (_, blob) in stored.filter(|(number, _)| engine.header.is_stored(*number)) {
        let padding = position.next_multiple_of(ALIGNMENT) - position;
        into.write_all(&[0; ALIGNMENT][..padding])?;
        into.write_all(blob)?;
        position += padding + blob.len();
    }
    Ok(())
}

/// Refuses a header of `n_bytes` that no reader would take.
fn check_size(n_bytes: usize, most: usize, n_programs: usize) -> std::io::Result<()> {
    if n_bytes <= most {
        return Ok(());
    }
    Err(std::io::Error::other(format!(
        "what {n_programs} programs launch takes {n_bytes} bytes, of {most} that a file may have for it; compile an engine for each part of the range"
    )))
}

/// Saves `engine` as `path`: written aside first, so that a failure leaves nothing behind.
///
/// # Errors
/// If the folder cannot be written.
pub fn save(engine: &Engine, path: &Path) -> Result<(), EngineError> {
    save_signed(engine, None, path)
}

/// As [`save`], signed where there is a key.
///
/// # Errors
/// If the folder cannot be written.
pub fn save_signed(engine: &Engine, signer: Option<&SecretKey>, path: &Path) -> Result<(), EngineError> {
    let failed = |source| EngineError::File {
        action: "write",
        path: path.to_owned(),
        source,
    };
    aside::write_aside(path, |into| write_signed(engine, signer, into)).map_err(failed)
}

/// Reads and validates the engine file `path`.
///
/// # Errors
/// If the file cannot be read, or is not a valid engine.
pub fn load(path: &Path) -> Result<Engine, EngineError> {
    load_signed(path, None)
}

/// As [`load`]; where `signer` is somebody, only an engine of theirs.
///
/// # Errors
/// If the file cannot be read, is not a valid engine, or is not signed as it must be.
pub fn load_signed(path: &Path, signer: Option<&PublicKey>) -> Result<Engine, EngineError> {
    read_from(&Source::open(path)?, signer)
}

/// Whether somebody signed the engine file `path`.
///
/// # Errors
/// If it cannot be read, or is no engine.
pub fn is_signed(path: &Path) -> Result<bool, EngineError> {
    let source = Source::open(path)?;
    let head = source.read(0..source.len().min(PREAMBLE_BYTES + SIGNATURE_BYTES))?;
    // Older versions have no room for a signature.
    let version = Preamble::read(&source, None)?.version;
    Ok(version >= v3::VERSION && head[PREAMBLE_BYTES..].iter().any(|&byte| byte != 0))
}

/// Whether `bytes` begin like an engine file.
pub fn is_engine(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Reads and validates an engine.
///
/// # Errors
/// If the bytes are not a valid engine: wrong magic or version, a signature of something else, a
/// length that does not fit, a digest that differs, or a launch table that reaches outside its memories.
pub fn read(bytes: &[u8]) -> Result<Engine, EngineError> {
    read_signed(bytes, None)
}

/// As [`read`]; where `signer` is somebody, only an engine of theirs.
///
/// # Errors
/// If the bytes are not a valid engine, or not signed as they must be.
pub fn read_signed(bytes: &[u8], signer: Option<&PublicKey>) -> Result<Engine, EngineError> {
    read_from(&Source::Bytes(bytes), signer)
}

fn read_from(source: &Source, signer: Option<&PublicKey>) -> Result<Engine, EngineError> {
    let preamble = Preamble::read(source, signer)?;
    let mut header = preamble.header(source)?;
    let blobs = read_blobs(source, &header, &preamble)?;
    if preamble.version < v3::VERSION {
        header.blobs = blob_table(&blobs);
    }
    let engine = Engine { header, blobs };
    validate::validate(&engine)?;
    Ok(engine)
}

/// What the bytes in front of the header say.
struct Preamble {
    version: u32,
    /// Where the header is in the file.
    span: Range<usize>,
    digest: Hash,
}

impl Preamble {
    fn read(source: &Source, signer: Option<&PublicKey>) -> Result<Self, EngineError> {
        let head = source.read(0..source.len().min(PREAMBLE_BYTES + SIGNATURE_BYTES))?;
        if !is_engine(&head) {
            return Err(EngineError::NotAnEngine);
        }
        let bytes = head
            .get(..PREAMBLE_BYTES)
            .ok_or_else(|| damaged("it ends within the preamble"))?;
        let version = u32::from_le_bytes(array(&bytes[8..12]));
        let start = match version {
            v1::VERSION | v2::VERSION => {
                signature::unsigned(signer)?;
                PREAMBLE_BYTES
            }
            v3::VERSION | VERSION => {
                let signature = head.get(PREAMBLE_BYTES..PREAMBLE_BYTES + SIGNATURE_BYTES);
                let signature = signature.ok_or_else(|| damaged("it ends within the signature"))?;
                signature::check(bytes, &array(signature), signer)?;
                PREAMBLE_BYTES + SIGNATURE_BYTES
            }
            found => {
                let known = VERSION;
                return Err(EngineError::Version { found, known });
            }
        };
        if bytes[12..16] != [0; 4] {
            return Err(damaged("reserved bytes of the preamble are not zero"));
        }
        let len = usize::try_from(u64::from_le_bytes(array(&bytes[16..24])))
            .ok()
            .filter(|&len| len <= MAX_HEADER_BYTES)
            .ok_or_else(|| damaged("the header claims an absurd length"))?;
        if source.len() - start < len {
            return Err(damaged("it ends within the header"));
        }
        Ok(Preamble {
            version,
            span: start..start + len,
            digest: array(&bytes[24..56]),
        })
    }

    fn header(&self, source: &Source) -> Result<Header, EngineError> {
        let text = source.read(self.span.clone())?;
        if Hash::from(Sha256::digest(&text)) != self.digest {
            return Err(damaged("the digest of the header differs"));
        }
        let header = match self.version {
            v1::VERSION => v1::header(&text),
            v2::VERSION => v2::header(&text),
            v3::VERSION => v3::header(&text),
            _ => serde_json::from_slice(&text),
        };
        let unreadable = |error: String| EngineError::Invalid(format!("the header cannot be read: {error}"));
        told::unfolded(header.map_err(|error| unreadable(error.to_string()))?).map_err(unreadable)
    }
}

fn damaged(what: impl Into<String>) -> EngineError {
    EngineError::Damaged(what.into())
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller took a slice of this length")
}

/// The blobs, all in one buffer, with proof that they cover the file without holes and are what the header
/// lists. The buffer is as large as the file's rest, whatever the header claims.
fn read_blobs(source: &Source, header: &Header, preamble: &Preamble) -> Result<Vec<Content>, EngineError> {
    let spans = blob_spans(source.len(), header, preamble.span.end)?;
    let start = preamble.span.end;
    let whole = Arc::new(source.read(start..source.len())?);
    let mut end = start;
    let mut blobs = Vec::with_capacity(spans.len());
    for (number, span) in spans.into_iter().enumerate() {
        if whole[end - start..span.start - start]
            .iter()
            .any(|&byte| byte != 0)
        {
            return Err(damaged(format!("bytes before blob {number} are not zero")));
        }
        end = span.end;
        blobs.push(Content::part(&whole, span.start - start..span.end - start));
    }
    check_digests(&blobs, header, preamble.version)?;
    Ok(blobs)
}

/// Where every blob is in a file of `len` bytes; those that are not stored are empty.
fn blob_spans(len: usize, header: &Header, header_end: usize) -> Result<Vec<Range<usize>>, EngineError> {
    let first = header_end.next_multiple_of(ALIGNMENT);
    let mut end = header_end;
    let mut spans = Vec::with_capacity(header.blobs.len());
    for (number, blob) in header.blobs.iter().enumerate() {
        let start = end.next_multiple_of(ALIGNMENT);
        let offset = usize::try_from(blob.offset).ok();
        if offset.and_then(|offset| offset.checked_add(first)) != Some(start) {
            return Err(damaged(format!("blob {number} is not where it should be")));
        }
        if !header.is_stored(number) {
            spans.push(end..end);
            continue;
        }
        let own = usize::try_from(blob.len).ok();
        end = own
            .and_then(|own| start.checked_add(own))
            .filter(|&stop| stop <= len)
            .ok_or_else(|| damaged(format!("it ends within blob {number}")))?;
        spans.push(start..end);
    }
    if end != len {
        return Err(damaged("there are bytes after the last blob"));
    }
    Ok(spans)
}

fn check_digests(blobs: &[Content], header: &Header, version: u32) -> Result<(), EngineError> {
    let slices: Vec<&[u8]> = blobs.iter().map(|blob| &**blob).collect();
    let found = match version {
        v1::VERSION | v2::VERSION => plain_digests(&slices),
        _ => digests(&slices),
    };
    let stored = (0..blobs.len()).filter(|&number| header.is_stored(number));
    for number in stored {
        if hex(&found[number]) != header.blobs[number].sha256 {
            return Err(damaged(format!("the digest of blob {number} differs")));
        }
    }
    Ok(())
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
    fn headers_that_no_reader_takes_are_not_written() {
        assert!(check_size(100, 100, 3).is_ok());
        let error = check_size(101, 100, 3).unwrap_err().to_string();
        assert!(
            error.contains("3 programs") && error.contains("each part of the range"),
            "{error}"
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let engine = example(&["sm_87", "sm_90a"]);
        assert_eq!(read(&bytes_of(&engine)).unwrap(), engine);
    }

    #[test]
    fn files_of_this_version_stay_readable() {
        let engine = read(include_bytes!("../../tests/engines/v4_range.engine")).unwrap();
        let header = &engine.header;
        assert_eq!(header.archs(), ["sm_80", "sm_90a"]);
        assert_eq!((header.n_profiles(), header.n_programs()), (36, 72));
        assert_eq!(header.profile(35).unwrap().inputs[0].dims, [3, 12, 32]);
        for program in header.every_program() {
            let program = program.unwrap();
            assert!(
                program
                    .launches
                    .iter()
                    .all(|launch| !launch.nodes.is_empty() || !launch.rules.is_empty())
            );
        }
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
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    fn secret(seed: u8) -> SecretKey {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, [seed; 32]).unwrap();
        SecretKey::load(&path).unwrap()
    }

    #[test]
    fn a_signed_engine_is_read_by_those_who_trust_its_signer() {
        let engine = example(&["sm_87"]);
        let (own, other) = (secret(1), secret(2));
        let mut bytes = Vec::new();
        write_signed(&engine, Some(&own), &mut bytes).unwrap();
        assert_eq!(read_signed(&bytes, Some(&own.public())).unwrap(), engine);
        assert_eq!(read(&bytes).unwrap(), engine);
        let refused =
            |bytes: &[u8], signer: &SecretKey| read_signed(bytes, Some(&signer.public())).unwrap_err();
        assert!(matches!(refused(&bytes, &other), EngineError::OtherSigner { .. }));
        let unsigned = bytes_of(&engine);
        assert!(matches!(refused(&unsigned, &own), EngineError::Unsigned { .. }));
        let older = include_bytes!("../../tests/engines/v2.engine");
        assert!(matches!(refused(older, &own), EngineError::Unsigned { .. }));
    }

    #[test]
    fn a_signature_covers_every_byte() {
        let key = secret(1);
        let mut bytes = Vec::new();
        write_signed(&example(&["sm_87"]), Some(&key), &mut bytes).unwrap();
        for position in 0..bytes.len() {
            bytes[position] ^= 0x41;
            let read = read_signed(&bytes, Some(&key.public()));
            assert!(read.is_err(), "a change at {position} was accepted");
            bytes[position] ^= 0x41;
        }
        // A header that says something else, with a digest that fits: what only the signature notices.
        let mut forged = Vec::new();
        write(&example(&["sm_80"]), &mut forged).unwrap();
        let signature = PREAMBLE_BYTES..PREAMBLE_BYTES + SIGNATURE_BYTES;
        forged[signature.clone()].copy_from_slice(&bytes[signature]);
        let error = read_signed(&forged, Some(&key.public())).unwrap_err();
        assert!(matches!(error, EngineError::Forged), "{error}");
    }
}
