//! Evaluation of a checked condition. Allocates only to lower the case of a text that has capitals.

use super::tree::{Comparison, List, Node, Operation, Quantifier, Scalar, TextTest};
use super::{Unevaluable, Variable};
use crate::facts::{Facts, Recipient, domain_of};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;

/// The value of a node.
#[derive(Debug, Clone)]
enum Value<'a> {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    Ip(IpAddr),
}

#[derive(Clone)]
struct Scope<'a> {
    facts: &'a Facts<'a>,
    recipient: Option<&'a Recipient<'a>>,
    item: Option<Value<'a>>,
}

type Outcome<'a> = Result<Value<'a>, Unevaluable>;

/// Evaluates a condition for one recipient or for none.
pub(super) fn condition(
    root: &Node,
    facts: &Facts<'_>,
    recipient: Option<usize>,
) -> Result<bool, Unevaluable> {
    let recipient = recipient.and_then(|index| facts.recipients.get(index));
    Scope {
        facts,
        recipient,
        item: None,
    }
    .truth(root)
}

/// The checker lets no node get here with another type; this is what keeps that from a panic.
const fn mistyped<T>() -> Result<T, Unevaluable> {
    Err(Unevaluable::NotA("of the type it was checked to be"))
}

impl<'a> Scope<'a> {
    fn truth(&self, node: &'a Node) -> Result<bool, Unevaluable> {
        match node {
            Node::Bool(value) => Ok(*value),
            Node::Not(inner) => self.truth(inner).map(|value| !value),
            Node::And(sides) => self.logic(sides, false),
            Node::Or(sides) => self.logic(sides, true),
            Node::Compare(comparison, sides) => self.compare(*comparison, sides),
            Node::InTexts(needle, texts) => {
                let needle = self.text(needle)?;
                Ok(texts.iter().any(|text| **text == *needle))
            }
            Node::InInts(needle, numbers) => self.number(needle, |n| numbers.contains(&n)),
            Node::InList(needle, list) => self.in_list(needle, *list),
            Node::InNetworks(needle, networks) => match self.value(needle)? {
                Value::Ip(ip) => Ok(networks.iter().any(|network| network.contains(&ip))),
                _ => mistyped(),
            },
            Node::Test(test, sides) => self.test(*test, sides),
            Node::Matches(text, regex) => Ok(regex.is_match(&self.text(text)?)),
            Node::Has(variable) => Ok(self.is_known(*variable)),
            Node::HasHeader(name) => Ok(self.headers()?.first(name).is_some()),
            Node::HasAnnotation(key) => Ok(self.annotation(key).is_ok()),
            Node::Loop(quantifier, list, body) => self.quantified(*quantifier, list, body),
            _ => match self.value(node)? {
                Value::Bool(value) => Ok(value),
                _ => mistyped(),
            },
        }
    }

