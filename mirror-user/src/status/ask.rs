//! One GET of the admin server. In: an address and a path. Out: the body of a 200.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// For the whole of it: the agent answers within 200 ms, or says what it knew last.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(
        "no agent answers at {address}: {source}. Is `mirror agent` running on this node, with \
         this --admin?"
    )]
    Connect { address: SocketAddr, source: io::Error },
    #[error("{address} takes connections and does not answer within {PATIENCE:?}")]
    Silent { address: SocketAddr },
    #[error("{address} does not answer in HTTP: {source}")]
    Http { address: SocketAddr, source: hyper::Error },
    #[error("{address} answers {path} with {status}: it is no agent, or one of another version")]
    Status { address: SocketAddr, path: &'static str, status: StatusCode },
}

pub(super) async fn get(address: SocketAddr, path: &'static str) -> Result<Bytes, AskError> {
    match timeout(PATIENCE, exchange(address, path)).await {
        Ok(answer) => answer,
        Err(_) => Err(AskError::Silent { address }),
    }
}

async fn exchange(address: SocketAddr, path: &'static str) -> Result<Bytes, AskError> {
    let failed = |source| AskError::Http { address, source };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| AskError::Connect { address, source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // It ends with the sender; what goes wrong with it is told to the request.
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .expect("a path of ours, and an address");
    let answer = sender.send_request(request).await.map_err(failed)?;
    if answer.status() != StatusCode::OK {
        return Err(AskError::Status { address, path, status: answer.status() });
    }
    Ok(answer.into_body().collect().await.map_err(failed)?.to_bytes())
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    /// What is said of a server that answers so, and closes.
    async fn told(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        get(address, "/status").await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn who_does_not_answer_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = get(address, "/status").await.unwrap_err().to_string();
        assert!(refused.contains(&format!("no agent answers at {address}")), "{refused}");
        assert!(refused.contains("mirror agent"), "{refused}");
        let missing = told("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        assert!(missing.contains("404") && missing.contains("another version"), "{missing}");
        let other = told("220 mail ready\r\n").await;
        assert!(other.contains("does not answer in HTTP"), "{other}");
    }
}
