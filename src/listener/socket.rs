//! Where a listener listens: a TCP port or a Unix socket, bound at once and gone with its owner.

use super::PeerAddress;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};

/// Connections that the system holds until they are accepted; `net.core.somaxconn` may cut it. Where it is full, a peer
/// that comes has to repeat itself, a second later at the earliest.
const BACKLOG: u32 = 4096;

/// Where a listener is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket, and the mode of its file.
    Unix {
        /// The file.
        path: PathBuf,
        /// Who may connect, as chmod(1) has it.
        mode: u32,
    },
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix {
        socket: UnixListener,
        /// Gone with the socket.
        _file: SocketFile,
    },
}

/// The file of a Unix socket, removed with this unless it is another's by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Socket {
    /// Binds, and says where: with port 0, the port that the system chose.
    pub(super) async fn bind(address: Address) -> io::Result<(Self, Address)> {
        match address {
            Address::Tcp(address) => {
                let socket = listen(address)?;
                let address = socket.local_addr()?;
                Ok((Self::Tcp(socket), Address::Tcp(address)))
            }
            Address::Unix { path, mode } => {
                let (socket, file) = listen_at(&path, mode).await?;
                Ok((Self::Unix { socket, _file: file }, Address::Unix { path, mode }))
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Accepted, PeerAddress)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                Ok((Accepted::Tcp(stream), PeerAddress::Tcp(address)))
            }
            Self::Unix { socket, .. } => {
                let (stream, _) = socket.accept().await?;
                // One that can't be asked is one that is gone.
                let peer =
                    stream.peer_cred().map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))?;
                Ok((Accepted::Unix(stream), PeerAddress::Unix { uid: peer.uid() }))
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait until the connections of the process before it have timed out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Makes the socket beside its place, with its mode, and moves it there: nobody finds it half made. Two processes that
/// do so at once meet at the file beside it, and one of them fails.
async fn listen_at(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    make_room(path).await?;
    let beside = beside(path);
    make_room(&beside).await?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(&beside)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
    let listener = socket.listen(BACKLOG)?;
    let metadata = fs::symlink_metadata(&beside)?;
    fs::rename(&beside, path)?;
    let file = SocketFile { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) };
    Ok((listener, file))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// Removes the socket of a process that is gone.
async fn make_room(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(in_use("there is a file that is no socket")),
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // One whose queue is full says that it would block.
        Ok(_) | Err(_) => Err(in_use("another process listens there")),
    }
}

fn in_use(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, what)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "can't remove the socket");
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}
