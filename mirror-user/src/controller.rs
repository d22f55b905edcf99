//! `mirror controller`: what the agents make of each HTTPRoute, written where its author looks.
//! In: the objects of the cluster. Out: `status.parents` of HTTPRoutes, and Events. It carries no
//! traffic and needs no capability; without it everything works, and nobody is told.
//!
//! The flow: `informer` (watches -> [`world`]) -> [`plan`] (resolve -> [`status`]) -> [`writer`]
//! (while the [`lease`] says so; with [`events`] beside it). [`uninstall`] takes it all out again.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::{
    events::Reporter,
    informer::Informer,
    lease::{ClusterLease, Elector, Timing, boot_time},
    metrics::Metrics,
    window::Window,
    writer::{Routes, Writer},
};
use crate::{
    admin::Admin,
    kube::{Where, connect},
};

mod args;
pub mod events;
mod informer;
pub mod lease;
pub mod metrics;
pub mod plan;
pub mod route;
pub mod status;
pub mod uninstall;
pub mod window;
pub mod world;
pub mod writer;

pub use self::args::{ControllerArgs, LeaseArgs, UninstallArgs};

/// How long giving the Lease back may take at the end.
const GOODBYE: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT, then gives the Lease back.
///
/// # Errors
/// What keeps it from starting. That the API server does not answer is no such thing.
pub async fn run(args: &ControllerArgs) -> anyhow::Result<()> {
    Admin::check(args.admin, args.admin_remote)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let client = connect(Where::find()).await?;
    let admin = Admin::bind(args.admin, args.admin_remote).await?;
    let me = args.unique_identity();
    let lease = ClusterLease::new(client.clone(), &args.lease.namespace, &args.lease.lease);
    let elector = Elector::new(lease, me.clone(), Timing::DEFAULT, boot_time);
    let leadership = elector.leadership();
    let metrics = Arc::new(Metrics::default());
    let window = Window::new(Arc::clone(&metrics), leadership.clone());
    let (informer, plans) = Informer::start(&client, Arc::clone(&metrics), window.clone());
    let reporter = Reporter::new(client.clone(), me.clone(), Arc::clone(&metrics));
    let writer = Writer { routes: Routes::new(client), leadership, plans, reporter, metrics };
    let cancel = CancellationToken::new();
    let answer = move |request| {
        let response = window.answer(&request);
        async move { response }
    };
    tracing::info!(me, admin = %admin.address(), "the controller runs");
    let mut serving = tokio::spawn(admin.serve_by(answer, cancel.clone()));
    let mut electing = tokio::spawn(elector.run(cancel.clone()));
    // One end of the four is the end of all: the kubelet starts it anew.
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = informer.run() => Err("the watches have ended"),
        () = writer.run() => Err("the writer has ended"),
        _ = &mut serving => Err("the admin server has ended"),
        _ = &mut electing => Err("the election has ended"),
    };
    // The writer is gone by now, and may not write on: only then is the Lease given back.
    cancel.cancel();
    if !electing.is_finished() {
        let _ = tokio::time::timeout(GOODBYE, electing).await;
    }
    ended.map_err(anyhow::Error::msg).context("the controller cannot go on")
}
