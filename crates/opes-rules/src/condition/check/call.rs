//! Operators, functions and methods.

use super::{Checker, Typed, dotted, is_list, scalar};
use crate::condition::Variable;
use crate::condition::tree::{
    Comparison, List, Node, Operation, Quantifier, Scalar, TextTest, Type,
};
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use regex::RegexBuilder;

/// Memory that one compiled regex may take, in octets.
const REGEX_OCTETS_MAX: usize = 1 << 18;
/// Deepest nesting in a regex.
const REGEX_DEPTH_MAX: u32 = 32;

const FUNCTIONS: [&str; 10] = [
    "header",
    "hasHeader",
    "annotation",
    "hasAnnotation",
    "has",
    "domain",
    "size",
    "int",
    "double",
    "cidr",
];
const METHODS: [&str; 9] = [
    "startsWith",
    "endsWith",
    "contains",
    "matches",
    "lowerAscii",
    "size",
    "exists",
    "all",
    "exists_one",
];

impl Checker {
    pub(super) fn call(&mut self, call: &CallExpr) -> Typed {
        let name = call.func_name.as_str();
        match (&call.target, call.args.as_slice()) {
            (Some(target), arguments) => self.method(name, target, arguments),
            (None, [operand]) if name == operators::LOGICAL_NOT => {
                Some((Node::Not(Box::new(self.truth(operand)?)), Type::Bool))
            }
            (None, [operand]) if name == operators::NEGATE => {
                let (node, kind) = self.numeric(operand)?;
                Some((Node::Negate(Box::new(node)), kind))
            }
            (None, [condition, yes, no]) if name == operators::CONDITIONAL => {
                self.choice(condition, yes, no)
            }
            (None, [left, right]) => self.binary(name, left, right),
            (None, arguments) => self.function(name, arguments),
        }
    }

    fn choice(&mut self, condition: &IdedExpr, yes: &IdedExpr, no: &IdedExpr) -> Typed {
        let condition = self.truth(condition);
        let (yes, no) = (self.node(yes), self.node(no));
        let (condition, yes, no) = (condition?, yes?, no?);
        let kind = match (yes.1, no.1) {
            (Type::Annotation, Type::Annotation) => Type::Text,
            (Type::Annotation, other) | (other, Type::Annotation) => other,
            (Type::Double, Type::Int) | (Type::Int, Type::Double) => Type::Double,
            (first, _) => first,
        };
        let [yes, no] = self.alike(yes, no)?;
        Some((Node::Choose(Box::new([condition, yes, no])), kind))
    }

    fn binary(&mut self, name: &str, left: &IdedExpr, right: &IdedExpr) -> Typed {
        let comparison = match name {
            operators::LOGICAL_AND | operators::LOGICAL_OR => {
                let (left, right) = (self.truth(left), self.truth(right));
                let sides = Box::new([left?, right?]);
                let and = name == operators::LOGICAL_AND;
                return Some((
                    if and {
                        Node::And(sides)
                    } else {
                        Node::Or(sides)
                    },
                    Type::Bool,
                ));
            }
            operators::IN => return self.membership(left, right),
            operators::EQUALS => Comparison::Equal,
            operators::NOT_EQUALS => Comparison::NotEqual,
            operators::LESS => Comparison::Less,
            operators::LESS_EQUALS => Comparison::LessOrEqual,
            operators::GREATER => Comparison::Greater,
            operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
            operators::ADD => return self.arithmetic(Operation::Add, left, right),
            operators::SUBSTRACT => return self.arithmetic(Operation::Subtract, left, right),
            operators::MULTIPLY => return self.arithmetic(Operation::Multiply, left, right),
            operators::DIVIDE => return self.arithmetic(Operation::Divide, left, right),
            operators::MODULO => return self.arithmetic(Operation::Remainder, left, right),
            operators::INDEX | operators::OPT_INDEX => {
                return self.refuse("lists cannot be indexed", "use .exists() or `in`");
            }
            _ => return self.unknown_function(name),
        };
        self.compare(comparison, left, right)
    }

