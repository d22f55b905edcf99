//! The backends: nginx as primary and as shadow, cheap, with a log that shows how many requests
//! arrived whole.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use mirror_tests::{Node, Pod, Process};

use super::{
    install::ECHO_MODULE,
    pinning::{Processors, pinned},
};

/// The body of the response to every GET and POST.
const RESPONSE: &str = "{\"message\": \"a response of about 100 bytes each, as a small API gives \
                      it to each of its many clients\"}";

/// After so long nginx writes what it has of its log.
const FLUSH: Duration = Duration::from_millis(100);

/// How many requests a connection may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepAlive {
    /// As nginx has it by default: 1,000.
    Default,
    /// As many as there are: h2load does not connect again, and Envoy responds with 503 to streams in
    /// progress when a primary of HTTP/2 reaches its limit.
    Endless,
}

/// A server on a pod: port 80 speaks HTTP/1.1, port 81 HTTP/2.
pub(super) struct Backend {
    log: PathBuf,
    _process: Process,
}

impl Backend {
    /// Starts it.
    ///
    /// # Errors
    /// nginx does not start.
    pub(super) fn start(
        node: &Node,
        pod: &Pod,
        processors: Processors,
        limit: KeepAlive,
    ) -> Result<Self> {
        let folder = node.folder().join(format!("{}-nginx", pod.name()));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let (file, log) = (folder.join("nginx.conf"), folder.join("access.log"));
        // A response of gRPC: a message of 8 bytes.
        fs::write(folder.join("response.grpc"), b"\0\0\0\0\x08response")?;
        fs::write(&file, configuration(&folder, &log, limit))?;
        let argv = ["nginx", "-c", &file.to_string_lossy(), "-e", "/dev/stderr"];
        let argv = pinned(processors.others, &argv);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let mut process = pod.spawn("nginx", &argv)?;
        pod.listening(&mut process, 80)?;
        Ok(Self { log, _process: process })
    }

    /// Empties its log, which nginx goes on to append to: a long run would fill the disk.
    ///
    /// # Errors
    /// Its log is gone.
    pub(super) fn forget(&self) -> Result<()> {
        let file = File::options().write(true).open(&self.log);
        let emptied = file.and_then(|file| file.set_len(0));
        emptied.with_context(|| self.log.display().to_string())
    }

    /// Begins to count the requests that arrive from now on.
    ///
    /// # Errors
    /// Its log is gone.
    pub(super) fn count(&self) -> Result<Arrivals> {
        // Lines of the run before may still be in nginx's buffer.
        std::thread::sleep(2 * FLUSH);
        let mut file = File::open(&self.log).with_context(|| self.log.display().to_string())?;
        file.seek(SeekFrom::End(0))?;
        Ok(Arrivals { file, part: Vec::new(), counted: 0 })
    }
}

/// A count of requests that goes on.
pub(super) struct Arrivals {
    file: File,
    /// A last line that was not whole yet.
    part: Vec<u8>,
    counted: u64,
}

impl Arrivals {
    /// How many requests arrived with all of a body of `body` bytes and got 200.
    ///
    /// # Errors
    /// What reading the log says.
    pub(super) fn whole(&mut self, body: u64) -> Result<u64> {
        self.file.read_to_end(&mut self.part)?;
        let end = self.part.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.part.drain(..end).collect();
        let arrived = |line: &&[u8]| {
            let length = line.strip_prefix(b"200 ").and_then(|rest| std::str::from_utf8(rest).ok());
            length.and_then(|length| length.parse::<u64>().ok()).is_some_and(|len| len >= body)
        };
        self.counted += lines.split(|byte| *byte == b'\n').filter(arrived).count() as u64;
        Ok(self.counted)
    }

    /// The same once it has not grown for a quarter of a second: the log is written with a delay.
    ///
    /// # Errors
    /// As [`Arrivals::whole`].
    pub(super) fn settled(&mut self, body: u64) -> Result<u64> {
        let mut last = self.whole(body)?;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(250));
            let now = self.whole(body)?;
            if now == last {
                break;
            }
            last = now;
        }
        Ok(last)
    }
}

fn configuration(folder: &Path, log: &Path, limit: KeepAlive) -> String {
    let requests = match limit {
        KeepAlive::Default => 1000,
        KeepAlive::Endless => u32::MAX,
    };
    let at = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {at}/{kind};\n"))
        .concat();
    format!(
        "load_module {ECHO_MODULE};\n\
         daemon off;\nuser root;\nworker_processes 1;\nworker_rlimit_nofile 65536;\npid {at}/pid;\n\
         events {{ worker_connections 30000; }}\n\
         http {{\n{temporary}  log_format arrival '$status $request_length';\n  \
         access_log {log} arrival buffer=64k flush={flush}ms;\n  \
         client_max_body_size 0;\n  client_body_buffer_size 64k;\n  http2_max_concurrent_streams 1024;\n  \
         keepalive_requests {requests};\n  \
         server {{\n    listen 80 backlog=4096;\n    listen 81 http2 backlog=4096;\n    \
         location / {{ return 200 '{RESPONSE}'; }}\n    \
         location = /post {{ echo_read_request_body; echo_exec @whole; }}\n    \
         location @whole {{ return 200 '{RESPONSE}'; }}\n    \
         location /bench. {{ echo_read_request_body; echo_exec /response.grpc; }}\n    \
         location = /response.grpc {{ root {at}; types {{ application/grpc grpc; }} \
         error_page 405 =200 $uri; add_trailer grpc-status 0; }}\n  }}\n}}\n",
        log = log.display(),
        flush = FLUSH.as_millis()
    )
}
