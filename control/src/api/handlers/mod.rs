//! From an HTTP request to an answer.
//!
//! [`Api::answer`] is called by [`super::server`] for each request. It finds out what the request is about, lets
//! [`objects`] or [`documents`] do it within the limits of [`limits`], and turns every failure into a Status.

mod answer;
mod documents;
mod limits;
mod objects;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use super::auth::{self, Identity, Tokens};
use super::body::Body;
use super::negotiate;
use super::query::Query;
use super::registry::Registry;
use super::request::{ResourcePath, Target, Verb};
use super::status::{Reason, Status};
use super::{discovery, health};
use crate::resources::{self, Resource};
use limits::Limits;

/// A request that is not a watch gets an answer within this time.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What all requests share.
pub(super) struct Api {
    registry: Registry,
    tokens: Tokens,
    limits: Limits,
    stopping: CancellationToken,
}

/// What is known about the connection a request came by.
#[derive(Clone)]
pub(super) struct Connection {
    /// The owner of the client certificate, if there is one.
    pub(super) certificate: Option<Identity>,
    /// The address the client connected to.
    pub(super) local: Option<SocketAddr>,
}

/// A request for objects, understood.
struct Call {
    resource: &'static Resource,
    path: ResourcePath,
    verb: Verb,
    query: Query,
    headers: HeaderMap,
}

impl Api {
    pub(super) fn new(
        registry: Registry,
        tokens: Tokens,
        in_flight: (usize, usize),
        stopping: CancellationToken,
    ) -> Self {
        Self {
            registry,
            tokens,
            limits: Limits::new(in_flight),
            stopping,
        }
    }

    /// Answers a request, whatever happens.
    pub(super) async fn answer(self: Arc<Self>, connection: Connection, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let response = match self.dispatch(&connection, head, body).await {
            Ok(response) => response,
            Err(status) => answer::failure(&status),
        };
        tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
        response
    }

    async fn dispatch(&self, connection: &Connection, head: Parts, body: Incoming) -> Result<Response<Body>, Status> {
        let query = Query::parse(head.uri.query());
        if let Some(response) = self.without_credentials(&head, &query) {
            return Ok(response);
        }
        auth::authenticate(connection.certificate.as_ref(), &head.headers, &self.tokens)?;
        auth::refuse_impersonation(&head.headers)?;
        match Target::parse(head.uri.path()) {
            Target::Resource(path) => self.resource(path, head, query, body).await,
            document => self.document(&document, &head, connection.local),
        }
    }

    fn without_credentials(&self, head: &Parts, query: &Query) -> Option<Response<Body>> {
        if head.method != Method::GET && head.method != Method::HEAD {
            return None;
        }
        let verbose = query.flag("verbose").unwrap_or(false);
        if let Some((code, text)) =
            health::check(head.uri.path(), verbose, &self.registry, self.stopping.is_cancelled())
        {
            return Some(answer::text(code, text));
        }
        (head.uri.path() == "/version").then(|| answer::json(&health::version()))
    }

    async fn resource(
        &self,
        path: ResourcePath,
        head: Parts,
        query: Query,
        body: Incoming,
    ) -> Result<Response<Body>, Status> {
        let resource =
            resources::find(&path.group, &path.version, &path.resource).ok_or_else(Status::unknown_resource)?;
        let verb = path
            .verb(&head.method, query.flag("watch").unwrap_or(false))
            .ok_or_else(Status::method_not_allowed)?;
        let call = Call {
            resource,
            path,
            verb,
            query,
            headers: head.headers,
        };
        call.check_shape()?;
        if verb == Verb::Watch {
            return self.watch(call);
        }
        let _permit = self.limits.admit(verb.is_mutating())?;
        let work = self.objects(call, body);
        let late = || {
            Status::new(
                Reason::Timeout,
                "Timeout: request did not complete within the allotted timeout",
            )
        };
        tokio::time::timeout(TIMEOUT, work).await.map_err(|_| late())?
    }
}

impl Call {
    /// Refuses paths that look right but lead nowhere: unknown subresources, a namespace where there is none.
    fn check_shape(&self) -> Result<(), Status> {
        let (resource, path) = (self.resource, &self.path);
        if let Some(subresource) = path.subresource.as_deref() {
            if !resource.subresources.contains(&subresource) {
                return Err(Status::unknown_resource());
            }
            let writes_whole = subresource == "finalize";
            let known =
                matches!(self.verb, Verb::Update) || (!writes_whole && matches!(self.verb, Verb::Get | Verb::Patch));
            if !known {
                return Err(Status::method_not_allowed());
            }
        }
        if path.namespace.is_some() && !resource.namespaced {
            return Err(Status::unknown_resource());
        }
        if resource.namespaced && path.namespace.is_none() {
            if path.name.is_some() {
                return Err(Status::unknown_resource());
            }
            if matches!(self.verb, Verb::Create | Verb::DeleteCollection) {
                return Err(Status::method_not_allowed());
            }
        }
        Ok(())
    }
}
