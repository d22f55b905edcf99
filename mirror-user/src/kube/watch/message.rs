//! What a server says, line by line or page by page. In: JSON. Out: its parts, objects untouched.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::HashMap, time::Duration};

use super::WatchError;
use crate::model::ObjectName;

/// Ends the list that a watch begins with (KEP-3157).
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// A line of a watch (WatchEvent).
#[derive(Debug)]
pub(super) enum Message<'a> {
    /// ADDED or MODIFIED.
    Applied { version: Option<String>, object: &'a RawValue },
    /// DELETED.
    Deleted { version: Option<String>, name: ObjectName },
    /// BOOKMARK.
    Bookmark { version: String, ends_list: bool },
}

#[derive(Deserialize)]
struct WatchEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// The few fields of an object that a watch itself needs; all others are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    namespace: Option<String>,
    name: Option<String>,
    resource_version: Option<String>,
    annotations: Option<HashMap<String, String>>,
}

/// `v1` Status.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    code: Option<u16>,
    reason: Option<String>,
    message: Option<String>,
    details: Option<StatusDetails>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusDetails {
    retry_after_seconds: Option<u64>,
}

impl Status {
    /// Parses a response's body. A proxy in between, or a server that starts, sends other text.
    pub(super) fn parse(body: &str) -> Self {
        let message = || Some(body.chars().take(200).collect());
        serde_json::from_str(body)
            .unwrap_or_else(|_| Self { message: message(), ..Self::default() })
    }

    pub(super) fn refusal(self, status: u16) -> WatchError {
        let seconds = self.details.and_then(|details| details.retry_after_seconds);
        WatchError::Refused {
            status: self.code.unwrap_or(status),
            message: self.message.or(self.reason).unwrap_or_else(|| "without a reason".into()),
            retry_after: Duration::from_secs(seconds.unwrap_or_default()),
        }
    }
}

impl<'a> Message<'a> {
    /// An ERROR becomes the error that it reports.
    pub(super) fn parse(line: &'a str) -> Result<Self, WatchError> {
        let event: WatchEvent<'a> = serde_json::from_str(line).map_err(|e| garbage(&e, line))?;
        match &*event.kind {
            "ADDED" | "MODIFIED" => {
                let version = head(event.object).and_then(|metadata| metadata.resource_version);
                Ok(Self::Applied { version, object: event.object })
            }
            "DELETED" => {
                let metadata = head(event.object).unwrap_or_default();
                let version = metadata.resource_version.clone();
                let name = metadata.name();
                let name = name.ok_or_else(|| missing("a deleted object", "metadata.name"))?;
                Ok(Self::Deleted { version, name })
            }
            "BOOKMARK" => {
                let metadata = head(event.object).unwrap_or_default();
                let notes = metadata.annotations.as_ref();
                let ends_list = notes.is_some_and(|notes| notes.contains_key(LIST_ENDS));
                let version = metadata.resource_version;
                let version =
                    version.ok_or_else(|| missing("a bookmark", "metadata.resourceVersion"))?;
                Ok(Self::Bookmark { version, ends_list })
            }
            "ERROR" => {
                let status: Status = serde_json::from_str(event.object.get()).unwrap_or_default();
                Err(status.refusal(500))
            }
            other => Err(WatchError::Garbage(format!("an event of type {other:?}"))),
        }
    }
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) items: Vec<&'a RawValue>,
    pub(super) version: String,
    /// `metadata.continue`: there are more.
    pub(super) after: Option<String>,
}

impl<'a> Page<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, WatchError> {
        #[derive(Deserialize)]
        struct List<'a> {
            metadata: ListMetadata,
            /// Go writes an empty list as null.
            #[serde(borrow, default)]
            items: Option<Vec<&'a RawValue>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ListMetadata {
            resource_version: Option<String>,
            #[serde(rename = "continue")]
            after: Option<String>,
        }
        let list: List<'a> = serde_json::from_str(text).map_err(|error| garbage(&error, text))?;
        let version = list.metadata.resource_version.filter(|version| !version.is_empty());
        Ok(Self {
            items: list.items.unwrap_or_default(),
            version: version.ok_or_else(|| missing("a list", "metadata.resourceVersion"))?,
            after: list.metadata.after.filter(|token| !token.is_empty()),
        })
    }
}

/// The name of an object; the namespace is `default` where it has none, as everywhere.
pub(super) fn name(object: &RawValue) -> Option<ObjectName> {
    head(object)?.name()
}

fn head(object: &RawValue) -> Option<Metadata> {
    serde_json::from_str::<Head>(object.get()).ok().map(|head| head.metadata)
}

impl Metadata {
    fn name(self) -> Option<ObjectName> {
        let name = self.name.filter(|name| !name.is_empty())?;
        let namespace = self.namespace.filter(|namespace| !namespace.is_empty());
        Some(ObjectName { namespace: namespace.unwrap_or_else(|| "default".into()), name })
    }
}

fn missing(what: &str, field: &str) -> WatchError {
    WatchError::Garbage(format!("{what} without {field}"))
}

fn garbage(error: &serde_json::Error, text: &str) -> WatchError {
    let beginning: String = text.chars().take(80).collect();
    WatchError::Garbage(format!("{error}, in {beginning:?}"))
}
