//! Files that are written whole or not at all.
use crate::error::CliError;
use std::{fs, io::Write, path::Path};

/// Whoever reads the file meanwhile sees the old one or the new one, never half of one. A new one is readable by its
/// owner alone; one that stood keeps its permissions.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::file(path, "write", &error);
    // Through a link, the file that it points to.
    let place = if path.exists() {
        path.canonicalize().map_err(failed)?
    } else {
        path.to_owned()
    };
    let folder = place
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // Else the error would speak of the name that the new file has meanwhile.
    fs::metadata(folder).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    if let Ok(metadata) = fs::metadata(&place) {
        file.as_file()
            .set_permissions(metadata.permissions())
            .map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&place).map_err(|error| failed(error.error))?;
    Ok(())
}
