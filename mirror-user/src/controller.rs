//! `mirror controller`: what the agents make of each HTTPRoute, written where its author looks.
//! In: the objects of the cluster. Out: `status.parents` of HTTPRoutes, and Events. It carries no
//! traffic and needs no capability; without it everything works, but statuses are not reported.
//!
//! The flow: `informer` (watches -> [`object_store`]) -> [`plan`] (resolve -> [`status`]) -> [`writer`]
//! (while the [`lease`] says so; with [`events`] beside it). [`uninstall`] takes it all out again.

#![forbid(unsafe_code)]

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::{
    admin::AdminService,
    events::Reporter,
    informer::Informer,
    lease::{ClusterLease, Elector, Timing, boot_time},
    metrics::Metrics,
    object_store::ObjectStore,
    writer::{RouteApi, Writer},
};
use crate::{
    admin::{Admin, Hosts},
    kube::{ConfigSource, connect},
};

pub mod admin;
mod args;
pub mod events;
mod informer;
pub mod lease;
pub mod metrics;
pub mod object_store;
pub mod plan;
pub mod route;
pub mod status;
pub mod uninstall;
pub mod writer;

pub use self::args::{ControllerArgs, LeaseArgs, UninstallArgs};

/// How long giving the Lease back may take at the end.
const GOODBYE: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT, then gives the Lease back.
///
/// # Errors
/// Says why it cannot start. An API server that does not respond is not an error.
pub async fn run(args: &ControllerArgs) -> anyhow::Result<()> {
    Admin::check(args.admin, args.admin_remote)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let client = connect(ConfigSource::find()).await?;
    let admin = Admin::bind(args.admin, args.admin_remote).await?;
    let admin = admin.with_hosts(Hosts::new(&args.admin_host));
    let me = args.unique_identity();
    let lease = ClusterLease::new(client.clone(), &args.lease.namespace, &args.lease.lease);
    let elector = Elector::new(lease, me.clone(), Timing::DEFAULT, boot_time);
    let leadership = elector.leadership();
    let metrics = Arc::new(Metrics::default());
    let admin_service = AdminService::new(Arc::clone(&metrics), leadership.clone());
    let (informer, plans) = Informer::start(
        &client,
        ObjectStore::new(args.addresses.of_cluster(), args.addresses.bounds()),
        Arc::clone(&metrics),
        admin_service.clone(),
    );
    let reporter = Reporter::new(client.clone(), me.clone(), Arc::clone(&metrics));
    let writer = Writer { routes: RouteApi::new(client), leadership, plans, reporter, metrics };
    let cancel = CancellationToken::new();
    let handler = move |request| {
        let response = admin_service.respond(&request);
        async move { response }
    };
    tracing::info!(me, admin = %admin.address(), "the controller runs");
    let mut serving = tokio::spawn(admin.serve_by(handler, cancel.clone()));
    let mut electing = tokio::spawn(elector.run(cancel.clone()));
    // One end of the four is the end of all: the kubelet starts it again.
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
    ended.map_err(anyhow::Error::msg).context("the controller must stop")
}
