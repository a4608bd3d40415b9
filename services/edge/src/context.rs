//! Context that is made from the message itself, for services that asked for it: size, header fields, MIME map.
//!
//! Such a service is called when the whole message is here; nobody else waits for it.

use std::sync::Arc;

use bytes::Bytes;
use opes_callout_client::{CalloutError, ServiceClient};
use opes_content::View;
use opes_mime::{Part, Structure};
use opes_proto::smtp::{Context, ContextField, HeaderField, MimePart, Wants};

use crate::edits;
use crate::header::HeaderFields;

/// `context` with what the service behind `client` wants to know of `view`.
pub(crate) async fn complete(
    client: &ServiceClient,
    context: &Arc<Context>,
    view: &View,
) -> Result<Arc<Context>, CalloutError> {
    let selection = client.wants().await?;
    let Some(wants) = selection
        .message
        .as_ref()
        .filter(|wants| looks_at_content(wants))
    else {
        return Ok(Arc::clone(context));
    };
    let has = |field: ContextField| wants.context().any(|wanted| wanted == field);
    let failed = |reason: String| CalloutError::Content {
        service: selection.product.clone(),
        reason,
    };
    if !view.content().wait_complete().await {
        return Err(failed(
            "the client left before the end of the message".into(),
        ));
    }
    let mut complete = Context::clone(context);
    complete.size = Some(view.len_now());
    let map = has(ContextField::MimeMap);
    if map || has(ContextField::Headers) {
        let scanned = edits::scan(view, !map).await;
        let (structure, header) = scanned.map_err(|error| failed(error.to_string()))?;
        complete.headers = headers(&structure, &header, &wants.headers);
        if map {
            complete.mime_map = structure.parts.iter().map(mime_part).collect();
        }
    }
    Ok(Arc::new(complete))
}

fn looks_at_content(wants: &Wants) -> bool {
    wants.context().any(|field| {
        matches!(
            field,
            ContextField::Size | ContextField::Headers | ContextField::MimeMap
        )
    })
}

fn headers(structure: &Structure, header: &[u8], names: &[String]) -> Vec<HeaderField> {
    let fields = HeaderFields::new(structure, header);
    let by_name = |name: &String| {
        let name = name.clone();
        let values: Vec<_> = fields.values(&name).map(Bytes::copy_from_slice).collect();
        values.into_iter().map(move |value| HeaderField {
            name: name.clone(),
            value,
        })
    };
    names.iter().flat_map(by_name).collect()
}

fn mime_part(part: &Part) -> MimePart {
    MimePart {
        path: part.path.clone(),
        content_type: part.content_type.clone(),
        name: part.name.clone(),
        size: part.body_len(),
    }
}