    fn value(&self, node: &'a Node) -> Outcome<'a> {
        match node {
            Node::Int(value) => Ok(Value::Int(*value)),
            Node::Double(value) => Ok(Value::Double(*value)),
            Node::Text(value) => Ok(Value::Text(Cow::Borrowed(value))),
            Node::Ip(value) => Ok(Value::Ip(*value)),
            Node::Variable(variable) => self.variable(*variable),
            Node::Item => self.item.clone().map_or_else(mistyped, Ok),
            Node::Header(name) => Ok(Value::Text(
                self.headers()?.first(name).unwrap_or(Cow::Borrowed("")),
            )),
            Node::Annotation(key, kind) => read(self.annotation(key)?, *kind),
            Node::Choose(branches) => {
                let [condition, yes, no] = branches.as_ref();
                if self.truth(condition)? {
                    self.value(yes)
                } else {
                    self.value(no)
                }
            }
            Node::Arithmetic(operation, sides) => {
                let [left, right] = sides.as_ref();
                calculate(*operation, &self.value(left)?, &self.value(right)?)
            }
            Node::Negate(inner) => match self.value(inner)? {
                Value::Int(n) => n
                    .checked_neg()
                    .map(Value::Int)
                    .ok_or(Unevaluable::Arithmetic),
                Value::Double(n) => Ok(Value::Double(-n)),
                _ => mistyped(),
            },
            Node::Lower(inner) => self.text(inner).map(|text| Value::Text(lowered(text))),
            Node::Domain(inner) => {
                let domain = match self.text(inner)? {
                    Cow::Borrowed(address) => Cow::Borrowed(domain_of(address)),
                    Cow::Owned(address) => Cow::Owned(domain_of(&address).to_owned()),
                };
                Ok(Value::Text(lowered(domain)))
            }
            Node::Length(inner) => Ok(counted(self.text(inner)?.chars().count())),
            Node::Count(list) => self.length(list).map(counted),
            Node::ToInt(inner) => match self.value(inner)? {
                Value::Text(text) => text
                    .trim()
                    .parse()
                    .map(Value::Int)
                    .map_err(|_| Unevaluable::NotA("an integer")),
                Value::Double(number) => truncated(number),
                number => Ok(number),
            },
            Node::ToDouble(inner) => match self.value(inner)? {
                Value::Text(text) => text
                    .trim()
                    .parse()
                    .map(Value::Double)
                    .map_err(|_| Unevaluable::NotA("a number")),
                Value::Int(number) => Ok(Value::Double(as_double(number))),
                number => Ok(number),
            },
            _ => self.truth(node).map(Value::Bool),
        }
    }

    /// `&&` with `decisive` false, `||` with true: a decisive side wins over one without an answer.
    fn logic(&self, sides: &'a [Node; 2], decisive: bool) -> Result<bool, Unevaluable> {
        let [left, right] = sides;
        let left = self.truth(left);
        if left == Ok(decisive) {
            return left;
        }
        match self.truth(right) {
            Ok(right) if right == decisive => Ok(right),
            right => left.and(right),
        }
    }

    fn text(&self, node: &'a Node) -> Result<Cow<'a, str>, Unevaluable> {
        match self.value(node)? {
            Value::Text(text) => Ok(text),
            _ => mistyped(),
        }
    }

    fn number(&self, node: &'a Node, test: impl Fn(i64) -> bool) -> Result<bool, Unevaluable> {
        match self.value(node)? {
            Value::Int(number) => Ok(test(number)),
            Value::Double(number) => Ok(matches!(truncated(number), Ok(Value::Int(whole))
                if test(whole) && as_double(whole).total_cmp(&number).is_eq())),
            _ => mistyped(),
        }
    }

    fn compare(&self, comparison: Comparison, sides: &'a [Node; 2]) -> Result<bool, Unevaluable> {
        let [left, right] = sides;
        let order = match (self.value(left)?, self.value(right)?) {
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(&b)),
            (Value::Int(a), Value::Double(b)) => as_double(a).partial_cmp(&b),
            (Value::Double(a), Value::Int(b)) => a.partial_cmp(&as_double(b)),
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(&b),
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(&b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(&b)),
            (Value::Ip(a), Value::Ip(b)) => Some(a.cmp(&b)),
            _ => return mistyped(),
        };
        // Nothing compares with a number that is not one, save that it is unequal.
        Ok(
            order.map_or(comparison == Comparison::NotEqual, |order: Ordering| {
                comparison.holds(order)
            }),
        )
    }

    fn test(&self, test: TextTest, sides: &'a [Node; 2]) -> Result<bool, Unevaluable> {
        let [whole, part] = sides;
        let (whole, part) = (self.text(whole)?, self.text(part)?);
        Ok(match test {
            TextTest::StartsWith => whole.starts_with(&*part),
            TextTest::EndsWith => whole.ends_with(&*part),
            TextTest::Contains => whole.contains(&*part),
        })
    }

    fn variable(&self, variable: Variable) -> Outcome<'a> {
        let facts = self.facts;
        let text = |text: &'a str| Value::Text(Cow::Borrowed(text));
        let known = match variable {
            Variable::ClientIp => facts.client().map(Value::Ip),
            Variable::ClientPort => facts.client_port.map(|port| Value::Int(port.into())),
            Variable::Listener => Some(text(facts.listener)),
            Variable::Point => Some(text(facts.point.name())),
            Variable::Helo => facts.helo.map(text),
            Variable::TlsVersion => Some(text(facts.tls.unwrap_or_default())),
            Variable::AuthIdentity => Some(text(facts.auth.unwrap_or_default())),
            Variable::MailFrom => facts.mail_from.map(|sender| text(sender.address)),
            Variable::Rcpt => self.recipient.map(|recipient| text(recipient.address)),
            Variable::Size => facts.size.map(|octets| Value::Int(clamped(octets))),
            Variable::MailParameters
            | Variable::RcptParameters
            | Variable::Recipients
            | Variable::Header
            | Variable::Annotation => None,
        };
        known.ok_or(Unevaluable::Missing(variable))
    }

