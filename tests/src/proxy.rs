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

/// How long the server keeps a connection that was lost silently: about as long as keep-alive probes take to tell it. A client
/// has none, and what it waits for would come after a quarter of an hour at the earliest.
const LOST_FOR: Duration = Duration::from_secs(30);

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
    /// How often the open connections were lost.
    lost: watch::Sender<u64>,
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
        let (lost, losses) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, upstream.to_owned(), seen, losses));
        Ok(Self {
            address,
            mode,
            lost,
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

    /// Loses the open connections: nothing more comes through, and neither side is told. New ones are not concerned. So it
    /// is when a machine has lost its power, or a firewall its memory.
    pub fn lose_connections(&self) {
        self.lost.send_modify(|lost| *lost += 1);
    }
}

async fn accept(
    listener: TcpListener,
    upstream: String,
    mode: watch::Receiver<Mode>,
    losses: watch::Receiver<u64>,
) {
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
        let (upstream, mode, losses) = (upstream.clone(), mode.clone(), losses.clone());
        connections.spawn(async move {
            // an end, in whatever way, is what a proxy is here to cause
            let _ = forward(client, &upstream, mode, losses).await;
            drop(permit);
        });
    }
}

async fn forward(
    client: TcpStream,
    upstream: &str,
    mut mode: watch::Receiver<Mode>,
    mut losses: watch::Receiver<u64>,
) -> io::Result<()> {
    let born = *losses.borrow();
    if *mode.borrow() == Mode::Cut {
        return Ok(());
    }
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let there = pump(
        &mut client_read,
        &mut server_write,
        mode.clone(),
        Direction::ToServer,
    );
    let back = pump(
        &mut server_read,
        &mut client_write,
        mode.clone(),
        Direction::ToClient,
    );
    tokio::select! {
        (there, back) = async { tokio::join!(there, back) } => return there.and(back),
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => return Ok(()),
        _ = losses.wait_for(|losses| *losses != born) => {}
    }
    // the sockets stay open, and what comes is lost: the server's for a while, the client's for as long as it likes
    tokio::time::sleep(LOST_FOR).await;
    drop((server_read, server_write));
    let mut nobody = tokio::io::sink();
    tokio::select! {
        swallowed = tokio::io::copy(&mut client_read, &mut nobody) => swallowed.map(drop),
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
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
    async fn it_loses_connections_and_tells_nobody() {
        let (upstream, _tasks) = echo().await;
        let proxy = Proxy::start(&upstream.to_string()).await.unwrap();
        let mut answer = [0; 4];
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        old.write_all(b"ping").await.unwrap();
        old.read_exact(&mut answer).await.unwrap();
        proxy.lose_connections();
        old.write_all(b"pong").await.unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(50), old.read_exact(&mut answer)).await;
        assert!(silent.is_err());
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        new.write_all(b"ping").await.unwrap();
        new.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
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
