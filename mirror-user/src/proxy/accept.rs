//! Accepting: one listener of one workload, on this worker. Dropping the task drops the listener
//! and every connection that came from it, so that nothing keeps the workload's namespace alive.

use std::{future::poll_fn, io, rc::Rc, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinSet, time::sleep};

use super::{connection, context::Context, io::poll_slice, time_slices};
use crate::workload::Workload;

/// Accepts for ever.
pub(crate) async fn accept(ctx: Rc<Context>, workload: Arc<Workload>, listener: Rc<TcpListener>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let run = connection::run(Rc::clone(&ctx), Arc::clone(&workload), stream, peer);
                    connections.spawn_local(time_slices::inherit(run));
                    // A thousand may wait, and each takes some 10 µs: others have their turn in between.
                    poll_fn(poll_slice).await;
                }
                Err(error) => pause(&ctx, &workload, &error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Out of descriptors or memory: trying again at once would spin, and what comes next goes direct.
async fn pause(ctx: &Context, workload: &Workload, error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        ctx.starve();
        tracing::error!(client = %workload.name, %error, "accept failed; again in 100 ms");
        sleep(Duration::from_millis(100)).await;
    }
}
