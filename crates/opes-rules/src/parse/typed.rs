//! From a located tree to typed objects, with *every* mistake found.
//!
//! serde stops at the first error. Here an error knows the place and the child path of the node
//! that caused it, so the reader reports it, prunes that node and reads again, until nothing is
//! wrong or [`FAULTS_MAX`] is reached.

use super::suggest;
use super::tree::{Entry, Node, Value};
use crate::diagnostic::Position;
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use std::fmt;

/// Most mistakes reported for one object; the rest is seen after these are corrected.
const FAULTS_MAX: usize = 50;

/// What serde calls whole numbers.
const INTEGERS: [&str; 8] = ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"];

/// One mistake and the node that caused it.
#[derive(Debug, Default)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) remedy: String,
    pub(super) position: Option<Position>,
    /// Innermost first.
    segments: Vec<Segment>,
    /// Name of a field that is not there: the node cannot be pruned to get further.
    missing: Option<&'static str>,
    /// A choice has nothing in it.
    empty: bool,
}

#[derive(Debug)]
struct Segment {
    /// Place among the children that are left.
    index: usize,
    label: Label,
}

#[derive(Debug)]
enum Label {
    Key(String),
    Element(usize),
}

/// Reads `T` out of a tree; on failure gives every mistake found.
pub(super) fn read<T: de::DeserializeOwned>(mut node: Node) -> Result<T, Vec<Fault>> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut pruned: Vec<String> = Vec::new();
    while faults.len() < FAULTS_MAX {
        let fault = match T::deserialize(NodeReader(&node)) {
            Ok(value) if faults.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(fault) => fault,
        };
        let more = node.prune(&fault.child_path());
        let culprit = fault.culprit();
        // What is missing because it was pruned is not a mistake of its author.
        let missing = match fault.missing {
            Some(_) => pruned.contains(&fault.field()),
            None => fault.empty && pruned.iter().any(|field| field.starts_with(&culprit)),
        };
        if !missing {
            faults.push(fault);
        }
        pruned.push(culprit);
        if !more {
            break;
        }
    }
    Err(faults)
}

// === impl Fault ===

impl Fault {
    /// Field path such as `spec.callout.timeout`, including a missing field's name.
    pub(super) fn field(&self) -> String {
        match self.missing {
            Some(name) => super::tree::join(&self.culprit(), name),
            None => self.culprit(),
        }
    }

    /// Field path of the node that caused it.
    fn culprit(&self) -> String {
        let mut path = String::new();
        for segment in self.segments.iter().rev() {
            path = match &segment.label {
                Label::Key(name) => super::tree::join(&path, name),
                Label::Element(number) => format!("{path}[{number}]"),
            };
        }
        path
    }

    fn child_path(&self) -> Vec<usize> {
        self.segments
            .iter()
            .rev()
            .map(|segment| segment.index)
            .collect()
    }

    fn says(message: String, remedy: String) -> Self {
        Self {
            message,
            remedy,
            ..Self::default()
        }
    }

    /// In the value or key of this entry.
    fn within(self, index: usize, entry: &Entry, position: Position) -> Self {
        self.below(index, Label::Key(entry.key.clone()), position)
    }

    fn below(mut self, index: usize, label: Label, position: Position) -> Self {
        self.position.get_or_insert(position);
        self.segments.push(Segment { index, label });
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        match message.split_once("; ") {
            Some((what, remedy)) => Self::says(what.to_owned(), remedy.to_owned()),
            None => Self::says(message, String::new()),
        }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let text = expected.to_string() == "a string";
        let remedy = match unexpected {
            Unexpected::Bool(value) if text => format!("quote it: \"{value}\""),
            Unexpected::Unsigned(value) if text => format!("quote it: \"{value}\""),
            Unexpected::Signed(value) if text => format!("quote it: \"{value}\""),
            Unexpected::Unit => "give it a value or remove the line".to_owned(),
            _ => String::new(),
        };
        let wanted = match expected.to_string() {
            integer if INTEGERS.contains(&integer.as_str()) => "a whole number".to_owned(),
            other if other.starts_with("struct ") => "a mapping".to_owned(),
            other => other,
        };
        Self::says(
            format!("expected {wanted}, found {}", found(unexpected)),
            remedy,
        )
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::says(
            format!("unknown field `{field}`"),
            suggest::remedy(field, known),
        )
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self::says(
            format!("unknown value `{variant}`"),
            suggest::remedy(variant, known),
        )
    }