    fn membership(&mut self, left: &IdedExpr, right: &IdedExpr) -> Typed {
        let needle = self.node(left);
        if let Expr::Call(call) = &right.expr
            && call.target.is_none()
            && call.func_name == "cidr"
        {
            return self.in_cidr(needle?, &call.args);
        }
        let list = self.list(right);
        let ((needle, kind), (list, element)) = (needle?, list?);
        if kind == Type::Ip {
            let List::Texts(texts) = list else {
                return self.refuse("an address can only be looked up in written networks", "");
            };
            let networks = self.networks(texts.iter().map(AsRef::as_ref))?;
            return within(networks, needle);
        }
        let needle = match kind {
            Type::Double if element == Type::Int => needle,
            _ => self.settled(needle, kind, element)?,
        };
        let needle = Box::new(needle);
        let node = match list {
            List::Variable(variable) => Node::InList(needle, variable),
            List::Texts(texts) => Node::InTexts(needle, texts),
            List::Ints(numbers) => Node::InInts(needle, numbers),
        };
        Some((node, Type::Bool))
    }

    fn in_cidr(&mut self, needle: (Node, Type), arguments: &[IdedExpr]) -> Typed {
        let (needle, kind) = needle;
        if kind != Type::Ip {
            return self.refuse(
                "only an address can be in cidr(…)",
                "write client.ip in cidr(…)",
            );
        }
        let written = match arguments {
            [
                IdedExpr {
                    expr: Expr::List(list),
                    ..
                },
            ] => list.elements.as_slice(),
            arguments => arguments,
        };
        let (list, _) = self.written_list(written)?;
        let List::Texts(texts) = list else {
            return self.refuse("cidr(…) takes texts", "write cidr(\"192.0.2.0/24\")");
        };
        let networks = self.networks(texts.iter().map(AsRef::as_ref))?;
        within(networks, needle)
    }

    fn function(&mut self, name: &str, arguments: &[IdedExpr]) -> Typed {
        let [argument] = arguments else {
            if FUNCTIONS.contains(&name) {
                return self.refuse(format!("{name}() takes one argument"), "");
            }
            return self.unknown_function(name);
        };
        match name {
            "header" => {
                let name = self.field_name(argument)?;
                self.needs.insert(Variable::Header);
                Some((Node::Header(name), Type::Text))
            }
            "hasHeader" => {
                let name = self.field_name(argument)?;
                self.needs.insert(Variable::Header);
                Some((Node::HasHeader(name), Type::Bool))
            }
            "annotation" => {
                let key = self.written(argument, name)?;
                self.needs.insert(Variable::Annotation);
                Some((Node::Annotation(key, Scalar::Text), Type::Annotation))
            }
            "hasAnnotation" => {
                let key = self.written(argument, name)?;
                self.needs.insert(Variable::Annotation);
                Some((Node::HasAnnotation(key), Type::Bool))
            }
            "has" => {
                let variable = dotted(argument).map(|name| self.variable(&name));
                match variable {
                    Some(variable) => Some((Node::Has(variable?.0), Type::Bool)),
                    None => self.refuse("has() takes a name", "write has(mail.from)"),
                }
            }
            "domain" => Some((Node::Domain(Box::new(self.text(argument)?)), Type::Text)),
            "size" => self.size(argument),
            "int" | "double" => self.conversion(name, argument),
            "cidr" => self.refuse(
                "cidr(…) can only stand after `in`",
                "write client.ip in cidr(\"192.0.2.0/24\")",
            ),
            _ => self.unknown_function(name),
        }
    }

    fn unknown_function<T>(&mut self, name: &str) -> Option<T> {
        let remedy = crate::parse::suggestion(name, &FUNCTIONS);
        self.refuse(format!("unknown function `{name}`"), remedy)
    }

    fn conversion(&mut self, name: &str, argument: &IdedExpr) -> Typed {
        let (node, kind) = self.node(argument)?;
        let node = match (node, kind) {
            (Node::Annotation(key, _), _) => Node::Annotation(key, scalar(Type::Double)),
            (node, Type::Text | Type::Int | Type::Double) => node,
            (_, kind) => return self.refuse(format!("{name}() of {}", kind.name()), ""),
        };
        Some(match name {
            "int" => (Node::ToInt(Box::new(node)), Type::Int),
            _ => (Node::ToDouble(Box::new(node)), Type::Double),
        })
    }

    fn size(&mut self, of: &IdedExpr) -> Typed {
        if let Expr::List(_) = &of.expr {
            return Some((Node::Count(self.list(of)?.0), Type::Int));
        }
        let (node, kind) = self.node(of)?;
        match (node, kind) {
            (Node::Variable(variable), kind) if is_list(kind) => {
                Some((Node::Count(List::Variable(variable)), Type::Int))
            }
            (node, kind) => {
                let text = self.settled(node, kind, Type::Text)?;
                Some((Node::Length(Box::new(text)), Type::Int))
            }
        }
    }

