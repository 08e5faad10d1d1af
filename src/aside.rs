//! Files that are written aside and renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A complete file that does not have its name yet. Dropping it removes it.
pub struct Aside {
    file: NamedTempFile,
    path: PathBuf,
}

impl Aside {
    /// Writes what will be `path` into a neighbouring file.
    ///
    /// # Errors
    /// If the folder cannot be written, or `content` fails.
    pub fn write(
        path: &Path,
        content: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let file = start(path)?;
        let mut writer = BufWriter::new(file.as_file());
        content(&mut writer)?;
        writer.flush()?;
        drop(writer);
        Ok(Aside {
            file,
            path: path.to_path_buf(),
        })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn keep(self) -> io::Result<()> {
        self.file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// A new file beside what will be `path`. Missing folders are not made: their name may be a
/// mistake.
fn start(path: &Path) -> io::Result<NamedTempFile> {
    if path.is_dir() {
        return Err(io::Error::other("it is a folder"));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(io::Error::other("its folder does not exist"));
    }
    builder().tempfile_in(folder)
}

/// Whether `path` could be written now; nothing is left there.
///
/// # Errors
/// Why it could not.
#[cfg(feature = "builder")]
pub fn check_writable(path: &Path) -> io::Result<()> {
    start(path).map(|_| ())
}

/// Writes a file so that readers see either nothing or all of it.
///
/// # Errors
/// If the folder cannot be written, or `content` fails; nothing is left then.
pub fn write_aside(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    Aside::write(path, content)?.keep()
}

/// Temporary files are private by default, but these become ordinary ones.
#[cfg(unix)]
fn builder() -> tempfile::Builder<'static, 'static> {
    use std::os::unix::fs::PermissionsExt;
    let mut builder = tempfile::Builder::new();
    builder.permissions(fs::Permissions::from_mode(0o666));
    builder
}

#[cfg(not(unix))]
fn builder() -> tempfile::Builder<'static, 'static> {
    tempfile::Builder::new()
}
