//! Events: what a user must act on, reported where `kubectl describe` shows it. In: issues that have
//! just arisen. Out: Events of events.k8s.io/v1 on the route. An issue that comes and goes is
//! one Event whose series counts, not many; nothing waits for an Event, and none is repeated because
//! time passes or another replica takes over.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::api::events::v1::Event;
use kube::{
    Client,
    api::{Api, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{
    metrics::Metrics,
    route::VERSION,
    status::{CONTROLLER, Issue},
};
use crate::{error_chain::WithCauses, model::RouteName};

/// Longest that one Event may take; then it is lost.
const REQUEST: Duration = Duration::from_secs(2);

/// An issue that comes back later than this begins a new series (client-go: 6 minutes).
const SERIES: Duration = Duration::from_secs(360);

/// A series is written at most this often; what happens in between is counted.
const PACE: Duration = Duration::from_secs(10);

/// Series that are remembered; the oldest goes first.
const REMEMBERED: usize = 4096;

/// `maxLength` of `note`, in bytes (Event, events.k8s.io/v1).
const NOTE: usize = 1024;

/// Longest part of a route's name in an Event's name, of which all has 253 bytes at most.
const STEM: usize = 220;

/// Which issues are the same one.
type Key = (String, String, String);

/// Reports issues.
pub struct Reporter {
    client: Client,
    /// `reportingInstance`.
    instance: String,
    metrics: Arc<Metrics>,
    series: HashMap<Key, Series>,
}

struct Series {
    event: String,
    count: i32,
    last: Instant,
    written: Instant,
}

/// What to send.
#[derive(Debug, PartialEq)]
enum EventMessage {
    Create(Value),
    Patch(String, Value),
}

impl Reporter {
    /// `instance` names this replica, in at most 128 bytes.
    #[must_use]
    pub fn new(client: Client, instance: String, metrics: Arc<Metrics>) -> Self {
        Self { client, instance, metrics, series: HashMap::new() }
    }

    /// Sends an Event for each; what fails is counted, and not tried again.
    pub async fn report(&mut self, route: &RouteName, uid: &str, issues: BTreeSet<Issue>) {
        for issue in issues {
            let now = (Instant::now(), SystemTime::now());
            let Some(message) = self.message(route, uid, &issue, now) else { continue };
            let sent = timeout(REQUEST, self.send(&route.object.namespace, message)).await;
            let sent = sent.map_err(|_| "no response".to_owned()).flatten();
            self.metrics.event(sent.is_ok());
            if let Err(error) = sent {
                tracing::debug!(%route, error, "cannot write an Event");
            }
        }
    }

    async fn send(&self, namespace: &str, message: EventMessage) -> Result<(), String> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let sent = match message {
            EventMessage::Create(event) => {
                let event = serde_json::from_value(event).map_err(|error| error.to_string())?;
                api.create(&PostParams::default(), &event).await
            }
            EventMessage::Patch(name, patch) => {
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await
            }
        };
        sent.map(drop).map_err(|error| WithCauses(&error).to_string())
    }

    /// A new Event, one more of its series, or nothing for now.
    fn message(
        &mut self,
        route: &RouteName,
        uid: &str,
        issue: &Issue,
        (now, wall): (Instant, SystemTime),
    ) -> Option<EventMessage> {
        let time = humantime::format_rfc3339_micros(wall).to_string();
        let key = (uid.to_owned(), issue.condition.clone(), issue.reason.clone());
        if let Some(series) = self.series.get_mut(&key).filter(|s| now - s.last < SERIES) {
            series.count = series.count.saturating_add(1);
            series.last = now;
            if now - series.written < PACE {
                return None;
            }
            series.written = now;
            let patch = json!({"series": {"count": series.count, "lastObservedTime": time}});
            return Some(EventMessage::Patch(series.event.clone(), patch));
        }
        self.forget();
        let stem: String = route.object.name.chars().take(STEM).collect();
        let event = format!("{stem}.{:016x}", rand::random::<u64>());
        let series = Series { event: event.clone(), count: 1, last: now, written: now };
        self.series.insert(key, series);
        Some(EventMessage::Create(json!({
            "metadata": {"namespace": route.object.namespace, "name": event},
            "eventTime": time,
            "reportingController": CONTROLLER,
            "reportingInstance": self.instance,
            "action": if issue.condition == "ResolvedRefs" { "ResolveRefs" } else { "Attach" },
            "reason": issue.reason,
            "type": "Warning",
            "note": note(issue),
            "regarding": {
                "apiVersion": VERSION, "kind": route.kind.label(),
                "namespace": route.object.namespace, "name": route.object.name, "uid": uid,
            },
        })))
    }

    fn forget(&mut self) {
        if self.series.len() >= REMEMBERED
            && let Some(oldest) =
                self.series.iter().min_by_key(|(_, series)| series.last).map(|(key, _)| key.clone())
        {
            self.series.remove(&oldest);
        }
    }
}

fn note(issue: &Issue) -> String {
    let mut note = format!("{}: {}", issue.condition, issue.message);
    if note.len() > NOTE {
        note.truncate(note.floor_char_boundary(NOTE - '…'.len_utf8()));
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObjectName, RouteKind};

    fn reporter() -> Reporter {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        Reporter::new(client, "test".into(), Arc::default())
    }

    fn issue(reason: &str) -> Issue {
        let message = "ß".repeat(600);
        Issue { condition: "Accepted".into(), reason: reason.into(), message }
    }

    #[tokio::test]
    async fn an_issue_that_comes_back_is_one_event_that_counts() {
        let mut reporter = reporter();
        let route = ObjectName { namespace: "shop".into(), name: "r".repeat(253) };
        let route = RouteKind::Http.named(route);
        let start = Instant::now();
        let mut at = |seconds, reason: &str| {
            let now = (start + Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
            reporter.message(&route, "u", &issue(reason), now)
        };
        let Some(EventMessage::Create(event)) = at(0, "UnsupportedValue") else {
            panic!("no Event")
        };
        let typed: Event = serde_json::from_value(event.clone()).unwrap();
        assert!(typed.note.unwrap().len() <= NOTE);
        assert!(event["metadata"]["name"].as_str().unwrap().len() <= 253);
        assert_eq!(at(9, "UnsupportedValue"), None, "counted, and not written yet");
        let Some(EventMessage::Patch(name, patch)) = at(40, "UnsupportedValue") else { panic!() };
        assert_eq!(
            (&event["metadata"]["name"], &patch["series"]["count"]),
            (&json!(name), &json!(3))
        );
        assert!(matches!(at(41, "Conflicted"), Some(EventMessage::Create(_))), "another reason");
        assert!(matches!(at(500, "UnsupportedValue"), Some(EventMessage::Create(_))), "long ago");
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let mut reporter = reporter();
        let route = ObjectName { namespace: "shop".into(), name: "r".into() };
        let route = RouteKind::Grpc.named(route);
        for number in 0..REMEMBERED + 100 {
            let now = (Instant::now(), SystemTime::now());
            reporter.message(&route, &number.to_string(), &issue("Conflicted"), now);
        }
        assert_eq!(reporter.series.len(), REMEMBERED);
    }
}