    fn is_known(&self, variable: Variable) -> bool {
        match variable {
            Variable::MailParameters => self.facts.mail_from.is_some(),
            Variable::RcptParameters => self.recipient.is_some(),
            Variable::AuthIdentity => self.facts.auth.is_some(),
            Variable::TlsVersion => self.facts.tls.is_some(),
            Variable::Recipients => !self.facts.recipients.is_empty(),
            other => self.variable(other).is_ok(),
        }
    }

    fn headers(&self) -> Result<&'a dyn crate::facts::Headers, Unevaluable> {
        self.facts
            .headers
            .ok_or(Unevaluable::Missing(Variable::Header))
    }

    fn annotation(&self, key: &str) -> Result<&'a str, Unevaluable> {
        let found = self
            .facts
            .annotations
            .and_then(|annotations| annotations.get(key));
        found
            .map(String::as_str)
            .ok_or(Unevaluable::Missing(Variable::Annotation))
    }

    fn parameters(&self, variable: Variable) -> Result<&'a [String], Unevaluable> {
        let parameters = match variable {
            Variable::MailParameters => self.facts.mail_from.map(|sender| sender.parameters),
            Variable::RcptParameters => self.recipient.map(|recipient| recipient.parameters),
            _ => None,
        };
        parameters.ok_or(Unevaluable::Missing(variable))
    }

    fn recipients(&self) -> Result<&'a [Recipient<'a>], Unevaluable> {
        match self.facts.recipients {
            [] => Err(Unevaluable::Missing(Variable::Recipients)),
            recipients => Ok(recipients),
        }
    }

    fn in_list(&self, needle: &'a Node, list: Variable) -> Result<bool, Unevaluable> {
        let needle = self.text(needle)?;
        if list == Variable::Recipients {
            return Ok(self
                .recipients()?
                .iter()
                .any(|recipient| recipient.address == needle));
        }
        Ok(self
            .parameters(list)?
            .iter()
            .any(|parameter| **parameter == *needle))
    }

    fn length(&self, list: &List) -> Result<usize, Unevaluable> {
        match list {
            List::Variable(Variable::Recipients) => self.recipients().map(<[_]>::len),
            List::Variable(variable) => self.parameters(*variable).map(<[_]>::len),
            List::Texts(texts) => Ok(texts.len()),
            List::Ints(numbers) => Ok(numbers.len()),
        }
    }

    fn quantified(
        &self,
        quantifier: Quantifier,
        list: &'a List,
        body: &'a Node,
    ) -> Result<bool, Unevaluable> {
        let text = |text: &'a str| Value::Text(Cow::Borrowed(text));
        match list {
            List::Variable(Variable::Recipients) => {
                let items = self
                    .recipients()?
                    .iter()
                    .map(|recipient| text(recipient.address));
                self.each(quantifier, items, body)
            }
            List::Variable(variable) => {
                let items = self
                    .parameters(*variable)?
                    .iter()
                    .map(|parameter| text(parameter));
                self.each(quantifier, items, body)
            }
            List::Texts(texts) => self.each(quantifier, texts.iter().map(|item| text(item)), body),
            List::Ints(numbers) => self.each(
                quantifier,
                numbers.iter().map(|number| Value::Int(*number)),
                body,
            ),
        }
    }

    /// An element that decides wins over one without an answer, as with `&&` and `||`.
    fn each(
        &self,
        quantifier: Quantifier,
        items: impl Iterator<Item = Value<'a>>,
        body: &'a Node,
    ) -> Result<bool, Unevaluable> {
        let mut scope = self.clone();
        let mut unanswered = None;
        let mut holding = 0_usize;
        for item in items {
            scope.item = Some(item);
            match (scope.truth(body), quantifier) {
                (Ok(true), Quantifier::Exists) => return Ok(true),
                (Ok(false), Quantifier::All) => return Ok(false),
                (Ok(held), _) => holding += usize::from(held),
                (Err(reason), _) => unanswered = unanswered.or(Some(reason)),
            }
        }
        match (unanswered, quantifier) {
            (Some(reason), _) => Err(reason),
            (None, Quantifier::Exists) => Ok(false),
            (None, Quantifier::All) => Ok(true),
            (None, Quantifier::ExistsOne) => Ok(holding == 1),
        }
    }
}

