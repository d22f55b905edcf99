//! One connection of HTTP/1 to a shadow, in one task. Copies without content may follow
//! each other before the first is answered (see [`Pipeline`]); any other has the connection for
//! itself, and the next is carried only when its response was framed to its end without a close.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use super::{
    copy::Copy,
    endpoint_pool::{ConnectionPermit, EndpointPool},
    head::Http1Head,
    outcome::{BytesWritten, responded, sent, timed_out},
    pipeline::{Pipeline, PipelineEnd},
    pooled_connection::{NextAction, PooledConnection},
};
use crate::{
    outcome::{CopyOutcome, DropReason, UnknownReason},
    proxy::{
        http1::{ClientConnection, SendError},
        read_limit::{ConnectionMode, RECEIVE_BUFFER, ReadLimit, UpstreamStream},
        tee::{CopyBody, CopyStatus},
    },
};

/// How long a new connection is left alone before a copy that waits is taken up, unless the endpoint
/// is known to keep connections open: a server that closes after each response without having said so
/// does it now.
const SETTLING: Duration = Duration::from_millis(5);

/// A connection to a shadow.
pub(super) type ShadowConnection = ClientConnection<CopyBody>;

/// Connects, carries `first`, then what the pool hands over, until the connection ends; and makes
/// room for copies that wait.
pub(super) async fn run(permit: ConnectionPermit, first: Copy<Http1Head>) {
    let pool = Rc::clone(permit.pool());
    drive(permit, first).await;
    pool.drain_queue();
}

async fn drive(permit: ConnectionPermit, first: Copy<Http1Head>) {
    let pool = Rc::clone(permit.pool());
    let limit = ReadLimit::new(&pool.reads, ConnectionMode::Serial);
    let connection = match open(&pool, &limit).await {
        Ok(connected) => connected,
        Err(reason) => {
            pool.health.record_connect(false);
            return first.guard.settle(CopyOutcome::Dropped(reason), 0);
        }
    };
    pool.health.record_connect(true);
    let pooled = pool.http1.register(PooledConnection::new(connection, limit));
    pooled.begin(&first, Instant::now());
    let (mut copy, mut taken) = (first, 0);
    loop {
        let reuse = if copy.head.encoded.has_no_content() {
            let mut pipeline = Pipeline::new(&pool, &pooled, copy, taken);
            let reuse = poll_fn(|cx| pipeline.poll(cx)).await;
            taken = pipeline.taken();
            match reuse {
                PipelineEnd::Reusable => Reuse::Reusable,
                PipelineEnd::Closed => Reuse::Ended,
            }
        } else {
            taken += 1;
            send_copy(&pooled, copy).await
        };
        // One that ended before it has proven anything says the opposite.
        if pooled.is_proven() || !matches!(reuse, Reuse::Reusable) {
            pool.http1.keeps_open(pooled.is_proven());
        }
        match reuse {
            Reuse::Reusable => pool.health.record_response(true),
            // That it did not come to its end is our doing.
            Reuse::Broken if pooled.limit.exceeded().is_some() => return,
            Reuse::Last => return pool.health.record_response(true),
            Reuse::Broken => return pool.health.record_response(false),
            Reuse::Ended => return,
        }
        match next(&pool, &pooled).await {
            NextAction::Send(next) => copy = next,
            NextAction::Close => return,
        }
    }
}

/// What an idle connection is to do: a copy that waits goes before one that comes.
async fn next(pool: &EndpointPool, pooled: &Rc<PooledConnection>) -> NextAction {
    if pool.has_waiting() {
        if !pooled.is_proven() && !pool.http1.is_known_to_keep_open() {
            sleep(SETTLING).await;
        }
        if !pooled.connection.is_quiet() {
            pool.http1.keeps_open(pooled.is_proven());
            return NextAction::Close;
        }
        if let Some(copy) = pool.next() {
            pooled.begin(&copy, Instant::now());
            return NextAction::Send(copy);
        }
    }
    pool.http1.release(pooled);
    poll_fn(|cx| {
        let action = pooled.poll(cx.waker());
        if action.is_pending() && pooled.connection.poll_closed(cx).is_ready() {
            pool.http1.remove_idle(pooled);
            return Poll::Ready(NextAction::Close);
        }
        action
    })
    .await
}

async fn open(
    pool: &EndpointPool,
    limit: &Rc<ReadLimit>,
) -> Result<Rc<ShadowConnection>, DropReason> {
    match timeout(pool.options.connect_timeout, connect(pool, limit)).await {
        Err(_) => Err(DropReason::ConnectTimeout),
        Ok(Err(error)) => {
            tracing::debug!(endpoint = %pool.endpoint, %error, "cannot connect to a shadow");
            Err(DropReason::Connect)
        }
        Ok(Ok(connected)) => Ok(connected),
    }
}

