//! The table of images: which program of this machine stands for an image.
//!
//! In: an image's name as a Pod has it. Out: what its containers find: an entrypoint, folders of
//! PATH, files that are bound into their root. Nothing is ever pulled.

use std::path::PathBuf;

use anyhow::Result;

use crate::{command::mirror_binary, pair::venv};

/// What an image consists of.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What runs when the container names no command.
    pub entrypoint: Vec<String>,
    /// Before the folders of every PATH.
    pub path: Vec<PathBuf>,
    /// Files of this machine, and where the container sees them.
    pub files: Vec<(PathBuf, PathBuf)>,
}

/// Repositories (without registry of the Docker Hub, tag and digest) and their images.
#[derive(Clone, Debug, Default)]
pub struct Images(Vec<(String, Image)>);

impl Images {
    /// What the walkthrough and an installed mirror need: httpbin (gunicorn, from the Python
    /// environment), curl, mirror, and `echo`, which is `mirror echo`.
    ///
    /// # Errors
    /// A program is not installed; with what installs it.
    pub fn standard() -> Result<Self> {
        let gunicorn = PathBuf::from(venv("gunicorn")?);
        let httpbin = Image {
            path: gunicorn.parent().map(PathBuf::from).into_iter().collect(),
            ..Image::default()
        };
        let inside = PathBuf::from("/usr/local/bin/mirror");
        let mirror = Image {
            entrypoint: vec!["/usr/local/bin/mirror".into()],
            files: vec![(mirror_binary()?, inside)],
            ..Image::default()
        };
        let mut echo = mirror.clone();
        echo.entrypoint.push("echo".into());
        let curl = Image { entrypoint: vec!["curl".into()], ..Image::default() };
        Ok(Self::default()
            .with("kennethreitz/httpbin", httpbin)
            .with("curlimages/curl", curl)
            .with("mirror", mirror)
            .with("echo", echo))
    }

    /// Adds an image, or puts another in its place.
    #[must_use]
    pub fn with(mut self, repository: &str, image: Image) -> Self {
        self.0.retain(|(other, _)| other != repository);
        self.0.push((repository.to_owned(), image));
        self
    }

    /// The image of a reference: the whole repository counts, or the last part of its path.
    pub(super) fn find(&self, reference: &str) -> Option<&Image> {
        let repository = repository(reference);
        let last = repository.rsplit('/').next()?;
        let exact = self.0.iter().find(|(name, _)| name == repository);
        let found = exact.or_else(|| self.0.iter().find(|(name, _)| name == last));
        found.map(|(_, image)| image)
    }
}

/// A reference without the Docker Hub's names, tag and digest.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    let name = match name.rsplit_once(':') {
        // A colon before a slash is a registry's port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lose_what_does_not_count() {
        for (reference, expected) in [
            ("docker.io/kennethreitz/httpbin", "kennethreitz/httpbin"),
            ("curlimages/curl:8.7.1", "curlimages/curl"),
            ("docker.io/library/nginx@sha256:00", "nginx"),
            ("localhost:5000/mirror", "localhost:5000/mirror"),
            ("localhost:5000/mirror:v1", "localhost:5000/mirror"),
        ] {
            assert_eq!(repository(reference), expected);
        }
    }

    #[test]
    fn a_registry_of_ones_own_has_the_same_images() {
        let images = Images::default().with("mirror", Image::default());
        assert!(images.find("ghcr.io/someone/mirror:0.1.0").is_some());
        assert!(images.find("mirrored").is_none());
    }
}
