//! The way in: a TCP port of the host's 127.0.0.1 that leads to the same port inside a network
//! namespace. It carries bytes both ways, half-closes and all, and ends with its owner.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};

use crate::namespace::inside;

/// A relay. Dropping it ends accepting; open connections end with their peers.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddrV4,
    ended: Arc<AtomicBool>,
}

impl Relay {
    /// Takes a free port of the host.
    pub(super) fn start(netns: PathBuf) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port of 127.0.0.1")?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr()?.port());
        let ended = Arc::new(AtomicBool::new(false));
        let relay = Self { address, ended: Arc::clone(&ended) };
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let netns = netns.clone();
                thread::spawn(move || {
                    let server = inside(&netns, || TcpStream::connect(address));
                    // Refused inside: the client sees its connection end.
                    if let Ok(Ok(server)) = server {
                        let _ = join(&client, &server);
                    }
                });
            }
        });
        Ok(relay)
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut up, &mut &*server);
            let _ = server.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut down, &mut &*client);
        let _ = client.shutdown(Shutdown::Both);
    });
    Ok(())
}
