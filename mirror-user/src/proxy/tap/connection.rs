//! One tapped connection. In: its bytes with holes. Out: requests, one after the other; or why no further
//! ones are copied.

use std::{rc::Rc, sync::Arc};

use tokio::task::yield_now;

use super::{
    flow::{Added, Flow},
    request::TappedRequest,
};
use crate::{
    outcome::TapEnd,
    proxy::{
        context::Context,
        http1::{Error, HeadError, ReadStep, RequestReader, Unreadable},
    },
    route::{ConnectionRef, Frontend, FrontendCapture, FrontendId, FrontendState},
    workload::Workload,
};

/// Steps of reading before others have their turn: some 200 µs.
const STEPS: u32 = 64;

/// A connection as far as it was read.
pub(super) struct TappedConnection {
    pub(super) workload: Arc<Workload>,
    frontend: FrontendId,
    /// The frontend's id is not issued again while there is one.
    _ref: ConnectionRef,
    flow: Flow,
    reader: RequestReader,
    request: Option<TappedRequest>,
    /// When it was read last, as a number that counts upward.
    pub(super) used: u64,
    /// Bytes that the reader held last.
    held: usize,
}

impl TappedConnection {
    pub(super) fn new(workload: &Arc<Workload>, frontend: &Frontend) -> Self {
        Self {
            workload: Arc::clone(workload),
            frontend: frontend.id,
            _ref: Arc::clone(&frontend.connection_ref),
            flow: Flow::default(),
            reader: RequestReader::default(),
            request: None,
            used: 0,
            held: 0,
        }
    }

    /// Takes bytes. To be followed by [`TappedConnection::advance`].
    ///
    /// # Errors
    /// Why nothing more of it is copied.
    pub(super) fn add(&mut self, place: u64, bytes: &[u8]) -> Result<(), TapEnd> {
        let Added { lost, bytes } = self.flow.add(place, bytes);
        if lost > 0 {
            if let Some(request) = &mut self.request {
                request.lose();
                self.reader.skip_content();
            }
            self.reader.lose(lost).map_err(|_| TapEnd::Lost)?;
        }
        self.reader.feed(bytes);
        Ok(())
    }

    /// Reads the requests that are there. Returns by how many bytes more, or less, it holds.
    ///
    /// # Errors
    /// Why nothing more of it is copied.
    pub(super) async fn advance(&mut self, ctx: &Rc<Context>) -> Result<isize, TapEnd> {
        let mut steps = 0;
        loop {
            match self.reader.step().map_err(|why| self.unreadable(&why))? {
                ReadStep::Head(head, whole) => {
                    let frontend = tapped(ctx, self.frontend).ok_or(TapEnd::Untapped)?;
                    let request =
                        TappedRequest::begin(ctx, &self.workload, &frontend, *head, whole).await;
                    if request.ends_with_its_head() {
                        return Err(TapEnd::Expect);
                    }
                    if !request.wants_content() {
                        self.reader.skip_content();
                    }
                    self.request = Some(request);
                }
                ReadStep::Frame(frame) => {
                    if let Some(request) = &mut self.request {
                        request.frame(&frame);
                    }
                }
                ReadStep::End => {
                    if let Some(end) = self.request.take().and_then(TappedRequest::finish) {
                        return Err(end);
                    }
                }
                ReadStep::More => break,
            }
            steps += 1;
            if steps % STEPS == 0 {
                yield_now().await;
            }
        }
        let held = self.reader.held();
        let before = std::mem::replace(&mut self.held, held);
        Ok(held.cast_signed() - before.cast_signed())
    }

    /// Whether no further request will come.
    pub(super) fn is_over(&self) -> bool {
        self.reader.is_over()
    }

    /// Bytes that it holds.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// It is not copied any further: the request in progress lacks its end.
    pub(super) fn cut(&mut self) {
        if let Some(request) = &mut self.request {
            request.lose();
        }
    }

    fn unreadable(&self, why: &Unreadable) -> TapEnd {
        match why {
            Unreadable::Lost => TapEnd::Lost,
            Unreadable::Malformed(Error::Head(HeadError::Syntax(httparse::Error::Version)))
                if self.reader.is_http2() =>
            {
                TapEnd::Http2
            }
            Unreadable::Malformed(_) => TapEnd::Malformed,
        }
    }
}

/// The frontend with this id, if it is tapped now.
pub(super) fn tapped(ctx: &Context, id: FrontendId) -> Option<Arc<Frontend>> {
    match ctx.routes().frontends.get(&id) {
        Some(FrontendState::Live(frontend)) if frontend.capture == FrontendCapture::Tapped => {
            Some(Arc::clone(frontend))
        }
        _ => None,
    }
}
