//! A ServiceAccount of the cluster, for a process outside of a pod: its kubeconfig with a bound
//! token, and what the audit log says of that very token.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::ControlPlane;
use crate::node::Node;

/// A token of a ServiceAccount.
#[derive(Clone, Debug)]
pub struct Account {
    /// As the audit log names it.
    pub user: String,
    /// `authentication.kubernetes.io/credential-id` of the token.
    pub credential: String,
    /// A kubeconfig that uses the token.
    pub kubeconfig: PathBuf,
}

/// A request of the audit log.
#[derive(Clone, Debug)]
pub struct Request {
    /// `list`, `patch` and so on.
    pub verb: String,
    /// `group/resource` or `group/resource/subresource`; the group of core is empty.
    pub resource: String,
    /// Status of the response; 0 while there is none.
    pub code: u64,
    /// When it came, RFC 3339 in UTC: comparable as text.
    pub time: String,
}

impl Account {
    /// Has a token made for a ServiceAccount; `name` names the file of the kubeconfig.
    ///
    /// # Errors
    /// There is no such ServiceAccount, or the token is none.
    pub fn new(
        node: &Node,
        plane: &ControlPlane<'_>,
        namespace: &str,
        account: &str,
        name: &str,
    ) -> Result<Self> {
        let token = plane.kubectl(&["-n", namespace, "create", "token", account], "")?;
        let token = token.trim();
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster":
                {"server": plane.url(), "certificate-authority": plane.pki("ca.crt")}}],
            "users": [{"name": "c", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        let kubeconfig = node.folder().join(format!("{name}.kubeconfig"));
        fs::write(&kubeconfig, config.to_string())?;
        Ok(Self {
            user: format!("system:serviceaccount:{namespace}:{account}"),
            credential: format!("JTI={}", token_id(token).context("the token has no jti")?),
            kubeconfig,
        })
    }

    /// The requests that were made with this token, in their order.
    ///
    /// # Errors
    /// The control plane has no audit log, or it is not JSON.
    pub fn requests(&self, plane: &ControlPlane<'_>) -> Result<Vec<Request>> {
        filtered(plane, |user| {
            let credentials = &user["extra"]["authentication.kubernetes.io/credential-id"];
            user["username"] == *self.user && credentials[0] == *self.credential
        })
    }
}

/// The requests that a user made, by whichever token, in their order.
///
/// # Errors
/// The control plane has no audit log, or it is not JSON.
pub fn requests_of(plane: &ControlPlane<'_>, username: &str) -> Result<Vec<Request>> {
    filtered(plane, |user| user["username"] == *username)
}

fn filtered(plane: &ControlPlane<'_>, by: impl Fn(&Value) -> bool) -> Result<Vec<Request>> {
    let log = plane.audit_log()?;
    let mut requests = Vec::new();
    // The last line may be incomplete.
    for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let event: Value = serde_json::from_str(line).context("the audit log")?;
        if by(&event["user"]) {
            requests.push(Request::new(&event));
        }
    }
    Ok(requests)
}

impl Request {
    fn new(event: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let mut resource = format!("{}/{}", text(&object["apiGroup"]), text(&object["resource"]));
        if let Some(part) = object["subresource"].as_str() {
            resource = format!("{resource}/{part}");
        }
        Self {
            verb: text(&event["verb"]),
            resource,
            code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
            time: text(&event["requestReceivedTimestamp"]),
        }
    }
}

/// What roles allow, as `verb group/resource`.
///
/// # Errors
/// kubectl does not know the roles.
pub fn allowed(plane: &ControlPlane<'_>, roles: &[&[&str]]) -> Result<BTreeSet<String>> {
    let mut allowed = BTreeSet::new();
    for role in roles {
        let mut args = vec!["get", "-o", "json"];
        args.extend_from_slice(role);
        let role: Value = serde_json::from_str(&plane.kubectl(&args, "")?)?;
        let texts = |value: &Value| -> Vec<String> {
            let list = value.as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        for rule in role["rules"].as_array().into_iter().flatten() {
            for verb in texts(&rule["verbs"]) {
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        allowed.insert(format!("{verb} {group}/{resource}"));
                    }
                }
            }
        }
    }
    Ok(allowed)
}

/// `jti` of a JSON Web Token (RFC 7519).
fn token_id(token: &str) -> Option<String> {
    let payload = base64(token.split('.').nth(1)?)?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    claims["jti"].as_str().map(str::to_owned)
}

/// base64url without padding (RFC 4648, 5).
fn base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes() {
        let digit = DIGITS.iter().position(|digit| *digit == byte)?;
        bits = bits << 6 | u32::try_from(digit).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_id_is_read() {
        // {"jti":"a-1"}
        assert_eq!(token_id("x.eyJqdGkiOiJhLTEifQ.y").as_deref(), Some("a-1"));
        assert_eq!(token_id("nonsense"), None);
        assert_eq!(base64("_-8"), Some(vec![0xff, 0xef]));
    }
}
