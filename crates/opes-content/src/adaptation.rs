//! What a service made of a message, and where the octets are that it brought.

use opes_mime::{Piece, Rope};

use crate::{Content, ContentError, View, Writer};

/// Another message over a [`View`]: see [`View::adapt`]. Clones share everything.
#[derive(Debug, Clone)]
pub struct Adaptation {
    /// Over the octets of the view, followed by those of `own`.
    pub rope: Rope,
    /// What the service brought itself, complete; `None` = nothing.
    pub own: Option<Content>,
}

impl From<Rope> for Adaptation {
    fn from(rope: Rope) -> Self {
        Self { rope, own: None }
    }
}

impl View {
    /// The same message with all inserted octets held as mail data is: charged to the budget, and in a file where it has no room.
    pub async fn hold_inserted(self) -> Result<Self, ContentError> {
        let Some(rope) = self.rope().filter(|rope| rope.inserted_len() > 0) else {
            return Ok(self);
        };
        let (mut writer, own) = self.content().sibling();
        let mut pieces = Vec::with_capacity(rope.pieces().len());
        for piece in rope.pieces() {
            pieces.push(held(piece, self.sources_len(), &mut writer).await?);
        }
        writer.finish();
        Ok(self.over_sources(Rope::from_pieces(pieces), own))
    }
}

async fn held(piece: &Piece, base: u64, writer: &mut Writer) -> Result<Piece, ContentError> {
    let Piece::Inserted(octets) = piece else {
        return Ok(piece.clone());
    };
    let offset = base.saturating_add(writer.len_now());
    writer.append(octets.clone()).await?;
    Ok(Piece::Original {
        offset,
        len: octets.len() as u64,
    })
}
