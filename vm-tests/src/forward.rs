//! Ports of the host that lead into the network namespace of a cluster.

use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A port of the host and where it leads.
pub type Route = (SocketAddr, SocketAddr);

/// Serves all routes until the process is ended.
///
/// # Errors
/// A port is taken, or there is no such namespace.
pub fn run(namespace: &Path, routes: &[Route]) -> Result<()> {
    let mut servers = Vec::new();
    for &(at, to) in routes {
        let listener = TcpListener::bind(at).with_context(|| format!("listen on {at}"))?;
        let namespace = File::open(namespace).with_context(|| format!("open {}", namespace.display()))?;
        servers.push(thread::spawn(move || serve(&listener, &namespace, to)));
    }
    for server in servers {
        server.join().ok();
    }
    Ok(())
}

fn serve(listener: &TcpListener, namespace: &File, to: SocketAddr) {
    for client in listener.incoming().flatten() {
        let Ok(namespace) = namespace.try_clone() else { continue };
        thread::spawn(move || carry(client, &namespace, to).inspect_err(|error| eprintln!("to {to}: {error}")).ok());
    }
}

/// The listening side stays on the host; this thread alone steps into the namespace to connect.
fn carry(client: TcpStream, namespace: &File, to: SocketAddr) -> io::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let server = TcpStream::connect_timeout(&to, CONNECT_DEADLINE)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (from_server, to_client) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || copy(&from_server, &to_client));
    copy(&client, &server);
    back.join().ok();
    Ok(())
}

/// Ends with either side; the end is passed on, so that half-closed connections stay so.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    io::copy(&mut from, &mut to).ok();
    to.shutdown(Shutdown::Write).ok();
}
