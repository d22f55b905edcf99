//! `mirror uninstall`: takes out of the cluster what deleting mirror's own objects leaves there.
//! In: a cluster in which no controller runs any more. Out: routes without entries of ours, no
//! Lease, and what was done, on stdout. It deletes nothing that was installed: that is
//! `kubectl delete -k`.

use anyhow::{Context as _, bail};
use kube::{
    Client,
    api::{Api, DynamicObject, ListParams},
};
use tokio::time::sleep;

use super::{
    args::UninstallArgs,
    lease::{ClusterLease, LeaseStore as _, Timing},
    route::RouteRow,
    status::{self, Moment},
    writer::{self, RouteApi, WriteError},
};
use crate::{
    kube::{ConfigSource, connect},
    model::{ObjectName, RouteKind, RouteName},
    stdout,
};

/// Routes of one page of the list.
const PAGE: u32 = 500;

/// Writes of one route that lose against other writers.
const ATTEMPTS: u32 = 20;

/// Cleans the cluster.
///
/// # Errors
/// When a controller still runs, or the API server refuses something.
pub async fn run(args: &UninstallArgs) -> anyhow::Result<()> {
    let client = connect(ConfigSource::find()).await?;
    let lease = ClusterLease::new(client.clone(), &args.lease.namespace, &args.lease.lease);
    if !args.force {
        refuse_if_running(&lease).await?;
    }
    for kind in RouteKind::ALL {
        let (cleaned, all) = clean(&client, kind).await?;
        let kind = kind.label();
        print(&format!("removed mirror's status from {cleaned} of {all} {kind}s\n"))?;
    }
    let place = format!("Lease {}/{}", args.lease.namespace, args.lease.lease);
    match lease.delete().await.with_context(|| format!("cannot delete the {place}"))? {
        true => print(&format!("deleted {place}\n")),
        false => print(&format!("{place} does not exist\n")),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    stdout::print(text).context("writing to stdout")
}

/// A controller that ended gave its Lease back; one that was killed does not renew it.
async fn refuse_if_running(lease: &ClusterLease) -> anyhow::Result<()> {
    let read = || async { lease.read().await.context("cannot read the Lease") };
    let Some(first) = read().await?.filter(|lease| !lease.record.holder.is_empty()) else {
        return Ok(());
    };
    sleep(Timing::DEFAULT.renew + Timing::DEFAULT.retry).await;
    match read().await? {
        Some(second) if second.record.stamps != first.record.stamps => bail!(
            "the controller {} still runs and would write the removed entries again: delete it first \
             (kubectl -n mirror-system delete deployment mirror-controller), or use --force",
            second.record.holder
        ),
        _ => Ok(()),
    }
}

/// Of how many routes of a kind something was taken out, and how many there are.
async fn clean(client: &Client, kind: RouteKind) -> anyhow::Result<(usize, usize)> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &writer::resource(kind));
    let routes = RouteApi::new(client.clone());
    let (mut cleaned, mut all) = (0, 0);
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = match api.list(&page).await {
            // The CRD is gone, and all routes with it.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok((0, 0)),
            list => list.with_context(|| format!("cannot list {}s", kind.label()))?,
        };
        for object in list.items {
            all += 1;
            let metadata = &object.metadata;
            let [namespace, name] = [&metadata.namespace, &metadata.name]
                .map(|field| field.clone().unwrap_or_default());
            let name = kind.named(ObjectName { namespace, name });
            let parents = object.data.pointer("/status/parents").and_then(|list| list.as_array());
            if parents.is_some_and(|parents| status::has_ours(parents)) {
                let outcome = clean_route(&routes, &name).await;
                outcome.with_context(|| format!("cannot clean {}", name.identity()))?;
                cleaned += 1;
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            None => return Ok((cleaned, all)),
            Some(token) => page = page.continue_token(&token),
        }
    }
}

async fn clean_route(routes: &RouteApi, name: &RouteName) -> Result<(), WriteError> {
    for _ in 0..ATTEMPTS {
        let Some(row) = routes.read(name).await? else { return Ok(()) };
        let Some(parents) = without_ours(&row) else { return Ok(()) };
        match routes.write(name, &row.version, &parents).await {
            Err(WriteError::Conflict) => {}
            Err(WriteError::Gone) => return Ok(()),
            ended => return ended,
        }
    }
    Err(WriteError::Conflict)
}

fn without_ours(row: &RouteRow) -> Option<Vec<serde_json::Value>> {
    status::parents(&row.parents, &[], Moment { generation: row.generation, time: "" })
}
