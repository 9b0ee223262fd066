//! The registry on disk, so that a restart does not begin empty.

mod policy;

pub use policy::SnapshotPolicy;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Whether the file's folder is there: that it is not is a wrong setting, not a bad day.
pub(super) fn check_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    if !fs::metadata(&folder)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no folder", folder.display())));
    }
    if path.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    }
    Ok(())
}
