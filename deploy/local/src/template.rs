//! Folders that are slow to make, made once and copied: a fresh PostgreSQL cluster, a formatted Kafka log folder.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::{
    folder::{cache, copy_tree, give},
    process::Owner,
};

/// The template called `name`; `make` fills it (a path that does not exist yet) when the cache does not have it. The name
/// must say everything that the content depends on.
pub(crate) async fn template(
    name: &str,
    owner: Option<Owner>,
    make: impl AsyncFnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let templates = cache()?.join("templates");
    let path = templates.join(name);
    if path.is_dir() {
        return Ok(path);
    }
    std::fs::create_dir_all(&templates).with_context(|| format!("Cannot create {}", templates.display()))?;
    // made outside of our home, which `owner` may not be able to enter
    let workshop = public_tempdir("kontor-template-")?;
    give(workshop.path(), owner)?;
    let fresh = workshop.path().join("fresh");
    make(&fresh).await?;
    let staged = tempfile::tempdir_in(&templates)?;
    let content = staged.path().join("content");
    copy_tree(&fresh, &content, None)?;
    match std::fs::rename(&content, &path) {
        Ok(()) => Ok(path),
        // another process was first: its template is as good as ours
        Err(_) if path.is_dir() => Ok(path),
        Err(error) => Err(error).with_context(|| format!("Cannot create {}", path.display())),
    }
}

/// A temporary folder that other users may enter.
pub(crate) fn public_tempdir(prefix: &str) -> Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .context("Cannot create a temporary folder")
}

/// Runs a command to its end, at most a minute; an error quotes what it printed.
pub(crate) async fn run<S: AsRef<OsStr>>(
    program: &Path,
    arguments: &[S],
    owner: Option<Owner>,
) -> Result<()> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(owner) = owner {
        command.uid(owner.uid).gid(owner.gid);
    }
    let shown = program.display();
    let output = match tokio::time::timeout(Duration::from_mins(1), command.output()).await {
        Ok(output) => output.with_context(|| format!("Cannot run {shown}"))?,
        Err(_) => bail!("{shown} did not end within a minute"),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} failed ({}): {}", output.status, said.trim_end());
    }
    Ok(())
}
