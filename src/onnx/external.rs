//! Tensor data in files beside the model.
//!
//! A location is a relative path that stays in the model's folder: no absolute path, no `..`,
//! and no symbolic link that leads out. Offset and length must lie inside the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::proto::StringStringEntryProto;
use crate::ops::OpError;

/// Opens each file of external data once.
pub struct ExternalFiles {
    folder: Option<PathBuf>,
    open: BTreeMap<String, OpenFile>,
}

struct OpenFile {
    file: File,
    n_bytes: u64,
}

/// Part of a file, known to be inside it.
pub struct Section<'a> {
    file: &'a File,
    offset: u64,
    n_bytes: usize,
    location: &'a str,
}

impl Section<'_> {
    /// Fills `into`, which must be as long as the section.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self, into: &mut [u8]) -> Result<(), OpError> {
        assert_eq!(into.len(), self.n_bytes, "a section is read whole");
        let mut file = self.file;
        file.seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.read_exact(into))
            .map_err(|error| {
                OpError::invalid(format!(
                    "external data `{}` cannot be read: {error}",
                    self.location
                ))
            })
    }
}

/// What `external_data` says.
struct Place<'a> {
    location: &'a str,
    offset: u64,
    length: Option<u64>,
}

impl ExternalFiles {
    pub fn beside(folder: &Path) -> Self {
        // A bare file name has the empty folder, which does not resolve.
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        ExternalFiles {
            folder: Some(folder.to_path_buf()),
            open: BTreeMap::new(),
        }
    }

    /// For models that come without a folder.
    pub fn none() -> Self {
        ExternalFiles {
            folder: None,
            open: BTreeMap::new(),
        }
    }

    /// The section `entries` describe, which must have `n_bytes`.
    ///
    /// # Errors
    /// If the entries are malformed, the path is not safe, or the file is too short.
    pub fn locate<'a>(
        &'a mut self,
        entries: &'a [StringStringEntryProto],
        n_bytes: usize,
    ) -> Result<Section<'a>, OpError> {
        let place = parse(entries)?;
        let location = place.location;
        if place.length.is_some_and(|length| length != n_bytes as u64) {
            return Err(OpError::invalid(format!(
                "takes {n_bytes} bytes, but its external data in `{location}` has {}",
                place.length.unwrap_or_default()
            )));
        }
        if !self.open.contains_key(location) {
            let opened = self.open_file(location)?;
            self.open.insert(location.to_owned(), opened);
        }
        let open = &self.open[location];
        let end = place.offset.checked_add(n_bytes as u64);
        if end.is_none_or(|end| end > open.n_bytes) {
            return Err(OpError::invalid(format!(
                "external data `{location}` has {} bytes, but {n_bytes} at offset {} are asked for",
                open.n_bytes, place.offset
            )));
        }
        Ok(Section {
            file: &open.file,
            offset: place.offset,
            n_bytes,
            location,
        })
    }

    fn open_file(&self, location: &str) -> Result<OpenFile, OpError> {
        let path = self.safe_path(location)?;
        let unreadable = |error: std::io::Error| {
            OpError::invalid(format!("external data `{location}` cannot be opened: {error}"))
        };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(OpError::invalid(format!(
                "external data `{location}` is not a plain file"
            )));
        }
        Ok(OpenFile {
            file,
            n_bytes: metadata.len(),
        })
    }

    /// The resolved path of `location`, inside the folder.
    fn safe_path(&self, location: &str) -> Result<PathBuf, OpError> {
        let Some(folder) = &self.folder else {
            return Err(OpError::invalid(format!(
                "its external data is in `{location}`, but the model was given without a folder"
            )));
        };
        let plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || location.contains('\0') || !Path::new(location).components().all(plain) {
            return Err(OpError::invalid(format!(
                "external data path `{location}` is not safe: expected a relative path without `..`"
            )));
        }
        let resolve = |path: &Path| {
            path.canonicalize().map_err(|error| {
                OpError::invalid(format!("external data `{location}` cannot be opened: {error}"))
            })
        };
        let (root, path) = (resolve(folder)?, resolve(&folder.join(location))?);
        if !path.starts_with(&root) {
            return Err(OpError::invalid(format!(
                "external data path `{location}` is not safe: a link in it leads out of the model's folder"
            )));
        }
        Ok(path)
    }
}

fn parse(entries: &[StringStringEntryProto]) -> Result<Place<'_>, OpError> {
    let entry = |key: &str| {
        entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| entry.value.as_str())
    };
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
            OpError::invalid(format!(
                "`{key}` of its external data is `{text}`, expected a whole number"
            ))
        }),
    };
    let Some(location) = entry("location") else {
        return Err(OpError::invalid("its external data has no `location`"));
    };
    Ok(Place {
        location,
        offset: number("offset")?.unwrap_or(0),
        length: number("length")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
        pairs
            .iter()
            .map(|(key, value)| StringStringEntryProto {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
            })
            .collect()
    }

    fn read(folder: &Path, pairs: &[(&str, &str)], n_bytes: usize) -> Result<Vec<u8>, String> {
        let entries = entries(pairs);
        let mut files = ExternalFiles::beside(folder);
        let mut bytes = vec![0; n_bytes];
        let section = files
            .locate(&entries, n_bytes)
            .map_err(|error| error.to_string())?;
        section.read(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    #[test]
    fn sections_are_read_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/w.bin"), [0, 1, 2, 3, 4, 5]).unwrap();
        let place = [("location", "./sub/w.bin"), ("offset", "2"), ("length", "3")];
        assert_eq!(read(folder.path(), &place, 3), Ok(vec![2, 3, 4]));
        assert!(
            read(folder.path(), &place, 4)
                .unwrap_err()
                .contains("takes 4 bytes")
        );
        assert!(
            read(folder.path(), &place[..2], 5)
                .unwrap_err()
                .contains("has 6 bytes")
        );
        let far = [("location", "sub/w.bin"), ("offset", "18446744073709551615")];
        assert!(read(folder.path(), &far, 2).unwrap_err().contains("has 6 bytes"));
        assert!(
            read(folder.path(), &[("location", "sub")], 0)
                .unwrap_err()
                .contains("not a plain file")
        );
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("secret"), [7; 4]).unwrap();
        let folder = outer.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        let absolute = outer.path().join("secret");
        for location in [
            "../secret",
            "a/../../secret",
            absolute.to_str().unwrap(),
            "link",
            "",
        ] {
            let error = read(&folder, &[("location", location)], 4).unwrap_err();
            assert!(error.contains("not safe"), "{location}: {error}");
        }
    }
}
