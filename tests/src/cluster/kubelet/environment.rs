//! A container's environment and command line.
//!
//! In: a container, and where its pod runs. Out: variables with their values, arguments with
//! `$(NAME)` replaced. Of the variables that kubelet makes for Services, only those of the API
//! server are there.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod};
use kube::Api;

use super::{Context, images::Image};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The first address of the Services' range: the API server's, always.
const API_SERVER: &str = "10.96.0.1";

/// Addresses that the downward API exposes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) pod: Ipv4Addr,
    pub(super) node: Ipv4Addr,
}

/// The variables of a container.
pub(super) async fn variables(
    context: &Context,
    pod: &Pod,
    container: &Container,
    image: &Image,
    addresses: Addresses,
) -> Result<BTreeMap<String, String>> {
    let folders = image.path.iter().map(|folder| format!("{}:", folder.display()));
    let mut variables: BTreeMap<String, String> = [
        ("PATH", folders.collect::<String>() + PATH),
        ("HOME", "/root".into()),
        ("HOSTNAME", pod.metadata.name.clone().unwrap_or_default()),
        ("KUBERNETES_SERVICE_HOST", API_SERVER.into()),
        ("KUBERNETES_SERVICE_PORT", "443".into()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for variable in container.env.iter().flatten() {
        let value = value(context, pod, variable, addresses).await;
        let value = value.with_context(|| format!("variable {}", variable.name))?;
        let value = expand(&value, &variables);
        variables.insert(variable.name.clone(), value);
    }
    Ok(variables)
}

async fn value(
    context: &Context,
    pod: &Pod,
    variable: &EnvVar,
    addresses: Addresses,
) -> Result<String> {
    let Some(source) = &variable.value_from else {
        return Ok(variable.value.clone().unwrap_or_default());
    };
    if let Some(source) = &source.field_ref {
        return field(pod, &source.field_path, Some(addresses));
    }
    let Some(source) = &source.config_map_key_ref else {
        bail!("of its sources this node has fieldRef and configMapKeyRef");
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let map = api.get(&source.name).await?;
    let value = map.data.unwrap_or_default().remove(&source.key);
    value.with_context(|| format!("ConfigMap {namespace}/{} has no {}", source.name, source.key))
}

/// A field of the pod as the downward API exposes it.
pub(super) fn field(pod: &Pod, path: &str, addresses: Option<Addresses>) -> Result<String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref().context("a Pod without a spec")?;
    let value = match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "metadata.labels" => return Ok(pairs(metadata.labels.as_ref())),
        "metadata.annotations" => return Ok(pairs(metadata.annotations.as_ref())),
        "spec.nodeName" => spec.node_name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.clone(),
        "status.podIP" | "status.podIPs" => addresses.map(|at| at.pod.to_string()),
        "status.hostIP" | "status.hostIPs" => addresses.map(|at| at.node.to_string()),
        _ => match subscript(path) {
            Some(("metadata.labels", key)) => {
                metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned()
            }
            Some(("metadata.annotations", key)) => {
                metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned()
            }
            _ => bail!("the field {path} is not one of the downward API here"),
        },
    };
    Ok(value.unwrap_or_default())
}

/// `metadata.labels['app']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((map, key))
}

fn pairs(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The command line: the container's command and args, or the image's entrypoint.
pub(super) fn command(
    container: &Container,
    image: &Image,
    variables: &BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let command = container.command.clone().filter(|command| !command.is_empty());
    let mut argv = command.unwrap_or_else(|| image.entrypoint.clone());
    argv.extend(container.args.iter().flatten().cloned());
    if argv.is_empty() {
        bail!("the container names no command, and its image has no entrypoint");
    }
    Ok(argv.iter().map(|argument| expand(argument, variables)).collect())
}

/// Replaces `$(NAME)` by a variable that is there; `$$` is one `$`. Others stay as they are.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        let reference = rest.strip_prefix("$(").and_then(|rest| rest.split_once(')'));
        if let Some(tail) = rest.strip_prefix("$$") {
            expanded.push('$');
            rest = tail;
        } else if let Some((value, tail)) =
            reference.and_then(|(name, tail)| Some((variables.get(name)?, tail)))
        {
            expanded.push_str(value);
            rest = tail;
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_where_they_are_known() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expected) in
            [("x$(A)y", "x1y"), ("$(B)", "$(B)"), ("$$(A)", "$(A)"), ("$(A", "$(A"), ("$", "$")]
        {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn subscripts_name_a_label() {
        assert_eq!(subscript("metadata.labels['app']"), Some(("metadata.labels", "app")));
        assert_eq!(subscript("metadata.labels"), None);
    }
}
