//! What is known of an exchange: filled in as it goes on, told to the outcome at its end.

use std::{rc::Rc, sync::Arc, time::Instant};

use http::{Method, StatusCode, Uri, request};

use super::Abort;
use crate::{
    outcome::{Answer, Ending, Notes, RequestEvent},
    proxy::{
        connection::Client,
        context::Context,
        ending::End,
        primary::{Failure, Progress, Upstream},
    },
    route::{Backend, Rule},
};

/// What is known of an exchange; told to the outcome when dropped, however that came about.
pub(in crate::proxy) struct Record {
    pub(in crate::proxy) client: Rc<Client>,
    pub(in crate::proxy) rule: Option<Arc<Rule>>,
    pub(in crate::proxy) backend: Option<Arc<Backend>>,
    pub(in crate::proxy) endpoint: Option<std::net::SocketAddr>,
    pub(in crate::proxy) ending: Ending,
    pub(in crate::proxy) progress: Rc<Progress>,
    pub(in crate::proxy) response_bytes: u64,
    /// The ending of an exchange that came to its end.
    proper: Ending,
    /// Which of the rule's backendRefs was chosen.
    pub(super) entry: Option<usize>,
    pub(super) copies: u32,
    ctx: Rc<Context>,
    method: Method,
    target: Uri,
    pub(super) started: Instant,
    status: Option<u16>,
    answer: Answer,
    notes: Notes,
}

impl Record {
    pub(super) fn new(
        ctx: Rc<Context>,
        client: Rc<Client>,
        progress: Rc<Progress>,
        head: &request::Parts,
    ) -> Self {
        let notes = ctx.recorder.notes(head);
        Self {
            client,
            rule: None,
            backend: None,
            endpoint: None,
            ending: Ending::ClientGone,
            proper: Ending::Complete,
            progress,
            response_bytes: 0,
            entry: None,
            copies: 0,
            ctx,
            method: head.method.clone(),
            target: head.uri.clone(),
            started: Instant::now(),
            status: None,
            answer: Answer::None,
            notes,
        }
    }

    /// Whether the log may say what became of this exchange.
    pub(in crate::proxy) fn may_tell(&self) -> bool {
        self.ctx.may_tell()
    }

    pub(in crate::proxy) fn answered(&mut self, by: Answer, status: StatusCode) {
        self.answer = by;
        self.status = Some(status.as_u16());
        self.notes.answered(self.started);
    }

    /// What `x-mirror-reason` says.
    pub(in crate::proxy) fn reason(&mut self, reason: &str) {
        self.notes.reason(reason);
    }

    /// The primary agreed to a tunnel.
    pub(in crate::proxy) fn tunnel(&mut self) {
        self.proper = Ending::Tunnel;
    }

    /// The answer is whole: its connection is fit for the next exchange.
    pub(in crate::proxy) fn complete(&mut self, upstream: Option<Upstream>) {
        self.ending = self.proper;
        if let Some(upstream) = upstream {
            self.ctx.primary.keep(upstream);
        }
    }

    /// No answer: the client's connection is to end as the primary's did.
    pub(in crate::proxy) fn fail(&mut self, failure: Failure) -> Abort {
        let gone = self.progress.client_gone.get();
        self.ending = if gone { Ending::ClientGone } else { Ending::PrimaryFailed };
        // Never an empty FIN: a client could take it for the proper end of an idle connection.
        self.client.ends.set(End::Reset);
        if !gone && self.ctx.may_tell() {
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

impl Drop for Record {
    fn drop(&mut self) {
        self.ctx.recorder.request(&RequestEvent {
            client: &self.client.workload.name,
            frontend: &self.client.frontend,
            rule: self.rule.as_ref().map(|rule| (&rule.route, rule.index)),
            backend: self.backend.as_ref().map(|backend| &backend.service),
            endpoint: self.endpoint,
            method: &self.method,
            target: &self.target,
            status: self.status,
            answer: self.answer,
            ending: self.ending,
            duration: self.started.elapsed(),
            request_bytes: self.progress.bytes.get(),
            response_bytes: self.response_bytes,
            copies: self.copies,
            notes: &self.notes,
        });
    }
}
