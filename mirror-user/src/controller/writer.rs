//! Writing: plans and leadership in; `status.parents` of routes out, one write at a time, and
//! an Event for what has become wrong. It never writes without leading: the remaining time is
//! checked before each write, and a write in progress when it ends is dropped.
//!
//! Each write is a merge patch of the whole list under the resourceVersion that it was computed
//! from. If another controller was faster (409), the route is read again and the list computed
//! again, so that no controller's entry is lost.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use super::{
    events::Reporter,
    lease::Leadership,
    metrics::{Metrics, Outcome},
    plan::{RoutePlan, StatusPlan},
    route::{RouteRow, VERSION},
    status,
};
use crate::{
    backoff::ExponentialBackoff,
    control::{decode::Defaults, expressions::Allowance},
    model::{RouteKind, RouteName},
};

use crate::error_chain::WithCauses;

/// Longest that the requests for one route may take.
const ROUTE: Duration = Duration::from_secs(5);

/// Writes of one route that lose against other writers, before it is left for later.
const ATTEMPTS: u32 = 20;

/// Pauses before what failed is tried again.
const RETRY: ExponentialBackoff =
    ExponentialBackoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// Routes at the API server.
#[derive(Clone)]
pub struct RouteApi(Client);

impl RouteApi {
    /// By this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    fn api(&self, name: &RouteName) -> Api<DynamicObject> {
        Api::namespaced_with(self.0.clone(), &name.object.namespace, &resource(name.kind))
    }

    /// Reads a route; None when it is gone.
    ///
    /// # Errors
    /// What the server says, or what the object lacks.
    pub async fn read(&self, name: &RouteName) -> Result<Option<RouteRow>, WriteError> {
        let Some(object) = self.api(name).get_opt(&name.object.name).await? else {
            return Ok(None);
        };
        let value =
            serde_json::to_value(object).map_err(|e| WriteError::Unreadable(e.to_string()))?;
        let read = RouteRow::read(&value, &Defaults::default(), &mut Allowance::default());
        read.map(|(row, _)| Some(row)).map_err(WriteError::Unreadable)
    }

    /// Replaces `status.parents`, if the route is still of that version.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] if it is not; what the server says otherwise.
    pub async fn write(
        &self,
        name: &RouteName,
        version: &str,
        parents: &[Value],
    ) -> Result<(), WriteError> {
        let patch = json!({
            "metadata": {"resourceVersion": version},
            "status": {"parents": parents},
        });
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        let api = self.api(name);
        api.patch_status(&name.object.name, &params, &Patch::Merge(patch)).await?;
        Ok(())
    }
}

const FIELD_MANAGER: &str = "mirror-controller";

/// A kind of routes, as the client wants to know it.
pub(super) fn resource(kind: RouteKind) -> ApiResource {
    let (group, version) = VERSION.split_once('/').unwrap_or_default();
    let named = GroupVersionKind::gvk(group, version, kind.label());
    ApiResource::from_gvk_with_plural(&named, kind.plural())
}

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another one wrote the route meanwhile (409).
    #[error("the route has changed in the meantime")]
    Conflict,
    /// The route is gone (404).
    #[error("the route is gone")]
    Gone,
    /// The server refused it, or cannot be reached.
    #[error(transparent)]
    Server(Box<kube::Error>),
    /// What the server sent is no route.
    #[error("the API server sent a route that cannot be read: {0}")]
    Unreadable(String),
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            kube::Error::Api(status) if status.code == 404 => Self::Gone,
            _ => Self::Server(Box::new(error)),
        }
    }
}

/// Carries out plans while this replica leads.
pub struct Writer {
    /// Where to.
    pub routes: RouteApi,
    /// Whether it may.
    pub leadership: Leadership,
    /// The newest plan.
    pub plans: watch::Receiver<Arc<StatusPlan>>,
    /// Reports what has become wrong.
    pub reporter: Reporter,
    /// What became of each write.
    pub metrics: Arc<Metrics>,
}

impl Writer {
    /// Writes forever.
    pub async fn run(mut self) {
        // Rounds in a row that left a route to be written, before the present one.
        let mut failures = 0_u32;
        loop {
            let unfinished = self.round().await;
            let leads = self.leadership.remaining().is_some();
            tokio::select! {
                changed = self.plans.changed() => if changed.is_err() { return },
                // One that came during the round counts.
                () = self.leadership.changed(), if !leads => {}
                () = sleep(RETRY.delay(failures)), if leads && unfinished => {}
            }
            failures = if unfinished { failures.saturating_add(1) } else { 0 };
        }
    }

    /// Each planned route once; true if any is not as planned after it.
    async fn round(&mut self) -> bool {
        let names: Vec<_> = self.plans.borrow_and_update().keys().cloned().collect();
        let mut unfinished = false;
        for name in names {
            // The newest plan counts, which may have none for this route any more.
            let plan = self.plans.borrow().get(&name).cloned();
            let Some(plan) = plan else { continue };
            let outcome = match self.leadership.remaining() {
                Some(left) => self.within(left, &name, &plan).await,
                None => return true,
            };
            self.metrics.write(outcome);
            unfinished |= matches!(outcome, Outcome::Failed | Outcome::Dropped);
        }
        unfinished
    }

    /// The end of the leadership comes first: a process that was stopped meanwhile finds it past
    /// before it looks at its connection again.
    async fn within(&mut self, left: Duration, name: &RouteName, plan: &RoutePlan) -> Outcome {
        tokio::select! {
            biased;
            () = sleep(left) => Outcome::Dropped,
            () = sleep(ROUTE) => {
                tracing::warn!(%name, "no response to the write of a status within {ROUTE:?}");
                Outcome::Failed
            }
            written = self.write(name, plan) => written.unwrap_or_else(|error| match error {
                WriteError::Gone => Outcome::Unchanged,
                error => {
                    let error = WithCauses(&error);
                    tracing::warn!(%name, %error, "cannot write the status of a route");
                    Outcome::Failed
                }
            }),
        }
    }

    async fn write(&mut self, name: &RouteName, plan: &RoutePlan) -> Result<Outcome, WriteError> {
        let mut row = plan.row.clone();
        for _ in 0..ATTEMPTS {
            let Some(parents) = plan.parents(&row, &now()) else { return Ok(Outcome::Unchanged) };
            if self.leadership.remaining().is_none() {
                return Ok(Outcome::Dropped);
            }
            match self.routes.write(name, &row.version, &parents).await {
                Ok(()) => {
                    let issues = status::new_issues(&row.parents, &parents);
                    self.reporter.report(name, &row.uid, issues).await;
                    return Ok(Outcome::Written);
                }
                Err(WriteError::Conflict) => self.metrics.write(Outcome::Conflict),
                Err(error) => return Err(error),
            }
            match self.routes.read(name).await? {
                Some(newer) if plan.is_about(&newer) => row = newer,
                // The route has changed since the plan was made: the watch reports it, and a new plan follows.
                _ => return Ok(Outcome::Unchanged),
            }
        }
        tracing::warn!(%name, "other controllers keep changing the status of a route; retrying later");
        Ok(Outcome::Failed)
    }
}

/// RFC 3339, to the second, as conditions have it (metav1.Time).
fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests;
