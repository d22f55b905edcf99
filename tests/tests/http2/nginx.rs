//! nginx as a server of HTTP/2 without TLS on port 80 of a pod, which counts requests in its log.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use mirror_tests::{Pair, Pod, Process};

/// A running nginx. Dropping it kills it.
pub(super) struct Nginx {
    _process: Process,
    log: PathBuf,
}

impl Nginx {
    /// One in the primary and one in the shadow, which say GOAWAY after `requests` on a connection.
    pub(super) fn both(pair: &Pair, requests: u32) -> Result<[Self; 2]> {
        let [primary, shadow] =
            [&pair.primary, &pair.shadow].map(|pod| Self::start(pair, pod, requests));
        Ok([primary?, shadow?])
    }

    fn start(pair: &Pair, pod: &Pod, requests: u32) -> Result<Self> {
        let folder = pair.node.folder().join(format!("{}-nginx", pod.name()));
        fs::create_dir_all(&folder).context("nginx's folder")?;
        let at = folder.display();
        let log = folder.join("log");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .concat();
        // A request's body is read only where it goes somewhere.
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {at}/pid;\n\
             events {{ worker_connections 4096; }}\nhttp {{\n\
             {temporary}log_format line '$request $status $request_length';\n\
             access_log {at}/log line;\nkeepalive_requests {requests};\n\
             server {{\nlisten 80 http2 backlog=1024;\n\
             location / {{ proxy_pass http://127.0.0.1:81; }}\n}}\n\
             server {{\nlisten 127.0.0.1:81;\naccess_log off;\nkeepalive_requests 100000;\n\
             location / {{ return 200 ok; }}\n}}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, text).context("nginx.conf")?;
        let argv = ["nginx", "-c", &file.to_string_lossy(), "-e", "/dev/stderr"];
        let mut process = pod.spawn("nginx", &argv)?;
        pod.listening(&mut process, 80)?;
        Ok(Self { _process: process, log })
    }

    /// Requests that it answered with 200.
    pub(super) fn count(&self) -> usize {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter(|line| line.contains(" HTTP/2.0 200 ")).count()
    }
}
