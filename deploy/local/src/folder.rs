//! The data folder of one `up`: locked by one process, kept between starts.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    unistd::Uid,
};
use sha2::{Digest, Sha256};

use crate::process::Owner;

const LOCK: &str = "lock";

/// A data folder that belongs to this process until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Held, not read: the kernel releases it however we end.
    _lock: Flock<File>,
}

impl DataFolder {
    /// Opens or creates the folder and locks it; an error names the process that has it.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("Cannot create the data folder {}", path.display()))?;
        // PostgreSQL runs as a user of its own when we are root, and must be able to enter
        fs::set_permissions(path, Permissions::from_mode(0o755))
            .with_context(|| format!("The data folder {} is not ours", path.display()))?;
        let lock = path.join(LOCK);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock)?;
        match Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock) {
            Ok(mut held) => {
                held.set_len(0)?;
                write!(held, "{}", std::process::id())?;
                Ok(Self {
                    path: path.to_owned(),
                    _lock: held,
                })
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                bail!(
                    "Another ./deploy/up (process {}) runs on {}: stop it first, or choose another folder with --data.",
                    pid.trim(),
                    path.display()
                );
            }
            Err((_, error)) => bail!("Cannot lock {}: {error}", lock.display()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes everything but the lock.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let removed = match path.file_name() {
                Some(name) if name == LOCK => Ok(()),
                _ if path.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            removed.with_context(|| format!("Cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

/// Writes a file with 32 random bytes in hexadecimal, readable by us only, unless it exists.
pub(crate) fn write_secret(path: &Path) -> Result<()> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(mut file) => file.write_all(hex(&rand::random::<[u8; 32]>()).as_bytes())?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("Cannot write {}", path.display())),
    }
    Ok(())
}

/// Where `up` keeps its data unless told otherwise: a folder of its own for each checkout. Root's is outside of root's
/// home, where PostgreSQL could not enter.
pub fn default_data(checkout: &Path) -> Result<PathBuf> {
    let digest = Sha256::digest(checkout.as_os_str().as_encoded_bytes());
    let base = if Uid::effective().is_root() {
        PathBuf::from("/var/lib")
    } else {
        xdg("XDG_DATA_HOME", ".local/share")?
    };
    Ok(base.join("kontor").join(hex(&digest[..4])))
}

/// Where fetched and prepared things are kept, as in `deploy/lib/install.sh`.
pub(crate) fn cache() -> Result<PathBuf> {
    Ok(xdg("XDG_CACHE_HOME", ".cache")?.join("kontor"))
}

fn xdg(variable: &str, below_home: &str) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(variable).filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let home = std::env::home_dir().with_context(|| format!("Neither {variable} nor HOME is set."))?;
    Ok(home.join(below_home))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // writing to a String cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Copies a folder with everything in it, for `owner` when given.
pub(crate) fn copy_tree(from: &Path, to: &Path, owner: Option<Owner>) -> Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    give(to, owner)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target, owner)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("Cannot write {}", target.display()))?;
            give(&target, owner)?;
        }
    }
    Ok(())
}

/// Makes a file or folder belong to `owner`, when given.
pub(crate) fn give(path: &Path, owner: Option<Owner>) -> Result<()> {
    if let Some(owner) = owner {
        chown(path, Some(owner.uid), Some(owner.gid))
            .with_context(|| format!("Cannot give away {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_on_a_folder_names_the_first_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataFolder::open(folder.path()).unwrap();
        let error = DataFolder::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        assert!(!error.contains('\n'));
        drop(first);
        DataFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn a_secret_is_made_once_and_is_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let path = data.path().join("secret");
        write_secret(&path).unwrap();
        let secret = fs::read_to_string(&path).unwrap();
        assert_eq!(secret.len(), 64);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        write_secret(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), secret);
        data.clear().unwrap();
        assert!(!path.exists() && folder.path().join(LOCK).exists());
    }
}
