//! From tokens to a tree. The parser stops at the first mistake of form; mistakes of meaning are
//! gathered later.

use crate::ast::{Expr, Kind, Name, Operator};
use crate::lex::{Problem, Token, tokens};
use crate::limits::{MAX_DEPTH, MAX_SOURCE_BYTES};
use crate::mistake::At;
use crate::value::Value;

/// Words that CEL keeps for other languages and for later.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The tree of a source.
pub(crate) fn parse(source: &str) -> Result<Expr, Problem> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(Problem::new(
            At::default(),
            format!("expected at most {MAX_SOURCE_BYTES} bytes, got {}", source.len()),
        )
        .hint("split the rule in two, or move long lists out of it"));
    }
    let mut parser = Parser { tokens: tokens(source)?, next: 0, level: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        token => {
            let problem = Problem::new(
                parser.at(),
                format!("expected an operator or the end, got {}", shown(token)),
            );
            Err(match token {
                Token::Sign("=") => problem.hint("equality is written =="),
                Token::Name(word) if word == "and" => problem.hint("`and` is written &&"),
                Token::Name(word) if word == "or" => problem.hint("`or` is written ||"),
                _ => problem,
            })
        }
    }
}

struct Parser {
    tokens: Vec<(Token, At)>,
    next: usize,
    level: u16,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }

    fn at(&self) -> At {
        let index = self.next.min(self.tokens.len().saturating_sub(1));
        self.tokens.get(index).map_or_else(At::default, |(_, at)| *at)
    }

    /// Where the last token that was taken stands.
    fn last_at(&self) -> At {
        let index = self.next.saturating_sub(1);
        self.tokens.get(index).map_or_else(At::default, |(_, at)| *at)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &'static str, after: &str) -> Result<(), Problem> {
        if self.take(sign) {
            return Ok(());
        }
        let message = format!("expected {sign} {after}, got {}", shown(self.peek()));
        Err(Problem::new(self.at(), message))
    }

    fn node(&self, kind: Kind, at: At) -> Result<Expr, Problem> {
        let below = match &kind {
            Kind::Literal(_) | Kind::Name(_) => 0,
            Kind::Select { base, .. } => base.depth,
            Kind::Index { base, index, .. } => base.depth.max(index.depth),
            Kind::Call { target, args, .. } => args
                .iter()
                .map(|arg| arg.depth)
                .chain(target.iter().map(|target| target.depth))
                .max()
                .unwrap_or(0),
            Kind::List(items) | Kind::All(items) | Kind::Any(items) => {
                items.iter().map(|item| item.depth).max().unwrap_or(0)
            }
            Kind::Map(entries) => {
                entries.iter().map(|(key, value)| key.depth.max(value.depth)).max().unwrap_or(0)
            }
            Kind::Not(inner) | Kind::Negate(inner) => inner.depth,
            Kind::Binary { left, right, .. } => left.depth.max(right.depth),
            Kind::Conditional { condition, then, otherwise } => {
                condition.depth.max(then.depth).max(otherwise.depth)
            }
        };
        if below >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        Ok(Expr { kind, at, depth: below + 1 })
    }

    /// Goes one bracket, prefix or branch down, and comes back up when `inside` is done.
    fn nested<T>(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        if self.level >= MAX_DEPTH {
            return Err(too_deep(self.at()));
        }
        self.level += 1;
        let result = inside(self);
        self.level -= 1;
        result
    }

    fn expression(&mut self) -> Result<Expr, Problem> {
        self.nested(Self::conditional)
    }

    fn conditional(&mut self) -> Result<Expr, Problem> {
        let condition = self.any()?;
        if !self.take("?") {
            return Ok(condition);
        }
        let then = self.nested(Self::any)?;
        self.expect(":", "between the branches of ?")?;
        let otherwise = self.expression()?;
        let at = condition.at.to(otherwise.at);
        let (condition, then) = (Box::new(condition), Box::new(then));
        self.node(Kind::Conditional { condition, then, otherwise: Box::new(otherwise) }, at)
    }

    fn any(&mut self) -> Result<Expr, Problem> {
        let first = self.all()?;
        let items = self.chain(first, "||", Self::all)?;
        self.chained(items, Kind::Any)
    }

    fn all(&mut self) -> Result<Expr, Problem> {
        let first = self.binary(1)?;
        let items = self.chain(first, "&&", |parser| parser.binary(1))?;
        self.chained(items, Kind::All)
    }

    fn chain(
        &mut self,
        first: Expr,
        sign: &str,
        next: impl Fn(&mut Self) -> Result<Expr, Problem>,
    ) -> Result<Vec<Expr>, Problem> {
        let mut items = vec![first];
        while self.take(sign) {
            items.push(next(self)?);
        }
        Ok(items)
    }

    fn chained(&self, mut items: Vec<Expr>, kind: fn(Vec<Expr>) -> Kind) -> Result<Expr, Problem> {
        match (items.len(), items.pop()) {
            (1, Some(only)) => Ok(only),
            (_, Some(last)) => {
                let at = items.first().map_or(last.at, |first| first.at.to(last.at));
                items.push(last);
                self.node(kind(items), at)
            }
            (_, None) => Err(Problem::new(self.at(), "expected an expression")),
        }
    }

    fn binary(&mut self, binding: u8) -> Result<Expr, Problem> {
        let mut left = self.unary()?;
        while let Some(operator) = self.operator().filter(|found| found.binding() >= binding) {
            let at = self.at();
            self.next += 1;
            let right = self.nested(|parser| parser.binary(operator.binding() + 1))?;
            let whole = left.at.to(right.at);
            let (left_box, right) = (Box::new(left), Box::new(right));
            left = self.node(Kind::Binary { operator, left: left_box, right, at }, whole)?;
        }
        Ok(left)
    }

    fn operator(&self) -> Option<Operator> {
        Some(match self.peek() {
            Token::Sign("==") => Operator::Equal,
            Token::Sign("!=") => Operator::Unequal,
            Token::Sign("<") => Operator::Less,
            Token::Sign("<=") => Operator::LessOrEqual,
            Token::Sign(">") => Operator::Greater,
            Token::Sign(">=") => Operator::GreaterOrEqual,
            Token::Sign("+") => Operator::Add,
            Token::Sign("-") => Operator::Subtract,
            Token::Sign("*") => Operator::Multiply,
            Token::Sign("/") => Operator::Divide,
            Token::Sign("%") => Operator::Remainder,
            Token::Name(word) if word == "in" => Operator::In,
            _ => return None,
        })
    }

    fn unary(&mut self) -> Result<Expr, Problem> {
        let start = self.at();
        if self.take("!") {
            let inner = self.nested(Self::unary)?;
            let at = start.to(inner.at);
            return self.node(Kind::Not(Box::new(inner)), at);
        }
        if self.take("-") {
            // The least int has no positive counterpart, so a sign before digits is part of them.
            match self.peek() {
                Token::Int(number) => {
                    let literal = Value::Int(0_i64.wrapping_sub_unsigned(*number));
                    let at = start.to(self.at());
                    self.next += 1;
                    let literal = self.node(Kind::Literal(literal), at)?;
                    return self.members(literal);
                }
                Token::Double(number) => {
                    let literal = Value::Double(-number);
                    let at = start.to(self.at());
                    self.next += 1;
                    let literal = self.node(Kind::Literal(literal), at)?;
                    return self.members(literal);
                }
                _ => {}
            }
            let inner = self.nested(Self::unary)?;
            let at = start.to(inner.at);
            return self.node(Kind::Negate(Box::new(inner)), at);
        }
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut base: Expr) -> Result<Expr, Problem> {
        loop {
            if self.take(".") {
                let is_optional = self.take("?");
                let field = self.field_name()?;
                if !is_optional && self.take("(") {
                    let args = self.list(")", "after the arguments")?;
                    let at = base.at.to(self.last_at());
                    let target = Some(Box::new(base));
                    base = self.node(Kind::Call { target, name: field, args }, at)?;
                } else {
                    let at = base.at.to(field.at);
                    let select = Kind::Select { base: Box::new(base), field, is_optional };
                    base = self.node(select, at)?;
                }
            } else if self.take("[") {
                let is_optional = self.take("?");
                let index = Box::new(self.expression()?);
                self.expect("]", "after the index")?;
                let at = base.at.to(self.last_at());
                base = self.node(Kind::Index { base: Box::new(base), index, is_optional }, at)?;
            } else {
                return Ok(base);
            }
        }
    }

    fn field_name(&mut self) -> Result<Name, Problem> {
        let at = self.at();
        let text = match self.peek() {
            Token::Name(text) | Token::Quoted(text) => text.clone(),
            token => {
                let message = format!("expected the name of a field, got {}", shown(token));
                let hint =
                    "a key with other signs stands in brackets: attributes[\"gen_ai.system\"]";
                return Err(Problem::new(at, message).hint(hint));
            }
        };
        self.next += 1;
        Ok(Name { text, at })
    }

    fn list(&mut self, close: &'static str, after: &str) -> Result<Vec<Expr>, Problem> {
        let mut items = Vec::new();
        while !self.take(close) {
            if !items.is_empty() {
                self.expect(",", &format!("or {close} {after}"))?;
                // A comma may stand behind the last element of a list, not of arguments.
                if close == "]" && self.take(close) {
                    break;
                }
            }
            if matches!(self.peek(), Token::Sign("?")) {
                return Err(Problem::new(self.at(), "optional elements (?x) are not supported")
                    .hint("add the element with a condition: [a] + (c ? [b] : [])"));
            }
            items.push(self.expression()?);
        }
        Ok(items)
    }

    fn primary(&mut self) -> Result<Expr, Problem> {
        let at = self.at();
        let token = self.peek().clone();
        if !matches!(token, Token::End) {
            self.next += 1;
        }
        match token {
            Token::Int(number) => match i64::try_from(number) {
                Ok(number) => self.node(Kind::Literal(Value::Int(number)), at),
                Err(_) => Err(Problem::new(at, "expected an integer of 64 bits, got a larger one")),
            },
            Token::Uint(number) => self.node(Kind::Literal(Value::Uint(number)), at),
            Token::Double(number) => self.node(Kind::Literal(Value::Double(number)), at),
            Token::String(text) => self.node(Kind::Literal(Value::text(text)), at),
            Token::Bytes(bytes) => self.node(Kind::Literal(Value::Blob(bytes.into())), at),
            Token::Name(name) => self.name(name, at),
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")", "after the expression in brackets")?;
                Ok(Expr { at: at.to(self.last_at()), ..inner })
            }
            Token::Sign("[") => {
                let items = self.list("]", "after the elements")?;
                self.node(Kind::List(items), at.to(self.last_at()))
            }
            Token::Sign("{") => self.map(at),
            Token::Sign(".") => {
                Err(Problem::new(at, "names that begin with a dot are not supported")
                    .hint("leave the dot away; there are no containers of names here"))
            }
            token => {
                self.next = self.next.saturating_sub(usize::from(token != Token::End));
                Err(Problem::new(at, format!("expected an expression, got {}", shown(&token))))
            }
        }
    }

    fn name(&mut self, name: String, at: At) -> Result<Expr, Problem> {
        let literal = match name.as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            "null" => Some(Value::Null),
            _ => None,
        };
        if let Some(literal) = literal {
            return self.node(Kind::Literal(literal), at);
        }
        if name == "in" || RESERVED.contains(&name.as_str()) {
            return Err(Problem::new(at, format!("expected an expression, got the word {name}"))
                .hint("CEL reserves this word; it cannot be a name"));
        }
        if self.take("(") {
            let args = self.list(")", "after the arguments")?;
            let name = Name { text: name, at };
            let at = at.to(self.last_at());
            return self.node(Kind::Call { target: None, name, args }, at);
        }
        if matches!(self.peek(), Token::Sign("{")) {
            return Err(Problem::new(
                at,
                format!("making a message ({name}{{…}}) is not supported"),
            )
            .hint("use a map: {\"key\": value}"));
        }
        self.node(Kind::Name(name), at)
    }

    fn map(&mut self, start: At) -> Result<Expr, Problem> {
        let mut entries = Vec::new();
        while !self.take("}") {
            if !entries.is_empty() {
                self.expect(",", "or } after the entries")?;
                if self.take("}") {
                    break;
                }
            }
            if matches!(self.peek(), Token::Sign("?")) {
                return Err(Problem::new(
                    self.at(),
                    "optional entries (?key: x) are not supported",
                ));
            }
            let key = self.expression()?;
            self.expect(":", "after the key")?;
            entries.push((key, self.expression()?));
        }
        self.node(Kind::Map(entries), start.to(self.last_at()))
    }
}

fn too_deep(at: At) -> Problem {
    Problem::new(at, format!("expected at most {MAX_DEPTH} levels of nesting, got more"))
        .hint("split the rule, or use a list with `in` or a macro")
}

/// A token as messages show it.
fn shown(token: &Token) -> String {
    match token {
        Token::Name(name) | Token::Quoted(name) => name.clone(),
        Token::Int(number) => number.to_string(),
        Token::Uint(number) => format!("{number}u"),
        Token::Double(number) => number.to_string(),
        Token::String(text) => format!("{:?}", text.chars().take(20).collect::<String>()),
        Token::Bytes(_) => "bytes".to_owned(),
        Token::Sign(sign) => (*sign).to_owned(),
        Token::End => "the end".to_owned(),
    }
}
