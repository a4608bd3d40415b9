//! A message read by hand: fields, entities, where they begin and end.

/// Part of a message, with its place in it.
#[derive(Debug, Clone)]
pub(in super::super) struct Entity {
    pub(in super::super) path: String,
    pub(super) start: usize,
    pub(super) body_start: usize,
    pub(super) body_end: usize,
    pub(super) end: usize,
    pub(super) content_type: String,
    pub(super) charset: String,
    pub(super) encoding: String,
    attachment: bool,
    boundary: String,
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: (usize, usize),
    pub(super) whole: (usize, usize),
    text: String,
}

pub(in super::super) struct Message<'m> {
    pub(super) octets: &'m [u8],
    pub(super) fields: Vec<Field>,
    /// At the empty line.
    pub(super) fields_end: usize,
    /// After the empty line.
    pub(super) body_start: usize,
    pub(in super::super) entities: Vec<Entity>,
}

/// `(start, end of the text, end with its line end)`.
type Line = (usize, usize, usize);

fn lines(octets: &[u8], from: usize, to: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut start = from;
    while start < to {
        let lf = (start..to).find(|at| octets[*at] == b'\n');
        let end = lf.map_or(to, |at| at + 1);
        let text_end = match lf {
            Some(at) if at > start && octets[at - 1] == b'\r' => at - 1,
            Some(at) => at,
            None => to,
        };
        lines.push((start, text_end, end));
        start = end;
    }
    lines
}

/// Fields, end of the fields, start of the body.
fn header(octets: &[u8], from: usize, to: usize) -> (Vec<Field>, usize, usize) {
    let mut fields: Vec<Field> = Vec::new();
    let mut open = false;
    for (start, text_end, end) in lines(octets, from, to) {
        let text = &octets[start..text_end];
        if text.is_empty() {
            return (fields, start, end);
        }
        let folded = matches!(text[0], b' ' | b'\t');
        let colon = text.iter().position(|octet| *octet == b':');
        let name = colon.map(|colon| text[..colon].trim_ascii_end());
        match (folded && open, name) {
            (true, _) => {
                let field = fields.last_mut().unwrap();
                (field.value.1, field.whole.1) = (text_end, end);
                field.text += &String::from_utf8_lossy(text);
            }
            (false, Some(name)) if !name.is_empty() && name.iter().all(u8::is_ascii_graphic) => {
                let value = start + colon.unwrap() + 1;
                fields.push(Field {
                    name: String::from_utf8_lossy(name).into_owned(),
                    value: (value, text_end),
                    whole: (start, end),
                    text: String::from_utf8_lossy(&octets[value..text_end]).into_owned(),
                });
                open = true;
            }
            _ => open = false,
        }
    }
    (fields, to, to)
}

impl<'m> Message<'m> {
    pub(in super::super) fn read(octets: &'m [u8]) -> Self {
        let (fields, fields_end, body_start) = header(octets, 0, octets.len());
        let mut message = Self {
            octets,
            fields,
            fields_end,
            body_start,
            entities: Vec::new(),
        };
        message.read_entity("", 0, octets.len(), octets.len());
        message
    }

    fn read_entity(&mut self, path: &str, start: usize, body_end: usize, end: usize) {
        let (fields, _, body_start) = header(self.octets, start, end);
        let value = |name: &str| {
            let field = fields.iter().find(|f| f.name.eq_ignore_ascii_case(name));
            field.map(|f| f.text.to_ascii_lowercase())
        };
        let stated = value("content-type").unwrap_or_else(|| "text/plain".into());
        let mut pieces = stated.split(';').map(str::trim);
        let content_type = pieces.next().unwrap_or_default().to_owned();
        let parameter = |name: &str| {
            let of = pieces.clone().filter_map(|piece| piece.split_once('='));
            let found = of.into_iter().find(|(key, _)| *key == name);
            found.map_or(String::new(), |(_, value)| {
                value.trim_matches('"').to_owned()
            })
        };
        let entity = Entity {
            path: path.to_owned(),
            start,
            body_start,
            body_end: body_end.max(body_start),
            end,
            charset: parameter("charset"),
            boundary: parameter("boundary"),
            content_type,
            encoding: value("content-transfer-encoding")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            attachment: value("content-disposition")
                .is_some_and(|value| value.split(';').next().unwrap().trim() == "attachment"),
        };
        self.entities.push(entity.clone());
        let encoded = matches!(entity.encoding.as_str(), "base64" | "quoted-printable");
        if entity.content_type.starts_with("multipart/") && !entity.boundary.is_empty() {
            self.read_children(&entity);
        } else if entity.content_type == "message/rfc822" && !encoded {
            self.read_entity(&below(path, 1), body_start, body_end, end);
        }
    }

