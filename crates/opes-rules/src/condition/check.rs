//! From CEL's syntax tree to a typed one. What is not in the tables here does not exist.

mod call;

use super::tree::{Comparison, List, Node, Operation, Scalar, Type};
use super::{ConditionError, Variable};
use crate::object::Network;
use cel::common::ast::{Expr, IdedExpr, LiteralValue};
use std::collections::BTreeSet;

/// A condition that has passed.
pub(super) struct Checked {
    pub(super) root: Node,
    pub(super) needs: Vec<Variable>,
}

/// A node with its type; `None` where a mistake has been noted already.
type Typed = Option<(Node, Type)>;

/// Most elements of a list that is written out.
const LIST_ELEMENTS_MAX: usize = 100;

const VARIABLES: [(Variable, Type); 13] = [
    (Variable::ClientIp, Type::Ip),
    (Variable::ClientPort, Type::Int),
    (Variable::Listener, Type::Text),
    (Variable::Point, Type::Text),
    (Variable::Helo, Type::Text),
    (Variable::TlsVersion, Type::Text),
    (Variable::AuthIdentity, Type::Text),
    (Variable::MailFrom, Type::Text),
    (Variable::MailParameters, Type::TextList),
    (Variable::Rcpt, Type::Text),
    (Variable::RcptParameters, Type::TextList),
    (Variable::Recipients, Type::TextList),
    (Variable::Size, Type::Int),
];

#[derive(Default)]
struct Checker {
    errors: Vec<ConditionError>,
    needs: BTreeSet<Variable>,
    /// Name and type of the loop's element while its body is checked.
    item: Option<(String, Type)>,
    loops: usize,
}

/// Checks a whole condition.
pub(super) fn condition(expression: &IdedExpr) -> Result<Checked, Vec<ConditionError>> {
    let mut checker = Checker::default();
    let root = checker.truth(expression);
    match root {
        Some(root) if checker.errors.is_empty() => Ok(Checked {
            root,
            needs: checker.needs.into_iter().collect(),
        }),
        _ => Err(checker.errors),
    }
}

impl Checker {
    fn refuse<T>(&mut self, message: impl Into<String>, remedy: impl Into<String>) -> Option<T> {
        self.errors.push(ConditionError::new(message, remedy));
        None
    }

    /// A node that must be true or false.
    fn truth(&mut self, expression: &IdedExpr) -> Option<Node> {
        let (node, kind) = self.node(expression)?;
        self.settled(node, kind, Type::Bool)
    }

    /// A node that must be a text.
    fn text(&mut self, expression: &IdedExpr) -> Option<Node> {
        let (node, kind) = self.node(expression)?;
        self.settled(node, kind, Type::Text)
    }

    /// Gives an annotation the type that is wanted; refuses any other mismatch.
    fn settled(&mut self, node: Node, kind: Type, wanted: Type) -> Option<Node> {
        match (node, kind) {
            (Node::Annotation(key, _), Type::Annotation) => {
                Some(Node::Annotation(key, scalar(wanted)))
            }
            (node, kind) if kind == wanted => Some(node),
            (_, Type::Ip) if wanted == Type::Text => self.refuse(
                "an address is not a text",
                "compare it with ==, or write client.ip in cidr(\"192.0.2.0/24\")",
            ),
            (_, kind) => {
                let message = format!("expected {}, found {}", wanted.name(), kind.name());
                let remedy = match wanted {
                    Type::Bool => "write a comparison, as in size > 1000",
                    _ => "",
                };
                self.refuse(message, remedy)
            }
        }
    }