    fn method(&mut self, name: &str, target: &IdedExpr, arguments: &[IdedExpr]) -> Typed {
        match (name, arguments) {
            ("startsWith", [part]) => self.text_test(TextTest::StartsWith, target, part),
            ("endsWith", [part]) => self.text_test(TextTest::EndsWith, target, part),
            ("contains", [part]) => self.text_test(TextTest::Contains, target, part),
            ("matches", [pattern]) => self.pattern(target, pattern),
            ("lowerAscii", []) => Some((Node::Lower(Box::new(self.text(target)?)), Type::Text)),
            ("size", []) => self.size(target),
            ("exists", [item, body]) => self.repeat(Quantifier::Exists, target, item, body),
            ("all", [item, body]) => self.repeat(Quantifier::All, target, item, body),
            ("exists_one" | "existsOne", [item, body]) => {
                self.repeat(Quantifier::ExistsOne, target, item, body)
            }
            ("map" | "filter", _) => self.refuse(
                format!(".{name}() makes a list, which a condition cannot use"),
                "use .exists(), .all() or .exists_one()",
            ),
            _ if METHODS.contains(&name) => {
                self.refuse(format!(".{name}() has another number of arguments"), "")
            }
            _ => {
                let remedy = crate::parse::suggestion(name, &METHODS);
                self.refuse(format!("unknown method `{name}`"), remedy)
            }
        }
    }

    fn text_test(&mut self, test: TextTest, target: &IdedExpr, part: &IdedExpr) -> Typed {
        let (target, part) = (self.text(target), self.text(part));
        Some((Node::Test(test, Box::new([target?, part?])), Type::Bool))
    }

    fn pattern(&mut self, target: &IdedExpr, pattern: &IdedExpr) -> Typed {
        let target = self.text(target);
        let Expr::Literal(LiteralValue::String(pattern)) = &pattern.expr else {
            return self.refuse(
                "the pattern of .matches() is not a written text",
                "write the regular expression itself",
            );
        };
        let regex = RegexBuilder::new(pattern.inner())
            .size_limit(REGEX_OCTETS_MAX)
            .nest_limit(REGEX_DEPTH_MAX)
            .build();
        match regex {
            Ok(regex) => Some((
                Node::Matches(Box::new(target?), Box::new(regex)),
                Type::Bool,
            )),
            Err(error) => {
                let said = error.to_string();
                let last = said.lines().last().unwrap_or_default();
                self.refuse(format!("not a usable regular expression: {last}"), "")
            }
        }
    }

    /// A loop over a list; one in an expression, never inside another.
    fn repeat(
        &mut self,
        quantifier: Quantifier,
        over: &IdedExpr,
        item: &IdedExpr,
        body: &IdedExpr,
    ) -> Typed {
        self.loops += 1;
        if self.loops > 1 {
            return self.refuse(
                "more than one .exists(), .all() or .exists_one()",
                "split the rule, or use `in`",
            );
        }
        let list = self.list(over);
        let Expr::Ident(name) = &item.expr else {
            return self.refuse("the first argument of a loop is not a name", "write p");
        };
        let (list, element) = list?;
        self.item = Some((name.clone(), element));
        let body = self.truth(body);
        self.item = None;
        Some((Node::Loop(quantifier, list, Box::new(body?)), Type::Bool))
    }

    /// A text that is written in the expression.
    fn written(&mut self, argument: &IdedExpr, function: &str) -> Option<Box<str>> {
        match &argument.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(text.inner().into()),
            _ => self.refuse(
                format!("the argument of {function}() is not a written text"),
                "",
            ),
        }
    }

    fn field_name(&mut self, argument: &IdedExpr) -> Option<Box<str>> {
        let name = self.written(argument, "header")?;
        if crate::compile::is_field_name(&name) {
            return Some(name);
        }
        self.refuse(
            format!("`{name}` is not a header field name"),
            "write header(\"Subject\")",
        )
    }
}

/// Puts the address into the membership test that was made of its networks.
fn within(networks: Node, needle: Node) -> Typed {
    match networks {
        Node::InNetworks(_, networks) => {
            Some((Node::InNetworks(Box::new(needle), networks), Type::Bool))
        }
        _ => None,
    }
}
