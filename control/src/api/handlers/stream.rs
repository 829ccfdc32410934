//! Watches over HTTP: one JSON document per line for as long as the watch lasts.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use super::{Api, Call, answer};
use crate::api::body::Body;
use crate::api::negotiate::Format;
use crate::api::status::{Reason, Status};
use crate::api::table::Rendering;
use crate::api::watch::{Item, Watch};

/// Items that are ready together go out together, up to about this many bytes.
const BATCH_BYTES: usize = 64 * 1024;

/// A watch and how its items are shown.
struct Lines {
    watch: Option<Watch>,
    rendering: Rendering,
    first: bool,
    failure: Option<Status>,
}

impl Api {
    /// Starts a watch. It lasts until its timeout, until the client leaves, or until the server stops.
    pub(super) fn watch(&self, mut call: Call) -> Result<Response<Body>, Status> {
        let rendering = call.rendering()?;
        if rendering.format != Format::Json {
            let message = "only the following media types are accepted: application/json;stream=watch";
            return Err(Status::new(Reason::NotAcceptable, message));
        }
        let mut options = call.query.watch_options(call.resource)?;
        if let Some(name) = call.path.name.take() {
            // The old form /watch/<resource>/<name> is a watch on one object.
            options.selection.fields.pin_name(&name);
        }
        let watch = self
            .registry
            .watch(call.resource, call.path.namespace.as_deref(), options);
        let lines = match watch {
            Ok(watch) => Lines {
                watch: Some(watch),
                rendering,
                first: true,
                failure: None,
            },
            // Clients of a watch look for "too old" among the events, as upstream sends it.
            Err(status) if status.reason == Reason::Expired => Lines {
                watch: None,
                rendering,
                first: true,
                failure: Some(status),
            },
            Err(status) => return Err(status),
        };
        let lines = stream::unfold(lines, |mut lines| async {
            let bytes = lines.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(bytes)), lines))
        });
        let lines = lines.take_until(self.stopping.clone().cancelled_owned());
        Ok(answer::with_body(
            StatusCode::OK,
            Format::Json.media_type(),
            StreamBody::new(lines).boxed_unsync(),
        ))
    }
}

impl Lines {
    /// The next lines, as many as are ready.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        if let Some(status) = self.failure.take() {
            self.write(&Item::Failed(status), &mut out);
            return Some(out.into());
        }
        let item = self.watch.as_mut()?.next().await?;
        self.write(&item, &mut out);
        while out.len() < BATCH_BYTES {
            let ready = self.watch.as_mut().and_then(|watch| watch.next().now_or_never());
            match ready {
                Some(Some(item)) => self.write(&item, &mut out),
                Some(None) => {
                    self.watch = None;
                    break;
                }
                None => break,
            }
        }
        Some(out.into())
    }

    fn write(&mut self, item: &Item, out: &mut Vec<u8>) {
        let start = out.len();
        if let Err(status) = self.rendering.watch_item(item, self.first, out) {
            out.truncate(start);
            // A failure always renders.
            let _ = self.rendering.watch_item(&Item::Failed(status), self.first, out);
            self.watch = None;
        }
        self.first = false;
    }
}
