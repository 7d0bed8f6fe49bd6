//! Recursive descent over the tokens. Depth is bounded, so that no text can exhaust the stack.

use crate::ast::{Element, Entry, Expr, Field, Kind, Literal, Select, Struct, op};
use crate::error::CompileError;
use crate::lexer::{self, Token, TokenKind};
use crate::macros;

/// How deep the tree may be.
const MAX_DEPTH: usize = 250;
/// How deep brackets may nest: each level takes many steps of the parser, and threads have small stacks.
const MAX_NESTING: usize = 100;
/// How long an expression may be, in characters.
const MAX_CHARS: usize = 100_000;

const RESERVED: [&str; 19] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
];
const RESERVED_MORE: [&str; 2] = ["void", "while"];

const STARTS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                      BYTES, IDENTIFIER}";

/// A syntax error ends parsing; other problems are collected.
struct Halt;
type Parsed<T> = Result<T, Halt>;

pub(crate) struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    problems: Vec<(u32, String)>,
    /// Whether values can be given names within an expression.
    pub(crate) has_bindings: bool,
}

/// Reads an expression.
pub(crate) fn parse(source: &str, has_bindings: bool) -> Result<Expr, CompileError> {
    let length = source.chars().count();
    if length > MAX_CHARS {
        let text = format!("expression code point size exceeds limit: size: {length}, limit {MAX_CHARS}");
        return Err(CompileError::new(source, vec![(0, text)]));
    }
    let (tokens, unrecognised) = lexer::tokens(source);
    let problems = unrecognised.into_iter().map(|u| {
        let text: String = u.text.chars().flat_map(|c| shown(c).chars().collect::<Vec<_>>()).collect();
        (u.at, format!("Syntax error: token recognition error at: '{text}'"))
    });
    let mut parser = Parser { tokens, next: 0, depth: 0, problems: problems.collect(), has_bindings };
    let parsed = parser.whole();
    match parsed {
        Ok(expr) if parser.problems.is_empty() => Ok(expr),
        _ => Err(CompileError::new(source, parser.problems)),
    }
}

