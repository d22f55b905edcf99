//! Following one kind of object: a list, then the changes since, forever.
//!
//! In: an API and a selector. Out: [`Change`]s. After whatever failure it lists again, half a
//! second later. It is independent of the watch loop that mirror has, which it helps to test.

use std::{fmt::Debug, time::Duration};

use futures_util::{StreamExt, pin_mut};
use kube::{
    Api, Resource,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// What has changed.
pub(super) enum Change<K> {
    /// These are all that there are.
    All(Vec<K>),
    Applied(K),
    Deleted(K),
}

/// Runs until the receiver is gone.
pub(super) async fn follow<K>(api: Api<K>, fields: String, changes: mpsc::Sender<Change<K>>)
where
    K: Clone + Debug + DeserializeOwned + Resource + Send + Sync + 'static,
{
    while !changes.is_closed() {
        // An API server that is away is waited for; the log would only be filled.
        let _ = once(&api, &fields, &changes).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn once<K>(
    api: &Api<K>,
    fields: &str,
    changes: &mpsc::Sender<Change<K>>,
) -> anyhow::Result<()>
where
    K: Clone + Debug + DeserializeOwned + Resource + Send + Sync + 'static,
{
    let list = api.list(&ListParams::default().fields(fields)).await?;
    let mut version = list.metadata.resource_version.unwrap_or_default();
    changes.send(Change::All(list.items)).await?;
    loop {
        let params = WatchParams::default().fields(fields).timeout(290);
        let stream = api.watch(&params, &version).await?;
        pin_mut!(stream);
        while let Some(event) = stream.next().await {
            let change = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => Change::Applied(object),
                WatchEvent::Deleted(object) => Change::Deleted(object),
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => anyhow::bail!("{status:?}"),
            };
            if let Change::Applied(object) | Change::Deleted(object) = &change {
                version = object.meta().resource_version.clone().unwrap_or(version);
            }
            changes.send(change).await?;
        }
    }
}
