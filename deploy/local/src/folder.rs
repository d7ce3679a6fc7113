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
    sys::statvfs::statvfs,
    unistd::Uid,
};
use sha2::{Digest, Sha256};

use crate::process::Owner;

/// The lock, and the mark of a data folder: without it, a folder with anything in it is somebody else's.
const LOCK: &str = "kontor.lock";
/// Everything that kontor puts into a data folder besides the lock. `--fresh` removes these names and no others.
const CONTENT: [&str; 8] = [
    "caller-secret",
    "ledger-key",
    "demo-loaded",
    "kafka",
    "logs",
    "postgres",
    "postgres.partial",
    "redis",
];
/// What even an empty file system holds.
const LOST_AND_FOUND: &str = "lost+found";
/// The free space that a start asks for, in MB: PostgreSQL's and Kafka's first files and the logs.
const SPACE: u64 = 300;
const MB: u64 = 1_000_000;

/// A data folder that belongs to this process until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Held, not read: the kernel releases it however we end.
    _lock: Flock<File>,
}

impl DataFolder {
    /// Opens or creates the folder and locks it; an error names the process that has it. A folder with anything else in it is
    /// refused, untouched: a wrong path must not become a data folder, and even less be emptied as one.
    pub fn open(path: &Path) -> Result<Self> {
        claim(path)?;
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

    /// One sentence when the file system of the folder is nearly full.
    pub fn demand_space(&self) -> Result<()> {
        let found = statvfs(&self.path)
            .with_context(|| format!("Cannot read how much space is free in {}", self.path.display()))?;
        enough(
            &self.path,
            found.blocks_available().saturating_mul(found.fragment_size()),
        )
    }

    /// Removes the data: what kontor itself puts there, by name, and nothing else.
    pub fn clear(&self) -> Result<()> {
        for name in CONTENT {
            let path = self.path.join(name);
            let removed = match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
                Err(error) => Err(error),
            };
            removed.with_context(|| format!("Cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

fn enough(path: &Path, free: u64) -> Result<()> {
    let free = free / MB;
    if free < SPACE {
        bail!(
            "Only {free} MB are free in {}, and {SPACE} MB are needed: make room, or choose another folder with --data.",
            path.display()
        );
    }
    Ok(())
}

/// Makes sure that a folder is a data folder, or new, or empty.
fn claim(path: &Path) -> Result<()> {
    if path.join(LOCK).is_file() {
        return Ok(());
    }
    fs::create_dir_all(path).with_context(|| format!("Cannot create the data folder {}", path.display()))?;
    for entry in fs::read_dir(path).with_context(|| format!("Cannot read {}", path.display()))? {
        if entry?.file_name() != LOST_AND_FOUND {
            bail!(
                "{} is not a data folder of kontor and has other things in it: choose an empty one with --data.",
                path.display()
            );
        }
    }
    Ok(())
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
    fn a_full_disk_is_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        DataFolder::open(folder.path()).unwrap().demand_space().unwrap();
        enough(Path::new("/data"), 300_000_000).unwrap();
        assert_eq!(
            format!("{:#}", enough(Path::new("/data"), 45_900_000).unwrap_err()),
            "Only 45 MB are free in /data, and 300 MB are needed: make room, or choose another folder with --data."
        );
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
    }

    #[test]
    fn clearing_removes_our_data_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("precious"), "").unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        fs::create_dir(folder.path().join("postgres")).unwrap();
        fs::write(folder.path().join("postgres/PG_VERSION"), "15").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("logs")).unwrap();
        fs::write(folder.path().join("theirs"), "").unwrap();
        data.clear().unwrap();
        assert!(!folder.path().join("postgres").exists());
        assert!(fs::symlink_metadata(folder.path().join("logs")).is_err());
        assert!(folder.path().join("theirs").exists());
        assert!(elsewhere.path().join("precious").exists());
    }

    #[test]
    fn a_folder_with_other_things_in_it_is_refused_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("etc");
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("passwd"), "").unwrap();
        let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
        let error = DataFolder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("other things in it"), "{error}");
        assert!(!error.contains('\n'));
        assert!(theirs.join("passwd").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode(), mode);
    }
}
