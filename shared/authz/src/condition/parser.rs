//! Recursive descent: `||` binds loosest, then `&&`, then `!`.

use super::{ConditionError, Expr, List, Text, Token, lexer};

const DEEPEST: u8 = 32;

/// `query`: a query over nodes, which knows of a few more things.
pub(super) fn parse(text: &str, query: bool) -> Result<Expr, ConditionError> {
    let tokens = lexer::tokens(text)?;
    let end = text.chars().count() + 1;
    let mut parser = Parser { tokens: &tokens, at: 0, end, depth: 0, query };
    let expr = parser.or()?;
    match parser.peek() {
        None => Ok(expr),
        Some(token) => Err(parser.error(format!("unexpected {}", show(token)))),
    }
}

fn show(token: &Token) -> String {
    match token {
        Token::Word(word) => format!("{word:?}"),
        Token::Text(text) => format!("text {text:?}"),
        Token::Sign(sign) => format!("{sign:?}"),
    }
}

struct Parser<'a> {
    tokens: &'a [(usize, Token)],
    at: usize,
    end: usize,
    depth: u8,
    query: bool,
}

enum Operand {
    Text(Text),
    List(List),
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn error(&self, what: impl Into<String>) -> ConditionError {
        let column = self.tokens.get(self.at).map_or(self.end, |(column, _)| *column);
        ConditionError { column, what: what.into() }
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        if found {
            self.at += 1;
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), ConditionError> {
        if self.eat(sign) { Ok(()) } else { Err(self.error(format!("expected {sign:?}"))) }
    }

    fn word(&mut self) -> Result<String, ConditionError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.error("expected a name")),
        }
    }

    fn or(&mut self) -> Result<Expr, ConditionError> {
        let mut left = self.and()?;
        while self.eat("||") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, ConditionError> {
        let mut left = self.not()?;
        while self.eat("&&") {
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr, ConditionError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.error("nested too deeply"));
        }
        let expr = if self.eat("!") {
            Expr::Not(Box::new(self.not()?))
        } else if self.eat("(") {
            let inner = self.or()?;
            self.expect(")")?;
            inner
        } else {
            self.predicate()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn predicate(&mut self) -> Result<Expr, ConditionError> {
        let start = self.at;
        if let (Some(Token::Word(name)), Some((_, Token::Sign("(")))) =
            (self.peek(), self.tokens.get(self.at + 1))
        {
            let name = name.clone();
            if name != "set" {
                self.at += 2;
                return self.call(&name, start);
            }
        }
        let left = self.operand()?;
        let negated = if self.eat("==") {
            false
        } else if self.eat("!=") {
            true
        } else {
            return Err(self.error("expected \"==\" or \"!=\""));
        };
        let right = self.operand()?;
        self.at -= 1;
        let equal = equal(left, right).map_err(|what| self.error(what))?;
        self.at += 1;
        Ok(if negated { Expr::Not(Box::new(equal)) } else { equal })
    }

    fn call(&mut self, name: &str, start: usize) -> Result<Expr, ConditionError> {
        let fail = |parser: &mut Self, what: String| {
            parser.at = start;
            Err(parser.error(what))
        };
        match name {
            "search" if self.query => return self.words().map(Expr::Search),
            "exists" if self.query => return self.exists(),
            _ => {}
        }
        let known = matches!(name, "contains" | "contains_any" | "contains_all" | "equals")
            || (self.query && name == "hasPrefix");
        if !known {
            return fail(
                self,
                format!(
                    "unknown function {name:?}, expected contains, contains_any, contains_all or equals"
                ),
            );
        }
        let first = self.operand()?;
        self.expect(",")?;
        let second = self.operand()?;
        self.expect(")")?;
        match (name, first, second) {
            ("contains", Operand::List(list), Operand::Text(item)) => {
                Ok(Expr::Contains(list, item))
            }
            ("contains_any", Operand::List(list), Operand::List(other)) => {
                Ok(Expr::ContainsAny(list, other))
            }
            ("contains_all", Operand::List(list), Operand::List(other)) => {
                Ok(Expr::ContainsAll(list, other))
            }
            ("equals", first, second) => match equal(first, second) {
                Ok(expr) => Ok(expr),
                Err(what) => fail(self, what),
            },
            ("hasPrefix", Operand::Text(text), Operand::Text(start)) => {
                Ok(Expr::HasPrefix(text, start))
            }
            ("hasPrefix", ..) => fail(self, "hasPrefix takes two texts".to_owned()),
            ("contains", ..) => fail(self, "contains takes a list and a text".to_owned()),
            _ => fail(self, format!("{name} takes two lists")),
        }
    }

    fn operand(&mut self) -> Result<Operand, ConditionError> {
        if let Some(Token::Text(text)) = self.peek() {
            let text = text.clone();
            self.at += 1;
            return Ok(Operand::Text(Text::Literal(text)));
        }
        let start = self.at;
        let mut path = vec![self.word()?];
        if path == ["set"] && self.eat("(") {
            return self.set();
        }
        while self.eat(".") {
            path.push(self.word()?);
        }
        let index = if self.eat("[") {
            let Some(Token::Text(text)) = self.peek() else {
                return Err(self.error("expected a text in quotes"));
            };
            let text = text.clone();
            self.at += 1;
            self.expect("]")?;
            Some(text)
        } else {
            None
        };
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        match (parts.as_slice(), index) {
            (["user", "metadata", "name"], None) => Ok(Operand::Text(Text::UserName)),
            (["user", "spec", "roles"], None) => Ok(Operand::List(List::UserRoles)),
            (["user", "spec", "traits"], Some(name)) => Ok(Operand::List(List::UserTrait(name))),
            (["user", "spec", "traits", name], None) => {
                Ok(Operand::List(List::UserTrait((*name).to_owned())))
            }
            (["resource", "metadata", "name"], None) => Ok(Operand::Text(Text::ResourceName)),
            (["resource", "metadata", "labels"], Some(name)) => {
                Ok(Operand::Text(Text::ResourceLabel(name)))
            }
            (["session", "participants"], None) => Ok(Operand::List(List::Participants)),
            (["session_tracker", "participants"], None) => {
                Ok(Operand::List(List::TrackerParticipants))
            }
            (["labels"], Some(name)) => Ok(Operand::Text(Text::Label(name))),
            (["name"] | ["resource", "spec", "hostname"], None) if self.query => {
                Ok(Operand::Text(Text::NodeName))
            }
            (["labels", name], None) => Ok(Operand::Text(Text::Label((*name).to_owned()))),
            _ => {
                self.at = start;
                Err(self.error(format!("unknown identifier {:?}", path.join("."))))
            }
        }
    }

    /// A label, behind `exists(`.
    fn exists(&mut self) -> Result<Expr, ConditionError> {
        let start = self.at;
        match self.operand()? {
            Operand::Text(Text::Label(name) | Text::ResourceLabel(name)) => {
                self.expect(")")?;
                Ok(Expr::Exists(name))
            }
            _ => {
                self.at = start;
                Err(self.error("exists takes a label, such as labels[\"env\"]"))
            }
        }
    }

    fn set(&mut self) -> Result<Operand, ConditionError> {
        self.words().map(|items| Operand::List(List::Set(items)))
    }

    /// Texts up to the closing parenthesis.
    fn words(&mut self) -> Result<Vec<String>, ConditionError> {
        let mut items = Vec::new();
        if self.eat(")") {
            return Ok(items);
        }
        loop {
            match self.peek() {
                Some(Token::Text(text)) => items.push(text.clone()),
                _ => return Err(self.error("expected a text in quotes")),
            }
            self.at += 1;
            if self.eat(")") {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }
}

fn equal(left: Operand, right: Operand) -> Result<Expr, String> {
    match (left, right) {
        (Operand::Text(left), Operand::Text(right)) => Ok(Expr::EqualText(left, right)),
        (Operand::List(left), Operand::List(right)) => Ok(Expr::EqualList(left, right)),
        _ => Err("a text and a list are never equal; use contains".to_owned()),
    }
}
