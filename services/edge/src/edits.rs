//! From the edits of an outcome to splices over the octets that the service saw.

use bytes::BytesMut;
use opes_content::{ContentError, View};
use opes_mime::edit::{self, Edit, EditError};
use opes_mime::{Rope, RopeError, Scanner, Splice, Structure};
use opes_proto::smtp;

/// Octets read from a view at a time.
const READ_OCTETS: usize = 256 << 10;

/// Why edits cannot be applied: the service's fault, save for `Content`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("the message can no longer be read: {0}")]
    Content(#[from] ContentError),
    #[error("edit does not fit the message: {0}")]
    Edit(#[from] EditError),
    #[error("edits overlap or lie outside the message: {0}")]
    Rope(#[from] RopeError),
}

/// The view after `edits`. The content is complete.
pub(crate) async fn apply(view: &View, edits: Vec<smtp::Edit>) -> Result<View, ApplyError> {
    let edits: Vec<Edit> = edits
        .into_iter()
        .filter_map(|edit| edit.kind)
        .map(convert)
        .collect();
    if edits.is_empty() {
        return Ok(view.clone());
    }
    let header_only = edits.iter().all(touches_header_only);
    let (structure, header) = scan(view, header_only).await?;
    let splices = edit::apply(&structure, &header, &edits)?;
    let rope = Rope::identity(view.len_now()).splice_all(splices)?;
    Ok(view.compose(Some(rope))?.hold_inserted().await?)
}

/// Structure and octets of the header section; for header edits the body is not read.
pub(crate) async fn scan(
    view: &View,
    header_only: bool,
) -> Result<(Structure, bytes::Bytes), ContentError> {
    let mut scanner = Scanner::new();
    let mut header = BytesMut::new();
    let mut offset = 0;
    while !(header_only && scanner.header_complete()) {
        let octets = view.read_at(offset, READ_OCTETS).await?;
        if octets.is_empty() {
            break;
        }
        offset += octets.len() as u64;
        // The scanner ends a header section without end at its limit, so this stays small.
        if !scanner.header_complete() {
            header.extend_from_slice(&octets);
        }
        scanner.push(&octets);
    }
    let mut structure = scanner.finish();
    // What was not read is there all the same: a splice may lie in it.
    structure.len = view.len_now();
    header.truncate(usize::try_from(structure.header_end).unwrap_or(usize::MAX));
    Ok((structure, header.freeze()))
}

/// Then the body need not be read.
fn touches_header_only(edit: &Edit) -> bool {
    match edit {
        Edit::HeaderAdd { .. }
        | Edit::HeaderInsert { .. }
        | Edit::HeaderReplace { .. }
        | Edit::HeaderDelete { .. }
        | Edit::SubjectMark { .. }
        | Edit::Splice(_) => true,
        Edit::PartReplace { .. } | Edit::BodyMark { .. } => false,
    }
}

fn convert(kind: smtp::edit::Kind) -> Edit {
    use smtp::edit::Kind;
    match kind {
        Kind::HeaderAdd(add) => match add.above {
            Some(index) => Edit::HeaderInsert {
                name: add.name,
                index,
                value: add.value,
            },
            None => Edit::HeaderAdd {
                name: add.name,
                value: add.value,
                append: add.append,
            },
        },
        Kind::HeaderReplace(replace) => Edit::HeaderReplace {
            name: replace.name,
            index: replace.index,
            value: replace.value,
        },
        Kind::HeaderDelete(delete) => Edit::HeaderDelete {
            name: delete.name,
            index: (!delete.all).then_some(delete.index),
        },
        Kind::SubjectMark(mark) => Edit::SubjectMark { text: mark.text },
        Kind::PartReplace(part) => Edit::PartReplace {
            path: part.path,
            text: part.text,
            name: part.name,
        },
        Kind::Splice(splice) => Edit::Splice(Splice {
            offset: splice.offset,
            size: splice.size,
            replacement: splice.replacement,
        }),
        Kind::BodyMark(mark) => Edit::BodyMark { text: mark.text },
    }
}

#[cfg(test)]
mod tests;