    fn read_children(&mut self, parent: &Entity) {
        let delimiter = format!("--{}", parent.boundary).into_bytes();
        let closing = format!("--{}--", parent.boundary).into_bytes();
        let mut child: Option<usize> = None;
        let mut count = 0;
        let mut line_before = 0;
        for (start, text_end, end) in lines(self.octets, parent.body_start, parent.end) {
            let text = self.octets[start..text_end].trim_ascii_end();
            let closes = text == closing;
            if !closes && text != delimiter {
                line_before = end - text_end;
                continue;
            }
            if let Some(from) = child.take() {
                // The line end before a delimiter belongs to it.
                let body_end = from.max(start - line_before);
                self.read_entity(&below(&parent.path, count), from, body_end, start);
            }
            line_before = end - text_end;
            if closes {
                return;
            }
            if text_end < end {
                count += 1;
                child = Some(end);
            }
        }
        if let Some(from) = child {
            let path = below(&parent.path, count);
            self.read_entity(&path, from, parent.body_end, parent.end);
        }
    }

    pub(super) fn named(&self, name: &str) -> Vec<Field> {
        let is = |field: &&Field| field.name.eq_ignore_ascii_case(name);
        self.fields.iter().filter(is).cloned().collect()
    }

    pub(super) fn entity(&self, path: &str) -> Option<&Entity> {
        self.entities.iter().find(|entity| entity.path == path)
    }

    /// The first text for reading, or that of each alternative where it stands in a multipart/alternative.
    pub(super) fn first_texts(&self, replaced: &[&str]) -> Vec<Entity> {
        let first_in = |top: &str| {
            self.entities
                .iter()
                .find(|entity| is_in(&entity.path, top) && self.is_shown(entity, replaced))
        };
        let Some(first) = first_in("") else {
            return Vec::new();
        };
        let alternative = self.entities.iter().find(|entity| {
            is_in(&first.path, &entity.path) && entity.content_type == "multipart/alternative"
        });
        let Some(alternative) = alternative else {
            return vec![first.clone()];
        };
        let depth = |path: &str| {
            if path.is_empty() {
                0
            } else {
                path.split('.').count()
            }
        };
        self.entities
            .iter()
            .filter(|entity| {
                is_in(&entity.path, &alternative.path)
                    && depth(&entity.path) == depth(&alternative.path) + 1
            })
            .filter_map(|child| first_in(&child.path).cloned())
            .collect()
    }

    fn is_shown(&self, entity: &Entity, replaced: &[&str]) -> bool {
        let hidden = |around: &&Entity| {
            is_in(&entity.path, &around.path)
                && (around.attachment
                    || around.content_type == "message/rfc822"
                    || replaced.contains(&around.path.as_str()))
        };
        matches!(entity.content_type.as_str(), "text/plain" | "text/html")
            && self.entities.iter().find(hidden).is_none()
    }
}

fn below(path: &str, number: usize) -> String {
    if path.is_empty() {
        number.to_string()
    } else {
        format!("{path}.{number}")
    }
}

/// Itself or somewhere inside.
fn is_in(path: &str, top: &str) -> bool {
    top.is_empty() || path == top || path.starts_with(&format!("{top}."))
}
