//! The typed tree that a condition is evaluated as. Made by the checker only: types fit.

use super::Variable;
use ipnet::IpNet;
use regex::Regex;
use std::net::IpAddr;

/// Type of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    Double,
    Text,
    Ip,
    TextList,
    /// An annotation whose type is decided by what it meets.
    Annotation,
}

/// One operation.
#[derive(Debug)]
pub(super) enum Node {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Box<str>),
    Ip(IpAddr),
    Variable(Variable),
    /// The element of the one loop.
    Item,
    Header(Box<str>),
    HasHeader(Box<str>),
    Annotation(Box<str>, Scalar),
    HasAnnotation(Box<str>),
    Has(Variable),
    Not(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Choose(Box<[Node; 3]>),
    Compare(Comparison, Box<[Node; 2]>),
    Arithmetic(Operation, Box<[Node; 2]>),
    Negate(Box<Node>),
    InTexts(Box<Node>, Box<[Box<str>]>),
    InInts(Box<Node>, Box<[i64]>),
    InList(Box<Node>, Variable),
    InNetworks(Box<Node>, Box<[IpNet]>),
    Test(TextTest, Box<[Node; 2]>),
    Matches(Box<Node>, Box<Regex>),
    Lower(Box<Node>),
    Domain(Box<Node>),
    Length(Box<Node>),
    Count(List),
    ToInt(Box<Node>),
    ToDouble(Box<Node>),
    Loop(Quantifier, List, Box<Node>),
}

/// A list that a loop runs over.
#[derive(Debug)]
pub(super) enum List {
    Variable(Variable),
    Texts(Box<[Box<str>]>),
    Ints(Box<[i64]>),
}

/// What the text of an annotation is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Bool,
    Number,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantifier {
    Exists,
    All,
    ExistsOne,
}

// === impl Comparison ===

impl Comparison {
    pub(super) fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

// === impl Type ===

impl Type {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bool => "a truth value",
            Self::Int => "an integer",
            Self::Double => "a number",
            Self::Text => "a text",
            Self::Ip => "an address",
            Self::TextList => "a list of texts",
            Self::Annotation => "an annotation",
        }
    }

    pub(super) const fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Double)
    }
}
