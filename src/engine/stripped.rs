//! Engines without their weights, which a model gives back.
//!
//! A stripped engine keeps the digest of its weights, and of every tensor among them a fingerprint. Filling
//! it again needs all of these tensors, and gives what was stripped to the byte.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::blobs::{blob_table, lay_out};
use super::{ALIGNMENT, Arg, Content, Engine, EngineError, Fingerprint, Header, Memory, Place};
use crate::hex::hex;

/// The fingerprint of the bytes of a weight.
pub fn fingerprint(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// `engine` without its weights.
///
/// # Errors
/// If a program of a range cannot be computed.
pub fn strip(engine: &Engine) -> Result<Engine, EngineError> {
    let weights = engine.weights();
    let pieces = weight_places(&engine.header)?
        .into_iter()
        .map(|(offset, len)| Fingerprint {
            offset,
            len,
            sha256: fingerprint(&weights[offset..offset + len]),
        });
    let stripped = Some(pieces.collect());
    let mut engine = engine.clone();
    engine.header.stripped = stripped;
    engine.blobs[engine.header.weights] = Content::from(Vec::new());
    relist(&mut engine.header);
    Ok(engine)
}

/// Offset and length of every tensor among the weights, each once, but for those that others begin with.
fn weight_places(header: &Header) -> Result<BTreeMap<usize, usize>, EngineError> {
    let mut found: BTreeMap<usize, usize> = BTreeMap::new();
    for program in header.every_program() {
        let program = program?;
        let args = program.launches.iter().flat_map(|launch| &launch.args);
        let read = args.filter_map(|arg| match arg {
            Arg::Reads(place) | Arg::Writes(place) => Some(place),
            Arg::TensorMap(map) => Some(&map.place),
            Arg::I32(_) => None,
        });
        let places = read.chain(&program.outputs);
        let weights = places.filter(|place| place.memory == Memory::Weights);
        for &Place { offset, len, .. } in weights {
            let longest = found.entry(offset).or_default();
            *longest = len.max(*longest);
        }
    }
    Ok(found)
}

/// Offsets of the blobs that are in the file.
fn relist(header: &mut Header) {
    let stored: Vec<bool> = (0..header.blobs.len())
        .map(|blob| header.is_stored(blob))
        .collect();
    lay_out(&mut header.blobs, |blob| stored[blob]);
}

/// Checks that fingerprints cover the weights without overlap, but for padding.
///
/// # Errors
/// What does not hold.
pub fn check(header: &Header) -> Result<(), EngineError> {
    let Some(pieces) = &header.stripped else {
        return Ok(());
    };
    let mut end = 0usize;
    for piece in pieces {
        let is_next =
            end.next_multiple_of(ALIGNMENT) == piece.offset || (piece.len == 0 && piece.offset <= end);
        if !is_next {
            return Err(EngineError::Invalid(format!(
                "the stripped weight at {} is not where the one before ends",
                piece.offset
            )));
        }
        let stop = piece.offset.checked_add(piece.len);
        let stop = stop.filter(|&stop| stop <= header.weights_bytes());
        end = stop
            .ok_or_else(|| EngineError::Invalid("a stripped weight leaves the weights".to_owned()))?
            .max(end);
    }
    if header.weights_bytes() - end >= ALIGNMENT {
        return Err(EngineError::Invalid(
            "weights end without a fingerprint".to_owned(),
        ));
    }
    Ok(())
}

/// The whole engine, where `weights` has the bytes of its weights by fingerprint.
///
/// # Errors
/// If the engine has its weights, or some of them are missing.
pub fn refit(engine: &Engine, weights: &BTreeMap<String, Vec<u8>>) -> Result<Engine, EngineError> {
    let Some(pieces) = &engine.header.stripped else {
        return Err(EngineError::Refit("it has its weights".to_owned()));
    };
    let n_missing = pieces
        .iter()
        .filter(|piece| !weights.contains_key(&piece.sha256))
        .count();
    if n_missing > 0 {
        return Err(EngineError::Refit(format!(
            "{n_missing} of its {} weights are not what the model has with these settings; it takes the model and \
             the settings that it was compiled from",
            pieces.len()
        )));
    }
    let mut whole = Vec::new();
    for piece in pieces {
        whole.resize(whole.len().max(piece.offset), 0);
        // A tensor without elements lies within another.
        if piece.len > 0 {
            whole.extend_from_slice(&weights[&piece.sha256]);
        }
    }
    whole.resize(engine.header.weights_bytes(), 0);
    let number = engine.header.weights;
    let mut engine = engine.clone();
    let expected = engine.header.blobs[number].sha256.clone();
    engine.blobs[number] = whole.into();
    engine.header.stripped = None;
    engine.header.blobs = blob_table(&engine.blobs);
    if engine.header.blobs[number].sha256 != expected {
        return Err(EngineError::Refit(
            "its weights do not have the digest it states".to_owned(),
        ));
    }
    Ok(engine)
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::super::{read, write};
    use super::*;

    fn known(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([(fingerprint(bytes), bytes.to_vec())])
    }

    #[test]
    fn what_is_refitted_is_what_was_stripped() {
        let engine = example(&["sm_87"]);
        let stripped = strip(&engine).unwrap();
        let mut bytes = Vec::new();
        write(&stripped, &mut bytes).unwrap();
        let read = read(&bytes).unwrap();
        assert_eq!(read, stripped);
        assert!(read.weights().is_empty() && read.header.weights_bytes() == 16);
        assert_eq!(read.device_bytes(), engine.device_bytes());
        assert_eq!(refit(&read, &known(&[7; 16])).unwrap(), engine);
    }

    #[test]
    fn other_weights_are_refused() {
        let engine = example(&["sm_87"]);
        let error = refit(&strip(&engine).unwrap(), &known(&[8; 16]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("1 of its 1 weights"), "{error}");
        let error = refit(&engine, &known(&[7; 16])).unwrap_err().to_string();
        assert!(error.contains("it has its weights"), "{error}");
    }

    #[test]
    fn fingerprints_cover_the_weights() {
        let refuses = |change: fn(&mut Fingerprint), words: &str| {
            let mut header = strip(&example(&["sm_87"])).unwrap().header;
            change(&mut header.stripped.as_mut().unwrap()[0]);
            let error = check(&header).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refuses(|piece| piece.len = 17, "leaves the weights");
        refuses(|piece| piece.len = usize::MAX, "leaves the weights");
        refuses(|piece| piece.offset = 256, "is not where");
        let mut header = strip(&example(&["sm_87"])).unwrap().header;
        header.blobs[0].len = 1 << 60;
        assert!(
            check(&header)
                .unwrap_err()
                .to_string()
                .contains("without a fingerprint")
        );
    }
}
