//! What is known of an exchange: filled in as it goes on, told to the outcome at its end.

use std::{rc::Rc, sync::Arc, time::Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, request};

use super::{Abort, grpc_status as grpc};
use crate::{
    outcome::{Ending, LogFields, Mode, RefusalReason, RequestEvent, ResponseSource},
    proxy::{
        body::Progress,
        client::Client,
        close::CloseMode,
        context::Context,
        http1::Error as Http1Error,
        mirrored::{MirroredRequest, grpc_status},
        primary::{Failure, Upstream},
        refusal,
    },
    route::{Backend, Rule},
};

/// What is known of an exchange; told to the outcome when dropped, however that came about.
pub(in crate::proxy) struct ExchangeRecord {
    pub(in crate::proxy) client: Rc<Client>,
    pub(in crate::proxy) rule: Option<Arc<Rule>>,
    pub(in crate::proxy) backend: Option<Arc<Backend>>,
    pub(in crate::proxy) endpoint: Option<std::net::SocketAddr>,
    pub(in crate::proxy) ending: Ending,
    pub(in crate::proxy) progress: Rc<Progress>,
    pub(in crate::proxy) response_bytes: u64,
    /// The client speaks HTTP/2.
    pub(super) by_http2: bool,
    /// The request is a call of gRPC.
    pub(super) is_grpc: bool,
    /// The ending of an exchange that came to its end.
    normal_end: Ending,
    /// Which of the rule's backendRefs was chosen.
    pub(super) entry: Option<usize>,
    pub(super) copies: u32,
    /// Of a request that was copied.
    pub(super) mirrored: Option<Rc<MirroredRequest>>,
    /// Origin of the request, if a `CORS` filter has seen it.
    pub(super) origin: Option<Box<HeaderValue>>,
    ctx: Rc<Context>,
    method: Method,
    target: Uri,
    pub(super) started: Instant,
    status: Option<u16>,
    source: ResponseSource,
    refusal: Option<RefusalReason>,
    log_fields: LogFields,
}

impl ExchangeRecord {
    pub(super) fn new(
        ctx: Rc<Context>,
        client: Rc<Client>,
        progress: Rc<Progress>,
        head: &request::Parts,
    ) -> Self {
        let log_fields = ctx.recorder.log_fields(head);
        Self {
            client,
            rule: None,
            backend: None,
            endpoint: None,
            ending: Ending::ClientGone,
            normal_end: Ending::Complete,
            progress,
            response_bytes: 0,
            by_http2: head.version == Version::HTTP_2,
            is_grpc: grpc::is_call(head),
            entry: None,
            copies: 0,
            mirrored: None,
            origin: None,
            ctx,
            method: head.method.clone(),
            target: head.uri.clone(),
            started: Instant::now(),
            status: None,
            source: ResponseSource::None,
            refusal: None,
            log_fields,
        }
    }

    /// Whether the log may say what became of this exchange.
    pub(in crate::proxy) fn may_log(&self) -> bool {
        self.ctx.may_log()
    }

    pub(in crate::proxy) fn responded(&mut self, by: ResponseSource, status: StatusCode) {
        self.source = by;
        self.status = Some(status.as_u16());
        self.log_fields.response_started(self.started);
        if let Some(mirrored) = &self.mirrored {
            mirrored.primary_responded(status.as_u16());
            // What became of a call of gRPC its trailers say.
            if !self.is_grpc {
                mirrored.primary_decided();
            }
        }
    }

    /// The response, or its trailers, has a `grpc-status`.
    pub(super) fn grpc_status(&self, fields: &HeaderMap) {
        if let Some(mirrored) = self.mirrored.as_ref().filter(|_| self.is_grpc)
            && let Some(code) = grpc_status(fields)
        {
            mirrored.primary_grpc_status(code);
        }
    }

    /// The request that is mirrored, as its shadows' legs know it; None before a rule is found.
    pub(super) fn mirrored(&mut self) -> Option<Rc<MirroredRequest>> {
        let route = &self.rule.as_ref()?.route;
        let (recorder, started) = (&self.ctx.recorder, self.started);
        let new = || MirroredRequest::new(recorder, route, started);
        Some(Rc::clone(self.mirrored.get_or_insert_with(new)))
    }

    /// mirror refuses it, or ends it on its own account. `reason`: what `x-mirror-reason` says, or
    /// would.
    pub(in crate::proxy) fn refuse(&mut self, refusal: RefusalReason, reason: &str) {
        self.refusal = Some(refusal);
        self.log_fields.reason(reason);
    }

    /// The same, where content broke that was sent as it should not be.
    fn refuse_content(&mut self) {
        if let Some(what) = self.progress.malformed.get() {
            let why = format!("mirror: the content of the request is malformed: {what}");
            self.refuse(RefusalReason::MalformedBody, &why);
        }
    }

    /// The primary agreed to a tunnel.
    pub(in crate::proxy) fn tunnel(&mut self) {
        self.normal_end = Ending::Tunnel;
    }

    /// The primary's bytes pass on as they come, since they are not a response.
    pub(super) fn unread(&mut self, error: &Http1Error) {
        self.source = ResponseSource::Unread;
        self.ending = Ending::Tunnel;
        self.log_fields.reason(&format!("mirror: passed on unread: {error}"));
    }

    /// The response is whole: its connection may carry the client's next request.
    pub(in crate::proxy) fn complete(&mut self, upstream: Option<Upstream>) {
        self.ending = self.normal_end;
        if let Some(upstream) = upstream {
            upstream.keep(&self.client.upstreams);
        }
    }

    /// No response: the client's connection is to end as the primary's did.
    pub(in crate::proxy) fn fail(&mut self, failure: Failure) -> Abort {
        let gone = self.progress.client_gone.get();
        self.ending = if gone { Ending::ClientGone } else { Ending::PrimaryFailed };
        // Never an empty FIN: a client could take it for the proper end of an idle connection.
        self.client.ends.set(CloseMode::Reset);
        if !gone && let Some(refusal) = refusal::of_failure(&failure) {
            self.refuse(refusal, &format!("mirror: {failure}"));
        }
        if !gone && self.ctx.may_log() {
            tracing::warn!(
                client = %self.client.workload.name,
                frontend = %self.client.frontend.service,
                %failure,
                "the primary gave no answer; the client's connection is reset"
            );
        }
        Abort(failure)
    }
}

impl Drop for ExchangeRecord {
    fn drop(&mut self) {
        if let Some(mirrored) = &self.mirrored {
            mirrored.primary_decided();
        }
        self.refuse_content();
        self.ctx.recorder.request(&RequestEvent {
            mode: Mode::Proxy,
            client: &self.client.workload.name,
            frontend: &self.client.frontend,
            rule: self.rule.as_ref().map(|rule| (&*rule.route, rule.index)),
            backend: self.backend.as_ref().map(|backend| &backend.service),
            endpoint: self.endpoint,
            method: &self.method,
            target: &self.target,
            status: self.status,
            source: self.source,
            ending: self.ending,
            duration: self.started.elapsed(),
            request_bytes: self.progress.bytes.get(),
            response_bytes: self.response_bytes,
            copies: self.copies,
            attempts: self.progress.attempts.get(),
            refusal: self.refusal,
            log_fields: &self.log_fields,
        });
    }
}
