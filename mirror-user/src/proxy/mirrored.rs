//! A request that is mirrored: the response of its primary and those of its shadows, each as it comes, in; pairs
//! of the two, to be counted, out. Whoever comes first waits here for the other, and holds up neither.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    model::RouteName,
    outcome::{Recorder, TimedResponse},
    route::ServicePort,
};

/// What the primary's leg and the shadows' legs of a request have in common.
pub(in crate::proxy) struct MirroredRequest {
    recorder: Rc<Recorder>,
    /// The route whose mirror selected it.
    route: Arc<RouteName>,
    /// When its head was there.
    started: Instant,
    primary: Cell<TimedResponse>,
    /// Nothing more will be known of the primary's response.
    decided: Cell<bool>,
    /// Responses of shadows that came first.
    waiting: RefCell<Vec<(Arc<ServicePort>, TimedResponse)>>,
}

impl MirroredRequest {
    pub(in crate::proxy) fn new(
        recorder: &Rc<Recorder>,
        route: &Arc<RouteName>,
        started: Instant,
    ) -> Rc<Self> {
        Rc::new(Self {
            recorder: Rc::clone(recorder),
            route: Arc::clone(route),
            started,
            primary: Cell::default(),
            decided: Cell::default(),
            waiting: RefCell::default(),
        })
    }

    /// The head of the response that the client gets is there.
    pub(in crate::proxy) fn primary_responded(&self, status: u16) {
        let after = self.started.elapsed();
        self.primary.set(TimedResponse { status: Some(status), grpc: None, after });
    }

    /// The same response has this `grpc-status`.
    pub(in crate::proxy) fn primary_grpc_status(&self, code: u16) {
        self.primary.set(TimedResponse { grpc: Some(code), ..self.primary.get() });
    }

    /// Nothing more will be known of it: pairs are counted from now on.
    pub(in crate::proxy) fn primary_decided(&self) {
        if !self.decided.replace(true) {
            for (shadow, response) in self.waiting.take() {
                self.recorder.pair(&self.route, &shadow, &self.primary.get(), &response);
            }
        }
    }

    /// A shadow has responded.
    fn shadow_responded(&self, shadow: &Arc<ServicePort>, response: TimedResponse) {
        if self.decided.get() {
            self.recorder.pair(&self.route, shadow, &self.primary.get(), &response);
        } else {
            self.waiting.borrow_mut().push((Arc::clone(shadow), response));
        }
    }
}

/// Where the response of a shadow to a copy is reported.
pub(in crate::proxy) struct ShadowObserver {
    recorder: Rc<Recorder>,
    shadow: Arc<ServicePort>,
    /// None only in tests of the shadow's leg alone.
    request: Option<Rc<MirroredRequest>>,
}

impl ShadowObserver {
    pub(in crate::proxy) fn new(
        recorder: &Rc<Recorder>,
        shadow: &Arc<ServicePort>,
        request: Option<&Rc<MirroredRequest>>,
    ) -> Self {
        let (recorder, shadow) = (Rc::clone(recorder), Arc::clone(shadow));
        Self { recorder, shadow, request: request.cloned() }
    }

    /// `after`: from when the copy was the next on its connection to the response's head.
    pub(in crate::proxy) fn responded(self, status: u16, grpc: Option<u16>, after: Duration) {
        let response = TimedResponse { status: Some(status), grpc, after };
        report(&self.recorder, &self.shadow, self.request.as_deref(), response);
    }
}

/// A shadow has responded to a copy of the request.
pub(in crate::proxy) fn report(
    recorder: &Recorder,
    shadow: &Arc<ServicePort>,
    request: Option<&MirroredRequest>,
    response: TimedResponse,
) {
    recorder.shadow_response(shadow, &response);
    if let Some(request) = request {
        request.shadow_responded(shadow, response);
    }
}

/// `grpc-status` of a response, or of its trailers.
pub(in crate::proxy) fn grpc_status(fields: &http::HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}
