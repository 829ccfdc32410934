//! Certificates and keys on disk: pairs `<name>.crt` and `<name>.key`, readable by their owner alone.
//!
//! Called by [`super`]. A file is written beside its place and renamed, so that a crash leaves the old one or the new.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Credentials, PkiError};

/// Makes a directory that nobody else may read.
pub(super) fn make_private_dir(dir: &Path) -> Result<(), PkiError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| PkiError::File {
        path: dir.into(),
        source,
    })
}

/// Both files of a pair, or none if neither is there.
pub(super) fn read_pair(dir: &Path, name: &str) -> Result<Option<Credentials>, PkiError> {
    let (certificate_path, key_path) = paths(dir, name);
    match (read(&certificate_path)?, read(&key_path)?) {
        (Some(certificate), Some(key)) => Ok(Some(Credentials { certificate, key })),
        (None, None) => Ok(None),
        // The key is written first: alone it means that a crash came in between, and nobody has the certificate.
        (None, Some(_)) if name != "ca" => Ok(None),
        (None, Some(_)) => Err(PkiError::Half {
            missing: certificate_path,
        }),
        (Some(_), None) => Err(PkiError::Half { missing: key_path }),
    }
}

/// Writes both files of a pair.
pub(super) fn write_pair(dir: &Path, name: &str, pair: &Credentials) -> Result<(), PkiError> {
    let (certificate_path, key_path) = paths(dir, name);
    write_private(&key_path, &pair.key)?;
    write_private(&certificate_path, &pair.certificate)
}

/// Writes a file of mode 0600, replacing it as a whole.
///
/// # Errors
/// The file cannot be written.
pub fn write_private(path: &Path, content: &str) -> Result<(), PkiError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(name);
    let write = || {
        let mut file = create_private(&beside)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| PkiError::File {
        path: path.into(),
        source,
    })
}

fn create_private(path: &Path) -> std::io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File {
            path: path.into(),
            source,
        }),
    }
}

fn paths(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")))
}