fn read(text: &str, kind: Scalar) -> Outcome<'_> {
    match kind {
        Scalar::Text => Ok(Value::Text(Cow::Borrowed(text))),
        Scalar::Bool => text
            .trim()
            .parse()
            .map(Value::Bool)
            .map_err(|_| Unevaluable::NotA("true or false")),
        Scalar::Number => {
            let text = text.trim();
            text.parse().map(Value::Int).or_else(|_| {
                text.parse()
                    .map(Value::Double)
                    .map_err(|_| Unevaluable::NotA("a number"))
            })
        }
    }
}

fn lowered(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        text
    }
}

fn calculate<'a>(operation: Operation, left: &Value<'a>, right: &Value<'a>) -> Outcome<'a> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => integers(operation, *a, *b),
        (Value::Int(a), Value::Double(b)) => doubles(operation, as_double(*a), *b),
        (Value::Double(a), Value::Int(b)) => doubles(operation, *a, as_double(*b)),
        (Value::Double(a), Value::Double(b)) => doubles(operation, *a, *b),
        _ => mistyped(),
    }
}

fn integers<'a>(operation: Operation, a: i64, b: i64) -> Outcome<'a> {
    let result = match operation {
        Operation::Add => a.checked_add(b),
        Operation::Subtract => a.checked_sub(b),
        Operation::Multiply => a.checked_mul(b),
        Operation::Divide => a.checked_div(b),
        Operation::Remainder => a.checked_rem(b),
    };
    result.map(Value::Int).ok_or(Unevaluable::Arithmetic)
}

fn doubles<'a>(operation: Operation, a: f64, b: f64) -> Outcome<'a> {
    match operation {
        Operation::Add => Ok(Value::Double(a + b)),
        Operation::Subtract => Ok(Value::Double(a - b)),
        Operation::Multiply => Ok(Value::Double(a * b)),
        Operation::Divide => Ok(Value::Double(a / b)),
        Operation::Remainder => Err(Unevaluable::Arithmetic),
    }
}

fn counted<'a>(number: usize) -> Value<'a> {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn clamped(octets: u64) -> i64 {
    i64::try_from(octets).unwrap_or(i64::MAX)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "CEL compares integers and doubles approximately"
)]
const fn as_double(number: i64) -> f64 {
    number as f64
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the range is checked before"
)]
fn truncated<'a>(number: f64) -> Outcome<'a> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number > -LIMIT && number < LIMIT {
        Ok(Value::Int(number as i64))
    } else {
        Err(Unevaluable::Arithmetic)
    }
}