fn shown(c: char) -> String {
    match c {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        c => c.to_string(),
    }
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn after(&self) -> &Token {
        &self.tokens[(self.next + 1).min(self.tokens.len() - 1)]
    }

    fn is(&self, text: &str) -> bool {
        let token = self.peek();
        token.kind == TokenKind::Fixed && token.text == text
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn accept(&mut self, text: &str) -> Option<u32> {
        self.is(text).then(|| self.take().at)
    }

    pub(crate) fn problem(&mut self, at: u32, text: impl Into<String>) {
        self.problems.push((at, text.into()));
    }

    fn syntax<T>(&mut self, text: &str) -> Parsed<T> {
        let at = self.peek().at;
        self.problem(at, format!("Syntax error: {text}"));
        Err(Halt)
    }

    fn unexpected<T>(&mut self, expected: &str) -> Parsed<T> {
        let token = self.peek().text.clone();
        let what = if token == "<EOF>" { token } else { token.chars().map(shown).collect() };
        self.syntax(&format!("mismatched input '{what}' expecting {expected}"))
    }

    fn expect(&mut self, text: &str) -> Parsed<u32> {
        if let Some(at) = self.accept(text) {
            return Ok(at);
        }
        let token = self.peek().text.clone();
        if text == "]" || text == "}" {
            return self.unexpected(&format!("{{'{text}', ','}}"));
        }
        // A token left out is named where something stands that could follow it.
        let follows = if text == ":" { self.starts(self.peek()) } else { self.peek().kind == TokenKind::End };
        if follows {
            return self.syntax(&format!("missing '{text}' at '{token}'"));
        }
        if self.after().kind == TokenKind::Fixed && self.after().text == text {
            return self.syntax(&format!("extraneous input '{token}' expecting '{text}'"));
        }
        self.unexpected(&format!("'{text}'"))
    }

    /// Whether an expression may begin with a token.
    fn starts(&self, token: &Token) -> bool {
        match token.kind {
            TokenKind::Fixed => ["[", "{", "(", ".", "-", "!", "true", "false", "null"].contains(&token.text.as_str()),
            TokenKind::EscapedIdent | TokenKind::End => false,
            _ => true,
        }
    }

    /// Nothing can begin here. One token too many is passed over.
    fn no_start(&mut self, expected: &str) -> Parsed<Expr> {
        let token = self.peek().clone();
        if token.kind == TokenKind::End || !self.starts(self.after()) {
            return self.unexpected(expected);
        }
        self.problem(token.at, format!("Syntax error: extraneous input '{}' expecting {expected}", token.text));
        self.next += 1;
        self.deeper(Self::primary)
    }

    fn whole(&mut self) -> Parsed<Expr> {
        let expr = self.expr()?;
        if self.peek().kind == TokenKind::End {
            return Ok(expr);
        }
        let token = self.peek().text.clone();
        if self.after().kind == TokenKind::End {
            return self.syntax(&format!("extraneous input '{token}' expecting <EOF>"));
        }
        self.unexpected("<EOF>")
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            self.problem(0, "expression recursion limit exceeded: 250");
            return Err(Halt);
        }
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn expr(&mut self) -> Parsed<Expr> {
        self.deeper(|p| {
            let condition = p.or()?;
            let Some(at) = p.accept("?") else { return Ok(condition) };
            let yes = p.or()?;
            p.expect(":")?;
            let no = p.expr()?;
            Ok(Expr::call(at, op::CONDITIONAL, vec![condition, yes, no]))
        })
    }

    fn or(&mut self) -> Parsed<Expr> {
        self.logic("||", op::OR, Self::and)
    }

    fn and(&mut self) -> Parsed<Expr> {
        self.logic("&&", op::AND, |p| p.binary(0))
    }

    /// A chain of one logical operator, made into a balanced tree so that long chains stay shallow.
    fn logic(&mut self, sign: &str, function: &str, term: fn(&mut Self) -> Parsed<Expr>) -> Parsed<Expr> {
        let mut terms = vec![term(self)?];
        let mut signs = Vec::new();
        while let Some(at) = self.accept(sign) {
            signs.push(at);
            terms.push(term(self)?);
        }
        let mut terms = terms.into_iter().map(Some).collect::<Vec<_>>();
        if signs.is_empty() {
            return terms.pop().flatten().ok_or(Halt);
        }
        balance(function, &signs, &mut terms, (0, signs.len() - 1)).ok_or(Halt)
    }

    /// Relations and sums: all associate to the left.
    fn binary(&mut self, level: usize) -> Parsed<Expr> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        let mut chain = 0;
        loop {
            let token = self.peek();
            let found = operators.iter().find(|(sign, _)| token.kind == TokenKind::Fixed && token.text == *sign);
            let Some((_, function)) = found else { break };
            let at = self.take().at;
            let right = self.binary(level + 1)?;
            left = Expr::call(at, function, vec![left, right]);
            chain += 1;
            self.bound(chain)?;
        }
        Ok(left)
    }

    /// The tree of a chain is as deep as the chain is long.
    fn bound(&mut self, chain: usize) -> Parsed<()> {
        if self.depth + chain > MAX_DEPTH {
            self.problem(0, "expression recursion limit exceeded: 250");
            return Err(Halt);
        }
        Ok(())
    }

    fn unary(&mut self) -> Parsed<Expr> {
        for (sign, function) in [("!", op::NOT), ("-", op::NEGATE)] {
            if !self.is(sign) {
                continue;
            }
            let number = matches!(self.after().kind, TokenKind::Int | TokenKind::Float);
            if sign == "-" && number {
                return self.member();
            }
            let first = self.peek().at;
            let mut count = 0;
            while self.is(sign) {
                self.next += 1;
                count += 1;
            }
            let operand = self.member()?;
            return Ok(if count % 2 == 0 { operand } else { Expr::call(first, function, vec![operand]) });
        }
        self.member()
    }

    fn member(&mut self) -> Parsed<Expr> {
        let mut expr = self.primary()?;
        let mut chain = 0;
        loop {
            if let Some(at) = self.accept(".") {
                expr = self.select(expr, at)?;
            } else if let Some(at) = self.accept("[") {
                let function = if self.accept("?").is_some() { op::OPT_INDEX } else { op::INDEX };
                let index = self.expr()?;
                self.expect("]")?;
                expr = Expr::call(at, function, vec![expr, index]);
            } else {
                return Ok(expr);
            }
            chain += 1;
            self.bound(chain)?;
        }
    }

    fn select(&mut self, operand: Expr, at: u32) -> Parsed<Expr> {
        let is_optional = self.accept("?").is_some();
        let token = self.peek().clone();
        if !matches!(token.kind, TokenKind::Ident | TokenKind::EscapedIdent) {
            if matches!(token.text.as_str(), "true" | "false" | "null") {
                return self.syntax(&format!("mismatched input '{}' expecting IDENTIFIER", token.text));
            }
            return self.syntax(&format!("no viable alternative at input '.{}'", token_text(&token)));
        }
        self.next += 1;
        if token.kind == TokenKind::Ident && !is_optional && self.is("(") {
            let open = self.take().at;
            let args = self.args(")")?;
            return Ok(macros::member_call(self, open, operand, &token.text, args));
        }
        if token.kind == TokenKind::EscapedIdent {
            self.problem(token.at, format!("unsupported syntax: '{}'", token.text.trim_matches('`')));
        }
        if is_optional {
            let field = Expr::literal(token.at, Literal::String(token.text));
            return Ok(Expr::call(at, op::OPT_SELECT, vec![operand, field]));
        }
        Ok(Expr::new(at, Kind::Select(Box::new(Select { operand, field: token.text, is_test: false }))))
    }

    fn args(&mut self, close: &str) -> Parsed<Vec<Expr>> {
        let mut args = Vec::new();
        if self.accept(close).is_some() {
            return Ok(args);
        }
        if self.peek().kind == TokenKind::End {
            return self.unexpected(&STARTS.replacen("'(', ", "'(', ')', ", 1));
        }
        loop {
            args.push(self.expr()?);
            if self.accept(",").is_none() {
                self.expect(close)?;
                return Ok(args);
            }
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let token = self.peek().clone();
        match token.kind {
            TokenKind::Int | TokenKind::Uint | TokenKind::Float | TokenKind::String | TokenKind::Bytes => {
                self.next += 1;
                Ok(self.literal(&token, ""))
            }
            TokenKind::Ident => self.name(""),
            TokenKind::Fixed => self.fixed(&token),
            TokenKind::EscapedIdent | TokenKind::End => self.no_start(STARTS),
        }
    }

    fn fixed(&mut self, token: &Token) -> Parsed<Expr> {
        let simple = match token.text.as_str() {
            "true" => Literal::Bool(true),
            "false" => Literal::Bool(false),
            "null" => Literal::Null,
            "-" if matches!(self.after().kind, TokenKind::Int | TokenKind::Float) => {
                self.next += 1;
                let number = self.take();
                let mut literal = self.literal(&number, "-");
                literal.at = token.at;
                return Ok(literal);
            }
            "." if self.after().kind == TokenKind::Ident => {
                self.next += 1;
                return self.name(".");
            }
            "(" => {
                self.next += 1;
                let inner = self.expr()?;
                self.expect(")")?;
                return Ok(inner);
            }
            "[" => return self.list(),
            "{" => return self.map(),
            _ => return self.no_start(STARTS),
        };
        self.next += 1;
        Ok(Expr::literal(token.at, simple))
    }

    /// A name, a call or a typed object.
    fn name(&mut self, dot: &str) -> Parsed<Expr> {
        let token = self.take();
        if let Some(expr) = self.typed_object(&token)? {
            return Ok(expr);
        }
        if RESERVED.contains(&token.text.as_str()) || RESERVED_MORE.contains(&token.text.as_str()) {
            self.problem(token.at, format!("reserved identifier: {}", token.text));
        }
        if let Some(open) = self.accept("(") {
            let args = self.args(")")?;
            return Ok(macros::global_call(self, open, &token.text, args));
        }
        Ok(Expr::ident(token.at, &format!("{dot}{}", token.text)))
    }

    /// `a.b.C{field: value}`, if that is what follows.
    fn typed_object(&mut self, first: &Token) -> Parsed<Option<Expr>> {
        let mut name = first.text.clone();
        let mut next = self.next;
        let fixed =
            |at: usize, text: &str| self.tokens.get(at).is_some_and(|t| t.kind == TokenKind::Fixed && t.text == text);
        while fixed(next, ".") && self.tokens.get(next + 1).is_some_and(|t| t.kind == TokenKind::Ident) {
            name.push('.');
            name.push_str(&self.tokens[next + 1].text);
            next += 2;
        }
        if !fixed(next, "{") {
            return Ok(None);
        }
        self.next = next;
        let at = self.take().at;
        let mut fields = Vec::new();
        while !self.is("}") {
            let is_optional = self.accept("?").is_some();
            let field = self.take();
            if !matches!(field.kind, TokenKind::Ident | TokenKind::EscapedIdent) {
                self.next -= 1;
                let is_first = fields.is_empty() && !is_optional;
                const FIRST: &str = "{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}";
                return self.unexpected(if is_first { FIRST } else { "IDENTIFIER" });
            }
            let colon = self.expect(":")?;
            let value = self.expr()?;
            fields.push(Field { at: colon, name: field.text, value, is_optional });
            if self.accept(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(Some(Expr::new(at, Kind::Struct(Box::new(Struct { name, fields })))))
    }

    fn list(&mut self) -> Parsed<Expr> {
        let at = self.take().at;
        let mut elements = Vec::new();
        while !self.is("]") {
            let is_optional = self.accept("?").is_some();
            elements.push(Element { value: self.expr()?, is_optional });
            if self.accept(",").is_none() {
                break;
            }
        }
        self.expect("]")?;
        Ok(Expr::new(at, Kind::List(elements)))
    }

    fn map(&mut self) -> Parsed<Expr> {
        let at = self.take().at;
        let mut entries = Vec::new();
        while !self.is("}") {
            let is_optional = self.accept("?").is_some();
            let key = self.expr()?;
            self.expect(":")?;
            let value = self.expr()?;
            entries.push(Entry { key, value, is_optional });
            if self.accept(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(Expr::new(at, Kind::Map(entries)))
    }

    fn literal(&mut self, token: &Token, sign: &str) -> Expr {
        let text = token.text.as_str();
        let (literal, name) = match token.kind {
            TokenKind::Int => (int(text, sign).map(Literal::Int), "invalid int literal"),
            TokenKind::Uint => (uint(&text[..text.len() - 1]).map(Literal::Uint), "invalid uint literal"),
            TokenKind::Float => {
                let number = format!("{sign}{text}").parse::<f64>().ok().filter(|n| n.is_finite());
                (number.map(Literal::Double), "invalid double literal")
            }
            TokenKind::Bytes => (lexer::unquote(text, true).map(Literal::Bytes), "unable to unescape string"),
            _ => {
                let text = lexer::unquote(text, false).and_then(|b| String::from_utf8(b).ok());
                (text.map(Literal::String), "unable to unescape string")
            }
        };
        if literal.is_none() {
            self.problem(token.at, name);
        }
        Expr::literal(token.at, literal.unwrap_or(Literal::Null))
    }
}

const LEVELS: [&[(&str, &str)]; 3] = [
    &[
        ("<", op::LESS),
        ("<=", op::LESS_EQUALS),
        (">", op::GREATER),
        (">=", op::GREATER_EQUALS),
        ("==", op::EQUALS),
        ("!=", op::NOT_EQUALS),
        ("in", op::IN),
    ],
    &[("+", op::ADD), ("-", op::SUBTRACT)],
    &[("*", op::MULTIPLY), ("/", op::DIVIDE), ("%", op::MODULO)],
];

fn token_text(token: &Token) -> String {
    if token.kind == TokenKind::End { String::new() } else { token.text.clone() }
}

fn int(text: &str, sign: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16).ok(),
        None => format!("{sign}{text}").parse().ok(),
    }
}

fn uint(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn balance(function: &str, signs: &[u32], terms: &mut [Option<Expr>], (low, high): (usize, usize)) -> Option<Expr> {
    let middle = (low + high).div_ceil(2);
    let left = if middle == low { terms[middle].take()? } else { balance(function, signs, terms, (low, middle - 1))? };
    let right =
        if middle == high { terms[middle + 1].take()? } else { balance(function, signs, terms, (middle + 1, high))? };
    Some(Expr::call(signs[middle], function, vec![left, right]))
}
