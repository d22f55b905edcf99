//! nginx as a proxy, with `mirror`: a server for each scenario. Its counters (`stub_status`) are on;
//! there is no access log.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use super::{Protocol, Scenario};

/// Writes the configuration; the command that starts nginx with it.
///
/// # Errors
/// It cannot be written.
pub(super) fn prepare(folder: &Path, scenarios: &[(u16, &Scenario)]) -> Result<Vec<String>> {
    let at = folder.display();
    let mut text = format!(
        "daemon off;\nuser root;\nworker_processes 1;\nworker_rlimit_nofile 65536;\npid {at}/pid;\n\
         events {{ worker_connections 30000; }}\nhttp {{\naccess_log off;\nclient_max_body_size 0;\n\
         # The default of 16 KiB makes it write a body of that size to a file.\n\
         client_body_buffer_size 64k;\n\
         # More than the default of 1,000: clients need not reconnect because of it.\n\
         keepalive_requests 1000000;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
         server {{ listen 127.0.0.1:9999; location / {{ stub_status; }} }}\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "{kind}_temp_path {at}/{kind};");
    }
    for (port, scenario) in scenarios {
        text += &server(*port, scenario);
    }
    text += "}\n";
    let file = folder.join("nginx.conf");
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    Ok(["nginx", "-c", &file.to_string_lossy(), "-e", "/dev/stderr"].map(str::to_owned).to_vec())
}

fn server(port: u16, scenario: &Scenario) -> String {
    let upstream = |name: &str, ip| {
        let port = Protocol::Http1.port();
        format!(
            "upstream {name} {{ server {ip}:{port}; keepalive 64; keepalive_requests 1000000; }}\n"
        )
    };
    let mut text = upstream(&scenario.name, scenario.primary);
    let mut copies = String::new();
    let mut copied = String::new();
    if let Some(mirror) = scenario.mirror {
        let name = scenario.shadow_name();
        text += &upstream(&name, mirror.shadow);
        // A name for a variable.
        let drawn = name.replace('-', "_");
        let skip = if mirror.percent < 100 {
            let _ = writeln!(
                text,
                "split_clients $request_id ${drawn} {{ {}% 1; * 0; }}",
                mirror.percent
            );
            format!("if (${drawn} = 0) {{ return 204; }} ")
        } else {
            String::new()
        };
        "mirror /copy; ".clone_into(&mut copies);
        copied = format!(
            "location = /copy {{ internal; {skip}proxy_set_header Host $host-shadow; \
             proxy_set_header Connection \"\"; proxy_pass http://{name}$request_uri; }}\n"
        );
    }
    let name = &scenario.name;
    text += &format!(
        "server {{ listen 127.0.0.1:{port} backlog=4096;\n\
         location / {{ {copies}proxy_pass http://{name}; }}\n{copied}}}\n"
    );
    text
}