    fn node(&mut self, expression: &IdedExpr) -> Typed {
        match &expression.expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Ident(_) | Expr::Select(_) => match dotted(expression) {
                Some(name) => self.name(&name),
                None => self.refuse("a field of a computed value", "name a variable"),
            },
            Expr::Call(call) => self.call(call),
            Expr::List(_) => {
                self.refuse("a list can only stand after `in` or before .exists()", "")
            }
            Expr::Map(_) | Expr::Struct(_) => self.refuse("maps and objects are not supported", ""),
            Expr::Comprehension(_) | Expr::Unspecified => {
                self.refuse("this part of the expression is not supported", "")
            }
        }
    }

    fn literal(&mut self, literal: &LiteralValue) -> Typed {
        Some(match literal {
            LiteralValue::Boolean(value) => (Node::Bool(*value.inner()), Type::Bool),
            LiteralValue::Int(value) => (Node::Int(*value.inner()), Type::Int),
            LiteralValue::UInt(value) => match i64::try_from(*value.inner()) {
                Ok(value) => (Node::Int(value), Type::Int),
                Err(_) => return self.refuse("the number is out of range", ""),
            },
            LiteralValue::Double(value) => (Node::Double(*value.inner()), Type::Double),
            LiteralValue::String(value) => (Node::Text(value.inner().into()), Type::Text),
            LiteralValue::Bytes(_) => return self.refuse("octet strings are not supported", ""),
            LiteralValue::Null => {
                return self.refuse("null is not supported", "use has(mail.from)");
            }
        })
    }

    fn name(&mut self, name: &str) -> Typed {
        if let Some((item, kind)) = &self.item
            && item == name
        {
            return Some((Node::Item, *kind));
        }
        let (variable, kind) = self.variable(name)?;
        Some((Node::Variable(variable), kind))
    }

    fn variable(&mut self, name: &str) -> Option<(Variable, Type)> {
        let found = VARIABLES
            .iter()
            .find(|(variable, _)| variable.name() == name);
        if let Some((variable, kind)) = found {
            self.needs.insert(*variable);
            return Some((*variable, *kind));
        }
        let names: Vec<&str> = VARIABLES
            .iter()
            .map(|(variable, _)| variable.name())
            .collect();
        self.refuse(
            format!("unknown name `{name}`"),
            crate::parse::suggestion(name, &names),
        )
    }

    /// A list that a loop, `in` or `size()` can use.
    fn list(&mut self, expression: &IdedExpr) -> Option<(List, Type)> {
        if let Expr::List(list) = &expression.expr {
            return self.written_list(&list.elements);
        }
        match self.node(expression)? {
            (Node::Variable(variable), Type::TextList) => {
                Some((List::Variable(variable), Type::Text))
            }
            (_, kind) => self.refuse(format!("expected a list, found {}", kind.name()), ""),
        }
    }

    fn written_list(&mut self, elements: &[IdedExpr]) -> Option<(List, Type)> {
        if elements.is_empty() || elements.len() > LIST_ELEMENTS_MAX {
            let message = format!("a list has 1 to {LIST_ELEMENTS_MAX} elements");
            return self.refuse(message, "");
        }
        let mut texts: Vec<Box<str>> = Vec::new();
        let mut numbers = Vec::new();
        for element in elements {
            match &element.expr {
                Expr::Literal(LiteralValue::String(text)) => texts.push(text.inner().into()),
                Expr::Literal(LiteralValue::Int(number)) => numbers.push(*number.inner()),
                _ => return self.refuse("an element of a list is not a plain text or integer", ""),
            }
        }
        match (texts.is_empty(), numbers.is_empty()) {
            (false, true) => Some((List::Texts(texts.into()), Type::Text)),
            (true, false) => Some((List::Ints(numbers.into()), Type::Int)),
            _ => self.refuse("a list mixes texts and integers", ""),
        }
    }

    fn compare(&mut self, comparison: Comparison, left: &IdedExpr, right: &IdedExpr) -> Typed {
        let (left, right) = (self.node(left), self.node(right));
        let sides = self.alike(left?, right?)?;
        Some((Node::Compare(comparison, Box::new(sides)), Type::Bool))
    }

    /// Two nodes of one type, annotations and written addresses adapted to the other side.
    fn alike(&mut self, left: (Node, Type), right: (Node, Type)) -> Option<[Node; 2]> {
        let ((left, left_type), (right, right_type)) = (left, right);
        match (left_type, right_type) {
            (Type::Annotation, Type::Annotation) => Some([left, right]),
            (Type::Annotation, wanted) if !is_list(wanted) && wanted != Type::Ip => {
                Some([self.settled(left, left_type, wanted)?, right])
            }
            (wanted, Type::Annotation) if !is_list(wanted) && wanted != Type::Ip => {
                Some([left, self.settled(right, right_type, wanted)?])
            }
            (Type::Ip, Type::Text) => Some([left, self.address(&right)?]),
            (Type::Text, Type::Ip) => Some([self.address(&left)?, right]),
            (a, b) if a.is_number() && b.is_number() => Some([left, right]),
            (a, b) if a == b && !is_list(a) => Some([left, right]),
            (a, b) => {
                let message = format!("{} cannot be compared with {}", a.name(), b.name());
                self.refuse(message, "")
            }
        }
    }

    /// A written address.
    fn address(&mut self, node: &Node) -> Option<Node> {
        let Node::Text(text) = node else {
            return self.refuse("an address can only be compared with a written one", "");
        };
        match text.parse::<std::net::IpAddr>() {
            Ok(address) => Some(Node::Ip(address.to_canonical())),
            Err(_) => self.refuse(
                format!("`{text}` is not an address"),
                "for a network write client.ip in cidr(\"192.0.2.0/24\")",
            ),
        }
    }

    fn networks<'t>(&mut self, texts: impl Iterator<Item = &'t str>) -> Option<Node> {
        let mut networks = Vec::new();
        for text in texts {
            match text.parse::<Network>() {
                Ok(network) => networks.push(network.0),
                Err(error) => {
                    let (message, remedy) = error.split_once("; ").unwrap_or((&error, ""));
                    return self.refuse(message, remedy);
                }
            }
        }
        Some(Node::InNetworks(
            Box::new(Node::Bool(false)),
            networks.into(),
        ))
    }

    fn arithmetic(&mut self, operation: Operation, left: &IdedExpr, right: &IdedExpr) -> Typed {
        let (left, right) = (self.numeric(left), self.numeric(right));
        let ((left, left_type), (right, right_type)) = (left?, right?);
        let kind = match (left_type, right_type) {
            (Type::Int, Type::Int) => Type::Int,
            _ => Type::Double,
        };
        Some((Node::Arithmetic(operation, Box::new([left, right])), kind))
    }

    fn numeric(&mut self, expression: &IdedExpr) -> Typed {
        let (node, kind) = self.node(expression)?;
        if kind == Type::Annotation {
            return Some((self.settled(node, kind, Type::Double)?, Type::Double));
        }
        if kind.is_number() {
            return Some((node, kind));
        }
        self.refuse(format!("expected a number, found {}", kind.name()), "")
    }
}

const fn is_list(kind: Type) -> bool {
    matches!(kind, Type::TextList)
}

const fn scalar(wanted: Type) -> Scalar {
    match wanted {
        Type::Bool => Scalar::Bool,
        Type::Int | Type::Double => Scalar::Number,
        _ => Scalar::Text,
    }
}

/// `client.ip` for the selection of `ip` on `client`.
fn dotted(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            Some(format!("{}.{}", dotted(&select.operand)?, select.field))
        }
        _ => None,
    }
}
