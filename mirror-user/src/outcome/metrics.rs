//! Metrics: the merged report and the agent's own facts go in, OpenMetrics text comes out. Names,
//! labels and units follow <https://prometheus.io/docs/practices/naming/>; label values come from
//! fixed lists or from Service names, never from what a client sent.

use std::{collections::BTreeMap, fmt, time::Duration};

use mirror_common::TapCount;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    ConnectionKind, CopyOutcome, Ending, Histogram, RefusalReason, Report, ResponseSource,
    RetryReason, RouteRetryReason, ShadowClosed, TapEnd, Uncopied,
    labels::{CLASSES, service},
    report::RouteShadow,
    response::{GRPC_CODES, RESPONSE_CLASSES},
};
use crate::memory::UsageSnapshot;

/// What a response with [`encode`]'s text declares itself as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the agent knows of itself beside the workers' reports.
#[derive(Clone, Debug, Default)]
pub struct AgentMetrics {
    /// connect() calls of captured workloads by what the hook decided.
    pub capture_connects: Vec<(&'static str, u64)>,
    /// Workloads by state.
    pub workloads: Vec<(&'static str, u64)>,
    /// Captured workloads by the state of IPv6.
    pub workloads_ipv6: Vec<(&'static str, u64)>,
    /// Connections that predate capture, by workload and Service.
    pub predating: Vec<(String, String, u64)>,
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// How the watches of a cluster fare.
    pub watches: Vec<WatchMetrics>,
    /// Bytes held for each shadow.
    pub shadow_held: Vec<(String, u64)>,
    /// Addresses that Services claim and that are not captured, by reason.
    pub frontends_refused: Vec<(&'static str, u64)>,
    /// Endpoints of shadows that get no copies, by reason.
    pub shadow_endpoints_refused: Vec<(&'static str, u64)>,
    /// What captured workloads hold.
    pub usage: Vec<UsageSnapshot>,
    /// What the tap's programs have counted; empty where nothing is tapped.
    pub tap: Vec<(TapCount, u64)>,
    /// Lines of the access log that were dropped.
    pub access_log_dropped: u64,
    /// Lines of the agent's own log that were dropped.
    pub log_dropped: u64,
    /// Lines of it that were left out because there were too many of one kind.
    pub log_suppressed: u64,
}

/// A watch of a cluster.
#[derive(Clone, Debug)]
pub struct WatchMetrics {
    /// What is watched.
    pub kind: &'static str,
    /// The greatest possible age of what is known; None before the first complete list.
    pub age: Option<Duration>,
    /// Complete lists.
    pub lists: u64,
    /// Failed attempts.
    pub failures: u64,
}

/// Writes everything as OpenMetrics text. `heartbeats`: the age of each worker's last one.
///
/// # Errors
/// Never in practice: writing to a `String` does not fail.
pub fn encode(
    report: Report,
    agent_metrics: AgentMetrics,
    heartbeats: Vec<Duration>,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { report, agent_metrics, heartbeats }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// One scrape's content.
#[derive(Debug)]
struct Scrape {
    report: Report,
    agent_metrics: AgentMetrics,
    heartbeats: Vec<Duration>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families { encoder };
        families.exchanges(&self.report)?;
        families.bytes(&self.report)?;
        families.copies(&self.report)?;
        families.tap(&self.report, &self.agent_metrics)?;
        families.shadows(&self.report, &self.agent_metrics)?;
        families.shadow_responses(&self.report)?;
        families.pairs(&self.report)?;
        families.connections(&self.report)?;
        families.agent(&self.agent_metrics)?;
        families.heartbeats(&self.heartbeats)
    }
}

struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Families<'_> {
    fn exchanges(&mut self, report: &Report) -> fmt::Result {
        self.counter("mirror_requests", None, "Requests of clients, by how they ended.", |to| {
            for ((frontend, backend), counts) in &report.exchanges {
                let (frontend, backend) = (service(frontend), backend.as_deref().map(service));
                let backend = backend.unwrap_or_default();
                for (class, source, ending) in ways() {
                    let labels = [
                        ("frontend", &*frontend),
                        ("backend", &*backend),
                        ("code", CLASSES[class]),
                        ("answer", source.label()),
                        ("ending", ending.label()),
                    ];
                    let count = counts.requests[class][source as usize][ending as usize];
                    if count > 0 {
                        add(to, &labels, count)?;
                    }
                }
            }
            Ok(())
        })?;
        let help = "From the end of a request's head to the end of its response.";
        self.histogram("mirror_request_duration", help, |to| {
            for ((frontend, backend), counts) in &report.exchanges {
                let (frontend, backend) = (service(frontend), backend.as_deref().map(service));
                let backend = backend.unwrap_or_default();
                for (code, histogram) in CLASSES.iter().zip(&counts.durations) {
                    let labels = [("frontend", &*frontend), ("backend", &*backend), ("code", code)];
                    if histogram.count() > 0 {
                        distribution(to, &labels, histogram)?;
                    }
                }
            }
            Ok(())
        })?;
        let help = "Requests that were sent to the primary a second time.";
        self.counter("mirror_retries", None, help, |to| {
            each(to, "reason", RetryReason::ALL.map(RetryReason::label), report.retries)
        })?;
        let help = "Requests that were sent to the primary again because a route asks for it.";
        self.counter("mirror_route_retries", None, help, |to| {
            for (route, counts) in &report.route_retries {
                let route = route.to_string();
                for (reason, count) in RouteRetryReason::ALL.into_iter().zip(counts) {
                    if *count > 0 {
                        add(to, &[("route", &route), ("reason", reason.label())], *count)?;
                    }
                }
            }
            Ok(())
        })?;
        let help = "What mirror itself refused or ended, by reason.";
        self.counter("mirror_refused", None, help, |to| {
            each(to, "reason", RefusalReason::ALL.map(RefusalReason::label), report.refused)
        })?;
        let help =
            "Interim responses (1xx) of primaries, which HTTP/1.0 clients do not understand.";
        self.counter("mirror_interim_answers_dropped", None, help, |to| {
            add(to, &[], report.interim_dropped)
        })
    }

    fn bytes(&mut self, report: &Report) -> fmt::Result {
        let help = "Bytes of bodies (primary, shadow), and of connections passed through unread.";
        self.counter("mirror", Some(&Unit::Bytes), help, |to| {
            let mut leg = |leg, frontend: &str, backend: &str, direction, bytes| {
                let labels = [
                    ("leg", leg),
                    ("direction", direction),
                    ("frontend", frontend),
                    ("backend", backend),
                ];
                add(to, &labels, bytes)
            };
            for ((frontend, backend), counts) in &report.exchanges {
                let (frontend, backend) = (service(frontend), backend.as_deref().map(service));
                let backend = backend.unwrap_or_default();
                leg("primary", &frontend, &backend, "sent", counts.sent)?;
                leg("primary", &frontend, &backend, "received", counts.received)?;
            }
            for (shadow, counts) in &report.copies {
                leg("shadow", "", &service(shadow), "sent", counts.sent)?;
            }
            leg("passed", "", "", "sent", report.passed[0])?;
            leg("passed", "", "", "received", report.passed[1])
        })
    }

    fn copies(&mut self, report: &Report) -> fmt::Result {
        let help = "Copies that a mirror filter selected.";
        self.counter("mirror_copies_selected", None, help, |to| {
            for (shadow, counts) in &report.copies {
                add(to, &[("shadow", &service(shadow))], counts.selected)?;
            }
            Ok(())
        })?;
        let help = "Requests that a mirror filter selected but that were not copied, by reason.";
        self.counter("mirror_uncopied_requests", None, help, |to| {
            each(to, "reason", Uncopied::ALL.map(Uncopied::label), report.uncopied)
        })?;
        self.counter("mirror_copies", None, "Copies that ended, by outcome.", |to| {
            for (shadow, counts) in &report.copies {
                let shadow = service(shadow);
                for outcome in CopyOutcome::all() {
                    let labels = [
                        ("shadow", &*shadow),
                        ("outcome", outcome.label()),
                        ("reason", outcome.reason()),
                    ];
                    let count = counts.ended[outcome.index()];
                    // A delivered count of zero is news; the other outcomes appear when they occur.
                    if count > 0 || outcome == CopyOutcome::Delivered {
                        add(to, &labels, count)?;
                    }
                }
            }
            Ok(())
        })
    }

    fn tap(&mut self, report: &Report, agent_metrics: &AgentMetrics) -> fmt::Result {
        let help = "Requests of tapped connections.";
        self.counter("mirror_tapped_requests", None, help, |to| {
            let mut tapped = report.exchanges.iter().filter(|(_, counts)| counts.tapped > 0);
            tapped.try_for_each(|((frontend, _), counts)| {
                add(to, &[("frontend", &service(frontend))], counts.tapped)
            })
        })?;
        let counts = &agent_metrics.tap;
        let of = |wanted| counts.iter().filter(move |(count, _)| *count == wanted).map(|(_, n)| *n);
        let help = "Connections that were tapped.";
        self.counter("mirror_tapped_connections", None, help, |to| {
            of(TapCount::Connections).try_for_each(|n| add(to, &[], n))
        })?;
        let help = "Segments of tapped connections, by whether the ring had room for them.";
        self.counter("mirror_tap_segments", None, help, |to| {
            let all = [("copied", TapCount::Records), ("lost", TapCount::LostRecords)];
            all.into_iter().try_for_each(|(outcome, count)| {
                of(count).try_for_each(|n| add(to, &[("outcome", outcome)], n))
            })
        })?;
        let help = "Bytes of them.";
        self.counter("mirror_tap", Some(&Unit::Bytes), help, |to| {
            let all = [("copied", TapCount::Bytes), ("lost", TapCount::LostBytes)];
            all.into_iter().try_for_each(|(outcome, count)| {
                of(count).try_for_each(|n| add(to, &[("outcome", outcome)], n))
            })
        })?;
        let help = "Tapped connections whose further requests are not copied, by reason.";
        self.counter("mirror_tap_stopped", None, help, |to| {
            let stopped = stopped(report, counts);
            stopped.into_iter().try_for_each(|(reason, n)| add(to, &[("reason", reason)], n))
        })
    }

    fn shadows(&mut self, report: &Report, agent_metrics: &AgentMetrics) -> fmt::Result {
        let shadows = || report.copies.iter().map(|(shadow, counts)| (service(shadow), counts));
        let help = "Copies that have not ended: selected - delivered - dropped - unknown.";
        self.gauge("mirror_copies_in_flight", None, help, |to| {
            shadows().try_for_each(|(s, counts)| set(to, &[("shadow", &s)], counts.in_flight()))
        })?;
        let help = "From a copy's selection to its end.";
        self.histogram("mirror_copy_duration", help, |to| {
            shadows().try_for_each(|(s, c)| distribution(to, &[("shadow", &s)], &c.durations))
        })?;
        let help = "Bytes held in memory for a shadow that has not taken them yet.";
        self.gauge("mirror_shadow_held", Some(&Unit::Bytes), help, |to| {
            agent_metrics
                .shadow_held
                .iter()
                .try_for_each(|(s, held)| set(to, &[("shadow", s)], *held))
        })?;
        self.gauge("mirror_shadow_connections", None, "Open connections to a shadow.", |to| {
            shadows().try_for_each(|(s, counts)| set(to, &[("shadow", &s)], counts.connections))
        })?;
        let help = "Connections that mirror closed for what a shadow sent, by reason.";
        self.counter("mirror_shadow_connections_closed", None, help, |to| {
            shadows().try_for_each(|(shadow, counts)| {
                ShadowClosed::ALL.into_iter().try_for_each(|reason| {
                    let labels = [("shadow", &*shadow), ("reason", reason.label())];
                    // News only once it occurs.
                    let count = counts.closed[reason as usize];
                    if count > 0 { add(to, &labels, count) } else { Ok(()) }
                })
            })
        })
    }

    fn shadow_responses(&mut self, report: &Report) -> fmt::Result {
        let shadows = || report.copies.iter().map(|(shadow, counts)| (service(shadow), counts));
        let help = "Responses of shadows to copies, by class.";
        self.counter("mirror_shadow_responses", None, help, |to| {
            shadows().try_for_each(|(shadow, counts)| {
                let classes = RESPONSE_CLASSES.iter().zip(counts.responses);
                let mut seen = classes.filter(|(_, count)| *count > 0);
                seen.try_for_each(|(code, n)| add(to, &[("shadow", &shadow), ("code", code)], n))
            })
        })?;
        let help = "Those of them to calls of gRPC, by grpc-status.";
        self.counter("mirror_shadow_grpc_responses", None, help, |to| {
            shadows().try_for_each(|(shadow, counts)| {
                let codes = counts.grpc.iter().enumerate().filter(|(_, count)| **count > 0);
                codes.into_iter().try_for_each(|(code, count)| {
                    let code =
                        if code + 1 < GRPC_CODES { code.to_string() } else { "other".into() };
                    add(to, &[("shadow", &shadow), ("grpc_status", &code)], *count)
                })
            })
        })?;
        let help = "From when a shadow could turn to a copy to the head of its response.";
        self.histogram("mirror_shadow_response_duration", help, |to| {
            let mut seen = shadows().filter(|(_, counts)| counts.response_times.count() > 0);
            seen.try_for_each(|(s, c)| distribution(to, &[("shadow", &s)], &c.response_times))
        })
    }

    fn pairs(&mut self, report: &Report) -> fmt::Result {
        let pairs = || {
            let names = |(route, shadow): &RouteShadow| (route.to_string(), service(shadow));
            report.pairs.iter().map(move |(key, pairs)| (names(key), pairs))
        };
        let help = "Requests that a shadow has responded to, by the classes of both responses.";
        self.counter("mirror_mirrored_responses", None, help, |to| {
            pairs().try_for_each(|((route, shadow), pairs)| {
                pairs.cells().try_for_each(|(primary, of_shadow, count)| {
                    let labels = [
                        ("route", &*route),
                        ("shadow", &*shadow),
                        ("primary_code", primary),
                        ("shadow_code", of_shadow),
                    ];
                    add(to, &labels, count)
                })
            })
        })?;
        let help = "How long the heads of these responses took, the primary's and the shadow's.";
        self.histogram("mirror_mirrored_response_duration", help, |to| {
            pairs().try_for_each(|((route, shadow), pairs)| {
                let legs = [("primary", &pairs.primary), ("shadow", &pairs.shadow)];
                legs.into_iter().try_for_each(|(leg, histogram)| {
                    let labels = [("route", &*route), ("shadow", &*shadow), ("leg", leg)];
                    distribution(to, &labels, histogram)
                })
            })
        })
    }

    fn connections(&mut self, report: &Report) -> fmt::Result {
        let kinds = ConnectionKind::ALL.map(ConnectionKind::label);
        // OpenMetrics forbids a gauge of a counter's name; the Prometheus names stay distinct.
        self.counter("mirror_connections", None, "Connections accepted, by kind.", |to| {
            each(to, "kind", kinds, report.connections)
        })?;
        let help = "Connections of clients that are open, by kind.";
        self.gauge("mirror_open_connections", None, help, |to| {
            kinds.iter().zip(report.open).try_for_each(|(k, open)| set(to, &[("kind", k)], open))
        })
    }

    fn agent(&mut self, agent_metrics: &AgentMetrics) -> fmt::Result {
        let help = "connect() calls of captured workloads, by what the hook decided.";
        self.counter("mirror_capture_connects", None, help, |to| {
            agent_metrics
                .capture_connects
                .iter()
                .try_for_each(|(r, n)| add(to, &[("reason", r)], *n))
        })?;
        self.gauge("mirror_workloads", None, "Workloads by state.", |to| {
            agent_metrics
                .workloads
                .iter()
                .try_for_each(|(state, n)| set(to, &[("state", state)], *n))
        })?;
        let help = "Captured workloads by the state of IPv6.";
        self.gauge("mirror_workloads_ipv6", None, help, |to| {
            agent_metrics
                .workloads_ipv6
                .iter()
                .try_for_each(|(state, n)| set(to, &[("state", state)], *n))
        })?;
        let help = "Connections of captured workloads to a frontend that were opened before it could \
                    be captured, and are direct.";
        self.gauge("mirror_predating_connections", None, help, |to| {
            agent_metrics.predating.iter().try_for_each(|(workload, service, n)| {
                set(to, &[("workload", workload), ("service", service)], *n)
            })
        })?;
        let help = "Generation of the routes in force; counts up with each change.";
        self.gauge("mirror_snapshot_generation", None, help, |to| {
            set(to, &[], agent_metrics.generation)
        })?;
        let help = "Addresses that routes would have captured and that are not, by reason.";
        self.gauge("mirror_frontends_refused", None, help, |to| {
            agent_metrics
                .frontends_refused
                .iter()
                .try_for_each(|(r, n)| set(to, &[("reason", r)], *n))
        })?;
        let help = "Endpoints of shadows that get no copies, by reason.";
        self.gauge("mirror_shadow_endpoints_refused", None, help, |to| {
            let mut refused = agent_metrics.shadow_endpoints_refused.iter();
            refused.try_for_each(|(r, n)| set(to, &[("reason", r)], *n))
        })?;
        self.usage(&agent_metrics.usage)?;
        self.watches(&agent_metrics.watches)?;
        self.logs(agent_metrics)?;
        self.gauge("mirror_build_info", None, "Always 1; the labels say what runs.", |to| {
            set(to, &[("version", env!("CARGO_PKG_VERSION"))], 1)
        })
    }

    fn logs(&mut self, agent_metrics: &AgentMetrics) -> fmt::Result {
        let help = "Lines of the access log that were dropped because its reader fell behind.";
        self.counter("mirror_access_log_dropped", None, help, |to| {
            add(to, &[], agent_metrics.access_log_dropped)
        })?;
        let help = "Lines of the agent's own log that were dropped because its reader fell behind.";
        self.counter("mirror_log_dropped", None, help, |to| {
            add(to, &[], agent_metrics.log_dropped)
        })?;
        let help = "Lines of the agent's own log that were left out because one place in the code logged too many.";
        self.counter("mirror_log_suppressed", None, help, |to| {
            add(to, &[], agent_metrics.log_suppressed)
        })
    }

    fn usage(&mut self, usage: &[UsageSnapshot]) -> fmt::Result {
        let mut each = |name, unit, help, value: fn(&UsageSnapshot) -> u64| {
            self.gauge(name, unit, help, |to| {
                let mut all = usage.iter();
                all.try_for_each(|held| set(to, &[("workload", &held.workload)], value(held)))
            })
        };
        let help = "Bytes that a workload's connections make the agent hold, as they are charged.";
        each("mirror_workload_held", Some(&Unit::Bytes), help, |held| held.bytes as u64)?;
        let help = "Connections of a workload's clients that are open.";
        each("mirror_workload_connections", None, help, |held| held.connections as u64)?;
        let help = "1 while a workload holds so much that its new connections go direct, for 1 s at least.";
        each("mirror_workload_full", None, help, |held| held.full.into())
    }

    fn watches(&mut self, watches: &[WatchMetrics]) -> fmt::Result {
        let seconds = |to: &mut MetricEncoder<'_>, labels: &[(&str, &str)], age: Duration| {
            to.encode_family(&labels)?.encode_gauge(&age.as_secs_f64())
        };
        let help = "Greatest possible age of the routes in force: 0 while all watches are current.";
        self.gauge("mirror_snapshot_age", Some(&Unit::Seconds), help, |to| {
            let oldest = watches.iter().filter_map(|watch| watch.age).max();
            oldest.map_or(Ok(()), |age| to.encode_gauge(&age.as_secs_f64()))
        })?;
        let help =
            "Greatest possible age of what is known of a kind: 0 while its watch is current.";
        self.gauge("mirror_watch_age", Some(&Unit::Seconds), help, |to| {
            let known = watches.iter().filter_map(|watch| Some((watch.kind, watch.age?)));
            known.into_iter().try_for_each(|(kind, age)| seconds(to, &[("kind", kind)], age))
        })?;
        let help = "Complete lists of a kind: the first, and those after a cut without a resume.";
        self.counter("mirror_watch_lists", None, help, |to| {
            watches.iter().try_for_each(|watch| add(to, &[("kind", watch.kind)], watch.lists))
        })?;
        let help = "Failed attempts to list or watch a kind.";
        self.counter("mirror_watch_failures", None, help, |to| {
            watches.iter().try_for_each(|watch| add(to, &[("kind", watch.kind)], watch.failures))
        })
    }

    fn heartbeats(&mut self, ages: &[Duration]) -> fmt::Result {
        let help = "Time since the last heartbeat of a worker's loop.";
        self.gauge("mirror_worker_heartbeat_age", Some(&Unit::Seconds), help, |to| {
            ages.iter().enumerate().try_for_each(|(worker, age)| {
                let worker = worker.to_string();
                let labels: &[_] = &[("worker", &*worker)];
                to.encode_family(&labels)?.encode_gauge(&age.as_secs_f64())
            })
        })
    }

    fn counter(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        help: &str,
        fill: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        fill(&mut self.encoder.encode_descriptor(name, help, unit, MetricType::Counter)?)
    }

    fn gauge(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        help: &str,
        fill: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        fill(&mut self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
    }

    /// A histogram of seconds.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        fill: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        fill(&mut self.encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?)
    }
}

/// Tapped connections that are copied no further, by why: what the programs see, and what the workers do.
pub(crate) fn stopped(report: &Report, counts: &[(TapCount, u64)]) -> BTreeMap<&'static str, u64> {
    let mut stopped = BTreeMap::new();
    let by_programs = counts.iter().filter_map(|(count, n)| Some((count.reason()?, *n)));
    let by_workers = TapEnd::ALL.into_iter().map(TapEnd::label).zip(report.tap_ends);
    for (reason, n) in by_programs.chain(by_workers).filter(|(_, n)| *n > 0) {
        *stopped.entry(reason).or_default() += n;
    }
    stopped
}

/// All combinations of class, response source and ending.
fn ways() -> impl Iterator<Item = (usize, ResponseSource, Ending)> {
    (0..CLASSES.len()).flat_map(|class| {
        ResponseSource::ALL.into_iter().flat_map(move |source| {
            Ending::ALL.into_iter().map(move |ending| (class, source, ending))
        })
    })
}

type Labels<'a> = &'a [(&'a str, &'a str)];

fn add(to: &mut MetricEncoder<'_>, labels: Labels<'_>, value: u64) -> fmt::Result {
    if labels.is_empty() {
        return to.encode_counter::<NoLabelSet, _, u64>(&value, None);
    }
    to.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn set(to: &mut MetricEncoder<'_>, labels: Labels<'_>, value: u64) -> fmt::Result {
    if labels.is_empty() {
        return to.encode_gauge(&value);
    }
    to.encode_family(&labels)?.encode_gauge(&value)
}

fn each<const N: usize>(
    to: &mut MetricEncoder<'_>,
    label: &str,
    names: [&str; N],
    values: [u64; N],
) -> fmt::Result {
    names.iter().zip(values).try_for_each(|(name, value)| add(to, &[(label, name)], value))
}

fn distribution(to: &mut MetricEncoder<'_>, labels: Labels<'_>, of: &Histogram) -> fmt::Result {
    to.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
        of.seconds(),
        of.count(),
        &of.buckets(),
        None,
    )
}

#[cfg(test)]
mod tests;
