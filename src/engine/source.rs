//! Where the bytes of an engine come from: memory, or a file of which several threads read at once.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::EngineError;
use super::pages::{PAGE_BYTES, in_parallel, pieces};

pub enum Source<'a> {
    Bytes(&'a [u8]),
    File { file: File, len: usize, path: &'a Path },
}

impl<'a> Source<'a> {
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &'a Path) -> Result<Self, EngineError> {
        let opened = File::open(path).and_then(|file| {
            let len = file.metadata()?.len();
            Ok((file, len))
        });
        let (file, len) = opened.map_err(|error| unreadable(path, error))?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Ok(Source::File { file, len, path })
    }

    pub fn len(&self) -> usize {
        match self {
            Source::Bytes(bytes) => bytes.len(),
            Source::File { len, .. } => *len,
        }
    }

    /// The bytes of `span`, which ends within the source.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self, span: Range<usize>) -> Result<Vec<u8>, EngineError> {
        match self {
            Source::Bytes(bytes) => Ok(bytes[span].to_vec()),
            Source::File { file, path, .. } => {
                let mut bytes = vec![0; span.len()];
                let jobs = pieces(span).zip(bytes.chunks_mut(PAGE_BYTES)).collect();
                let work = |(piece, into): (Range<usize>, &mut [u8])| read_at(file, into, piece.start as u64);
                let done: io::Result<Vec<()>> = in_parallel(jobs, work).into_iter().collect();
                done.map_err(|error| unreadable(path, error))?;
                Ok(bytes)
            }
        }
    }
}

fn unreadable(path: &Path, source: io::Error) -> EngineError {
    EngineError::File {
        action: "read",
        path: path.to_owned(),
        source,
    }
}

#[cfg(unix)]
fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !into.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, into, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n_read => {
                into = &mut into[n_read..];
                offset += n_read as u64;
            }
        }
    }
    Ok(())
}
