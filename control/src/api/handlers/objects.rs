//! Requests for objects: everything but watches.

use http::{Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Api, Call, answer, negotiate};
use crate::api::body::{self, Body};
use crate::api::negotiate::{Format, PatchType};
use crate::api::patch::Patch;
use crate::api::registry::{Deleted, Part, Written};
use crate::api::request::Verb;
use crate::api::status::Status;
use crate::api::table::Rendering;

impl Call {
    /// How to show the outcome.
    pub(super) fn rendering(&self) -> Result<Rendering, Status> {
        let (shape, format) = negotiate::representation(&self.headers)?;
        Ok(Rendering {
            resource: self.resource,
            shape,
            format,
            include: self.query.include_object()?,
        })
    }

    fn namespace(&self) -> Option<&str> {
        self.path.namespace.as_deref()
    }

    fn name(&self) -> &str {
        self.path.name.as_deref().unwrap_or_default()
    }

    fn place(&self) -> (Option<&str>, &str) {
        (self.namespace(), self.name())
    }

    fn part(&self) -> Part {
        match self.path.subresource.as_deref() {
            Some("status") => Part::Status,
            Some("finalize") => Part::Finalize,
            _ => Part::Main,
        }
    }
}

impl Api {
    /// Does what the call says.
    pub(super) async fn objects(&self, call: Call, body: Incoming) -> Result<Response<Body>, Status> {
        match call.verb {
            Verb::Get => self.get(&call),
            Verb::List => self.list(&call),
            Verb::Create => self.create(&call, body).await,
            Verb::Update => self.update(&call, body).await,
            Verb::Patch => self.patch(&call, body).await,
            Verb::Delete => self.delete(&call, body).await,
            Verb::DeleteCollection => self.delete_collection(&call, body).await,
            Verb::Watch => self.watch(call),
        }
    }

    fn get(&self, call: &Call) -> Result<Response<Body>, Status> {
        let rendering = call.rendering()?;
        self.registry.check_reached(call.query.not_older_than()?)?;
        let object = self.registry.get_object(call.resource, call.namespace(), call.name())?;
        Ok(answer::bytes(
            StatusCode::OK,
            rendering.format.media_type(),
            rendering.object(&object)?,
        ))
    }

    fn list(&self, call: &Call) -> Result<Response<Body>, Status> {
        let rendering = call.rendering()?;
        let options = call.query.list_options(call.resource)?;
        let page = self.registry.list(call.resource, call.namespace(), &options)?;
        Ok(answer::bytes(
            StatusCode::OK,
            rendering.format.media_type(),
            rendering.page(&page)?,
        ))
    }

    async fn create(&self, call: &Call, body: Incoming) -> Result<Response<Body>, Status> {
        let rendering = call.rendering()?;
        let mut options = call.query.write_options()?;
        let (object, repeated) = read_object(call, body).await?;
        options.repeated_fields = repeated;
        let written = self
            .registry
            .create(call.resource, call.namespace(), object, &options)
            .await?;
        Ok(show_written(&rendering, written))
    }

    async fn update(&self, call: &Call, body: Incoming) -> Result<Response<Body>, Status> {
        let rendering = call.rendering()?;
        let mut options = call.query.write_options()?;
        let (object, repeated) = read_object(call, body).await?;
        options.repeated_fields = repeated;
        let written = self
            .registry
            .update(call.resource, call.place(), call.part(), object, &options)
            .await?;
        Ok(show_written(&rendering, written))
    }

    async fn patch(&self, call: &Call, body: Incoming) -> Result<Response<Body>, Status> {
        let rendering = call.rendering()?;
        let options = call.query.write_options()?;
        let kind = negotiate::patch_type(&call.headers)?;
        let bytes = body::read(body).await?;
        let patch = match kind {
            PatchType::Json => Patch::json(&bytes)?,
            PatchType::Merge => Patch::merge(&bytes)?,
            PatchType::Strategic => Patch::strategic(&bytes)?,
            PatchType::Apply => return Err(negotiate::no_apply()),
        };
        let written = self
            .registry
            .patch(call.resource, call.place(), call.part(), &patch, &options)
            .await?;
        Ok(show_written(&rendering, written))
    }

    async fn delete(&self, call: &Call, body: Incoming) -> Result<Response<Body>, Status> {
        let rendering = call.rendering()?;
        let options = call.query.delete_options(read_options(call, body).await?.as_ref())?;
        let deleted = self.registry.delete(call.resource, call.place(), &options).await?;
        Ok(show_deleted(&rendering, call, deleted))
    }

    async fn delete_collection(&self, call: &Call, body: Incoming) -> Result<Response<Body>, Status> {
        let rendering = call.rendering()?;
        let options = call.query.delete_options(read_options(call, body).await?.as_ref())?;
        let list = call.query.list_options(call.resource)?;
        let deleted = self
            .registry
            .delete_collection(call.resource, call.namespace(), &list, &options)
            .await?;
        let items = deleted.into_iter().map(|deleted| deleted.object).collect();
        let revision = self.registry.store().revision().to_string();
        let value = rendering.list(items, &json!({ "resourceVersion": revision }));
        Ok(answer::bytes(
            StatusCode::OK,
            rendering.format.media_type(),
            body::encode(rendering.format, &value),
        ))
    }
}

/// The object in the body. The media type is looked at first: reading what nobody understands would be a waste.
async fn read_object(call: &Call, body: Incoming) -> Result<(Value, Vec<String>), Status> {
    negotiate::body_format(&call.headers)?;
    body::decode(&call.headers, &body::read(body).await?)
}

/// The DeleteOptions in the body, if there is one.
async fn read_options(call: &Call, body: Incoming) -> Result<Option<Value>, Status> {
    let bytes = body::read(body).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    body::decode(&call.headers, &bytes).map(|(options, _)| Some(options))
}

fn show_written(rendering: &Rendering, written: Written) -> Response<Body> {
    let code = if written.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = answer::bytes(code, rendering.format.media_type(), rendering.value(written.object));
    answer::warn(&mut response, &written.warnings);
    response
}

/// What is gone is answered with a Status, or with what it was last for the kinds where Kubernetes does so.
fn show_deleted(rendering: &Rendering, call: &Call, deleted: Deleted) -> Response<Body> {
    let returns_object = matches!(call.resource.kind, "Pod" | "Service" | "ServiceAccount");
    let format: Format = rendering.format;
    let content = if deleted.gone && !returns_object {
        let uid = deleted.object["metadata"]["uid"].as_str().unwrap_or_default();
        body::encode(format, &Status::success(call.resource, call.name(), uid)).to_vec()
    } else {
        rendering.value(deleted.object)
    };
    answer::bytes(StatusCode::OK, format.media_type(), content)
}
