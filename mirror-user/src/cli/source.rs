//! Where routes come from: `--source`, `--routes` and `--node`. In: flags. Out: one source, or what
//! is missing.

use std::path::PathBuf;

/// The kinds of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SourceKind {
    /// The API server of a cluster.
    Kube,
    /// A folder of YAML files.
    Files,
}

/// Flags of the source.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SourceArgs {
    /// Where routes, Services and pods come from [default: files with --routes, else kube if this process
    /// runs in a pod]. kube finds the cluster by KUBECONFIG, else by the service account of its pod, else
    /// by ~/.kube/config.
    #[arg(long, env = "MIRROR_SOURCE", value_enum)]
    pub source: Option<SourceKind>,

    /// Folder of Kubernetes YAML (Service, EndpointSlice, HTTPRoute, GRPCRoute), read at start and watched.
    #[arg(long, env = "MIRROR_ROUTES", value_name = "DIR")]
    pub routes: Option<PathBuf>,

    /// Name of this Node, whose pods are captured [default: the host name].
    #[arg(long, env = "MIRROR_NODE", value_name = "NAME", value_parser = node)]
    pub node: Option<String>,
}

/// A source that is fully described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// This folder.
    Files(PathBuf),
    /// The cluster, and the pods of this Node.
    Kube {
        /// Its name.
        node: String,
    },
}

/// Why the flags do not describe one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing says where routes come from.
    #[error("no source of routes: give --routes DIR, or --source kube to follow a cluster")]
    None,
    /// `--source files` alone.
    #[error("--source files needs --routes DIR")]
    NoFolder,
    /// `--source kube` and a folder.
    #[error(
        "--routes cannot be used with --source kube, which reads no folder: give one of the two"
    )]
    Both,
    /// The host has no name that a Node could have.
    #[error("the host name {0:?} is not a valid name of a Node: give --node NAME")]
    NoNode(String),
}

impl SourceArgs {
    /// What the flags say. `in_pod`: this process runs in a pod of a cluster.
    ///
    /// # Errors
    /// Something is missing, or contradicts.
    pub fn choice(&self, in_pod: bool) -> Result<SourceChoice, SourceError> {
        match (self.source, &self.routes) {
            (None | Some(SourceKind::Files), Some(folder)) => {
                Ok(SourceChoice::Files(folder.clone()))
            }
            (Some(SourceKind::Files), None) => Err(SourceError::NoFolder),
            (Some(SourceKind::Kube), Some(_)) => Err(SourceError::Both),
            (None, None) if !in_pod => Err(SourceError::None),
            (None | Some(SourceKind::Kube), None) => self.cluster(),
        }
    }

    fn cluster(&self) -> Result<SourceChoice, SourceError> {
        let node = match &self.node {
            Some(node) => node.clone(),
            None => {
                let host = nix::unistd::gethostname().unwrap_or_default();
                let host = host.to_string_lossy().to_ascii_lowercase();
                node(&host).map_err(|_| SourceError::NoNode(host))?
            }
        };
        Ok(SourceChoice::Kube { node })
    }
}

/// A name that a Node may have (DNS subdomain): it becomes part of a field selector.
fn node(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let well_formed = ends(text.chars().next()) && ends(text.chars().next_back());
    if !well_formed || text.len() > 253 || !text.chars().all(allowed) {
        return Err(format!(
            "{text:?} is not a valid name of a Node: use lowercase letters, digits, '-' and '.', with a letter or \
             digit first and last, at most 253 characters"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(source: Option<SourceKind>, routes: Option<&str>, node: Option<&str>) -> SourceArgs {
        let routes = routes.map(PathBuf::from);
        SourceArgs { source, routes, node: node.map(String::from) }
    }

    #[test]
    fn the_default_depends_on_the_folder_and_the_pod() {
        let (files, kube) = (Some(SourceKind::Files), Some(SourceKind::Kube));
        let folder = Ok(SourceChoice::Files("/r".into()));
        let cluster = Ok(SourceChoice::Kube { node: "n1".into() });
        for (source, routes, in_pod, expected) in [
            (None, Some("/r"), false, folder.clone()),
            (None, Some("/r"), true, folder.clone()),
            (files, Some("/r"), true, folder),
            (None, None, true, cluster.clone()),
            (kube, None, false, cluster),
            (None, None, false, Err(SourceError::None)),
            (files, None, true, Err(SourceError::NoFolder)),
            (kube, Some("/r"), true, Err(SourceError::Both)),
        ] {
            let choice = args(source, routes, Some("n1")).choice(in_pod);
            assert_eq!(choice, expected, "{source:?} {routes:?} {in_pod}");
        }
    }

    #[test]
    fn a_node_is_what_a_node_may_be_called() {
        for wrong in ["", "A", "a_b", "a,spec.x=y", "-a", "a.", &"a".repeat(254)] {
            assert!(node(wrong).is_err(), "{wrong}");
        }
        assert_eq!(node("ip-10-0-0-1.ec2.internal").as_deref(), Ok("ip-10-0-0-1.ec2.internal"));
    }
}
