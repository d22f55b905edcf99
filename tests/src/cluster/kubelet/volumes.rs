//! The volumes of a pod, as folders and files of this machine.
//!
//! In: a Pod's volumes, and the API server for tokens and ConfigMaps. Out: a path for each volume.
//! They are written once: a ConfigMap that changes does not reach a running pod, and a token lasts
//! as long as the API server lets it (a year: it extends those that ask for an hour).

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{
        ConfigMap, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, Secret,
        ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeProjection,
    },
};
use kube::{Api, api::PostParams};

use super::{Context, environment::field};

/// Where each volume is.
pub(super) type Volumes = BTreeMap<String, PathBuf>;

/// Makes all volumes of a pod below `folder`.
pub(super) async fn prepare(context: &Context, pod: &Pod, folder: &Path) -> Result<Volumes> {
    let mut volumes = Volumes::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let path = folder.join(&volume.name);
        let made = one(context, pod, volume, &path).await;
        let path = made.with_context(|| format!("volume {}", volume.name))?;
        volumes.insert(volume.name.clone(), path);
    }
    Ok(volumes)
}

async fn one(context: &Context, pod: &Pod, volume: &Volume, path: &Path) -> Result<PathBuf> {
    if let Some(host) = &volume.host_path {
        return host_path(context, host);
    }
    fs::create_dir_all(path)?;
    // Anyone may write to an emptyDir, whatever user the container has.
    let mode = if volume.empty_dir.is_some() { 0o777 } else { 0o755 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if volume.empty_dir.is_some() {
    } else if let Some(source) = &volume.config_map {
        let optional = source.optional.unwrap_or_default();
        config_map(context, pod, &source.name, source.items.as_deref(), optional, path).await?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        secret(context, pod, name, source.items.as_deref(), path).await?;
    } else if let Some(source) = &volume.downward_api {
        downward(pod, source.items.as_deref().unwrap_or_default(), path)?;
    } else if let Some(source) = &volume.projected {
        for source in source.sources.iter().flatten() {
            projected(context, pod, source, path).await?;
        }
    } else {
        bail!(
            "this node has no such kind of volume (emptyDir, hostPath, configMap, secret, downwardAPI, projected)"
        );
    }
    Ok(path.to_owned())
}

/// What kubelet itself has on its node, and this machine has not.
const POD_LOGS: &str = "/var/log/pods";

fn host_path(context: &Context, source: &HostPathVolumeSource) -> Result<PathBuf> {
    if source.path == POD_LOGS {
        let logs = context.folder.join("pod-logs");
        fs::create_dir_all(&logs)?;
        return Ok(logs);
    }
    let path = PathBuf::from(&source.path);
    match source.type_.as_deref().unwrap_or_default() {
        "DirectoryOrCreate" => bail!("{}: nothing is made on this machine", path.display()),
        "Directory" if !path.is_dir() => bail!("{} is no directory", path.display()),
        "File" if !path.is_file() => bail!("{} is no file", path.display()),
        _ if !path.exists() => bail!("{} does not exist", path.display()),
        _ => Ok(path),
    }
}

async fn projected(
    context: &Context,
    pod: &Pod,
    source: &VolumeProjection,
    path: &Path,
) -> Result<()> {
    if let Some(source) = &source.service_account_token {
        token(context, pod, source, path).await?;
    }
    if let Some(source) = &source.config_map {
        let optional = source.optional.unwrap_or_default();
        config_map(context, pod, &source.name, source.items.as_deref(), optional, path).await?;
    }
    if let Some(source) = &source.secret {
        secret(context, pod, &source.name, source.items.as_deref(), path).await?;
    }
    if let Some(source) = &source.downward_api {
        downward(pod, source.items.as_deref().unwrap_or_default(), path)?;
    }
    Ok(())
}

/// A token bound to the pod: it ends with it.
async fn token(
    context: &Context,
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
    path: &Path,
) -> Result<()> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: source.audience.iter().cloned().collect(),
            expiration_seconds: source.expiration_seconds,
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(context.client.clone(), namespace);
    let account = account.unwrap_or("default");
    let response = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let token = response.status.context("a token request without a status")?.token;
    write(&path.join(&source.path), token.as_bytes())
}

async fn config_map(
    context: &Context,
    pod: &Pod,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    path: &Path,
) -> Result<()> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let map = match api.get_opt(name).await? {
        Some(map) => map,
        None if optional => return Ok(()),
        None => bail!("no ConfigMap {namespace}/{name}"),
    };
    let text = map.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
    let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
    keys(&text.chain(binary).collect(), items, path)
}

async fn secret(
    context: &Context,
    pod: &Pod,
    name: &str,
    items: Option<&[KeyToPath]>,
    path: &Path,
) -> Result<()> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let secret = api.get(name).await?;
    let data = secret.data.unwrap_or_default();
    keys(&data.into_iter().map(|(key, bytes)| (key, bytes.0)).collect(), items, path)
}

/// Writes all keys under their names, or the chosen ones under theirs.
fn keys(data: &BTreeMap<String, Vec<u8>>, items: Option<&[KeyToPath]>, path: &Path) -> Result<()> {
    let Some(items) = items else {
        return data.iter().try_for_each(|(key, bytes)| write(&path.join(key), bytes));
    };
    for item in items {
        let bytes = data.get(&item.key).with_context(|| format!("no key {}", item.key))?;
        write(&path.join(&item.path), bytes)?;
    }
    Ok(())
}

fn downward(pod: &Pod, items: &[DownwardAPIVolumeFile], path: &Path) -> Result<()> {
    for item in items {
        let source = item.field_ref.as_ref().context("only fieldRef is there")?;
        // An address is not known before the sandbox: kubelet has none for volumes either.
        let text = field(pod, &source.field_path, None)?;
        write(&path.join(&item.path), text.as_bytes())?;
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content).with_context(|| path.display().to_string())
}
