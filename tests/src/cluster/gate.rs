//! A way to the API server that can be shut: what one client misses while it is shut, the others
//! do meanwhile. In: a kubeconfig. Out: another one, which leads through the gate.

use std::{
    fs, io,
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};

use super::ControlPlane;
use crate::node::Node;

/// A port of 127.0.0.1 inside the node. Connections end with their peers.
#[derive(Debug)]
pub struct Gate {
    state: Arc<Mutex<State>>,
    kubeconfig: PathBuf,
}

#[derive(Debug, Default)]
struct State {
    shut: bool,
    /// Both ends of what went through.
    open: Vec<TcpStream>,
}

impl Gate {
    /// Opens one for this kubeconfig, whose server is the control plane's.
    ///
    /// # Errors
    /// No port, or no such file.
    pub fn open(node: &Node, plane: &ControlPlane<'_>, kubeconfig: &Path) -> Result<Self> {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = node.netns().enter(bind)?.context("a port of the node")?;
        let own = format!("https://{}", listener.local_addr()?);
        let text = fs::read_to_string(kubeconfig).context("the kubeconfig")?;
        let other = kubeconfig.with_extension("gate");
        fs::write(&other, text.replace(&plane.url(), &own))?;
        let port = plane.url().rsplit(':').next().and_then(|port| port.parse().ok());
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.context("the server's port")?);
        let state = Arc::<Mutex<State>>::default();
        let (netns, shared) = (node.netns().path(), Arc::clone(&state));
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let connected = crate::namespace::inside(&netns, || TcpStream::connect(server));
                if let Ok(Ok(server)) = connected {
                    // A connection that cannot be carried is one that ends.
                    let _ = relay(&shared, client, server);
                }
            }
        });
        Ok(Self { state, kubeconfig: other })
    }

    /// The kubeconfig that leads through it.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Cuts what is open, and whatever comes.
    pub fn shut(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.shut = true;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub fn reopen(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).shut = false;
    }
}

fn relay(state: &Mutex<State>, client: TcpStream, server: TcpStream) -> io::Result<()> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if state.shut {
        return Ok(());
    }
    state.open.extend([client.try_clone()?, server.try_clone()?]);
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        thread::spawn(move || {
            let (mut from, mut to) = (from, to);
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}
