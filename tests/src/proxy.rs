//! A TCP proxy that stands between a service and a server, and misbehaves on demand.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, watch},
    task::JoinSet,
};

/// Connections at once; more wait in the listener's queue.
const CONNECTIONS: usize = 512;

/// What the proxy does with connections, open ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forwards.
    Pass,
    /// Forwards each piece this much later.
    Delay(Duration),
    /// Takes connections and bytes, and forwards nothing.
    Stall,
    /// Closes the direction to the client, and goes on reading from it.
    HalfClose,
    /// Ends every connection at once.
    Cut,
}

/// A proxy in front of one server. Dropping it ends its connections.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy on a free port that forwards to `upstream` (`host:port`).
    pub async fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("the proxy finds no free port")?;
        let address = listener.local_addr()?;
        let (mode, seen) = watch::channel(Mode::Pass);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, upstream.to_owned(), seen));
        Ok(Self {
            address,
            mode,
            _tasks: tasks,
        })
    }

    /// Where it listens, as `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on it behaves like this.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, upstream: String, mode: watch::Receiver<Mode>) {
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let (upstream, mode) = (upstream.clone(), mode.clone());
        connections.spawn(async move {
            // an end, in whatever way, is what a proxy is here to cause
            let _ = forward(client, &upstream, mode).await;
            drop(permit);
        });
    }
}

async fn forward(client: TcpStream, upstream: &str, mut mode: watch::Receiver<Mode>) -> io::Result<()> {
    if *mode.borrow() == Mode::Cut {
        return Ok(());
    }
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let there = pump(client_read, server_write, mode.clone(), Direction::ToServer);
    let back = pump(server_read, client_write, mode.clone(), Direction::ToClient);
    tokio::select! {
        (there, back) = async { tokio::join!(there, back) } => there.and(back),
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    direction: Direction,
) -> io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let length = tokio::select! {
            read = from.read(&mut piece) => read?,
            changed = mode.wait_for(|mode| *mode == Mode::HalfClose), if direction == Direction::ToClient => {
                let _ = changed;
                0
            }
        };
        if length == 0 {
            return to.shutdown().await;
        }
        let now = *mode.borrow();
        match now {
            Mode::Pass | Mode::HalfClose | Mode::Cut => {}
            Mode::Delay(time) => tokio::time::sleep(time).await,
            Mode::Stall => {
                // the bytes wait, as on a network that lost its way
                let _ = mode.wait_for(|mode| *mode != Mode::Stall).await;
            }
        }
        to.write_all(&piece[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        (address, tasks)
    }

    #[tokio::test]
    async fn it_forwards_stalls_and_cuts() {
        let (upstream, _tasks) = echo().await;
        let proxy = Proxy::start(&upstream.to_string()).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let mut answer = [0; 4];
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");

        proxy.set(Mode::Stall);
        stream.write_all(b"pong").await.unwrap();
        let stalled = tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut answer)).await;
        assert!(stalled.is_err());
        proxy.set(Mode::Pass);
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong");

        proxy.set(Mode::Cut);
        assert_eq!(stream.read(&mut answer).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn it_closes_one_direction() {
        let (upstream, _tasks) = echo().await;
        let proxy = Proxy::start(&upstream.to_string()).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        proxy.set(Mode::HalfClose);
        assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
        stream.write_all(b"more").await.unwrap();
    }
}
