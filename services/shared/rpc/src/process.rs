//! From the command line to the exit code: what the `main` of every service would repeat.

use std::process::ExitCode;

use lifecycle::{Failure, Lifecycle};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use settings::{Cli, Errors, Reader};
use tokio::net::TcpListener;

use crate::server;

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

/// Runs a service: reads the settings, starts telemetry, binds the address, and waits for the end.
///
/// The exit code is 0 after a shutdown by signal that let requests finish, and 1 after wrong settings or a failure.
pub async fn run<C, F>(
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
    let telemetry = config.telemetry().clone();
    let main = async {
        raise_open_files();
        let server = config.server();
        let lifecycle = Lifecycle::new(server.grace);
        lifecycle.on_signal();
        let address = server.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Error::Listen { address, source })?;
        tracing::info!(server.address = %address, "listening");
        serve(config, listener, lifecycle).await.map_err(Error::from)
    };
    telemetry::run(name, &telemetry, &unknown, Box::pin(main)).await
}

/// Raises the limit of open files as far as the system lets us: every connection is one, and distributions begin with 1,024.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
