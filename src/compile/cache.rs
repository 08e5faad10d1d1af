//! Cubins on disk, found by the hash of everything that shapes them.
//!
//! An entry is `RTRTCUB1`, the SHA-256 of the cubin, the cubin. Entries are written aside
//! and renamed, so several processes may share a folder; one that is damaged reads as
//! absent. Nothing here is an error to the user: without a cache builds are only slower.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::aside::write_aside;
use crate::hex::hex;

const MAGIC: &[u8; 8] = b"RTRTCUB1";
const DIGEST_BYTES: usize = 32;

/// A folder of compiled kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    folder: Option<PathBuf>,
}

/// Identity of a compilation; prints as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// The architecture is one of the `options`.
    pub fn of(text: &str, options: &[String], nvrtc_version: &str) -> Self {
        let mut hash = Sha256::new();
        for part in options.iter().map(String::as_str).chain([nvrtc_version, text]) {
            // Lengths keep ("ab", "c") and ("a", "bc") apart.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Key(hex(&hash.finalize()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Cache {
    /// `$RTRT_CACHE_DIR`, else `rtrt-codegen` in the user's cache folder, else none.
    pub fn of_user() -> Self {
        let variable = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let folder = variable("RTRT_CACHE_DIR").or_else(|| {
            variable("XDG_CACHE_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".cache")))
                .map(|base| base.join("rtrt-codegen"))
        });
        Cache { folder }
    }

    pub fn at(folder: &Path) -> Self {
        Cache {
            folder: Some(folder.to_path_buf()),
        }
    }

    /// A cache that keeps nothing.
    pub fn none() -> Self {
        Cache { folder: None }
    }

    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The cubin stored under `key`, if it is there and whole.
    pub fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let entry = fs::read(self.entry(key)?).ok()?;
        let (head, cubin) = entry.split_at_checked(MAGIC.len() + DIGEST_BYTES)?;
        let (magic, digest) = head.split_at(MAGIC.len());
        (magic == MAGIC && digest == Sha256::digest(cubin).as_slice()).then(|| cubin.to_vec())
    }

    /// Stores a cubin; a folder that cannot be written is only logged.
    pub fn put(&self, key: &Key, cubin: &[u8]) {
        let Some(path) = self.entry(key) else { return };
        let mut entry = MAGIC.to_vec();
        entry.extend_from_slice(&Sha256::digest(cubin));
        entry.extend_from_slice(cubin);
        if let Err(error) = write_entry(&path, &entry) {
            tracing::warn!("kernel cache entry {} not written: {error}", path.display());
        }
    }

    /// Keeps a text that NVRTC refused, for reading; gives the path where that worked.
    pub fn save_refused(&self, name: &str, text: &str) -> Option<PathBuf> {
        let folder = self
            .folder
            .clone()
            .unwrap_or_else(|| env::temp_dir().join("rtrt-codegen"));
        let digest = hex(&Sha256::digest(text.as_bytes()));
        let path = folder
            .join("refused")
            .join(format!("{name}-{}.cu", &digest[..12]));
        write_entry(&path, text.as_bytes()).ok()?;
        Some(path)
    }

    fn entry(&self, key: &Key) -> Option<PathBuf> {
        let (shard, rest) = key.0.split_at(2);
        Some(self.folder.as_ref()?.join("cubin").join(shard).join(rest))
    }
}

/// Writes a file of the cache, whose folders are made as needed.
fn write_entry(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    write_aside(path, |into| into.write_all(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_entry_reads_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let key = Key::of("text", &["--a".to_owned()], "13.0");
        assert_eq!(cache.get(&key), None);
        cache.put(&key, b"cubin");
        assert_eq!(cache.get(&key).as_deref(), Some(b"cubin".as_slice()));
        let path = cache.entry(&key).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(cache.get(&key), None);
        fs::write(&path, &bytes[..10]).unwrap();
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn keys_separate_their_parts() {
        let option = |text: &str| vec![text.to_owned()];
        assert_ne!(Key::of("bc", &option("a"), "1"), Key::of("c", &option("ab"), "1"));
        assert_ne!(
            Key::of("a", &option("b"), "12.6"),
            Key::of("a", &option("b"), "13.0")
        );
    }
}
