//! The bytes of a blob, which may be a part of the buffer that a file was read into.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Bytes that are shared when cloned.
#[derive(Clone)]
pub struct Content {
    whole: Arc<Vec<u8>>,
    span: Range<usize>,
}

impl Content {
    /// The bytes `span` of `whole`, which is not copied.
    ///
    /// # Panics
    /// If the span is not within it.
    pub fn part(whole: &Arc<Vec<u8>>, span: Range<usize>) -> Self {
        assert!(span.start <= span.end && span.end <= whole.len());
        Content {
            whole: Arc::clone(whole),
            span,
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        let span = 0..bytes.len();
        Content {
            whole: Arc::new(bytes),
            span,
        }
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.whole[self.span.clone()]
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}
