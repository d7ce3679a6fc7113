//! The one thread that starts all children.
//!
//! Each child asks the kernel to be killed when the thread that started it ends (`setpriv --pdeathsig`), so that nothing
//! survives a crash or a `kill -9` of ours. A test's own thread would end with the test; this one ends with the process.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::LazyLock,
    time::Duration,
};

use tokio::{
    process::Command,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use super::Spec;

/// A log longer than this is moved to `*.log.1`, in bytes.
const LOG_LIMIT: u64 = 32 * 1024 * 1024;
const LOG_CHECK: Duration = Duration::from_secs(5);

/// A started child.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub pid: u32,
    pub exit: watch::Receiver<Option<ExitStatus>>,
}

struct Order {
    command: Command,
    log: PathBuf,
    reply: oneshot::Sender<io::Result<Running>>,
}

static SUPERVISOR: LazyLock<io::Result<mpsc::Sender<Order>>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (orders, inbox) = mpsc::channel(64);
    std::thread::Builder::new()
        .name("supervisor".to_owned())
        .spawn(move || runtime.block_on(serve(inbox)))?;
    Ok(orders)
});

/// Starts a child on the supervisor's thread.
pub(super) async fn spawn(spec: &Spec) -> io::Result<Running> {
    if spec.program.is_absolute() && !spec.program.exists() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the program is missing"));
    }
    let orders = SUPERVISOR
        .as_ref()
        .map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    let (reply, answer) = oneshot::channel();
    let order = Order {
        command: command(spec)?,
        log: spec.log.clone(),
        reply,
    };
    orders
        .send(order)
        .await
        .map_err(|_| io::Error::other("the supervisor's thread has ended"))?;
    answer
        .await
        .map_err(|_| io::Error::other("the supervisor's thread has ended"))?
}

fn command(spec: &Spec) -> io::Result<Command> {
    let log = open_log(&spec.log)?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(owner) = spec.owner {
        command.arg("--reuid").arg(owner.uid.to_string());
        command
            .arg("--regid")
            .arg(owner.gid.to_string())
            .arg("--clear-groups");
    }
    command.arg("--").arg(&spec.program).args(&spec.arguments);
    // settings of our own environment are not the child's: what it gets is in its spec
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KONTOR_")) {
        command.env_remove(name);
    }
    command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
    // PostgreSQL insists on a working folder that it may enter
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // Ctrl-C in a terminal reaches a whole process group: a group of its own lets us stop the children in order
    command.process_group(0);
    Ok(command)
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // append: a file that is cut by `trim` goes on at its new end
    OpenOptions::new().create(true).append(true).open(path)
}

async fn serve(mut inbox: mpsc::Receiver<Order>) {
    let mut children = JoinSet::new();
    let mut logs = BTreeSet::new();
    let mut check = tokio::time::interval(LOG_CHECK);
    loop {
        tokio::select! {
            order = inbox.recv() => match order {
                Some(order) => {
                    logs.insert(order.log.clone());
                    launch(order, &mut children);
                }
                None => return,
            },
            Some(_) = children.join_next() => {}
            _ = check.tick() => logs.retain(|log| trim(log).is_ok()),
        }
    }
}

fn launch(mut order: Order, children: &mut JoinSet<()>) {
    let mut child = match order.command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // nobody waits any more: nothing was started either
            let _ = order.reply.send(Err(error));
            return;
        }
    };
    let (exit, watcher) = watch::channel(None);
    let pid = child.id().unwrap_or_default();
    children.spawn(async move {
        // without a status the channel closes, and waiters see that
        if let Ok(status) = child.wait().await {
            exit.send_replace(Some(status));
        }
    });
    let _ = order.reply.send(Ok(Running { pid, exit: watcher }));
}

/// Bounds a log: copies it to `*.log.1` and empties it. An error (the file is gone) ends the watch over it.
fn trim(log: &Path) -> io::Result<()> {
    if std::fs::metadata(log)?.len() > LOG_LIMIT {
        std::fs::copy(log, log.with_extension("log.1"))?;
        OpenOptions::new().write(true).open(log)?.set_len(0)?;
    }
    Ok(())
}
