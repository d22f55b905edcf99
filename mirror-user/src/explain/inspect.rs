//! Following one request through the stages: objects and a request in, the explanation out. Pure.

use http::{StatusCode, request};

use super::{
    args::ExplainArgs,
    find::{NotFound, find},
    reply::Reply,
    report::{
        Candidate, Explanation, FrontendView, MatchResult, MismatchView, RequestView, TableView,
        TapView, Verdict,
    },
    rule::{self, Circumstances, fields, target},
};
use crate::{
    control::{
        config_dump::{ControlReport, ReportedRoute},
        files::FolderState,
        resolve::{Resolved, ResolvedFrontend},
    },
    model::ObjectName,
    proxy::{Connected, NO_MATCH, grpc_status, prepare_request},
    route::{Backend, EndpointChoice, Mismatch, Precedence, RouteTable, Values},
};

pub(super) fn inspect(args: &ExplainArgs, state: &FolderState, resolved: &Resolved) -> Explanation {
    let head = args.head();
    let request = RequestView {
        method: head.method.to_string(),
        target: target(&head),
        headers: fields(&head.headers),
        client_namespace: args.client_namespace.clone(),
    };
    let found = find(&state.objects, resolved, &args.url, &args.client_namespace);
    let (service, verdict) = match found {
        Err(NotFound { service, why }) => (service, Verdict::NotCaptured { why }),
        Ok(frontends) => {
            let service = &frontends[0].service;
            let service =
                ObjectName { namespace: service.namespace.clone(), name: service.name.clone() };
            (Some(service), at_frontend(args, &frontends, head))
        }
    };
    let report = ControlReport::new(
        state.diagnostics(),
        &resolved.conditions,
        &resolved.warnings,
        Vec::new(),
    );
    let routes = report.routes.iter().filter(|route| service.as_ref() == Some(route.service()));
    Explanation {
        request,
        verdict,
        unmet_conditions: routes.flat_map(ReportedRoute::unmet).collect(),
        warnings: service.map(|service| warnings(resolved, &service)).unwrap_or_default(),
        problems: report.problems,
    }
}

/// What was said of the Service, of the routes attached to it, and of their backends' Services.
fn warnings(resolved: &Resolved, service: &ObjectName) -> Vec<String> {
    let attached = resolved.conditions.iter().filter(|status| status.parent.service == *service);
    let mut objects: Vec<_> = attached.map(|status| status.route.identity()).collect();
    objects.push(format!("Service {service}"));
    let tables = resolved.frontends.iter().flat_map(|frontend| {
        let at = &frontend.service;
        let here = at.namespace == service.namespace && at.name == service.name;
        frontend.producer.iter().chain(frontend.consumers.values()).filter(move |_| here)
    });
    let rules = tables.flat_map(|table| table.entries().map(|(_, rule)| rule));
    objects.extend(rules.flat_map(|rule| rule::services(rule)).map(|s| format!("Service {s}")));
    let warnings = resolved.warnings.iter().filter(|warning| objects.contains(&warning.object));
    warnings.map(|warning| format!("{}: {}", warning.object, warning.message)).collect()
}

fn at_frontend(
    args: &ExplainArgs,
    frontends: &[&ResolvedFrontend],
    mut head: request::Parts,
) -> Verdict {
    let first = frontends[0];
    let addresses = frontends.iter().map(|f| f.address.to_string()).collect();
    let tap = tap(first, args.endpoints.into());
    let frontend = FrontendView { service: first.service.to_string(), addresses, tap };
    let namespace = &args.client_namespace;
    let (table, routes) = match (first.consumers.get(namespace), &first.producer) {
        (Some(routes), _) => (TableView::Consumer { namespace: namespace.clone() }, routes),
        (None, Some(routes)) => {
            (TableView::Producer { namespace: first.service.namespace.clone() }, routes)
        }
        (None, None) if first.ahead => {
            let why = "no route applies to it: the Service is captured ahead of its routes (label \
                       mirror.dev/capture=enabled), and requests pass unchanged"
                .to_owned();
            return Verdict::PassesThrough { frontend, why };
        }
        (None, None) => {
            let mut others: Vec<_> = first.consumers.keys().map(String::as_str).collect();
            others.sort_unstable();
            let why = format!(
                "routes apply only to clients of {}; for clients of {namespace} the bytes pass \
                 through unparsed",
                others.join(", ")
            );
            return Verdict::PassesThrough { frontend, why };
        }
    };
    let to = Connected { service: &first.service, address: first.address, namespace };
    let call = grpc_status::is_call(&head);
    let kind = match prepare_request(&mut head, to) {
        Ok(kind) => kind,
        Err(malformed) => {
            let why = malformed.to_string();
            let reply = Reply::new(call, StatusCode::BAD_REQUEST, &why);
            return Verdict::BadRequest { frontend, reply, why };
        }
    };
    let candidates = candidates(routes, &head, args.values());
    let Some(matched) = routes.find(&head) else {
        let reply = Reply::new(call, StatusCode::NOT_FOUND, NO_MATCH);
        return Verdict::NoMatch { frontend, table, candidates, reply };
    };
    let chosen = candidates.iter().find(|c| matches!(c.result, MatchResult::Chosen { .. }));
    let at = chosen.map_or(0, |chosen| chosen.r#match);
    let address = |backend: &Backend| {
        backend.cluster_address(&first.service, first.address, args.endpoints.into())
    };
    let given = Circumstances { kind, call, connected: first.address, suffix: &args.host_suffix };
    let rule = rule::view(matched, at, head, &given, address);
    Verdict::Match { frontend, table, candidates, rule: Box::new(rule) }
}

/// Whether connections to this frontend, and any other of its Service port, can be tapped.
fn tap(frontend: &ResolvedFrontend, choice: EndpointChoice) -> TapView {
    let obstacle = frontend.tap_obstacle(choice);
    TapView {
        possible: obstacle.is_none(),
        reason: obstacle.as_ref().map(|obstacle| obstacle.kind.label()),
        why: obstacle.map(|obstacle| obstacle.to_string()),
    }
}

/// All matches, those behind the chosen one as well: a user asks why it is not another.
fn candidates(routes: &RouteTable, head: &request::Parts, values: Values) -> Vec<Candidate> {
    let mut chosen = None;
    let mut candidates = Vec::with_capacity(routes.candidates().len());
    for (precedence, matcher, rule) in routes.candidates() {
        let mismatches = matcher.mismatches(head, values);
        let result = match chosen {
            _ if !mismatches.is_empty() => MatchResult::Differs {
                mismatches: mismatches.iter().map(MismatchView::new).collect(),
            },
            None => {
                chosen = Some(precedence);
                MatchResult::Chosen { precedence: precedence.to_string() }
            }
            Some(first) => MatchResult::Later { because: because(first, precedence) },
        };
        candidates.push(Candidate {
            wants: values.of_match(matcher),
            route: rule.route.to_string(),
            rule: rule.index,
            rule_name: rule.name.clone(),
            r#match: precedence.match_index(),
            result,
        });
    }
    candidates
}

fn because(first: &Precedence, later: &Precedence) -> String {
    first.decide(later).map(|(criterion, _)| criterion.to_string()).unwrap_or_default()
}

impl MismatchView {
    fn new(mismatch: &Mismatch) -> Self {
        Self {
            part: mismatch.part.label(),
            name: mismatch.part.name().map(str::to_owned),
            wants: mismatch.wanted.clone(),
            has: mismatch.found.clone(),
            text: mismatch.to_string(),
        }
    }
}
