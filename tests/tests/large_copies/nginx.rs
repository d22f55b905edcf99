//! nginx as it is by default on port 80 of a pod: it reads a request's whole content before it answers,
//! takes content of any length, and logs each request with its length.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use mirror_tests::{Node, Pod, Process};

/// A running nginx. Dropping it kills it.
pub(super) struct Nginx {
    _process: Process,
    log: PathBuf,
}

impl Nginx {
    pub(super) fn start(node: &Node, pod: &Pod) -> Result<Self> {
        let folder = node.folder().join(format!("{}-nginx", pod.name()));
        fs::create_dir_all(&folder).context("nginx's folder")?;
        let at = folder.display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .concat();
        // A request's content is read only where it goes somewhere.
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {at}/pid;\n\
             events {{ worker_connections 4096; }}\nhttp {{\n\
             {temporary}client_max_body_size 0;\nlog_format line '$status $request_length';\n\
             access_log {at}/log line;\n\
             server {{\nlisten 80 backlog=1024;\n\
             location / {{ proxy_pass http://127.0.0.1:81; }}\n\
             location /small {{ client_body_buffer_size 64k; proxy_pass http://127.0.0.1:81; }}\n}}\n\
             server {{\nlisten 127.0.0.1:81;\naccess_log off;\nclient_body_buffer_size 64k;\n\
             location / {{ return 200 ok; }}\n}}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, text).context("nginx.conf")?;
        let argv = ["nginx", "-c", &file.to_string_lossy(), "-e", "/dev/stderr"];
        let mut process = pod.spawn("nginx", &argv)?;
        pod.listening(&mut process, 80)?;
        Ok(Self { _process: process, log: folder.join("log") })
    }

    /// Requests of at least this length that it answered with 200.
    pub(super) fn count(&self, length: u64) -> usize {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lengths = text.lines().filter_map(|line| line.strip_prefix("200 ")?.parse().ok());
        lengths.filter(|had: &u64| *had >= length).count()
    }
}
