//! One GET of an admin server. In: an address and a path. Out: the body of a 200.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::error_chain::WithCauses;

/// For the whole exchange: the agent responds within 200 ms, if need be with the last report.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(
        "cannot connect to an agent at {address}: {source}. Does `mirror agent` run on this node, with \
         this --admin address?"
    )]
    Connect { address: SocketAddr, source: io::Error },
    #[error("{address} accepts connections but does not respond within {PATIENCE:?}")]
    Silent { address: SocketAddr },
    #[error("{address} does not speak HTTP: {}", WithCauses(.source))]
    Http { address: SocketAddr, source: hyper::Error },
    #[error(
        "{address} responds to {path} with {status}: it is not an agent, or one of another version"
    )]
    Status { address: SocketAddr, path: &'static str, status: StatusCode },
}

pub(crate) async fn get(address: SocketAddr, path: &'static str) -> Result<Bytes, FetchError> {
    match timeout(PATIENCE, exchange(address, path)).await {
        Ok(response) => response,
        Err(_) => Err(FetchError::Silent { address }),
    }
}

async fn exchange(address: SocketAddr, path: &'static str) -> Result<Bytes, FetchError> {
    let failed = |source| FetchError::Http { address, source };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| FetchError::Connect { address, source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // It ends with the sender; the request reports its errors.
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .expect("a path of ours, and an address");
    let response = sender.send_request(request).await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status { address, path, status: response.status() });
    }
    Ok(response.into_body().collect().await.map_err(failed)?.to_bytes())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// The error for a server that sends this, and closes.
    async fn error_of(response: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // A server that closes before it has read the request resets the connection.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "a whole request");
            }
            stream.write_all(response.as_bytes()).await.unwrap();
        });
        get(address, "/status").await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn each_failure_has_its_own_message() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = get(address, "/status").await.unwrap_err().to_string();
        assert!(refused.contains(&format!("cannot connect to an agent at {address}")), "{refused}");
        assert!(refused.contains("mirror agent"), "{refused}");
        let missing = error_of("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        assert!(missing.contains("404") && missing.contains("another version"), "{missing}");
        let other = error_of("220 mail ready\r\n").await;
        assert!(other.contains("does not speak HTTP"), "{other}");
    }
}
