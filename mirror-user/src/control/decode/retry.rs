//! `retry` of a rule. The generated types of the standard channel lack it, so that it is taken out of a
//! rule's document before the rest is read.

use serde::Deserialize;
use serde_json::Value;

use super::{DecodeFault, Decoded, Defaults, duration::duration, fault::fail, strict_at};
use crate::route::Retry;

/// Bounds of the API (HTTPRouteRetryStatusCode).
const CODES: std::ops::RangeInclusive<i64> = 400..=599;

#[derive(Deserialize)]
struct Typed {
    codes: Option<Vec<i64>>,
    attempts: Option<i64>,
    backoff: Option<String>,
}

/// Takes `retry` out of a rule's document; null is none.
pub(super) fn take(rule: &mut Value) -> Option<Value> {
    rule.as_object_mut()?.remove("retry").filter(|retry| !retry.is_null())
}

/// The `retry` at a path. None if it says 0 `attempts`.
pub(super) fn retry(path: &str, document: &Value, defaults: &Defaults) -> Decoded<Option<Retry>> {
    let Typed { codes, attempts, backoff } = strict_at(path, document, defaults)?;
    let invalid = |field: String, reason: String| {
        fail(format!("{path}.{field}"), DecodeFault::Invalid(reason))
    };
    let codes = codes.unwrap_or_default();
    if let Some(at) = codes.iter().position(|code| !CODES.contains(code)) {
        let reason = format!("{} is not within {} to {}", codes[at], CODES.start(), CODES.end());
        return invalid(format!("codes[{at}]"), reason);
    }
    let attempts = match attempts.map(u32::try_from) {
        None => Retry::DEFAULT_ATTEMPTS,
        Some(Ok(attempts)) => attempts,
        Some(Err(_)) => {
            return invalid("attempts".into(), "is not a number of retries, from 0".into());
        }
    };
    let backoff = match &backoff {
        None => Retry::DEFAULT_BACKOFF,
        Some(text) => match duration(text) {
            Some(backoff) => backoff,
            None => {
                let reason =
                    format!("{text:?} is not a duration (GEP-2257), such as 1h30m or 500ms");
                return invalid("backoff".into(), reason);
            }
        },
    };
    let codes = codes.into_iter().filter_map(|code| u16::try_from(code).ok()).collect();
    Ok((attempts > 0).then_some(Retry { codes, attempts, backoff }))
}