    fn missing_field(field: &'static str) -> Self {
        let message = format!("required field `{field}` is missing");
        Self {
            message,
            missing: Some(field),
            ..Self::default()
        }
    }
}

fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Unit => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map | Unexpected::StructVariant => "a mapping".to_owned(),
        Unexpected::UnitVariant => "a name alone".to_owned(),
        other => other.to_string(),
    }
}

// === impl NodeReader ===

/// A serde deserializer over one node.
struct NodeReader<'t>(&'t Node);

impl<'de> Deserializer<'de> for NodeReader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_str(value),
            Value::List(nodes) => visitor.visit_seq(ListReader { nodes, next: 0 }),
            Value::Map(entries) => visitor.visit_map(MapReader { entries, next: 0 }),
        }
    }

    // `key:` without a value is refused rather than read as absent: an empty condition would
    // silently match everything.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Text(text) => {
                let reader: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                reader
                    .deserialize_enum(name, variants, visitor)
                    .map_err(|fault| alone(text, variants).unwrap_or(fault))
            }
            Value::Map(entries) => match entries.as_slice() {
                [only] => visitor.visit_enum(ChoiceReader(only)),
                _ => Err(Fault {
                    message: format!("expected exactly one field, found {}", entries.len()),
                    remedy: format!("write one of {}", variants.join(", ")),
                    empty: entries.is_empty(),
                    ..Fault::default()
                }),
            },
            other => Err(Fault::says(
                format!(
                    "expected one of {}, found {}",
                    variants.join(", "),
                    other.noun()
                ),
                String::new(),
            )),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A choice that has fields, written as a name alone.
fn alone(text: &str, variants: &[&str]) -> Option<Fault> {
    variants.contains(&text).then(|| {
        Fault::says(
            format!("`{text}` is written as a field"),
            format!("write {text}: {{}}"),
        )
    })
}

struct ListReader<'t> {
    nodes: &'t [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for ListReader<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let index = self.next;
        let Some(node) = self.nodes.get(index) else {
            return Ok(None);
        };
        self.next += 1;
        seed.deserialize(NodeReader(node))
            .map(Some)
            .map_err(|fault| fault.below(index, Label::Element(node.ordinal), node.position))
    }
}

struct MapReader<'t> {
    entries: &'t [Entry],
    next: usize,
}

impl<'de> MapAccess<'de> for MapReader<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some(entry) = self.entries.get(self.next) else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|fault| fault.within(self.next, entry, entry.key_position))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let index = self.next;
        self.next += 1;
        let Some(entry) = self.entries.get(index) else {
            return Err(Fault::says("a value is missing".to_owned(), String::new()));
        };
        seed.deserialize(NodeReader(&entry.node))
            .map_err(|fault| fault.within(index, entry, entry.node.position))
    }
}

/// An enum written as a mapping with one key.
struct ChoiceReader<'t>(&'t Entry);

impl<'de, 't> EnumAccess<'de> for ChoiceReader<'t> {
    type Error = Fault;
    type Variant = NodeVariant<'t>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, NodeVariant<'t>), Fault> {
        let Self(entry) = self;
        let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
        let value = seed
            .deserialize(key)
            .map_err(|fault| fault.within(0, entry, entry.key_position))?;
        Ok((value, NodeVariant(entry)))
    }
}

struct NodeVariant<'t>(&'t Entry);

impl NodeVariant<'_> {
    fn inside(&self, fault: Fault) -> Fault {
        fault.within(0, self.0, self.0.node.position)
    }
}

impl<'de> VariantAccess<'de> for NodeVariant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        let fault = Fault::says(
            "takes no fields".to_owned(),
            format!("write {}", self.0.key),
        );
        Err(self.inside(fault))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(NodeReader(&self.0.node))
            .map_err(|fault| self.inside(fault))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Fault> {
        NodeReader(&self.0.node)
            .deserialize_any(visitor)
            .map_err(|fault| self.inside(fault))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        NodeReader(&self.0.node)
            .deserialize_any(visitor)
            .map_err(|fault| self.inside(fault))
    }
}
