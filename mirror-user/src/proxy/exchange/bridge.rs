//! A tunnel between a client's stream of HTTP/2 and a primary that speaks HTTP/1: CONNECT with a
//! protocol (RFC 8441) becomes an Upgrade, plain CONNECT stays one. In: the client's request. Out:
//! a response whose body is what the primary sends; a task passes on what the client sends.

use std::{future::poll_fn, pin::Pin, rc::Rc, time::Duration};

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Body as _;
use socket2::SockRef;
use tokio::{io::AsyncWriteExt, net::tcp::OwnedWriteHalf};

use super::{
    Abort, ExchangeRecord, ResponseBody, failed, local_reply, primary_response,
    tunnel::{TunnelResponse, request_tunnel},
};
use crate::{
    outcome::ResponseSource,
    proxy::{
        body::PrimaryBody,
        context::Context,
        primary::{Bridge, ConnectionLease, Failure, PrimaryRequest},
        time_slices,
        tunnel::TunnelUpstream,
        validate::prepare_tunnel,
    },
};

const WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// Asks the primary for the tunnel; it begins if the primary agrees.
///
/// # Errors
/// As any exchange: the primary gave no response.
pub(in crate::proxy) async fn bridge(
    ctx: &Context,
    mut record: ExchangeRecord,
    bridge: Bridge,
) -> Result<Response<ResponseBody>, Abort> {
    let Bridge { endpoint, request } = bridge;
    let client = Rc::clone(&record.client);
    let PrimaryRequest { mut head, body } = request;
    let protocol = head.extensions.remove::<h2::ext::Protocol>();
    head.version = http::Version::HTTP_11;
    if let Some(protocol) = &protocol {
        upgrade(&mut head, protocol.as_str(), || ctx.draw());
    }
    let requested = async {
        let stream = ctx
            .primary
            .connect_socket(&client.workload, &client.socket, endpoint)
            .await
            .map_err(|error| Failure::Connect(endpoint, error))?;
        let request = PrimaryRequest { head, body: PrimaryBody::Empty };
        request_tunnel(endpoint, ConnectionLease::new(stream, &client.upstreams), request).await
    };
    match requested.await {
        Err(failure) => failed(ctx, record, failure),
        Ok(TunnelResponse::Declined(response, upstream)) => {
            Ok(primary_response(record, response, upstream))
        }
        Ok(TunnelResponse::Unsolicited(endpoint)) => {
            record.endpoint = Some(endpoint);
            Ok(local_reply::unrequested_upgrade(record))
        }
        Ok(TunnelResponse::Agreed(response, TunnelUpstream { stream, early, .. })) => {
            record.endpoint = Some(endpoint);
            record.responded(ResponseSource::Primary, StatusCode::OK);
            let (mut head, _) = response.into_parts();
            head.status = StatusCode::OK;
            prepare_tunnel(&mut head);
            head.headers.remove(WEBSOCKET_ACCEPT);
            let (reader, writer) = stream.into_split();
            let sending = time_slices::spawn(send(body, writer)).abort_handle();
            let body = ResponseBody::raw(reader, early, record, sending);
            Ok(Response::from_parts(head, body))
        }
    }
}

/// RFC 8441, section 5: what CONNECT leaves out because HTTP/2 has no need of it.
fn upgrade(head: &mut http::request::Parts, protocol: &str, draw: impl Fn() -> u64) {
    head.method = Method::GET;
    let headers = &mut head.headers;
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(name) = HeaderValue::from_str(protocol) {
        headers.insert(header::UPGRADE, name);
    }
    if protocol == "websocket" && !headers.contains_key(WEBSOCKET_KEY) {
        headers.insert(WEBSOCKET_KEY, websocket_key(draw));
    }
}

/// 16 random bytes in base64 (RFC 6455, section 4.1).
fn websocket_key(draw: impl Fn() -> u64) -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u128::from(draw()) << 64 | u128::from(draw());
    let mut key = [b'='; 24];
    // 21 digits of 6 bits, and one of the last 2 bits.
    for (at, digit) in key[..22].iter_mut().enumerate() {
        let shifted = if at < 21 { bits >> (122 - 6 * at) } else { bits << 4 };
        *digit = DIGITS[(shifted & 0x3f) as usize];
    }
    HeaderValue::from_bytes(&key).expect("base64 is ASCII")
}

/// What the client sends, to the primary. A client that resets its stream resets the connection.
async fn send(mut body: PrimaryBody, mut writer: OwnedWriteHalf) {
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        match frame {
            None => return drop(writer.shutdown().await),
            Some(Err(_)) => {
                // A socket that refuses the option is closed with FIN: the next best.
                let _ = SockRef::from(writer.as_ref()).set_linger(Some(Duration::ZERO));
                return;
            }
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if writer.write_all(&data).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        let zero = websocket_key(|| 0);
        assert_eq!(zero, "AAAAAAAAAAAAAAAAAAAAAA==");
        let ones = websocket_key(|| u64::MAX);
        assert_eq!(ones, "/////////////////////w==");
        // "the sample nonce" (RFC 6455, section 1.3).
        let nonce = u128::from_be_bytes(*b"the sample nonce");
        let halves = std::cell::Cell::new([(nonce >> 64) as u64, nonce as u64]);
        let key = websocket_key(|| {
            let [next, after] = halves.get();
            halves.set([after, 0]);
            next
        });
        assert_eq!(key, "dGhlIHNhbXBsZSBub25jZQ==");
    }
}
