//! How the variant of each kernel is chosen: by prediction, by a device, or by a file of measurements.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;

use super::PipelineError;
use crate::compile::arch_name;
use crate::cuda::Context;
use crate::engine;
use crate::kernel::Arch;
use crate::tune::{Database, TuneError};

/// How the variant of each kernel is chosen.
#[derive(Clone, Debug, Default)]
pub enum Selection {
    /// By analytic time; needs no GPU.
    #[default]
    Predicted,
    /// On the GPU of this machine.
    OnDevice {
        ordinal: usize,
        /// Variants tried per kernel.
        max_variants: usize,
        /// Whether the right ones are timed, or the first right one is taken.
        time: bool,
        /// File of measurements, read before and written after every problem.
        database: Option<PathBuf>,
        /// When to end; every kernel has a right variant even then.
        until: Option<Instant>,
    },
    /// By a file of measurements alone, where a missing one is an error; needs no GPU.
    Recorded {
        /// Variants looked up per kernel.
        max_variants: usize,
        database: PathBuf,
    },
}

impl Selection {
    /// Whether right variants are compared by their times on a device.
    pub(super) fn times(&self) -> bool {
        match self {
            Selection::Predicted => false,
            Selection::OnDevice { time, .. } => *time,
            Selection::Recorded { .. } => true,
        }
    }

    pub(super) fn until(&self) -> Option<Instant> {
        match self {
            Selection::OnDevice { until, .. } => *until,
            Selection::Predicted | Selection::Recorded { .. } => None,
        }
    }

    /// The same with a file for what is measured, which lies in a folder that ends with the build, where the user
    /// names none: later steps of a build ask for times of earlier ones.
    pub(super) fn with_file(&self) -> (Selection, Option<TempDir>) {
        let mut own = self.clone();
        let Selection::OnDevice {
            time: true,
            database: database @ None,
            ..
        } = &mut own
        else {
            return (own, None);
        };
        // Without one, no times are asked for.
        let folder = tempfile::tempdir().ok();
        *database = folder.as_ref().map(|folder| folder.path().join("times"));
        (own, folder)
    }

    /// Whether no time is left.
    pub(super) fn is_over(&self) -> bool {
        self.until().is_some_and(|until| until <= Instant::now())
    }

    /// The file that times are kept in, and how many variants of a kernel have one.
    pub(super) fn timings(&self) -> Option<(&Path, usize)> {
        match self {
            Selection::OnDevice {
                time: true,
                database: Some(database),
                max_variants,
                ..
            }
            | Selection::Recorded {
                database,
                max_variants,
            } => Some((database, *max_variants)),
            Selection::Predicted | Selection::OnDevice { .. } => None,
        }
    }

    /// Says early what would end a long build: a device that cannot try the kernels of `archs`,
    /// or a file of measurements that cannot be read or written.
    ///
    /// # Errors
    /// If there is such a thing.
    pub fn check(&self, archs: &[Arch]) -> Result<(), PipelineError> {
        let (ordinal, database) = match self {
            Selection::Predicted => return Ok(()),
            Selection::Recorded { database, .. } => {
                Database::load(database)?;
                return Ok(());
            }
            Selection::OnDevice {
                ordinal, database, ..
            } => (ordinal, database),
        };
        if let Some(path) = database {
            Database::load(path)?;
            Database::check_writable(path)?;
        }
        let context = Context::new(*ordinal)?;
        let (device, sm) = (&context.info().name, context.info().sm);
        let foreign = archs
            .iter()
            .find(|arch| !engine::executes(sm, (arch.sm, arch.specific)));
        match foreign {
            Some(&arch) => Err(PipelineError::Tune(TuneError::OtherDevice {
                arch: arch_name(arch),
                device: device.clone(),
                sm,
            })),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_device(time: bool, database: Option<&str>) -> Selection {
        Selection::OnDevice {
            ordinal: 0,
            max_variants: 3,
            time,
            database: database.map(PathBuf::from),
            until: None,
        }
    }

    fn recorded(path: &Path) -> Selection {
        Selection::Recorded {
            max_variants: 5,
            database: path.to_owned(),
        }
    }

    #[test]
    fn times_are_asked_for_where_some_are_kept() {
        assert_eq!(on_device(true, Some("t")).timings(), Some((Path::new("t"), 3)));
        assert_eq!(recorded(Path::new("r")).timings(), Some((Path::new("r"), 5)));
        for without in [
            Selection::Predicted,
            on_device(true, None),
            on_device(false, Some("t")),
        ] {
            assert_eq!(without.timings(), None, "{without:?}");
        }
    }

    #[test]
    fn a_build_that_times_kernels_keeps_their_times_until_it_ends() {
        let (own, folder) = on_device(true, None).with_file();
        let (path, _) = own.timings().unwrap();
        assert_eq!(path.parent(), folder.as_ref().map(TempDir::path));
        for given in [
            Selection::Predicted,
            on_device(true, Some("t")),
            on_device(false, None),
        ] {
            let (own, folder) = given.with_file();
            assert_eq!(own.timings(), given.timings(), "{given:?}");
            assert!(folder.is_none(), "{given:?}");
        }
    }

    #[test]
    fn only_a_device_runs_out_of_time() {
        let mut ending = on_device(true, None);
        if let Selection::OnDevice { until, .. } = &mut ending {
            *until = Some(Instant::now());
        }
        assert!(ending.is_over());
        assert!(!on_device(true, None).is_over());
        assert!(!recorded(Path::new("r")).is_over());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_early() {
        let folder = tempfile::tempdir().unwrap();
        let missing = recorded(&folder.path().join("missing")).check(&[]);
        let wrong = folder.path().join("wrong");
        std::fs::write(&wrong, "no times").unwrap();
        assert!(missing.is_ok(), "a new file is made");
        recorded(&wrong).check(&[]).unwrap_err();
        Selection::Predicted.check(&[]).unwrap();
    }
}
