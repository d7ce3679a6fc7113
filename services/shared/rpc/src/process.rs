//! From the command line to the exit code: what the `main` of every service would repeat.

use std::{io::Write as _, num::NonZeroUsize, process::ExitCode};

use lifecycle::{Failure, Lifecycle};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use settings::{Cli, Errors, Reader};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
};

use crate::server;

/// glibc's allocator took an eighth of a service's CPU under load: it locks, and merges what is free again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The settings of a service, as far as the process needs them.
pub trait Config: Sized {
    /// Reads everything, then tells everything that is wrong.
    fn read(reader: &mut Reader) -> Result<Self, Errors>;
    /// How to serve.
    fn server(&self) -> &server::Config;
    /// Logs, traces, metrics.
    fn telemetry(&self) -> &telemetry::Config;
}

/// Why a process ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be served.
    #[error("cannot serve {address}: {source}")]
    Listen {
        /// The address of the settings.
        address: std::net::SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The service could not start, or failed.
    #[error(transparent)]
    Service(#[from] Failure),
}

/// Runs a service: reads the settings, starts the runtime and telemetry, binds the address, and waits for the end.
///
/// The exit code is 0 after a shutdown by signal that let requests finish, and 1 after wrong settings or a failure.
pub fn run<C, F>(
    name: &'static str,
    about: &str,
    serve: impl FnOnce(C, TcpListener, Lifecycle) -> F,
) -> ExitCode
where
    C: Config,
    F: Future<Output = Result<(), Failure>>,
{
    let (config, unknown) = match settings::run_cli(about, C::read) {
        Cli::Run(config, unknown) => (config, unknown),
        Cli::Exit(code) => return code,
    };
    let runtime = match runtime(config.server().workers) {
        Ok(runtime) => runtime,
        Err(error) => {
            // there is no log yet; and nowhere to tell when stderr is closed
            let _ = writeln!(std::io::stderr(), "cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let telemetry = config.telemetry().clone();
    let main = async {
        raise_open_files();
        let server = config.server();
        let lifecycle = Lifecycle::new(server.grace);
        lifecycle.on_signal();
        if let Some(tls) = &server.tls {
            tls.watch(&lifecycle);
        }
        let address = server.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Error::Listen { address, source })?;
        tracing::info!(
            server.address = %address,
            server.threads = Handle::current().metrics().num_workers(),
            tls.mutual = server.tls.is_some(),
            "listening"
        );
        serve(config, listener, lifecycle).await.map_err(Error::from)
    };
    runtime.block_on(telemetry::run(name, &telemetry, &unknown, Box::pin(main)))
}

/// As many threads as the settings say, else as the cores that the container's CPU limit allows.
fn runtime(workers: Option<NonZeroUsize>) -> std::io::Result<Runtime> {
    let workers = workers.map_or_else(std::thread::available_parallelism, Ok);
    Builder::new_multi_thread()
        .worker_threads(workers.map_or(1, NonZeroUsize::get))
        .enable_all()
        .build()
}

/// Raises the limit of open files as far as the system lets us: every connection is one, and distributions begin with 1,024.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
