//! One request of a tapped connection. In: its head, then frames as the client sent them. Out: copies for
//! the shadows that its rule names, and a line of the access log. The primary gets it from the client itself.

use std::{rc::Rc, sync::Arc, time::Instant};

use http::{Method, Uri, Version, header, request};
use hyper::body::Frame;
use tokio::task::yield_now;

use bytes::Bytes;

use crate::{
    outcome::{
        DropReason, Ending, LogFields, Mode, RequestEvent, ResponseSource, TapEnd, Uncopied,
    },
    proxy::{
        authority::Connected,
        context::Context,
        exchange::{TURN, copy, uncopied},
        shadow::{PreparedCopy, RequestInfo},
        tee::CopyWriter,
        validate::{RequestKind, prepare_request},
    },
    route::{Backend, Filter, Frontend, RouteTable, Rule},
    workload::Workload,
};

/// A request whose content comes.
pub(super) struct TappedRequest {
    ctx: Rc<Context>,
    workload: Arc<Workload>,
    frontend: Arc<Frontend>,
    rule: Option<Arc<Rule>>,
    backend: Option<Arc<Backend>>,
    method: Method,
    target: Uri,
    started: Instant,
    /// Of those of its copies that want content.
    writers: Vec<CopyWriter>,
    copies: u32,
    bytes: u64,
    ending: Ending,
    log_fields: LogFields,
    /// Nothing behind it is copied.
    last: Option<TapEnd>,
}

impl TappedRequest {
    /// Makes the copies of a request whose head is there; `whole`: it has no content.
    pub(super) async fn begin(
        ctx: &Rc<Context>,
        workload: &Arc<Workload>,
        frontend: &Arc<Frontend>,
        mut head: request::Parts,
        whole: bool,
    ) -> Self {
        let mut request = Self {
            ctx: Rc::clone(ctx),
            workload: Arc::clone(workload),
            frontend: Arc::clone(frontend),
            rule: None,
            backend: None,
            method: head.method.clone(),
            target: head.uri.clone(),
            started: Instant::now(),
            writers: Vec::new(),
            copies: 0,
            bytes: 0,
            ending: Ending::ClientGone,
            log_fields: ctx.recorder.log_fields(&head),
            last: None,
        };
        let to = Connected {
            service: &frontend.service,
            address: frontend.address,
            namespace: &workload.namespace,
        };
        let kind = match prepare_request(&mut head, to) {
            Ok(kind) => kind,
            Err(malformed) => {
                ctx.recorder.uncopied(Uncopied::Malformed);
                request.log_fields.reason(&format!("mirror: not copied: {malformed}"));
                return request;
            }
        };
        request.last = last(&head, kind, whole);
        if request.last == Some(TapEnd::Expect) {
            request.ending = Ending::Complete;
            request.log_fields.reason("mirror: not copied: it waits for 100 (Continue)");
            return request;
        }
        let Some(table) = frontend.routes(&workload.namespace) else { return request };
        if let Some(rule) = find(table, &head).await {
            request.offer(&rule, (&head, kind), whole);
            request.rule = Some(rule);
        }
        request
    }

    /// Makes a copy for each mirror that selects the request. A rule at a tapped frontend has no other
    /// filters, and one backend.
    fn offer(&mut self, rule: &Rule, request: (&request::Parts, RequestKind), whole: bool) {
        let ctx = Rc::clone(&self.ctx);
        let entry = rule.backends.choose(ctx.draw());
        self.backend = entry.and_then(|entry| entry.target.as_ref().ok()).map(Arc::clone);
        let of_backend = entry.into_iter().flat_map(|entry| &entry.filters);
        for filter in rule.filters.iter().chain(of_backend) {
            let Filter::Mirror(mirror) = filter else { continue };
            if !mirror.share.selects(ctx.draw()) {
                continue;
            }
            if let Some(reason) = uncopied(mirror, request) {
                ctx.recorder.uncopied(reason);
                continue;
            }
            self.copies += 1;
            let info = RequestInfo { started: self.started, whole, mirrored: None };
            let client = (&*self.workload, self.frontend.address);
            let offer = copy(&ctx, client, mirror, request, info);
            let (copy, writer) = offer.unzip();
            copy.into_iter().for_each(PreparedCopy::dispatch);
            self.writers.extend(writer.flatten());
        }
    }

    /// Whether a copy wants the content.
    pub(super) fn wants_content(&self) -> bool {
        !self.writers.is_empty()
    }

    pub(super) fn frame(&mut self, frame: &Frame<Bytes>) {
        self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        self.writers.iter().for_each(|writer| writer.frame(frame));
    }

    /// Bytes of the content are missing: its copies are cut.
    pub(super) fn lose(&mut self) {
        self.log_fields.reason("mirror: bytes of the content could not be copied");
        self.writers.drain(..).for_each(|writer| writer.cut(DropReason::Tap));
    }

    /// The request is complete. Returns why nothing behind it is copied.
    pub(super) fn finish(mut self) -> Option<TapEnd> {
        self.ending = match self.last {
            Some(TapEnd::Connect | TapEnd::Upgrade) => Ending::Tunnel,
            _ => Ending::Complete,
        };
        self.writers.drain(..).for_each(CopyWriter::finish);
        self.last
    }

    /// Whether nothing behind its head can be read.
    pub(super) fn ends_with_its_head(&self) -> bool {
        self.last == Some(TapEnd::Expect)
    }
}

impl Drop for TappedRequest {
    fn drop(&mut self) {
        self.writers.drain(..).for_each(|writer| writer.cut(DropReason::ClientGone));
        self.ctx.recorder.request(&RequestEvent {
            mode: Mode::Tap,
            client: &self.workload.name,
            frontend: &self.frontend,
            rule: self.rule.as_ref().map(|rule| (&*rule.route, rule.index)),
            backend: self.backend.as_ref().map(|backend| &backend.service),
            endpoint: None,
            method: &self.method,
            target: &self.target,
            status: None,
            source: ResponseSource::None,
            ending: self.ending,
            duration: self.started.elapsed(),
            request_bytes: self.bytes,
            response_bytes: 0,
            copies: self.copies,
            attempts: 0,
            refusal: None,
            log_fields: &self.log_fields,
        });
    }
}

/// Why what follows the request cannot be read from the client's side alone.
fn last(head: &request::Parts, kind: RequestKind, whole: bool) -> Option<TapEnd> {
    let continues =
        |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let expects = head.headers.get_all(header::EXPECT).iter().any(continues);
    match kind {
        RequestKind::Tunnel if head.method == Method::CONNECT => Some(TapEnd::Connect),
        RequestKind::Tunnel | RequestKind::Upgrade => Some(TapEnd::Upgrade),
        // The client may send its content, or another request.
        RequestKind::Message if expects && !whole && head.version == Version::HTTP_11 => {
            Some(TapEnd::Expect)
        }
        RequestKind::Message => None,
    }
}

/// Others have their turn during a long search.
async fn find(table: &RouteTable, head: &request::Parts) -> Option<Arc<Rule>> {
    let mut search = table.search(head);
    loop {
        if let Some(found) = search.run(TURN) {
            return found.map(Arc::clone);
        }
        yield_now().await;
    }
}