async fn connect(pool: &EndpointPool, limit: &Rc<ReadLimit>) -> io::Result<Rc<ShadowConnection>> {
    let socket = pool.sockets.stream(&pool.netns, pool.endpoint.is_ipv6())?;
    socket.set_nodelay(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    let stream = socket.connect(pool.endpoint).await?;
    Ok(ClientConnection::new(UpstreamStream::limited(stream, Rc::clone(limit))))
}

/// What becomes of the connection.
enum Reuse {
    /// The response is whole; it may carry another copy.
    Reusable,
    /// The response is whole, and the last one.
    Last,
    /// The shadow ended it before the response's end.
    Broken,
    /// It is over, and the pool knows how.
    Ended,
}

/// Carries a copy with content.
async fn send_copy(pooled: &PooledConnection, copy: Copy<Http1Head>) -> Reuse {
    let connection = &pooled.connection;
    let Copy { head, body, guard, charge, .. } = copy;
    let status = body.status();
    let (before, since) = (connection.written(), Instant::now());
    let _pending = pooled.limit.expect_response();
    let response = connection.send_encoded(&head.encoded, body);
    let response = tokio::select! {
        biased;
        response = response => Some(response),
        () = wait_until_timed_out(pooled, &status) => None,
        reason = status.cut() => {
            guard.settle(CopyOutcome::Dropped(reason), status.taken());
            connection.abort();
            return Reuse::Ended;
        }
    };
    let (outcome, reuse) = match response {
        Some(Ok(response)) => {
            drop(charge);
            guard.responded(response.status().as_u16(), since.elapsed());
            let open = guard.settle_if_whole(&status);
            let reuse = finish(pooled, &status).await;
            pooled.response_done(None);
            if let Some(guard) = open {
                guard.settle(responded(&status, reuse.is_some()), status.taken());
            }
            return reuse.unwrap_or_else(|| {
                connection.abort();
                Reuse::Ended
            });
        }
        Some(Err((error, _))) => connection_lost(pooled, &status, before, &error),
        None => {
            connection.abort();
            (timed_out(&status), Reuse::Ended)
        }
    };
    guard.settle(outcome, status.taken());
    reuse
}

/// The connection ended without a response: what that says of the copy.
fn connection_lost(
    pooled: &PooledConnection,
    status: &CopyStatus,
    before: u64,
    error: &SendError,
) -> (CopyOutcome, Reuse) {
    let connection = &pooled.connection;
    let reuse = if status.cut_reason().is_some() { Reuse::Ended } else { Reuse::Broken };
    let unknown = unknown(&pooled.limit, error.error.is_malformed());
    let taken =
        BytesWritten { any: connection.written() > before, refused: connection.write_failed() };
    (sent(taken, status, unknown), reuse)
}

/// Reads the response to its end and drops it, and sends the rest of the copy. None when it was cut,
/// or time ran out.
async fn finish(pooled: &PooledConnection, status: &CopyStatus) -> Option<Reuse> {
    let connection = &pooled.connection;
    let rest = async {
        let read = poll_fn(|cx| connection.poll_discard_content(cx));
        let (whole, ()) = tokio::join!(read, connection.send_rest());
        if whole.is_ok() { reuse(connection) } else { Reuse::Broken }
    };
    tokio::select! {
        biased;
        reuse = rest => Some(reuse),
        () = wait_until_timed_out(pooled, status) => None,
        _ = status.cut() => None,
    }
}

/// Waits until the pool's sweep finds that the copy has taken too long: no copy has a timer of its
/// own.
async fn wait_until_timed_out(pooled: &PooledConnection, status: &CopyStatus) {
    poll_fn(|cx| {
        if pooled.is_timed_out() {
            match status.waits_since() {
                Some(since) => pooled.waits_since(since),
                None => return Poll::Ready(()),
            }
        }
        pooled.listen(cx.waker());
        Poll::Pending
    })
    .await;
}

/// Of a connection that has carried a copy and its response.
fn reuse(connection: &ShadowConnection) -> Reuse {
    if connection.persists() { Reuse::Reusable } else { Reuse::Last }
}

/// Why nothing is known of a copy whose connection ended without a response.
pub(super) fn unknown(limit: &ReadLimit, malformed: bool) -> UnknownReason {
    match limit.exceeded() {
        Some(_) => UnknownReason::Flood,
        None if malformed => UnknownReason::Malformed,
        None => UnknownReason::Closed,
    }
}

#[cfg(test)]
mod tests;
